"""Locks on mailboxes: session locks (flock), and the two of mbox files.

A session lock is a lock on a small file beside the mailbox: the kernel frees it when
its process ends, so nothing stale can stay. An mbox is locked as Debian asks, for other
programs share it: an ``fcntl`` lock and a ``.lock`` file, both held while it is read or
written. The ``fcntl`` lock is of the open-file kind: it conflicts with other programs'
locks as well as with other threads' of our own.
"""

import errno
import fcntl
import os
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from threading import BoundedSemaphore
from typing import TypeVar

from postroom.mail.now import SECOND_US
from postroom.mailbox.folder import MODE_FILE, write_all

T = TypeVar("T")

_PAUSE_US = 50_000
_FLOCK = "@hhqqi0q"  # struct flock: type, whence, start, length, pid
_SET_LOCK = getattr(fcntl, "F_OFD_SETLK", fcntl.F_SETLK)


class LockTimeout(OSError):
    """Somebody else held the lock for too long."""

    def __init__(self, what: str) -> None:
        super().__init__(errno.EAGAIN, f"{what} is locked by another program")


def session_lock(folder: int, name: str) -> int | None:
    """Take a session lock; returns a handle that holds it, None if it is taken.

    Raises:
        OSError: the lock file cannot be made.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(name, flags, MODE_FILE, dir_fd=folder)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except OSError:
        os.close(handle)
        raise
    return handle


class DotLock:
    """A ``.lock`` file beside an mbox.

    Args:
        folder: handle of the directory.
        name: the mbox's name; the lock is called ``name.lock``.
        stale_us: after this a lock whose process is gone, or is not named, is taken;
            one that names ourselves, too: it is from an earlier life of our number,
            for among ourselves the ``fcntl`` lock comes first.
    """

    def __init__(self, folder: int, name: str, stale_us: int) -> None:
        self._folder = folder
        self._name = f"{name}.lock"
        self._stale_us = stale_us

    def acquire(self, deadline_us: int) -> None:
        """Take the lock, waiting until ``deadline_us`` (monotonic) at most.

        Raises:
            LockTimeout: it is held by somebody else.
            OSError: the lock file cannot be made.
        """
        while not self._try():
            if self._is_stale():
                _unlink_quietly(self._name, self._folder)
            elif _mono_us() >= deadline_us:
                raise LockTimeout(self._name.removesuffix(".lock"))
            else:
                time.sleep(_PAUSE_US / SECOND_US)

    def release(self) -> None:
        """Give it free."""
        _unlink_quietly(self._name, self._folder)

    def _try(self) -> bool:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            handle = os.open(self._name, flags, 0o444, dir_fd=self._folder)
        except FileExistsError:
            return False
        try:
            write_all(handle, f"{os.getpid()}\n".encode())
        except (
            OSError
        ):  # a full disk: whoever wants to delete needs the lock all the more
            os.ftruncate(handle, 0)
        finally:
            os.close(handle)
        return True

    def _is_stale(self) -> bool:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            handle = os.open(self._name, flags, dir_fd=self._folder)
        except OSError:
            return False  # just freed, or not ours to judge
        try:
            age_us = time.time_ns() // 1000 - os.fstat(handle).st_mtime_ns // 1000
            owner = os.read(handle, 32).strip()
        finally:
            os.close(handle)
        if age_us <= self._stale_us:
            return False
        # After a restart of the machine the number may be another process's.
        up_us = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
        return age_us > up_us or not _is_alive(owner)


def lock_file(handle: int, what: str, deadline_us: int) -> None:
    """Take the ``fcntl`` lock on an open file; it goes when the handle is closed.

    Raises:
        LockTimeout: it is held by somebody else.
        OSError: the file system knows no locks.
    """
    wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    while True:
        try:
            fcntl.fcntl(handle, _SET_LOCK, wanted)
        except (BlockingIOError, PermissionError):
            if _mono_us() >= deadline_us:
                raise LockTimeout(what) from None
            time.sleep(_PAUSE_US / SECOND_US)
        else:
            return


class Patience:
    """Lets few threads at a time wait for locks: the others have more to do.

    Args:
        wait_us: how long a lock is waited for.
        places: how many threads may wait.
    """

    def __init__(self, wait_us: int, places: int) -> None:
        self._wait_us = wait_us
        self._places = BoundedSemaphore(places)

    def take(self, lock: Callable[[int], T]) -> T:
        """Call ``lock`` with a deadline: at first now, then later if there is a place.

        Raises:
            LockTimeout: from ``lock``.
        """
        try:
            return lock(deadline_after(0))
        except LockTimeout:
            if not self._wait_us or not self._places.acquire(blocking=False):
                raise
        try:
            return lock(deadline_after(self._wait_us))
        finally:
            self._places.release()


def deadline_after(duration_us: int) -> int:
    """Return the monotonic moment so long from now."""
    return _mono_us() + duration_us


def _is_alive(owner: bytes) -> bool:
    if not owner.isdigit() or len(owner) > 9 or int(owner) in (0, os.getpid()):
        return False
    try:
        os.kill(int(owner), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _unlink_quietly(name: str, folder: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def _mono_us() -> int:
    return time.monotonic_ns() // 1000
