import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from postroom.mail.ids import QueueId
from postroom.mail.outcome import Deferred, Delivered, Failed
from postroom.mailbox.mbox import Mboxes
from postroom.mailbox.mbox_format import from_line
from postroom.mailbox.mbox_session import MboxSession
from postroom.mailbox.name import MailboxName
from postroom.mailbox.store import InUse, Parcel, Unusable

JOE = MailboxName("joe")
ID = QueueId("0Ab1Cd2Ef3G")
LETTER = b"Subject: hi\r\n\r\nline\r\n.dot\r\n\r\n"
TRICKY = (
    b"A: b\r\n\r\nFrom me\r\n>From you\r\n>>From us\r\n\r\n"
    b"From x Sun Nov 22 17:00:00 2026\r\nX-UIDL: 0Ab1Cd2Ef3G.5\r\n"
    b"> From\r\n>>\r\nFrom\r\nFrom "
    b"\r\n"
)
SENT = Delivered("2.0.0", "Sent")
SENT_BEFORE = Delivered("2.0.0", "Sent (by an earlier try)")


def parcel(
    content: bytes = LETTER,
    *,
    mailbox: MailboxName = JOE,
    number: int = 0,
    sender: str = "betty@gonzo.test",
    look: bool = False,
) -> Parcel:
    arrival_us = 1_767_225_600_123_456
    return Parcel(mailbox, ID, number, sender, arrival_us, content, look)


def session_of(store: Mboxes) -> MboxSession:
    session = store.open(JOE)
    assert isinstance(session, MboxSession)
    return session


def mail_in(store: Mboxes) -> list[bytes | None]:
    session = session_of(store)
    found = session.read(0, 100, 10**9) if session.sizes else []
    assert list(session.sizes) == [len(content or b"") for content in found]
    session.close()
    return found


def test_the_file(store: Mboxes, path: Path) -> None:
    assert store.deliver([parcel()]) == [SENT]
    assert path.read_bytes() == (
        b"From betty@gonzo.test Thu Jan  1 00:00:00 2026\n"
        b"X-UIDL: 0Ab1Cd2Ef3G.0\n"
        b"Subject: hi\n\nline\n.dot\n\n\n"
    )
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(path.parent) == ["joe"]


def test_what_comes_out_went_in(store: Mboxes) -> None:
    contents = [
        LETTER,
        TRICKY,
        b"A: b\r\n",
        b"",
        b"\r\n",
        b"\r\n\r\n",
        b"A: b\r\n\r\n" + b"x" * 300_000 + b"\r\n",
        b"A: b\r\n\r\n" + bytes(range(128, 256)) + b"\0\r\n",
        b"A: b\r\n\r\n" + (b">" * 1000 + b"From \r\n") * 500,
    ]
    parcels = [parcel(content, number=i) for i, content in enumerate(contents)]
    assert store.deliver(parcels[:5]) == [SENT] * 5
    assert [store.deliver([one])[0] for one in parcels[5:]] == [SENT] * 4
    assert mail_in(store) == contents
    session = session_of(store)
    assert list(session.uids) == [f"{ID}.{i}" for i in range(9)]
    for i, content in enumerate(contents):
        assert b"".join(session.pieces(i)) == content
    session.close()


@pytest.mark.parametrize("step", [1, 3, 10_000])
def test_in_pieces_is_the_same(store: Mboxes, path: Path, step: int) -> None:
    incoming = store.begin(parcel(b""))
    assert not isinstance(incoming, Delivered | Deferred | Failed)
    for start in range(0, len(TRICKY), step):
        incoming.write(TRICKY[start : start + step])
    assert not path.exists()
    assert incoming.finish() == SENT
    assert mail_in(store) == [TRICKY]
    assert not [name for name in os.listdir(path.parent) if "draft" in name]


