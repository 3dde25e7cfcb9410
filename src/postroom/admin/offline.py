"""Shards that no worker holds, opened by a command.

Looking needs no lock and goes on beside a running server. Each order takes the
shard's lock for as long as it lasts, so a worker that comes up meanwhile waits.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from postroom.admin.letters import letter_parts
from postroom.admin.queue import Emit, counted, flatten, ordered_events
from postroom.admin.requests import (
    Counted,
    GivenUp,
    HopNow,
    LetterPart,
    Letters,
    Ordered,
    QueueCounts,
)
from postroom.mail.ids import QueueId
from postroom.mail.message import Message
from postroom.mail.now import Now
from postroom.spool.engine import Shard, open_shard
from postroom.spool.kept import Kept
from postroom.spool.offline import ShardView
from postroom.spool.orders import Farewell
from postroom.spool.selection import QueueFilter
from postroom.spool.settings import SpoolSettings
from postroom.spool.shape import Shape
from postroom.spool.spool import (
    Entry,
    EntryRecipient,
    Handled,
    Release,
    Retry,
    SpoolError,
)

Clock = Callable[[], Now]
Farewells = Callable[[Shard, str, str], AbstractAsyncContextManager[Farewell]]
"""Lends what reports about recipients given up: for a shard, a reason, and by whom."""
RECIPIENTS_A_PAGE = 1_000


class OfflineShard:
    """One such shard; see ``whole.Source`` for the methods.

    Reads block, which is nothing to a command.

    Args:
        view: the shard, opened for looking.
        settings: to open it for changes.
        clock: gives the present moment.
        emit: is told what was done.
        farewells: writes reports; None where that cannot be.
    """

    def __init__(
        self,
        view: ShardView,
        settings: SpoolSettings,
        clock: Clock,
        emit: Emit,
        farewells: Farewells | None = None,
    ) -> None:
        self._view = view
        self._settings = settings
        self._clock = clock
        self._emit = emit
        self._farewells = farewells

    @property
    def shard(self) -> int:
        """The number of this shard."""
        return self._view.shard

    def entries(self, wanted: QueueFilter) -> AsyncIterator[Entry]:
        """Yield matching entries, oldest first."""
        return flatten(self._pages(wanted))

    def count(self, wanted: QueueFilter) -> AsyncIterator[Counted]:
        """Count matching entries; yields what each page adds."""
        return counted(self._pages(wanted))

    async def recipients(
        self, queue_id: str, after: int
    ) -> AsyncIterator[EntryRecipient]:
        """Yield the recipients of a message behind number ``after``."""
        while page := self._view.recipients(
            QueueId(queue_id), after, RECIPIENTS_A_PAGE
        ):
            for recipient in page:
                yield recipient
            after = page[-1].number

    async def letters(self, asked: Letters) -> AsyncIterator[LetterPart]:
        """Yield matching messages whole."""
        async for entry in self.entries(asked.wanted):
            async for part in letter_parts(self, entry, asked):
                yield part

    async def kept(self, queue_id: QueueId) -> Kept | None:
        """Return a message with its content."""
        return self._view.kept(queue_id)

    async def raw(self, queue_id: QueueId) -> Message | None:
        """Return what lies there of a message."""
        return self._view.raw(queue_id)

    async def carry_out(self, ordered: Ordered) -> AsyncIterator[Handled]:
        """Do what is ordered; yields what was done.

        Raises:
            SpoolError: a process holds the shard, or it cannot be written.
        """
        now = self._clock()
        order = ordered.order_of(ordered.by)
        if not self._has(ordered.wanted):
            return
        async with self._held() as held:
            async for handled in held.carry_out(order, ordered.wanted, now):
                if isinstance(order, Retry | Release) and handled.hops:
                    await held.end_rests(handled.hops)
                for event in ordered_events(order, handled, ordered.by, now.utc_us):
                    self._emit(event)
                yield handled

    async def give_up(self, given_up: GivenUp) -> AsyncIterator[Handled]:
        """Return matching recipients to their senders; yields what was done.

        Raises:
            SpoolError: a process holds the shard, or it cannot be written, or nobody
                can write reports here.
        """
        if not self._has(given_up.wanted):
            return
        if self._farewells is None:
            raise SpoolError("reports can be written by a server only: start it first")
        async with (
            self._held() as held,
            self._farewells(held, given_up.reason, given_up.by) as farewell,
        ):
            wanted, now = given_up.wanted, self._clock()
            async for handled in held.give_up(wanted, now, farewell):
                yield handled

    async def counts(self) -> QueueCounts:
        """Return counts by name."""
        return QueueCounts(self._view.counts())

    async def shape(self) -> Shape:
        """Count what waits by destination, age and sender."""
        return await asyncio.to_thread(self._view.shape, self._clock())

    async def hop_now(self, hop: str) -> HopNow | None:
        """Nobody gets on with anybody here."""
        return None

    def _has(self, wanted: QueueFilter) -> bool:
        """Whether anything matches: a shard is not locked and opened for nothing."""
        return any(self._view.entries(wanted, self._clock(), page=1))

    async def _pages(self, wanted: QueueFilter) -> AsyncIterator[Sequence[Entry]]:
        for entries in self._view.entries(wanted, self._clock()):
            yield entries

    @asynccontextmanager
    async def _held(self) -> AsyncIterator[Shard]:
        settings = self._settings
        held = await open_shard(
            settings.directory, self.shard, settings, clock=self._clock
        )
        try:
            yield held
        finally:
            await held.aclose()
