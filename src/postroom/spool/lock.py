"""The lock by which one process holds a shard, and the ways to find shards.

``flock`` on the file ``lock`` in the shard's directory; the holder's process id is
inside for people. The kernel frees it when the holder ends, however it ends.
"""

import fcntl
import os
import re
from time import sleep

from postroom.spool.spool import SpoolError

_TRY_AGAIN_S = 0.02
_TRIES_MAX = 10
_SHARD_NAME = re.compile(r"shard-(\d{3,4})")


class SpoolLocked(SpoolError):
    """Another process holds the shard; the text gives its process id."""


class ShardLock:
    """Holds a shard's lock until ``release``. Blocks for a moment if it is taken.

    Raises:
        SpoolLocked: another process has it.
    """

    def __init__(self, directory: str) -> None:
        self._descriptor = _open(directory)
        if not _lock(self._descriptor):
            pid = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            raise SpoolLocked(
                f"{directory} is in use by process {pid or 'unknown'}:"
                " stop that server first"
            )
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        """Let others have the shard."""
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


def _open(directory: str) -> int:
    path = os.path.join(directory, "lock")
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(path, flags, 0o600)


def _lock(descriptor: int) -> bool:
    """Take the lock; a command that changes the queue may have it for a moment."""
    for _ in range(_TRIES_MAX):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sleep(_TRY_AGAIN_S)
        else:
            return True
    return False


def shard_directory(directory: str, shard: int) -> str:
    """Return the directory of one shard."""
    return os.path.join(directory, f"shard-{shard:03}")


def shards_in(directory: str) -> list[int]:
    """Return the numbers of the shards that exist, in order."""
    names = os.listdir(directory) if os.path.isdir(directory) else []
    found = (_SHARD_NAME.fullmatch(name) for name in names)
    return sorted(int(match[1]) for match in found if match)
