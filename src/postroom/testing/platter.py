"""What a power cut leaves of a disk: a model of files, names, and what was synced.

Strict, as POSIX allows: what was written to a file is certain once that file was
synced; that a name exists, or is gone, once its directory was. Everything else is on
its way and may have arrived, or not, or in part, in any order; ``Loss`` names the ways
that are tried. Only what lies below one directory is known; that directory is there.
"""

import os
from enum import Enum
from random import Random  # noqa: TID251 (seeded by the point that is tried)

import msgspec

_SECTOR_OCTETS = 512
_LOG, _DATABASE = "-wal", "queue.db"


class Kind(Enum):
    """What was done to a file or a directory."""

    CREATE = "create"
    DIRECTORY = "make directory"
    WRITE = "write"
    TRUNCATE = "truncate"
    SYNC = "sync"
    REMOVE = "remove"
    NAMES = "sync of a directory"
    DROP = "a sync that failed: what it should have synced never gets to the disk"


class Operation(msgspec.Struct, frozen=True):
    """One operation. ``offset`` is the new length of a truncation."""

    kind: Kind
    path: str
    offset: int = 0
    data: bytes = b""


class Loss(Enum):
    """What becomes of that which was not synced when the power goes."""

    ALL = "all lost"
    NONE = "all kept"
    TORN = "the last write to each file is torn"
    ODD = "the first, third, ... are lost, so that later ones overtake earlier ones"
    EVEN = "the second, fourth, ... are lost"
    LAST = "only the last of each file is kept"
    NAMES = "names are kept, contents lost"
    CONTENTS = "contents are kept, names lost"
    LOG = "only the log's are kept: it overtakes all else"
    DATABASE = "only the database's are kept: it overtakes the log"
    HOLES = "names and lengths are kept, contents read as zeros"
    SECTORS = "sectors and names are kept or lost by the throw of a coin"


class _Node:
    """A file or directory, whatever its name. Contents matter for files only."""

    def __init__(self, *, is_directory: bool = False, content: bytes = b"") -> None:
        self.is_directory = is_directory
        self.synced = content
        self.pending: list[Operation] = []


class _Naming(msgspec.Struct):
    """A name that came or went, and is not synced yet."""

    path: str
    node: _Node
    comes: bool


class Platter:
    """What the disk holds, and what is still on its way to it.

    Args:
        root: a directory; what it holds now is taken as certain.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._seen: dict[str, _Node] = {}
        self._certain: dict[str, _Node] = {}
        self._namings: list[_Naming] = []
        for path, _, names in os.walk(root):
            if path != root:
                self._seen[path] = _Node(is_directory=True)
            for name in names:
                with open(os.path.join(path, name), "rb") as file:
                    self._seen[os.path.join(path, name)] = _Node(content=file.read())
        self._certain.update(self._seen)

    def apply(self, operation: Operation) -> None:
        """Do one operation."""
        path = operation.path
        match operation.kind:
            case Kind.CREATE | Kind.DIRECTORY:
                is_directory = operation.kind is Kind.DIRECTORY
                node = self._seen[path] = _Node(is_directory=is_directory)
                self._namings.append(_Naming(path, node, True))
            case Kind.WRITE | Kind.TRUNCATE:
                self._seen[path].pending.append(operation)
            case Kind.SYNC:
                node = self._seen[path]
                node.synced = _written(node.synced, node.pending)
                node.pending = []
            case Kind.DROP:
                if path in self._seen:
                    self._seen[path].pending = []
            case Kind.REMOVE:
                if path in self._seen:
                    self._namings.append(_Naming(path, self._seen.pop(path), False))
            case Kind.NAMES:
                done = [n for n in self._namings if os.path.dirname(n.path) == path]
                _name(self._certain, done)
                self._namings = [n for n in self._namings if n not in done]

    def surviving(self, loss: Loss, seed: int = 0) -> dict[str, bytes | None]:
        """Return the files, and as None the directories, that a power cut leaves."""
        coin = Random(seed)  # noqa: S311
        entries = dict(self._certain)
        _name(entries, _kept_names(self._namings, loss, coin))
        found: dict[str, bytes | None] = {}
        for path, node in sorted(entries.items()):
            if not self._is_reachable(path, entries):
                continue
            found[path] = (
                None if node.is_directory else _content(node, path, loss, coin)
            )
        return found

    def _is_reachable(self, path: str, entries: dict[str, _Node]) -> bool:
        above = os.path.dirname(path)
        while above != self._root:
            if above not in entries:
                return False
            above = os.path.dirname(above)
        return True


def _name(entries: dict[str, _Node], namings: list[_Naming]) -> None:
    for naming in namings:
        if naming.comes:
            entries[naming.path] = naming.node
        elif entries.get(naming.path) is naming.node:
            del entries[naming.path]


def _kept_names(namings: list[_Naming], loss: Loss, coin: Random) -> list[_Naming]:
    match loss:
        case Loss.ALL | Loss.CONTENTS:
            return []
        case Loss.NONE | Loss.TORN | Loss.LAST | Loss.NAMES | Loss.HOLES:
            return namings
        case Loss.ODD:
            return namings[1::2]
        case Loss.EVEN:
            return namings[::2]
        case Loss.LOG:
            return [n for n in namings if n.path.endswith(_LOG)]
        case Loss.DATABASE:
            return [n for n in namings if n.path.endswith(_DATABASE)]
        case Loss.SECTORS:
            return [n for n in namings if coin.random() < 0.5]


def _content(node: _Node, path: str, loss: Loss, coin: Random) -> bytes:
    if not node.pending:
        return node.synced
    if loss is Loss.HOLES:
        whole = _written(node.synced, node.pending)
        return node.synced[: len(whole)].ljust(len(whole), b"\0")
    return _written(node.synced, _kept(node.pending, path, loss, coin))


def _kept(
    pending: list[Operation], path: str, loss: Loss, coin: Random
) -> list[Operation]:
    match loss:
        case Loss.ALL | Loss.NAMES | Loss.HOLES:
            return []
        case Loss.NONE | Loss.CONTENTS:
            return pending
        case Loss.ODD:
            return pending[1::2]
        case Loss.EVEN:
            return pending[::2]
        case Loss.LAST:
            return pending[-1:]
        case Loss.LOG:
            return pending if path.endswith(_LOG) else []
        case Loss.DATABASE:
            return pending if path.endswith(_DATABASE) else []
        case Loss.TORN:
            last = pending[-1]
            half = last.data[: len(last.data) // 2]
            return [*pending[:-1], msgspec.structs.replace(last, data=half)]
        case Loss.SECTORS:
            return [s for op in pending for s in _sectors(op) if coin.random() < 0.5]


def _sectors(operation: Operation) -> list[Operation]:
    if operation.kind is not Kind.WRITE:
        return [operation]
    starts = range(0, len(operation.data), _SECTOR_OCTETS)
    return [
        Operation(
            Kind.WRITE,
            operation.path,
            operation.offset + start,
            operation.data[start : start + _SECTOR_OCTETS],
        )
        for start in starts
    ]


def _written(content: bytes, operations: list[Operation]) -> bytes:
    if not operations:
        return content
    found = bytearray(content)
    for operation in operations:
        end = operation.offset + len(operation.data)
        if len(found) < end:
            found.extend(bytes(end - len(found)))
        if operation.kind is Kind.TRUNCATE:
            del found[operation.offset :]
        else:
            found[operation.offset : end] = operation.data
    return bytes(found)
