"""The locks of an mbox: whom they keep out, and when they are taken over."""

import errno
import fcntl
import os
from pathlib import Path
from threading import Timer
from typing import Any

import msgspec
import pytest

from postroom.mail.ids import QueueId
from postroom.mail.outcome import Deferred, Delivered
from postroom.mail.units import Duration
from postroom.mailbox.locks import DotLock, LockTimeout, Patience, deadline_after
from postroom.mailbox.mbox import Mboxes
from postroom.mailbox.mbox_session import MboxSession
from postroom.mailbox.name import MailboxName
from postroom.mailbox.settings import MailboxSettings
from postroom.mailbox.store import Parcel, Unusable

JOE = MailboxName("joe")
SENT = Delivered("2.0.0", "Sent")


def parcel() -> Parcel:
    arrival_us = 1_767_225_600_123_456
    content = b"Subject: hi\r\n\r\nline\r\n"
    return Parcel(JOE, QueueId("0Ab1Cd2Ef3G"), 0, "a@b.test", arrival_us, content)


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


@pytest.mark.parametrize("first", [0, 2])
def test_mail_is_deleted_on_a_full_disk(
    store: Mboxes, path: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    parcels = [msgspec.structs.replace(parcel(), number=i) for i in range(4)]
    assert store.deliver(parcels) == [SENT] * 4
    octets = path.stat().st_size

    def fail(*args: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", fail)
        session = store.open(JOE)
        assert isinstance(session, MboxSession)
        assert session.remove(range(first, 4)) == 0
        session.close()
    assert path.stat().st_size == octets * first // 4
    assert not path.with_name("joe.lock").exists()


def test_few_threads_wait_for_locks() -> None:
    tried: list[bool] = []
    patience = Patience(60_000_000, 1)

    def within(deadline_us: int) -> str:
        tried.append(deadline_us > deadline_after(1_000_000))
        raise LockTimeout("joe")

    def lock(deadline_us: int) -> str:
        tried.append(deadline_us > deadline_after(1_000_000))
        if not tried[-1]:
            raise LockTimeout("joe")
        with pytest.raises(LockTimeout):
            patience.take(within)  # another thread's: there is no place any more
        return "locked"

    for _ in range(2):
        tried.clear()
        assert patience.take(lock) == "locked"
        assert tried == [False, True, False]
    assert patience.take(lambda _: "free") == "free"


def test_a_reader_waits_for_a_lock(path: Path) -> None:
    path.parent.mkdir()
    lock = path.with_name("joe.lock")
    lock.write_text(f"{os.getppid()}\n")
    patient = Mboxes(
        MailboxSettings(
            format="mbox",
            path=f"{path.parent}/{{user}}",
            lock_timeout=Duration.from_text("60s"),
        )
    )
    freeing = Timer(0.1, lock.unlink)
    freeing.start()
    session = patient.open(JOE)
    freeing.join()
    assert isinstance(session, MboxSession)
    session.close()
