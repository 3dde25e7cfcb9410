"""Uses files with no more rights than their owner has, where root has to.

The server's user owns the directories that it writes in, and whoever has taken over one
of its processes could lay a link there for root to follow. Where the system cannot do
it, ``OSError`` is raised and nothing is opened.
"""

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

_NOBODY_NEW = -1
"""Changes nothing and tells who it is (setfsuid(2))."""


@contextmanager
def acting_as(uid: int, gid: int) -> Iterator[None]:
    """Let this thread alone use files as another user; nothing changes but for root.

    Args:
        uid: the user.
        gid: the user's group.

    Raises:
        OSError: the system does not let us.
    """
    if os.geteuid() != 0 or uid == 0:
        yield
        return
    libc = ctypes.CDLL(None)
    group, user = libc.setfsgid(gid), libc.setfsuid(uid)
    try:
        if libc.setfsuid(_NOBODY_NEW) != uid or libc.setfsgid(_NOBODY_NEW) != gid:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        yield
    finally:
        libc.setfsuid(user)
        libc.setfsgid(group)
