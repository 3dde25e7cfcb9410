"""A disk that remembers, fails, and loses power: for crash tests of the spool.

``Disk`` records every write, sync, truncation and removal, by SQLite through an apsw
VFS and by the spool's own file operations. ``Disk.after`` rebuilds what a power cut
after n operations could have left: what was synced is there, of the rest nothing, all,
or a part. ``Disk.fail_at`` makes the n-th write or sync fail once.
"""

import errno
import os
from collections.abc import Callable
from enum import Enum

import apsw
import msgspec

from postroom.spool.files import Seam, SystemFiles


class Kind(Enum):
    """What was done to a file."""

    WRITE = "write"
    TRUNCATE = "truncate"
    SYNC = "sync"
    REMOVE = "remove"
    NAMES = "names"
    DROP = "a sync that failed: what it should have synced never gets to the disk"


class Operation(msgspec.Struct, frozen=True):
    """One operation. ``offset`` is the new length of a truncation."""

    kind: Kind
    path: str
    offset: int = 0
    data: bytes = b""


class Loss(Enum):
    """What happens to writes that were not synced when the power goes."""

    ALL = "all lost"
    NONE = "all kept"
    TORN = "the last is torn"
    SOME = "every other one is lost, so that later ones overtake earlier ones"


class Fault(Enum):
    """How an operation fails."""

    IO = errno.EIO
    FULL = errno.ENOSPC


class Disk:
    """Records what is done below a directory.

    Args:
        root: paths outside it are not recorded.
        name: of the VFS, unlike that of any other living ``Disk``.
    """

    def __init__(self, root: str, name: str = "recording") -> None:
        self.root = os.path.realpath(root)
        self.operations: list[Operation] = []
        self.files = RecordingFiles(self)
        self.name = name
        self._fail_at = -1
        self._fail_kind: Kind | None = None
        self._fault = Fault.IO
        self._faults = 0
        self._vfs = _RecordingVfs(name, self)

    @property
    def seam(self) -> Seam:
        """What ``open_shard`` takes to work on this disk."""
        return Seam(self.name, self.files)

    @property
    def faults(self) -> int:
        """How many operations have failed so far."""
        return self._faults

    def fail_at(self, index: int, fault: Fault) -> None:
        """Let operation number ``index`` fail, if it is a write or a sync."""
        self._fail_at, self._fault = index, fault

    def fail_next(self, kind: Kind, fault: Fault) -> None:
        """Let the next operation of a kind fail."""
        self._fail_kind, self._fault = kind, fault

    def close(self) -> None:
        """Take the VFS away; files opened through it must be closed."""
        self._vfs.unregister()

    def note(self, operation: Operation) -> None:
        """Record an operation that is about to be done, or make it fail.

        Raises:
            OSError: it is the one chosen to fail; it must not be done.
        """
        index = len(self.operations)
        if index == self._fail_at or operation.kind is self._fail_kind:
            self._faults += 1
            self._fail_at, self._fail_kind = -1, None
            if operation.kind is Kind.SYNC:
                # The kernel counts the pages as clean now; no later sync writes them.
                self.operations.append(Operation(Kind.DROP, operation.path))
            raise OSError(self._fault.value, os.strerror(self._fault.value))
        self.operations.append(operation)

    def after(self, count: int, loss: Loss, target: str) -> None:
        """Write to ``target`` what ``count`` operations and a power cut leave."""
        image = _Image()
        for operation in self.operations[:count]:
            image.apply(operation)
        for path, content in image.surviving(loss).items():
            place = os.path.join(target, os.path.relpath(path, self.root))
            os.makedirs(os.path.dirname(place), exist_ok=True)
            with open(place, "wb") as file:
                file.write(content)


class _Image:
    """What the platter holds, and what is still on its way to each file."""

    def __init__(self) -> None:
        self._synced: dict[str, bytes] = {}
        self._pending: dict[str, list[Operation]] = {}

    def apply(self, operation: Operation) -> None:
        path = operation.path
        match operation.kind:
            case Kind.SYNC:
                content = self._synced.get(path, b"")
                for each in self._pending.pop(path, []):
                    content = _changed(content, each)
                self._synced[path] = content
            case Kind.DROP:
                self._pending.pop(path, None)
            case Kind.REMOVE:
                # The worst for us is that it is really gone; orphans do no harm.
                self._synced.pop(path, None)
                self._pending.pop(path, None)
            case Kind.NAMES:
                return
            case Kind.WRITE | Kind.TRUNCATE:
                self._pending.setdefault(path, []).append(operation)

    def surviving(self, loss: Loss) -> dict[str, bytes]:
        found = dict(self._synced)
        for path, pending in self._pending.items():
            content = found.get(path, b"")
            for each in _kept(pending, loss):
                content = _changed(content, each)
            found[path] = content
        return found


