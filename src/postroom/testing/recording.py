"""How a ``Disk`` sees what is done: file operations and an apsw VFS that tell it.

The VFS does what SQLite's own for Unix does, as far as names are concerned: a new log
or journal is followed by a sync of its directory, at its own first sync, whose failure
is ignored; a removal is followed by one if SQLite asks for it. Nothing is really
synced: what counts is what was recorded, and tests are quick.
"""

import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import apsw

from postroom.spool.files import SystemFiles
from postroom.testing.platter import Kind, Operation

if TYPE_CHECKING:
    from postroom.testing.disk import Disk

_NAMED_AT_SYNC = (
    apsw.SQLITE_OPEN_WAL
    | apsw.SQLITE_OPEN_MAIN_JOURNAL
    | apsw.SQLITE_OPEN_SUPER_JOURNAL
)
_CODES = {
    Kind.WRITE: apsw.SQLITE_IOERR_WRITE,
    Kind.SYNC: apsw.SQLITE_IOERR_FSYNC,
    Kind.TRUNCATE: apsw.SQLITE_IOERR_TRUNCATE,
    Kind.REMOVE: apsw.SQLITE_IOERR_DELETE,
    Kind.NAMES: apsw.SQLITE_IOERR_DIR_FSYNC,
}


class RecordingFiles(SystemFiles):
    """The spool's own file operations, recorded."""

    def __init__(self, disk: "Disk") -> None:
        self._disk = disk
        self._paths: dict[int, tuple[str, int]] = {}

    def create(self, path: str) -> int:
        """Make a new file for writing and return its descriptor."""
        self._disk.called()
        real, made = os.path.realpath(path), -1

        def make(_: bytes) -> None:
            nonlocal made
            made = super(RecordingFiles, self).create(path)

        kind = Kind.TRUNCATE if os.path.exists(real) else Kind.CREATE
        self._disk.do(Operation(kind, real), make)
        self._paths[made] = (real, 0)
        return made

    def append(self, descriptor: int, data: bytes) -> None:
        """Write all of ``data``."""
        self._disk.called()
        path, offset = self._paths[descriptor]
        write = super().append
        operation = Operation(Kind.WRITE, path, offset, data)
        self._disk.do(operation, lambda part: write(descriptor, part))
        self._paths[descriptor] = (path, offset + len(data))

    def sync(self, descriptor: int) -> None:
        """Return when all that was written is on disk."""
        self._disk.called()
        self._disk.do(Operation(Kind.SYNC, self._paths[descriptor][0]), _nothing)

    def close(self, descriptor: int) -> None:
        """Let go of a descriptor, which is gone even if this fails."""
        super().close(descriptor)
        self._disk.called()

    def read(self, path: str, offset: int, octets: int) -> bytes:
        """Return up to ``octets`` from ``offset``; fewer only at the end."""
        self._disk.called()
        return super().read(path, offset, octets)

    def size(self, path: str) -> int:
        """Return the length of a file in octets."""
        self._disk.called()
        return super().size(path)

    def remove(self, path: str) -> None:
        """Remove a file; one that is not there is no error."""
        self._disk.called()
        remove = super().remove
        operation = Operation(Kind.REMOVE, os.path.realpath(path))
        self._disk.do(operation, lambda _: remove(path))

    def names(self, path: str) -> list[str]:
        """Return the names in a directory."""
        self._disk.called()
        return super().names(path)

    def make_directory(self, path: str) -> None:
        """Make a directory, mode 0700, with its parents; it may exist."""
        self._disk.called()
        real = os.path.realpath(path)
        if os.path.isdir(real) or not real.startswith(self._disk.root + os.sep):
            return
        self.make_directory(os.path.dirname(real))
        make = super().make_directory
        self._disk.do(Operation(Kind.DIRECTORY, real), lambda _: make(real))

    def sync_directory(self, path: str) -> None:
        """Return when the names in a directory are on disk."""
        self._disk.called()
        self._disk.do(Operation(Kind.NAMES, os.path.realpath(path)), _nothing)


class RecordingVfs(apsw.VFS):
    """The system's VFS, recorded."""

    def __init__(self, name: str, disk: "Disk") -> None:
        self._disk = disk
        super().__init__(name, "")

    def xOpen(
        self, name: "str | apsw.URIFilename | None", flags: list[int]
    ) -> "RecordingFile":
        """Open a file, recorded if it lies on the disk."""
        return RecordingFile(self._disk, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        """Remove a file and, if so wanted, sync its directory."""
        path = os.path.realpath(filename)
        remove = super().xDelete
        gone = Operation(Kind.REMOVE, path)
        _do(self._disk, gone, lambda _: remove(filename, False))
        if syncdir:
            _do(self._disk, Operation(Kind.NAMES, os.path.dirname(path)), _nothing)


class RecordingFile(apsw.VFSFile):
    """A file of SQLite's, recorded if it lies on the disk."""

    def __init__(
        self, disk: "Disk", name: "str | apsw.URIFilename | None", flags: list[int]
    ) -> None:
        given = name.filename() if isinstance(name, apsw.URIFilename) else name
        path = os.path.realpath(given) if given else ""
        self._path = path if path.startswith(disk.root + os.sep) else ""
        self._disk = disk
        creates = flags[0] & apsw.SQLITE_OPEN_CREATE
        self._is_unnamed = bool(creates and flags[0] & _NAMED_AT_SYNC)
        open_ = super().__init__

        def make(_: bytes) -> None:
            open_("", name, flags)

        if self._path and creates and not os.path.exists(path):
            _do(disk, Operation(Kind.CREATE, path), make)
        else:
            make(b"")

    def xWrite(self, data: bytes, offset: int) -> None:
        """Write."""
        write = super().xWrite
        if not self._path:
            return write(data, offset)
        operation = Operation(Kind.WRITE, self._path, offset, bytes(data))
        return _do(self._disk, operation, lambda part: write(part, offset))

    def xSync(self, flags: int) -> None:
        """Sync, and the first time make sure of the name of a log or journal."""
        if not self._path:
            return
        _do(self._disk, Operation(Kind.SYNC, self._path), _nothing)
        if self._is_unnamed:
            self._is_unnamed = False
            names = Operation(Kind.NAMES, os.path.dirname(self._path))
            try:
                self._disk.do(names, _nothing)
            except OSError:
                return  # as SQLite does

    def xTruncate(self, newsize: int) -> None:
        """Cut or lengthen."""
        truncate = super().xTruncate
        if not self._path:
            return truncate(newsize)
        operation = Operation(Kind.TRUNCATE, self._path, newsize)
        return _do(self._disk, operation, lambda _: truncate(newsize))


def _nothing(_: bytes) -> None:
    """Do nothing: it was recorded."""


def _do(disk: "Disk", operation: Operation, act: Callable[[bytes], None]) -> None:
    """Do it, and turn a fault into the error that SQLite's own VFS would report."""
    try:
        disk.do(operation, act)
    except OSError as error:
        if operation.kind is Kind.CREATE:
            raise apsw.CantOpenError("unable to open database file") from error
        if error.errno == errno.ENOSPC and operation.kind is Kind.WRITE:
            raise apsw.FullError("disk full") from error
        failure = apsw.IOError(f"{operation.kind.value} failed")
        code = _CODES.get(operation.kind, apsw.SQLITE_IOERR)
        failure.extendedresult = code  # type: ignore[attr-defined]
        raise failure from error
