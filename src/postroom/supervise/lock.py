"""One server per spool and run directory: a locked file with the server's process id.

Locks are the kernel's (``flock``), so each is gone when its holder is, however that
died; the text in the file is only for the refusal's message. A second file is locked by
the workers, who inherit it: so a new server knows whether some of a killed one live.
"""

import fcntl
import os
from pathlib import Path

LOCK_NAME = "postroom.lock"
WORKERS_LOCK_NAME = "workers.lock"


class AlreadyRunning(Exception):
    """Another server holds the directory. ``pid`` is its process, 0 if unknown."""

    def __init__(self, what: str, directory: str, pid: int) -> None:
        self.pid = pid
        who = f"process {pid}" if pid else "another process"
        super().__init__(
            f"a server already runs on the {what} {directory}: {who}; "
            f"stop it first, or give this one a {what} of its own"
        )


class SpoolLock:
    """The held lock. Made by ``take_lock``."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def release(self) -> None:
        """Let another server have the spool."""
        os.ftruncate(self._fd, 0)
        os.close(self._fd)


def take_lock(directory: str, what: str = "spool") -> SpoolLock:
    """Take the spool, or another directory, for this process.

    Raises:
        AlreadyRunning: another server has it.
        OSError: the lock file cannot be made.
    """
    path = Path(directory) / LOCK_NAME
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(path, flags, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 20, 0).strip()
        os.close(fd)
        pid = int(holder) if holder.isdigit() else 0
        raise AlreadyRunning(what, directory, pid) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return SpoolLock(fd)


class WorkersLock:
    """What all workers of a server hold, each from its very start to its end.

    Args:
        directory: the spool's.
    """

    def __init__(self, directory: str) -> None:
        self._path = Path(directory) / WORKERS_LOCK_NAME
        self._fd = -1

    def is_held(self) -> bool:
        """Whether workers of a former server live. Ask before ``hold``.

        Raises:
            OSError: the file cannot be opened.
        """
        fd = self._open()
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def hold(self) -> int:
        """Return the locked file that workers have to inherit.

        Raises:
            OSError: the file cannot be opened.
        """
        if self._fd < 0:
            self._fd = self._open()
            fcntl.flock(self._fd, fcntl.LOCK_SH)
        return self._fd

    def close(self) -> None:
        """Let go of the file; workers that have inherited it hold it on."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._path, flags, 0o600)