def test_abandoned_pieces_leave_nothing(store: Mboxes, path: Path) -> None:
    incoming = store.begin(parcel(b""))
    assert not isinstance(incoming, Delivered | Deferred | Failed)
    incoming.write(LETTER)
    incoming.abandon()
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("look", [False, True])
def test_repeated_delivery(store: Mboxes, look: bool) -> None:
    store.deliver([parcel(number=1), parcel(number=2)])
    assert store.deliver([parcel(number=1, look=look)]) == [SENT_BEFORE]
    assert len(mail_in(store)) == 2


def test_repeated_delivery_far_back(store: Mboxes) -> None:
    store.deliver([parcel(number=1)])
    large = b"A: b\r\n\r\n" + b"x" * 70 * 1000 + b"\r\n"
    store.deliver([parcel(large, number=i) for i in range(2, 40)])
    assert store.deliver([parcel(number=1, look=True)]) == [SENT_BEFORE]
    assert store.deliver([parcel(large, number=39)]) == [SENT_BEFORE]


def test_a_new_mbox_is_on_disk_with_its_name(
    store: Mboxes, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def noted(handle: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        real(handle)

    session_of(store).close()  # a reader makes it
    monkeypatch.setattr(os, "fsync", noted)
    assert store.deliver([parcel()]) == [SENT]
    assert synced == [str(path), str(path.parent), str(path)]
    synced.clear()
    assert store.deliver([parcel(number=1)]) == [SENT]
    assert synced == [str(path)] * 2


def test_an_id_in_the_text_is_no_delivery(store: Mboxes) -> None:
    store.deliver([parcel(TRICKY, number=1)])
    assert store.deliver([parcel(number=5, look=True)]) == [SENT]


SENDERS = {
    "null": ("", b"From MAILER-DAEMON Thu"),
    "spaces": ('"a b"@x', b'From "a_b"@x Thu'),
    "line end": ("a\r\nFrom b", b"From a_From_b Thu"),
}


@pytest.mark.parametrize("case", SENDERS)
def test_from_lines(case: str) -> None:
    sender, expected = SENDERS[case]
    line = from_line(sender, 1_767_225_600_000_000)
    assert line.startswith(expected)
    assert line.count(b"\n") == 1


FOREIGN = {
    "plain": (
        b"From a@b Sun Nov 22 17:00:00 2026\nA: b\n\nx\n\n"
        b"From c Sun Nov 22 17:00:00 UTC 2026\nC: d\n\ny\n\n",
        [b"A: b\r\n\r\nx\r\n", b"C: d\r\n\r\ny\r\n"],
    ),
    "crlf": (
        b"From a@b Sun Nov 22 17:00:00 2026\r\nA: b\r\n\r\nx\r\n\r\n"
        b"From c Sun Nov 22 17:00:00 2026\r\nC: d\r\n\r\ny\r\n\r\n",
        [b"A: b\r\n\r\nx\r\n", b"C: d\r\n\r\ny\r\n"],
    ),
    "text that begins with From": (
        b"From a@b Sun Nov 22 17:00:00 2026\nA: b\n\nFrom here to there\n\n",
        [b"A: b\r\n\r\nFrom here to there\r\n"],
    ),
    "date without empty line before": (
        b"From a@b Sun Nov 22 17:00:00 2026\nA: b\nFrom c Sun Nov 22 17:00:00 2026\n\n",
        [b"A: b\r\nFrom c Sun Nov 22 17:00:00 2026\r\n"],
    ),
    "date on an over-long line": (
        b"From a@b Sun Nov 22 17:00:00 2026\nA: b\n\n"
        b"From " + b"c" * 2000 + b" Sun Nov 22 17:00:00 2026\n\n",
        [b"A: b\r\n\r\nFrom " + b"c" * 2000 + b" Sun Nov 22 17:00:00 2026\r\n"],
    ),
    "no last line end": (
        b"From a@b Sun Nov 22 17:00:00 2026\nA: b\n\nx",
        [b"A: b\r\n\r\nx\r\n"],
    ),
    "empty": (b"", []),
    "no mbox at all": (b"hello\n", []),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_foreign_files(store: Mboxes, path: Path, case: str) -> None:
    data, contents = FOREIGN[case]
    path.parent.mkdir()
    path.write_bytes(data)
    assert mail_in(store) == contents
    store.deliver([parcel()])
    assert mail_in(store) == [*contents, LETTER]


def test_foreign_ids(store: Mboxes, path: Path) -> None:
    path.parent.mkdir()
    head = b"From a@b Sun Nov 22 17:00:00 2026\n"
    texts = [
        b"A: b\nX-UIDL: old-id\n\nx\n\n",
        b"A: b\nX-UIDL: has space\n\nx\n\n",
        b"A: c\n\nx\n\n",
        b"A: c\n\nx\n\n",
        b"X-UIDL: old-id\n\nforged\n\n",
        b"A: d\n\nX-UIDL: in-body\n\n",
    ]
    path.write_bytes(b"".join(head + text for text in texts))
    session = session_of(store)
    uids = list(session.uids)
    session.close()
    assert uids[0] == "old-id"
    assert uids[4] == "old-id+2"
    assert uids[3] == uids[2] + "+2"
    assert len(set(uids)) == 6
    assert all(len(uid) <= 70 and " " not in uid for uid in uids)
    changed = path.read_bytes().replace(b"A: d\n", b"A: d\nStatus: RO\n")
    path.write_bytes(changed)
    session = session_of(store)
    assert list(session.uids) == uids
    session.close()


def test_a_second_login_reads_nothing(
    store: Mboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = b"A: b\r\n\r\n" + b"text\r\n" * 1000
    store.deliver([parcel(large, number=i) for i in range(200)])
    first = session_of(store)
    first.close()
    reads: list[int] = []
    real = os.pread

    def counted(handle: int, octets: int, offset: int) -> bytes:
        data = real(handle, octets, offset)
        reads.append(len(data))
        return data

    monkeypatch.setattr(os, "pread", counted)
    second = session_of(store)
    second.close()
    assert list(second.uids) == list(first.uids)
    assert sum(reads) <= 2 * 64 * 1024  # the end is looked at for a torn one


def test_a_changed_file_is_read_anew(store: Mboxes, path: Path) -> None:
    store.deliver([parcel(number=1), parcel(number=2)])
    session_of(store).close()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert mail_in(store) == [LETTER]


REMOVALS: dict[str, tuple[list[int], list[int]]] = {
    "first": ([0], [1, 2, 3]),
    "last": ([3], [0, 1, 2]),
    "middle": ([1, 2], [0, 3]),
    "apart": ([2, 0], [1, 3]),
    "all": ([0, 1, 2, 3], []),
    "none": ([], [0, 1, 2, 3]),
}


def four() -> list[Parcel]:
    return [
        parcel(b"N: %d\r\n\r\n" % i + b"x" * i * 1000 + b"\r\n", number=i)
        for i in range(4)
    ]


@pytest.mark.parametrize("case", REMOVALS)
def test_removal(store: Mboxes, path: Path, case: str) -> None:
    removed, left = REMOVALS[case]
    parcels = four()
    store.deliver(parcels)
    before = path.stat().st_ino
    session = session_of(store)
    late = parcel(number=9)
    assert store.deliver([late]) == [SENT]  # a session does not stop deliveries
    assert session.remove(removed) == 0
    session.close()
    assert mail_in(store) == [parcels[i].content for i in left] + [late.content]
    assert path.stat().st_ino == before
    beside = {name for name in os.listdir(path.parent) if name != "joe"}
    assert beside == {".joe.postroom-lock", ".joe.postroom-index"}


def test_one_session_at_a_time(store: Mboxes) -> None:
    session = session_of(store)
    assert isinstance(store.open(JOE), InUse)
    session.close()
    session_of(store).close()


Change = Callable[[Path], object]
CHANGES: dict[str, Change] = {
    "replaced": lambda p: (
        p.with_name("x").write_bytes(b""),
        p.with_name("x").rename(p),
    ),
    "emptied": lambda p: p.write_bytes(b""),
    "first gone": lambda p: p.write_bytes(p.read_bytes()[60:]),
    "other text": lambda p: p.write_bytes(b"y" * p.stat().st_size),
}


@pytest.mark.parametrize("case", CHANGES)
def test_another_program_changes_the_file(store: Mboxes, path: Path, case: str) -> None:
    store.deliver([parcel(), parcel(number=1)])
    session = session_of(store)
    CHANGES[case](path)
    now = path.read_bytes()
    if case != "replaced":  # then we hold the old file, which is as it was
        assert session.read(1, 1, 1000) == [None]
    assert session.remove([1]) == 1
    session.close()
    assert path.read_bytes() == now


@pytest.mark.parametrize("end", [b"two", b"two\n", b"two\r\n", b"two\n\n"])
def test_mail_that_comes_behind_an_open_end(
    store: Mboxes, path: Path, end: bytes
) -> None:
    path.parent.mkdir()
    line = b"From a@b Mon Jan  5 10:00:00 2026\n"
    path.write_bytes(line + b"A: 1\n\none\n\n" + line + b"A: 2\n\n" + end)
    session = session_of(store)
    store.deliver([parcel()])
    assert session.read(1, 1, 1000) == [b"A: 2\r\n\r\ntwo\r\n"]
    assert session.remove([1]) == 0
    session.close()
    assert mail_in(store) == [b"A: 1\r\n\r\none\r\n", LETTER]


def test_a_delivery_reads_the_last_message_not_the_mbox(
    store: Mboxes, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = b"A: b\r\n\r\n" + b"text\r\n" * 30_000
    store.deliver([parcel(large, number=i) for i in range(40)])
    last_octets, octets = path.stat().st_size // 40, 0
    real = os.pread

    def counted(handle: int, wanted: int, offset: int) -> bytes:
        nonlocal octets
        data = real(handle, wanted, offset)
        octets += len(data)
        return data

    monkeypatch.setattr(os, "pread", counted)
    assert store.deliver([parcel(number=40)]) == [SENT]
    assert octets < 12 * last_octets


def test_another_program_marks_a_message(store: Mboxes, path: Path) -> None:
    store.deliver([parcel(), parcel(number=1)])
    session = session_of(store)
    data = path.read_bytes()
    # The second message gets a longer header: the first is as it was.
    at = data.rindex(b"Subject")
    path.write_bytes(data[:at] + b"Status: RO\n" + data[at:])
    assert session.read(0, 1, 1000) == [LETTER]
    assert session.remove([0]) == 0
    session.close()
    assert len(mail_in(store)) == 1


def test_bad_names(store: Mboxes) -> None:
    for user in ("..", "joe.lock", "a/b", ".hidden"):
        name = MailboxName(user)
        assert isinstance(store.deliver([parcel(mailbox=name)])[0], Failed)
        assert isinstance(store.begin(parcel(b"", mailbox=name)), Failed)
        assert isinstance(store.open(name), Unusable)


def test_links_are_not_followed(store: Mboxes, path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    target = tmp_path / "target"
    target.write_text("precious")
    path.symlink_to(target)
    (outcome,) = store.deliver([parcel()])
    assert isinstance(outcome, Deferred)
    assert isinstance(store.open(JOE), Unusable)
    assert target.read_text() == "precious"


FAULTS = {
    "disk full": ("write", errno.ENOSPC, "4.3.1"),
    "broken disk": ("fsync", errno.EIO, "4.3.0"),
    "broken disk late": ("pwrite", errno.EIO, "4.3.0"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_faults_are_cut_off_again(
    store: Mboxes, path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    store.deliver([parcel(number=1)])
    before = path.read_bytes()
    what, code, status = FAULTS[case]
    real, left = getattr(os, what), [2 if what == "write" else 1]

    def fail(*args: Any) -> Any:
        left[0] -= 1
        if left[0] <= 0:
            raise OSError(code, os.strerror(code))
        return real(*args)

    with monkeypatch.context() as patched:
        patched.setattr(os, what, fail)
        (outcome,) = store.deliver([parcel()])
    assert isinstance(outcome, Deferred)
    assert outcome.status == status
    assert path.read_bytes() == before
    assert not path.with_name("joe.lock").exists()


def test_a_full_disk_behind_a_torn_head(
    store: Mboxes, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.deliver([parcel(number=1)])
    before = path.read_bytes()
    store.deliver([parcel()])
    torn = path.read_bytes()[: len(before) + 10]  # an earlier try broke off here
    path.write_bytes(torn)
    real = os.write

    def fail(handle: int, data: bytes) -> int:
        if data.startswith(b"From "):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(handle, data)

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", fail)
        (outcome,) = store.deliver([parcel()])
    assert isinstance(outcome, Deferred)
    assert path.read_bytes() == before
    assert store.deliver([parcel()]) == [SENT]
    assert mail_in(store) == [LETTER, LETTER]


class Crash(BaseException):
    """The machine stops."""


WRITES = ("write", "pwrite", "ftruncate", "fsync", "rename", "unlink", "open")


def crash_at(
    count: int, monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]
) -> bool:
    """Run an action, stopping the machine at the count-th operation on the disk."""
    seen = 0

    def stopping(real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen == count and name in ("write", "pwrite"):
                real(args[0], args[1][: len(args[1]) // 2], *args[2:])
            if seen >= count:
                raise Crash
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patched:
        for name in WRITES:
            patched.setattr(os, name, stopping(getattr(os, name), name))
        try:
            action()
        except Crash:
            return True
    return False


def clean_up_after(path: Path) -> None:
    # The locks of a process that is gone: one the kernel frees, one is stale.
    lock = path.with_name("joe.lock")
    if lock.exists():
        lock.chmod(0o600)
        lock.write_text("999999999\n")
        os.utime(lock, (0, 0))


def open_files() -> set[str]:
    # The handle of the listing itself is in the list, and gone.
    return {
        n for n in os.listdir("/proc/self/fd") if Path(f"/proc/self/fd/{n}").exists()
    }


def close_all_but(kept: set[str]) -> None:
    for name in open_files() - kept:
        with suppress(OSError):
            os.close(int(name))


def test_a_crash_while_delivering(
    store: Mboxes, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.deliver([parcel(number=1)])
    start = path.read_bytes()
    new = [parcel(TRICKY, number=2), parcel(number=3)]
    count = 0
    while True:
        count += 1
        path.write_bytes(start)
        before = open_files()
        if not crash_at(count, monkeypatch, lambda: store.deliver(new)):
            break
        close_all_but(before)
        clean_up_after(path)
        again = store.deliver(new)
        assert all(isinstance(outcome, Delivered) for outcome in again)
        assert mail_in(store) == [LETTER, TRICKY, LETTER], f"crash at {count}"
    assert count > 8


@pytest.mark.parametrize("removed", [[0], [1, 2], [3], [0, 1, 2, 3]])
@pytest.mark.parametrize("is_appended", [False, True])
def test_a_crash_while_removing(
    store: Mboxes,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    removed: list[int],
    is_appended: bool,
) -> None:
    parcels = four()
    store.deliver(parcels)
    start = path.read_bytes()
    whole = [p.content for p in parcels]
    kept = [p.content for i, p in enumerate(parcels) if i not in removed]
    foreign = b"From a@b Sun Nov 22 17:00:00 2026\nA: b\n\nx\n\n"
    extra = [b"A: b\r\n\r\nx\r\n"] if is_appended else []
    count = 0
    while True:
        count += 1
        path.write_bytes(start)
        session = session_of(store)
        before = open_files()
        is_over = not crash_at(
            count,
            monkeypatch,
            lambda s=session: s.remove(removed),  # type: ignore[misc]
        )
        close_all_but(before)
        session.close()
        if is_over:
            break
        clean_up_after(path)
        if is_appended:  # by a program that knows nothing of what we were about
            with path.open("ab") as file:
                file.write(foreign)
        found = mail_in(store)
        assert found in (whole + extra, kept + extra), f"crash at {count}"
    assert count > 5
