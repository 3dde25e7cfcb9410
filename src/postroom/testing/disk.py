"""A disk that remembers, fails, and dies: for crash tests of the spool.

``Disk`` records what is done to files and directories, by SQLite through an apsw VFS
and by the spool's own file operations (``recording``). ``points`` tells what a power
cut after each operation could have left (``platter``). ``fail_at`` makes operations
fail; after ``die_at`` nothing is done any more, as when the process is killed.
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from threading import Lock

import msgspec

from postroom.spool.files import Seam
from postroom.testing.platter import Kind, Loss, Operation, Platter
from postroom.testing.recording import RecordingFiles, RecordingVfs

_NEVER = 1 << 62


class Fault(Enum):
    """How an operation fails."""

    IO = "an I/O error"
    FULL = "no space left"
    SHORT = "half of it is written, then no space is left"
    INTERRUPTED = "interrupted by a signal (SQLite's own files see to that themselves)"

    @property
    def errno(self) -> int:
        """The number of the error."""
        match self:
            case Fault.IO:
                return errno.EIO
            case Fault.FULL | Fault.SHORT:
                return errno.ENOSPC
            case Fault.INTERRUPTED:
                return errno.EINTR

    def applies_to(self, operation: Operation) -> bool:
        """Whether an operation can fail in this way."""
        match self:
            case Fault.SHORT:
                return operation.kind is Kind.WRITE and len(operation.data) > 1
            case Fault.INTERRUPTED:
                return "/queue.db" not in operation.path
            case _:
                return operation.kind is not Kind.DROP


class Disk:
    """Records what is done below a directory.

    Args:
        root: paths outside it are not recorded; what is there already is certain.
        name: of the VFS, unlike that of any other living ``Disk``.
    """

    def __init__(self, root: str, name: str = "recording") -> None:
        self.root = os.path.realpath(root)
        self.operations: list[Operation] = []
        self.calls = 0
        """How often the spool's own file operations were called, reading included."""
        self.faults = 0
        """How many operations have failed so far."""
        self.skips: Callable[[Operation], bool] = lambda _: False
        """Which syncs are not done, though it is said that they were."""
        self.files = RecordingFiles(self)
        self.name = name
        self._before = Platter(self.root)
        self._fail_at, self._fail_end = _NEVER, 0
        self._fail_call = _NEVER
        self._fail_kind: Kind | None = None
        self._die_at = _NEVER
        self._is_stopped = False
        self._fault = Fault.IO
        self._turn = Lock()
        self._vfs = RecordingVfs(name, self)

    @property
    def seam(self) -> Seam:
        """What ``open_shard`` takes to work on this disk."""
        return Seam(self.name, self.files)

    @property
    def now(self) -> int:
        """How many operations were done."""
        return len(self.operations)

    def fail_at(self, index: int, fault: Fault, *, times: int = 1) -> None:
        """Let operation ``index`` fail, and what follows until ``times`` have."""
        self._fail_at, self._fail_end = index, self.faults + times
        self._fault = fault

    def fail_call(self, index: int, fault: Fault) -> None:
        """Let the call number ``index`` of a file operation of the spool fail."""
        self._fail_call, self._fault = index, fault

    def fail_next(self, kind: Kind, fault: Fault) -> None:
        """Let the next operation of a kind fail."""
        self._fail_kind, self._fault = kind, fault

    def die_at(self, index: int) -> None:
        """Let nothing be done any more from operation ``index`` on."""
        self._die_at = index

    def revive(self) -> None:
        """Let things be done again."""
        self._die_at = _NEVER

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Let nothing be done for a while."""
        self._is_stopped = True
        try:
            yield
        finally:
            self._is_stopped = False

    @property
    def is_dead(self) -> bool:
        """Whether nothing is done any more."""
        return self._is_stopped or self.now >= self._die_at

    def close(self) -> None:
        """Take the VFS away; files opened through it must be closed."""
        self._vfs.unregister()

    def called(self) -> None:
        """Count a call of a file operation of the spool, or make it fail."""
        index, self.calls = self.calls, self.calls + 1
        if index == self._fail_call:
            self.faults += 1
            raise _error(self._fault)

    def do(self, operation: Operation, act: Callable[[bytes], None]) -> None:
        """Record an operation and do it, or make it fail.

        Args:
            operation: what is to be recorded.
            act: does it with these data.

        Raises:
            OSError: it failed; nothing was done, or by ``Fault.SHORT`` half of it.
        """
        with self._turn:
            if self.is_dead:
                raise _error(Fault.IO)
            if self.skips(operation):
                return
            if self._must_fail(operation):
                operation = self._fail(operation)
                act(operation.data)
                raise _error(self._fault)
            act(operation.data)
            self.operations.append(operation)

    def _must_fail(self, operation: Operation) -> bool:
        if operation.kind is self._fail_kind:
            self._fail_kind = None
            return True
        return self.now >= self._fail_at and self.faults < self._fail_end

    def _fail(self, operation: Operation) -> Operation:
        """Count a fault, and return what is done nevertheless, once recorded."""
        self.faults += 1
        if self._fault is Fault.SHORT and self._fault.applies_to(operation):
            half = operation.data[: len(operation.data) // 2]
            operation = msgspec.structs.replace(operation, data=half)
            self.operations.append(operation)
            return operation
        if operation.kind is Kind.SYNC and self._fault is not Fault.INTERRUPTED:
            # The kernel counts the pages as clean now; no later sync writes them.
            self.operations.append(Operation(Kind.DROP, operation.path))
        raise _error(self._fault)

    def points(self) -> Iterator[tuple[int, Platter]]:
        """Yield after each operation, and before the first, what the disk holds."""
        platter = self._before
        yield 0, platter
        for count, operation in enumerate(self.operations, 1):
            platter.apply(operation)
            yield count, platter


def _error(fault: Fault) -> OSError:
    return OSError(fault.errno, os.strerror(fault.errno))


__all__ = ["Disk", "Fault", "Kind", "Loss", "Operation", "Platter"]
