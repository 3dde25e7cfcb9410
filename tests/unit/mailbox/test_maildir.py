import errno
import os
from pathlib import Path

import pytest

from postroom.mail.ids import QueueId
from postroom.mail.outcome import Deferred, Delivered, Failed
from postroom.mailbox.maildir import Maildirs
from postroom.mailbox.maildir_name import split_name
from postroom.mailbox.maildir_session import MaildirSession
from postroom.mailbox.name import MailboxName
from postroom.mailbox.settings import MailboxSettings
from postroom.mailbox.store import InUse, Parcel, Unusable

JOE = MailboxName("joe")
ID = QueueId("0Ab1Cd2Ef3G")
ARRIVAL_US = 1_767_225_600_123_456
LETTER = b"Subject: hi\r\n\r\nline\r\n.dot\r\n\r\n"
NAME = f"1767225600.Q{ID}R0.mx.test"


def parcel(
    content: bytes = LETTER,
    *,
    mailbox: MailboxName = JOE,
    number: int = 0,
    queue_id: QueueId = ID,
    look: bool = False,
) -> Parcel:
    return Parcel(
        mailbox=mailbox,
        queue_id=queue_id,
        number=number,
        sender="betty@gonzo.test",
        arrival_us=ARRIVAL_US,
        content=content,
        look=look,
    )


@pytest.fixture
def store(tmp_path: Path) -> Maildirs:
    return Maildirs(MailboxSettings(path=f"{tmp_path}/mail/{{user}}"), "mx.test")


def session_of(store: Maildirs, mailbox: MailboxName = JOE) -> MaildirSession:
    session = store.open(mailbox)
    assert isinstance(session, MaildirSession)
    return session


def files(tmp_path: Path, folder: str = "new") -> list[str]:
    return sorted(os.listdir(tmp_path / "mail/joe" / folder))


def test_delivery_leaves_one_file(store: Maildirs, tmp_path: Path) -> None:
    assert store.deliver([parcel()]) == [Delivered("2.0.0", "Sent")]
    stored = LETTER.replace(b"\r\n", b"\n")
    name = f"{NAME},S={len(stored)},W={len(LETTER)}"
    assert files(tmp_path) == [name]
    assert files(tmp_path, "tmp") == []
    path = tmp_path / "mail/joe/new" / name
    assert path.read_bytes() == stored
    assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "mail/joe").stat().st_mode & 0o777 == 0o700


def test_what_comes_out_went_in(store: Maildirs) -> None:
    contents = [
        LETTER,
        b"A: b\r\n",
        b"A: b\r\n\r\n" + bytes(range(128, 256)) + b"\0\r\n",
        b"A: b\r\n\r\n" + b"x" * 300_000 + b"\r\n",
        b"A: b\r\n\r\nFrom here\r\n>From there\r\n",
    ]
    for i, content in enumerate(contents):
        assert isinstance(store.deliver([parcel(content, number=i)])[0], Delivered)
    session = session_of(store)
    assert session.read(0, 10, 10**9) == contents
    assert list(session.sizes) == [len(content) for content in contents]
    for i, content in enumerate(contents):
        assert b"".join(session.pieces(i)) == content
    session.close()


def test_in_pieces_is_the_same(store: Maildirs, tmp_path: Path) -> None:
    incoming = store.begin(parcel(b""))
    assert not isinstance(incoming, Delivered | Deferred | Failed)
    for i in range(len(LETTER)):
        incoming.write(LETTER[i : i + 1])
    assert files(tmp_path) == []
    assert incoming.finish() == Delivered("2.0.0", "Sent")
    session = session_of(store)
    assert session.read(0, 1, 10**6) == [LETTER]
    session.close()


def test_abandoned_pieces_leave_nothing(store: Maildirs, tmp_path: Path) -> None:
    incoming = store.begin(parcel(b""))
    assert not isinstance(incoming, Delivered | Deferred | Failed)
    incoming.write(LETTER)
    incoming.abandon()
    assert files(tmp_path) == files(tmp_path, "tmp") == []


def test_an_open_last_line_is_ended(store: Maildirs) -> None:
    store.deliver([parcel(b"A: b\r\n\r\nno end")])
    session = session_of(store)
    assert session.read(0, 1, 100) == [b"A: b\r\n\r\nno end\r\n"]
    assert list(session.sizes) == [16]
    session.close()


