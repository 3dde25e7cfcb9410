"""The file operations of the spool outside SQLite, as one replaceable set.

Crash tests put a recording or failing set in the place of ``SystemFiles``. Every
operation raises ``OSError`` on failure.
"""

import os
from typing import Protocol

import msgspec


class Files(Protocol):
    """What the spool does with body files and its directories."""

    def create(self, path: str) -> int:
        """Make a new file for writing and return its descriptor."""

    def append(self, descriptor: int, data: bytes) -> None:
        """Write all of ``data``."""

    def sync(self, descriptor: int) -> None:
        """Return when all that was written is on disk."""

    def close(self, descriptor: int) -> None:
        """Let go of a descriptor."""

    def read(self, path: str, offset: int, octets: int) -> bytes:
        """Return up to ``octets`` from ``offset``; fewer only at the end."""

    def size(self, path: str) -> int:
        """Return the length of a file in octets."""

    def remove(self, path: str) -> None:
        """Remove a file; one that is not there is no error."""

    def names(self, path: str) -> list[str]:
        """Return the names in a directory."""

    def make_directory(self, path: str) -> None:
        """Make a directory, mode 0700, with its parents; it may exist."""

    def sync_directory(self, path: str) -> None:
        """Return when the names in a directory are on disk."""


class SystemFiles:
    """The real thing."""

    def create(self, path: str) -> int:
        """Make a new file for writing and return its descriptor."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(path, flags, 0o600)

    def append(self, descriptor: int, data: bytes) -> None:
        """Write all of ``data``."""
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    def sync(self, descriptor: int) -> None:
        """Return when all that was written is on disk."""
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        """Let go of a descriptor."""
        os.close(descriptor)

    def read(self, path: str, offset: int, octets: int) -> bytes:
        """Return up to ``octets`` from ``offset``; fewer only at the end."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            pieces = []
            while octets and (piece := os.pread(descriptor, octets, offset)):
                pieces.append(piece)
                offset, octets = offset + len(piece), octets - len(piece)
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        finally:
            os.close(descriptor)

    def size(self, path: str) -> int:
        """Return the length of a file in octets."""
        return os.stat(path).st_size

    def remove(self, path: str) -> None:
        """Remove a file; one that is not there is no error."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            return

    def names(self, path: str) -> list[str]:
        """Return the names in a directory."""
        return os.listdir(path)

    def make_directory(self, path: str) -> None:
        """Make a directory, mode 0700, with its parents; it may exist."""
        os.makedirs(path, 0o700, exist_ok=True)

    def sync_directory(self, path: str) -> None:
        """Return when the names in a directory are on disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Seam(msgspec.Struct, frozen=True):
    """Through what a shard reaches the disk; crash tests put their own here.

    ``vfs`` is the name of an apsw VFS, None for SQLite's own.
    """

    vfs: str | None = None
    files: Files = SystemFiles()