def _kept(pending: list[Operation], loss: Loss) -> list[Operation]:
    match loss:
        case Loss.ALL:
            return []
        case Loss.NONE:
            return pending
        case Loss.SOME:
            return pending[1::2]
        case Loss.TORN:
            last = pending[-1]
            half = last.data[: len(last.data) // 2]
            torn = Operation(last.kind, last.path, last.offset, half)
            return [*pending[:-1], torn]


def _changed(content: bytes, operation: Operation) -> bytes:
    offset = operation.offset
    if operation.kind is Kind.TRUNCATE:
        return content[:offset].ljust(offset, b"\0")
    if len(content) < offset:
        content = content.ljust(offset, b"\0")
    return content[:offset] + operation.data + content[offset + len(operation.data) :]


class RecordingFiles(SystemFiles):
    """The spool's own file operations, recorded."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._paths: dict[int, tuple[str, int]] = {}

    def create(self, path: str) -> int:
        """Make a new file for writing and return its descriptor."""
        self._disk.note(Operation(Kind.TRUNCATE, os.path.realpath(path)))
        descriptor = super().create(path)
        self._paths[descriptor] = (os.path.realpath(path), 0)
        return descriptor

    def append(self, descriptor: int, data: bytes) -> None:
        """Write all of ``data``."""
        path, offset = self._paths[descriptor]
        self._disk.note(Operation(Kind.WRITE, path, offset, data))
        super().append(descriptor, data)
        self._paths[descriptor] = (path, offset + len(data))

    def sync(self, descriptor: int) -> None:
        """Return when all that was written is on disk."""
        self._disk.note(Operation(Kind.SYNC, self._paths[descriptor][0]))

    def remove(self, path: str) -> None:
        """Remove a file; one that is not there is no error."""
        self._disk.note(Operation(Kind.REMOVE, os.path.realpath(path)))
        super().remove(path)

    def sync_directory(self, path: str) -> None:
        """Return when the names in a directory are on disk."""
        self._disk.note(Operation(Kind.NAMES, os.path.realpath(path)))


class _RecordingVfs(apsw.VFS):
    def __init__(self, name: str, disk: Disk) -> None:
        self._disk = disk
        super().__init__(name, "")

    def xOpen(
        self, name: "str | apsw.URIFilename | None", flags: list[int]
    ) -> "_RecordingFile":
        return _RecordingFile(self._disk, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        path = os.path.realpath(filename)
        _try(lambda: self._disk.note(Operation(Kind.REMOVE, path)), Kind.REMOVE)
        super().xDelete(filename, syncdir)


class _RecordingFile(apsw.VFSFile):
    def __init__(
        self, disk: Disk, name: "str | apsw.URIFilename | None", flags: list[int]
    ) -> None:
        super().__init__("", name, flags)
        if isinstance(name, apsw.URIFilename):
            name = name.filename()
        path = os.path.realpath(name) if name else ""
        self._path = path if path.startswith(disk.root + os.sep) else ""
        self._disk = disk

    def _note(self, kind: Kind, offset: int = 0, data: bytes = b"") -> None:
        if self._path:
            operation = Operation(kind, self._path, offset, data)
            _try(lambda: self._disk.note(operation), kind)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._note(Kind.WRITE, offset, bytes(data))
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        # Not really done: what counts is what was recorded, and tests are quick.
        self._note(Kind.SYNC)

    def xTruncate(self, newsize: int) -> None:
        self._note(Kind.TRUNCATE, newsize)
        super().xTruncate(newsize)


def _try(note: Callable[[], None], kind: Kind) -> None:
    """Turn a fault into the error that SQLite's own VFS would report."""
    try:
        note()
    except OSError as error:
        if error.errno == errno.ENOSPC and kind is Kind.WRITE:
            raise apsw.FullError("disk full") from error
        failure = apsw.IOError(f"{kind.value} failed")
        codes = {
            Kind.WRITE: apsw.SQLITE_IOERR_WRITE,
            Kind.SYNC: apsw.SQLITE_IOERR_FSYNC,
            Kind.TRUNCATE: apsw.SQLITE_IOERR_TRUNCATE,
        }
        failure.extendedresult = codes.get(kind, apsw.SQLITE_IOERR_DELETE)  # type: ignore[attr-defined]
        raise failure from error
