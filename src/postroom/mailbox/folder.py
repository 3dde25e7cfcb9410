"""Directories reached step by step, so that a symbolic link cannot lead us astray.

Everything below the operator's own directory is opened relative to its parent and
without following links. All functions raise ``OSError`` as the system gives it.
"""

import os
import stat
from contextlib import suppress

from postroom.mailbox.name import Place

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
MODE_DIRECTORY = 0o700
MODE_FILE = 0o600


def open_folder(place: Place, depth: int | None = None, *, create: bool) -> int:
    """Open the directory of a place, or its first ``depth`` parts; returns a handle.

    Raises:
        OSError: it is missing (and not to be made), a link, or out of reach.
    """
    try:
        handle = os.open(place.root, _DIRECTORY)
    except FileNotFoundError:
        if not create:
            raise
        _make(os.path.abspath(place.root))
        handle = os.open(place.root, _DIRECTORY)
    for part in place.parts[:depth]:
        try:
            below = enter(handle, part, create=create)
        finally:
            os.close(handle)
        handle = below
    return handle


def enter(parent: int, part: str, *, create: bool) -> int:
    """Open a directory within another; never through a link.

    Raises:
        OSError: as ``open_folder``.
    """
    try:
        return os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    except FileNotFoundError:
        if not create:
            raise
    with suppress(FileExistsError):  # another delivery was quicker
        os.mkdir(part, MODE_DIRECTORY, dir_fd=parent)
    os.fsync(parent)  # by whomever it was made, our message is to lie in it
    return os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)


def _make(path: str) -> None:
    """Make a directory and those above it; when done, their names are on disk."""
    above = os.path.dirname(path)
    if not os.path.isdir(above):
        _make(above)
    with suppress(FileExistsError):
        os.mkdir(path, MODE_DIRECTORY)
    handle = os.open(above, _DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def open_file(folder: int, name: str, flags: int = os.O_RDONLY) -> int:
    """Open a regular file within a directory; never through a link, never waiting.

    Raises:
        OSError: it is missing, no regular file, or out of reach.
    """
    safe = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    handle = os.open(name, flags | safe, MODE_FILE, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(f"{name} is no regular file")
    return handle


def write_all(handle: int, data: bytes) -> None:
    """Write every octet.

    Raises:
        OSError: the disk is full, or worse; part of it may have been written.
    """
    written = os.write(handle, data)
    if written < len(data):
        view = memoryview(data)
        while written < len(data):
            written += os.write(handle, view[written:])
