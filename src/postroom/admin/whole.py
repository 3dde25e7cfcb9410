"""The whole queue, seen from outside: live workers asked, orphaned shards opened.

A live worker answers for all shards that it holds. What no live worker holds is opened
directly: reading always, changing only under the shard's lock. What could not be
reached is listed in ``problems``, never passed over in silence.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from postroom.admin.client import RequestRefused, WorkerGone, ask, find_workers
from postroom.admin.control import ControlError
from postroom.admin.live import LiveShards
from postroom.admin.merging import merge_entries
from postroom.admin.requests import (
    Counted,
    GivenUp,
    HopNow,
    LetterPart,
    Letters,
    Ordered,
    QueueCounts,
)
from postroom.spool.lock import shards_in
from postroom.spool.selection import QueueFilter
from postroom.spool.settings import SpoolSettings
from postroom.spool.shape import Shape
from postroom.spool.spool import Entry, EntryRecipient, Handled, SpoolError

if TYPE_CHECKING:  # it brings the engine, and is needed with the server down only
    from postroom.admin.offline import Clock, Farewells
    from postroom.admin.queue import Emit

T = TypeVar("T")
_TROUBLE = (WorkerGone, RequestRefused, SpoolError, ControlError, OSError)


class Source(Protocol):
    """One part of the queue: what a live worker holds, or an orphaned shard.

    Methods raise any of ``_TROUBLE``, which ``WholeQueue`` notes.
    """

    def entries(self, wanted: QueueFilter) -> AsyncIterator[Entry]:
        """Yield matching entries, oldest first."""

    def count(self, wanted: QueueFilter) -> AsyncIterator[Counted]:
        """Count matching entries; yields what each page adds."""

    def recipients(self, queue_id: str, after: int) -> AsyncIterator[EntryRecipient]:
        """Yield the recipients of a message behind number ``after``."""

    def letters(self, asked: Letters) -> AsyncIterator[LetterPart]:
        """Yield matching messages whole."""

    def carry_out(self, ordered: Ordered) -> AsyncIterator[Handled]:
        """Do what is ordered; yields what was done."""

    def give_up(self, given_up: GivenUp) -> AsyncIterator[Handled]:
        """Return matching recipients to their senders; yields what was done."""

    async def counts(self) -> QueueCounts:
        """Return counts by name."""

    async def shape(self) -> Shape:
        """Count what waits by destination, age and sender."""

    async def hop_now(self, hop: str) -> HopNow | None:
        """Return how a worker gets on with a destination; None without a worker."""


class OnSite(NamedTuple):
    """What is needed to open shards that no worker holds.

    Attributes:
        spool: where they are.
        emit: is told what was done to them.
        farewells: writes reports about what is given up; None: that is refused.
    """

    spool: SpoolSettings
    emit: "Emit" = lambda _: None
    farewells: "Farewells | None" = None


class WholeQueue:
    """All shards of one server, running or not. To be used with ``async with``.

    Args:
        run_directory: where the workers' control sockets are.
        site: how to open shards that no worker holds; None to leave them out.
        clock: gives the present moment.

    Attributes:
        problems: what could not be reached or done, for people.
        live: how many workers answered.
    """

    def __init__(self, run_directory: str, site: OnSite | None, clock: "Clock") -> None:
        self._run_directory = run_directory
        self._site = site
        self._clock = clock
        self._sources: list[Source] = []
        self._stack = ExitStack()
        self.live = 0
        self.problems: list[str] = []

    async def __aenter__(self) -> "WholeQueue":
        held: set[int] = set()
        for number, path in self._workers().items():
            try:
                held |= {*await ask(path, "queue.shards", {}, int)}
                self._sources.append(LiveShards(path))
                self.live += 1
            except WorkerGone:
                continue
            except RequestRefused as error:
                self.problems.append(f"worker {number}: {error}")
                held.add(number)
        if self._site is not None:
            spool = self._site.spool
            try:
                shards = await self._shards_there(spool.directory)
            except (SpoolError, OSError) as error:
                self.problems.append(f"spool {spool.directory}: {_told(error)}")
                return self
            for shard in shards:
                if shard not in held:
                    self._open_offline(self._site, shard)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stack.close()

    def _workers(self) -> dict[int, Path]:
        try:
            return find_workers(self._run_directory)
        except RequestRefused as error:
            self.problems.append(str(error))
            return {}

    async def _shards_there(self, directory: str) -> Sequence[int]:
        """List the shards of the spool; operators may not look there, workers may.

        Raises:
            OSError: nobody who may look there answers.
        """
        try:
            return shards_in(directory)
        except PermissionError:
            for source in self._sources:
                if isinstance(source, LiveShards):
                    with suppress(WorkerGone, RequestRefused):
                        return await source.shards_there()
            raise

    def _open_offline(self, site: OnSite, shard: int) -> None:
        from postroom.admin.offline import OfflineShard  # see the head of the file
        from postroom.spool.offline import view_shards

        spool = site.spool
        try:
            views = self._stack.enter_context(view_shards(spool.directory, [shard]))
        except (SpoolError, OSError) as error:
            self.problems.append(f"shard {shard}: {_told(error)}")
            return
        self._sources += [
            OfflineShard(view, spool, self._clock, site.emit, site.farewells)
            for view in views
        ]

    def entries(self, wanted: QueueFilter) -> AsyncIterator[Entry]:
        """Yield matching messages, oldest first, holding few at a time."""
        return merge_entries(
            [self._noting(source.entries(wanted)) for source in self._sources]
        )

    async def count(self, wanted: QueueFilter) -> AsyncIterator[Counted]:
        """Yield how many messages match as far as is known; the last is the sum."""
        total = Counted()
        for source in self._sources:
            async for part in self._noting(source.count(wanted)):
                total += part
                yield total
        yield total

    def recipients(self, queue_id: str, after: int) -> AsyncIterator[EntryRecipient]:
        """Yield the recipients of a message behind number ``after``."""
        return self._each([s.recipients(queue_id, after) for s in self._sources])

    def letters(self, asked: Letters) -> AsyncIterator[LetterPart]:
        """Yield matching messages whole, one after the other."""
        return self._each([source.letters(asked) for source in self._sources])

    def carry_out(self, ordered: Ordered) -> AsyncIterator[Handled]:
        """Do what is ordered to matching messages; yields what was done."""
        return self._each([source.carry_out(ordered) for source in self._sources])

    def give_up(self, given_up: GivenUp) -> AsyncIterator[Handled]:
        """Return matching recipients to their senders; yields what was done."""
        return self._each([source.give_up(given_up) for source in self._sources])

    async def counts(self) -> QueueCounts:
        """Return what lies in the queue, summed by name."""
        asked = [self._noted(source.counts()) for source in self._sources]
        total = QueueCounts()
        for part in await asyncio.gather(*asked):
            total += part or QueueCounts()
        return total

    async def shape(self) -> Shape:
        """Count what waits by destination, age and sender."""
        asked = [self._noted(source.shape()) for source in self._sources]
        total = Shape()
        for part in await asyncio.gather(*asked):
            total = total + part if part and total.hops else part or total
        return total

    async def hop_now(self, hop: str) -> list[HopNow]:
        """Return how each live worker gets on with a destination."""
        found = [await self._noted(source.hop_now(hop)) for source in self._sources]
        return [each for each in found if each is not None]

    async def _each(self, parts: Sequence[AsyncIterator[T]]) -> AsyncIterator[T]:
        for part in parts:
            async for each in self._noting(part):
                yield each

    async def _noting(self, part: AsyncIterator[T]) -> AsyncIterator[T]:
        try:
            async for each in part:
                yield each
        except _TROUBLE as error:
            self.problems.append(str(error))

    async def _noted(self, work: Awaitable[T]) -> T | None:
        try:
            return await work
        except _TROUBLE as error:
            self.problems.append(str(error))
            return None


def _told(error: Exception) -> str:
    """Say what went wrong, without the name of a file that is told anyway."""
    return getattr(error, "strerror", "") or str(error)