def test_repeated_delivery_in_new(store: Maildirs, tmp_path: Path) -> None:
    store.deliver([parcel()])
    again = store.deliver([parcel()])
    assert again == [Delivered("2.0.0", "Sent (by an earlier try)")]
    assert len(files(tmp_path)) == 1
    assert files(tmp_path, "tmp") == []


@pytest.mark.parametrize("flags", ["", ":2,", ":2,RS"])
def test_repeated_delivery_in_cur(store: Maildirs, tmp_path: Path, flags: str) -> None:
    store.deliver([parcel()])
    session_of(store).close()
    (name,) = files(tmp_path)
    box = tmp_path / "mail/joe"
    (box / "new" / name).rename(box / "cur" / (name + flags))
    again = store.deliver([parcel(look=True)])
    assert again == [Delivered("2.0.0", "Sent (by an earlier try)")]
    assert files(tmp_path) == []


def test_first_try_does_not_search_cur(
    store: Maildirs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "listdir", lambda *a: pytest.fail("searched"))
    assert isinstance(store.deliver([parcel()])[0], Delivered)


def test_recipients_of_one_message_get_a_copy_each(store: Maildirs) -> None:
    store.deliver([parcel(number=0), parcel(number=1), parcel(number=0)])
    session = session_of(store)
    assert len(session.uids) == 2
    session.close()


def test_what_a_crash_left_in_tmp_is_replaced(store: Maildirs, tmp_path: Path) -> None:
    tmp = tmp_path / "mail/joe/tmp"
    tmp.mkdir(parents=True)
    (tmp / NAME).write_bytes(b"half a let")
    assert store.deliver([parcel()]) == [Delivered("2.0.0", "Sent")]
    assert os.listdir(tmp) == []


def test_a_bad_name_fails_and_others_go_on(store: Maildirs) -> None:
    outcomes = store.deliver([parcel(mailbox=MailboxName("../x")), parcel()])
    assert isinstance(outcomes[0], Failed)
    assert outcomes[0].status == "5.1.1"
    assert isinstance(outcomes[1], Delivered)


