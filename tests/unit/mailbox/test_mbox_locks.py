"""The locks of an mbox: whom they keep out, and when they are taken over."""

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from postroom.mail.ids import QueueId
from postroom.mail.outcome import Deferred, Delivered
from postroom.mail.units import Duration
from postroom.mailbox.locks import DotLock, LockTimeout, deadline_after
from postroom.mailbox.mbox import Mboxes
from postroom.mailbox.name import MailboxName
from postroom.mailbox.settings import MailboxSettings
from postroom.mailbox.store import Parcel, Unusable

JOE = MailboxName("joe")
SENT = Delivered("2.0.0", "Sent")


def parcel() -> Parcel:
    arrival_us = 1_767_225_600_123_456
    content = b"Subject: hi\r\n\r\nline\r\n"
    return Parcel(JOE, QueueId("0Ab1Cd2Ef3G"), 0, "a@b.test", arrival_us, content)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mail/joe"


@pytest.fixture
def store(tmp_path: Path) -> Mboxes:
    return Mboxes(
        MailboxSettings(
            format="mbox",
            path=f"{tmp_path}/mail/{{user}}",
            lock_timeout=Duration(0),
            lock_stale=Duration(0),
        )
    )


def test_dot_lock_held(store: Mboxes, path: Path) -> None:
    path.parent.mkdir()
    lock = path.with_name("joe.lock")
    lock.write_text(f"{os.getppid()}\n")
    (outcome,) = store.deliver([parcel()])
    assert outcome == Deferred(
        "4.2.0", "cannot write to mailbox joe: joe is locked by another program"
    )
    assert isinstance(store.open(JOE), Unusable)
    assert lock.exists()


OWNERS = {
    "gone": "999999999\n",
    "no number": "no number",
    "nobody": "",
    "procmail's": "0",
    "alive, but the lock is older than the machine's start": "1\n",
    "ourselves, in another life": f"{os.getpid()}\n",
}


@pytest.mark.parametrize("case", OWNERS)
def test_a_stale_dot_lock_is_taken_over(store: Mboxes, path: Path, case: str) -> None:
    path.parent.mkdir()
    lock = path.with_name("joe.lock")
    lock.write_text(OWNERS[case])
    then = lock.stat().st_mtime - 2 if "ourselves" in case else 0
    os.utime(lock, (then, then))
    assert store.deliver([parcel()]) == [SENT]
    assert not lock.exists()


def test_a_fresh_dot_lock_is_not_stale(tmp_path: Path) -> None:
    (tmp_path / "joe.lock").write_text("999999999\n")
    folder = os.open(tmp_path, os.O_RDONLY)
    lock = DotLock(folder, "joe", 60_000_000)
    with pytest.raises(LockTimeout):
        lock.acquire(deadline_after(0))
    os.close(folder)


def test_file_lock_held_by_another_program(store: Mboxes, path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    held = os.open(path, os.O_RDWR)
    child = os.fork()
    if not child:  # another process, with the older kind of lock
        try:
            fcntl.lockf(held, fcntl.LOCK_EX)
            (outcome,) = store.deliver([parcel()])
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    fcntl.lockf(held, fcntl.LOCK_EX)
    (outcome,) = store.deliver([parcel()])
    assert isinstance(outcome, Deferred)
    assert "locked" in outcome.text
    os.close(held)
    assert store.deliver([parcel()]) == [SENT]


def test_a_full_disk_leaves_no_dot_lock(
    store: Mboxes, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.parent.mkdir()

    def fail(*args: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", fail)
        (outcome,) = store.deliver([parcel()])
    assert isinstance(outcome, Deferred)
    assert outcome.status == "4.3.1"
    assert not path.with_name("joe.lock").exists()
