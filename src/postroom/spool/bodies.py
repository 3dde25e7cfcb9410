"""Bodies too large for a row: one file each, synced before the row that names it.

A file is written under its final name, the queue id; until a committed row names it,
it is an orphan, which the next open removes. On failure the piece or the sync raises
``SpoolError`` and the file is thrown away.
"""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from threading import Lock

import msgspec

from postroom.mail.ids import QueueId
from postroom.spool.files import Files
from postroom.spool.space import Space
from postroom.spool.spool import SpoolError, SpoolFull, disk_error

_PIECE_OCTETS = 256 << 10
"""What is gathered before it is handed to a thread."""


class BodyDirectory(msgspec.Struct, frozen=True):
    """The directory of body files of one shard, and the threads that work there."""

    path: str
    files: Files
    threads: Executor

    def file(self, name: str) -> str:
        """Return the path of a body file."""
        return os.path.join(self.path, name)

    def remove(self, names: list[str]) -> None:
        """Remove files that no row names any more. Blocks.

        A file that resists is left to the next open.
        """
        for name in names:
            try:
                self.files.remove(self.file(name))
            except OSError:
                continue


class FileBody(msgspec.Struct, frozen=True):
    """A body in a file of its own."""

    directory: BodyDirectory
    name: str
    size: int

    async def read(self, offset: int, octets: int) -> bytes:
        """Return up to ``octets`` from ``offset``; fewer only at the end.

        Raises:
            OSError: the file cannot be read.
        """
        directory = self.directory
        return await asyncio.get_running_loop().run_in_executor(
            directory.threads,
            directory.files.read,
            directory.file(self.name),
            offset,
            octets,
        )


class FileBodyWriter:
    """Writes one body file; see ``spool.BodyWriter``."""

    def __init__(
        self, directory: BodyDirectory, space: Space, queue_id: QueueId
    ) -> None:
        self._directory = directory
        self._space = space
        self._name = str(queue_id)
        self._descriptor = -1
        self._pending: list[bytes] = []
        self._pending_octets = 0
        self._size = 0
        # A call that was cancelled may still be at work in its thread.
        self._turn = Lock()
        self._is_abandoned = False

    async def write(self, data: bytes) -> None:
        """Append. Raises ``SpoolError`` (``SpoolFull``) when it cannot."""
        self._pending.append(data)
        self._pending_octets += len(data)
        self._size += len(data)
        if self._pending_octets >= _PIECE_OCTETS:
            await self._take_space()
            await self._in_thread(self._append)

    async def finish(self) -> FileBody:
        """Sync it to disk and return it, to be named in a ``NewMessage``."""
        await self._take_space()
        await self._in_thread(self._finish)
        return FileBody(self._directory, self._name, self._size)

    async def abandon(self) -> None:
        """Throw it away."""
        threads = self._directory.threads
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(threads, self._abandon)

    async def _take_space(self) -> None:
        """Count what is about to be written, the file with the first piece."""
        files = int(self._size == self._pending_octets)
        if not self._space.has(self._pending_octets, files):
            await self.abandon()
            raise SpoolFull("the reserve of the queue's disk is reached")
        self._space.took(self._pending_octets, files)

    async def _in_thread(self, work: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._directory.threads, self._take_turn, work)
        except OSError as error:
            await self.abandon()
            raise disk_error(error) from error

    def _take_turn(self, work: Callable[[], None]) -> None:
        with self._turn:
            if self._is_abandoned:
                raise SpoolError(f"body {self._name} was thrown away")
            work()

    def _append(self) -> None:
        files = self._directory.files
        if self._descriptor < 0:
            self._descriptor = files.create(self._directory.file(self._name))
        data = b"".join(self._pending)
        self._pending.clear()
        self._pending_octets = 0
        files.append(self._descriptor, data)

    def _finish(self) -> None:
        self._append()
        files, descriptor = self._directory.files, self._descriptor
        files.sync(descriptor)
        self._descriptor = -1
        files.close(descriptor)
        files.sync_directory(self._directory.path)

    def _abandon(self) -> None:
        with self._turn:
            self._is_abandoned = True
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                with suppress(OSError):  # it is closed all the same
                    self._directory.files.close(descriptor)
            self._directory.remove([self._name])
