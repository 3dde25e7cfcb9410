"""What a login of an mbox reads: what is new, and all when the old is not as it was."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from postroom.mail.ids import QueueId
from postroom.mailbox.index import is_grown
from postroom.mailbox.mbox import Mboxes
from postroom.mailbox.mbox_session import MboxSession
from postroom.mailbox.name import MailboxName
from postroom.mailbox.settings import MailboxSettings
from postroom.mailbox.store import Parcel

JOE = MailboxName("joe")
LINE = b"From a@b Mon Jan  5 10:00:00 2026\n"


def foreign(number: int, body: bytes = b"text\n", field: bytes = b"") -> bytes:
    return LINE + b"Subject: %d\n%s\n%s\n" % (number, field, body)


def parcel(number: int, content: bytes = b"A: b\r\n\r\ntext\r\n") -> Parcel:
    arrival_us = 1_767_225_600_123_456
    return Parcel(JOE, QueueId("0Ab1Cd2Ef3G"), number, "a@b", arrival_us, content)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "joe"


@pytest.fixture
def store(tmp_path: Path) -> Mboxes:
    return Mboxes(MailboxSettings(format="mbox", path=f"{tmp_path}/{{user}}"))


def look(store: Mboxes) -> tuple[list[int], list[str], list[bytes | None]]:
    session = store.open(JOE)
    assert isinstance(session, MboxSession)
    contents = session.read(0, 1000, 10**9) if session.sizes else []
    session.close()
    return [*session.sizes], [*session.uids], contents


Change = Callable[[bytes], bytes]
STATUS = b"Status: RO\n"
CHANGES: dict[str, Change] = {
    "appended": lambda old: old + foreign(9),
    "several": lambda old: old + foreign(7) + foreign(8, b"a\n" * 50_000) + foreign(9),
    "one we have": lambda old: old + foreign(1),
    "the last again": lambda old: old + foreign(3),
    "all again": lambda old: old + old,
    "the first gone": lambda old: old.replace(foreign(1), b"") + foreign(8) * 9,
    "the last gone": lambda old: old.replace(foreign(3), b"") + foreign(8) * 9,
    "one marked": lambda old: old.replace(b"t: 1\n", b"t: 1\n" + STATUS),
    "one marked, one unmarked": lambda old: (
        old.replace(b"t: 1\n", b"t: 1\n" + STATUS).replace(
            foreign(2, field=STATUS), foreign(2)
        )
        + foreign(9)
    ),
    "two change places": lambda old: (
        foreign(2, field=STATUS) + foreign(1) + foreign(3) + foreign(9)
    ),
    "the last is longer": lambda old: old[:-1] + b"more\n\n",
    "the last has another header": lambda old: (
        old.replace(foreign(3), foreign(33)) + foreign(9)
    ),
    "all new": lambda old: foreign(4) * 20,
}


@pytest.mark.parametrize("case", CHANGES)
def test_the_index_makes_no_difference(store: Mboxes, path: Path, case: str) -> None:
    path.write_bytes(foreign(1) + foreign(2, field=STATUS) + foreign(3))
    look(store)
    before = path.stat().st_ino
    path.write_bytes(CHANGES[case](path.read_bytes()))
    assert path.stat().st_ino == before
    found = look(store)
    (path.parent / ".joe.postroom-index").unlink()
    assert found == look(store)


def test_new_mail_costs_no_reading_of_the_old(
    store: Mboxes, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = b"A: b\r\n\r\n" + b"text\r\n" * 20_000
    store.deliver([parcel(i, large) for i in range(20)])
    store.deliver([parcel(20)])
    sizes, uids, _ = look(store)
    reads: list[int] = []
    real = os.pread

    def counted(handle: int, wanted: int, offset: int) -> bytes:
        data = real(handle, wanted, offset)
        reads.append(len(data))
        return data

    store.deliver([parcel(21)])
    monkeypatch.setattr(os, "pread", counted)
    session = store.open(JOE)
    assert isinstance(session, MboxSession)
    session.close()
    assert session.uids[:-1] == uids
    assert session.sizes[:-1] == sizes
    assert len(session.sizes) == 22
    assert sum(reads) < path.stat().st_size // 4


STAMPS = {
    "grown": ("7:100:5", "7:101:6", True),
    "the same": ("7:100:5", "7:100:5", False),
    "touched": ("7:100:5", "7:100:6", False),
    "shorter": ("7:100:5", "7:99:6", False),
    "another file": ("7:100:5", "8:101:6", False),
    "never read": ("", "7:101:6", False),
    "nonsense": ("x:y", "7:101:6", False),
}


@pytest.mark.parametrize("case", STAMPS)
def test_stamps(case: str) -> None:
    before, now, expected = STAMPS[case]
    assert is_grown(before, now) is expected
