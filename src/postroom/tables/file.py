"""Reads a table file whole: bounded, regular, not writable by everybody.

Raises ``OSError`` or ``ValueError`` with a sentence that says what to do.
"""

import os
import stat

import msgspec

from postroom.tables.settings import TableSettings


class FileMark(msgspec.Struct, frozen=True, gc=False):
    """By what a changed file is known; all zero when there is none."""

    inode: int = 0
    octets: int = 0
    changed_ns: int = 0

    @classmethod
    def of(cls, path: str) -> "FileMark":
        """Return the mark of a file as it is now."""
        try:
            found = os.stat(path)
        except OSError:
            return cls()
        return cls(found.st_ino, found.st_size, found.st_mtime_ns)


def read_file(path: str, settings: TableSettings) -> str:
    """Return the text of a table file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too large, not a regular file, writable by everybody, or
            not UTF-8.
    """
    # O_NONBLOCK: opening a FIFO must not wait for a writer
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    octets_max = int(settings.file_octets_max)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("not a regular file")
        if found.st_mode & stat.S_IWOTH:
            raise ValueError("everybody may write it; do: chmod o-w " + path)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(octets_max + 1)
    finally:
        os.close(descriptor)
    if len(data) > octets_max:
        limit = settings.file_octets_max.to_text()
        raise ValueError(f"larger than {limit} (setting file_octets_max)")
    try:
        return data.decode("utf-8-sig")  # some editors begin files with a mark
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8") from None