@pytest.mark.parametrize("linked", ["joe", "joe/new", "joe/tmp"])
def test_links_are_not_followed(store: Maildirs, tmp_path: Path, linked: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = tmp_path / "mail" / linked
    path.parent.mkdir(parents=True)
    path.symlink_to(elsewhere)
    (outcome,) = store.deliver([parcel()])
    assert isinstance(outcome, Deferred)
    assert outcome.status == "4.3.5"
    assert list(elsewhere.iterdir()) == []
    assert "joe" in outcome.text


def test_a_linked_message_is_not_read(store: Maildirs, tmp_path: Path) -> None:
    store.deliver([parcel()])
    secret = tmp_path / "secret"
    secret.write_text("x")
    (tmp_path / "mail/joe/new/1.x.test,S=1,W=1").symlink_to(secret)
    session = session_of(store)
    assert len(session.sizes) == 2
    assert session.read(0, 1, 100) == [None]
    with pytest.raises(OSError, match="symbolic"):
        list(session.pieces(0))
    session.close()


FAULTS = {
    "disk full while writing": ("write", errno.ENOSPC, "4.3.1"),
    "quota while writing": ("write", errno.EDQUOT, "4.2.2"),
    "broken disk while syncing": ("fsync", errno.EIO, "4.3.0"),
    "read-only while renaming": ("rename", errno.EROFS, "4.3.5"),
    "no right to open": ("open", errno.EACCES, "4.3.5"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_faults_are_deferrals(
    store: Maildirs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    store.deliver([parcel(number=7)])
    what, code, status = FAULTS[case]

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, what, fail)
        (outcome,) = store.deliver([parcel()])
        incoming = store.begin(parcel(number=3))
        if not isinstance(incoming, Deferred | Failed | Delivered):
            incoming.abandon()
    assert isinstance(outcome, Deferred)
    assert outcome.status == status
    assert os.strerror(code) in outcome.text
    assert len(files(tmp_path)) == 1
    assert files(tmp_path, "tmp") == []


def test_new_directories_are_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[str] = set()
    real = os.fsync

    def noted(handle: int) -> None:
        synced.add(os.readlink(f"/proc/self/fd/{handle}"))
        real(handle)

    monkeypatch.setattr(os, "fsync", noted)
    settings = MailboxSettings(path=f"{tmp_path}/a/b/{{domain}}/{{user}}")
    mailbox = MailboxName("joe", "x.test")
    outcomes = Maildirs(settings, "mx.test").deliver([parcel(mailbox=mailbox)])
    assert isinstance(outcomes[0], Delivered)
    above = ("", "/a", "/a/b", "/a/b/x.test", "/a/b/x.test/joe", "/a/b/x.test/joe/new")
    assert {f"{tmp_path}{path}" for path in above} <= synced


def test_no_handles_leak(store: Maildirs) -> None:
    before = len(os.listdir("/proc/self/fd"))
    store.deliver([parcel(), parcel(mailbox=MailboxName(".."))])
    session = session_of(store)
    assert isinstance(store.open(JOE), InUse)
    session.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_one_session_at_a_time(store: Maildirs) -> None:
    first = session_of(store)
    assert isinstance(store.open(JOE), InUse)
    other = session_of(store, MailboxName("betty"))
    other.close()
    first.close()
    session_of(store).close()


def test_a_bad_login_name_is_unusable(store: Maildirs) -> None:
    opened = store.open(MailboxName(".."))
    assert isinstance(opened, Unusable)
    assert not opened.is_temporary


def test_uids_are_stable_and_sorted_by_arrival(store: Maildirs, tmp_path: Path) -> None:
    session_of(store).close()
    new, cur = tmp_path / "mail/joe/new", tmp_path / "mail/joe/cur"
    for name in ("30.b.x", "4.a.x", "200.c.x", "odd name", "x" * 80, "ü"):
        (new / name).write_text("A: b\n\n")
    (new / ".hidden").write_text("")
    (new / "directory").mkdir()
    session = session_of(store)
    uids = list(session.uids)
    assert len(set(uids)) == len(uids) == 6
    assert all(1 <= len(uid) <= 70 and uid.isascii() for uid in uids)
    assert uids[-3:] == ["4.a.x", "30.b.x", "200.c.x"]
    session.close()
    (new / "30.b.x").rename(cur / "30.b.x:2,S")
    session = session_of(store)
    assert list(session.uids) == uids
    session.close()


def test_a_foreign_name_that_is_no_text(store: Maildirs, tmp_path: Path) -> None:
    session_of(store).close()
    new = os.fsencode(tmp_path / "mail/joe/new")
    for name in (b"1.\xff.x", b"2.\xe4\xf6", b"3.x"):
        Path(os.fsdecode(new + b"/" + name)).write_bytes(b"A: b\n\n")
    uids = []
    for _ in range(2):  # measured, then from the index
        session = session_of(store)
        assert list(session.sizes) == [8, 8, 8]
        assert session.read(0, 3, 100) == [b"A: b\r\n\r\n"] * 3
        uids.append(list(session.uids))
        session.close()
    assert uids[0] == uids[1]


def test_a_bug_while_opening_frees_the_mailbox(
    store: Maildirs, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_of(store).close()
    before = len(os.listdir("/proc/self/fd"))

    def fail(*args: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr("postroom.mailbox.maildir_session._measure", fail)
        with pytest.raises(ZeroDivisionError):
            store.open(JOE)
    assert len(os.listdir("/proc/self/fd")) == before
    session_of(store).close()


def test_files_that_share_their_unique_part(store: Maildirs, tmp_path: Path) -> None:
    session_of(store).close()
    for name in ("1.x,S=3", "1.x,S=4", "2.y"):
        (tmp_path / "mail/joe/new" / name).write_text("A: b\n\n")
    session = session_of(store)
    assert len(set(session.uids)) == 3
    session.close()


def test_moved_during_the_session(store: Maildirs, tmp_path: Path) -> None:
    store.deliver([parcel(), parcel(number=1), parcel(number=2)])
    session = session_of(store)
    box = tmp_path / "mail/joe"
    names = files(tmp_path)
    (box / "new" / names[0]).rename(box / "cur" / (names[0] + ":2,S"))
    (box / "new" / names[1]).unlink()
    assert session.read(0, 3, 10**6) == [LETTER, None, LETTER]
    (box / "cur" / (names[0] + ":2,S")).rename(box / "cur" / (names[0] + ":2,RS"))
    assert b"".join(session.pieces(0)) == LETTER
    (box / "cur" / (names[0] + ":2,RS")).rename(box / "cur" / (names[0] + ":2,T"))
    assert session.remove([0, 1]) == 0
    assert files(tmp_path, "cur") == []
    assert files(tmp_path) == names[2:]
    session.close()


def test_many_that_are_gone_are_not_looked_for_one_by_one(
    store: Maildirs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.deliver([parcel(number=i) for i in range(60)])
    session = session_of(store)
    new = tmp_path / "mail/joe/new"
    gone = [i for i, uid in enumerate(session.uids) if i % 2]
    for name in files(tmp_path):
        if split_name(name)[0] in {session.uids[i] for i in gone}:
            (new / name).unlink()
    lists: list[int] = []
    real = os.listdir

    def counted(folder: int) -> list[str]:
        lists.append(folder)
        return real(folder)

    with monkeypatch.context() as patched:
        patched.setattr(os, "listdir", counted)
        contents = session.read(0, 60, 10**6)
        assert session.remove(range(60)) == 0
    assert contents == [LETTER, None] * 30
    assert len(lists) <= 2 * 2
    assert files(tmp_path) == []
    session.close()


def test_only_what_was_asked_is_removed(store: Maildirs) -> None:
    store.deliver([parcel(number=i) for i in range(4)])
    session = session_of(store)
    uids = list(session.uids)
    store.deliver([parcel(number=9)])
    assert session.remove([1, 2]) == 0
    session.close()
    session = session_of(store)
    assert [uids[0], uids[3]] == list(session.uids)[:2]
    assert len(session.uids) == 3
    session.close()


def test_removal_that_fails_is_told(
    store: Maildirs, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.deliver([parcel()])
    session = session_of(store)

    def fail(*args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EACCES, "no")

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", fail)
        assert session.remove([0]) == 1
    session.close()


def test_read_ahead_is_bounded(store: Maildirs) -> None:
    store.deliver([parcel(number=i) for i in range(4)])
    session = session_of(store)
    size = len(LETTER)
    assert len(session.read(0, 4, 10**6)) == 4
    assert len(session.read(0, 3, 10**6)) == 3
    assert len(session.read(0, 4, 2 * size)) == 2
    assert len(session.read(2, 4, 1)) == 1
    assert len(session.read(3, 4, 10**6)) == 1
    session.close()


FOREIGN = {
    "lf": (b"A: b\n\nx\n", b"A: b\r\n\r\nx\r\n"),
    "crlf": (b"A: b\r\n\r\nx\r\n", b"A: b\r\n\r\nx\r\n"),
    "mixed": (b"A: b\r\n\nx\n", b"A: b\r\n\r\nx\r\n"),
    "open end": (b"A: b\n\nx", b"A: b\r\n\r\nx\r\n"),
    "ends in cr": (b"A: b\n\nx\r", b"A: b\r\n\r\nx\r\r\n"),
    "empty": (b"", b""),
    "bare cr": (b"a\rb\n", b"a\rb\r\n"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_foreign_files(store: Maildirs, tmp_path: Path, case: str) -> None:
    stored, content = FOREIGN[case]
    session_of(store).close()
    (tmp_path / "mail/joe/new/1.x").write_bytes(stored)
    session = session_of(store)
    assert session.read(0, 1, 100) == [content]
    assert b"".join(session.pieces(0)) == content
    assert list(session.sizes) == [len(content)]
    session.close()


def test_a_lying_name_gives_the_whole_message(store: Maildirs, tmp_path: Path) -> None:
    session_of(store).close()
    (tmp_path / "mail/joe/new/1.x,S=1,W=2").write_bytes(b"A: b\n" * 50_000)
    session = session_of(store)
    assert session.read(0, 1, 100) == [b"A: b\r\n" * 50_000]
    session.close()


def test_a_name_that_lies_much_fills_no_memory(store: Maildirs, tmp_path: Path) -> None:
    session_of(store).close()
    path = tmp_path / "mail/joe/new/1.x,S=1,W=2"
    path.write_bytes(b"A: b\n" * 500_000)
    session = session_of(store)
    assert session.read(0, 1, 100) == [None]
    assert b"".join(session.pieces(0)) == b"A: b\r\n" * 500_000
    session.close()
