"""What operators ask of a shard and have done in it: the public side of ``Shard``.

Reads go to the reader thread, orders to ``Orders``; see ``spool.Spool`` for what the
methods promise.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial

import msgspec

from postroom.mail.ids import QueueId, to_number
from postroom.mail.message import Message
from postroom.mail.now import Now
from postroom.spool import kept, queries, rows
from postroom.spool.conditions import condition
from postroom.spool.kept import Kept
from postroom.spool.orders import Farewell, Means, Orders
from postroom.spool.selection import QueueFilter
from postroom.spool.shape import Shape, read_shape
from postroom.spool.spool import (
    Entry,
    EntryRecipient,
    Handled,
    Hold,
    Order,
    Release,
    Retry,
    SpoolError,
    TakeOut,
)


class Operated:
    """A shard as operators use it.

    Args:
        means: what of the shard is needed.
        shard: its number.
        path: where its database lies.
    """

    def __init__(self, means: Means, shard: int, path: str) -> None:
        self._means = means
        self._orders = Orders(means)
        self._shard = shard
        self._path = path
        self._counts_begun = 0

    @property
    def shard(self) -> int:
        """The number of this shard."""
        return self._shard

    async def entries(
        self, wanted: QueueFilter, *, page: int = 200
    ) -> AsyncIterator[Sequence[Entry]]:
        """Yield matching entries, oldest first, in short pages, some of them empty."""
        chosen = condition(
            wanted, self._means.clock().utc_us, self._means.book.numbers()
        )
        after: int | None = queries.FIRST
        while after is not None:
            found = await self._means.ask(
                partial(
                    queries.entries_page,
                    wanted=chosen,
                    after=after,
                    limit=page,
                    shard=self._shard,
                )
            )
            yield [self._with_active(entry) for entry in found.entries]
            after = found.next_after

    async def recipients(
        self, queue_id: QueueId, after: int, limit: int
    ) -> Sequence[EntryRecipient]:
        """Return recipients of a message after one of them, by number."""
        number = to_number(queue_id)
        page = partial(queries.recipients_page, number=number, after=after, limit=limit)
        held = self._means.book.held(number)
        return [
            msgspec.structs.replace(each, active=each.number in held)
            for each in await self._means.ask(page)
        ]

    async def kept(self, queue_id: QueueId) -> Kept | None:
        """Return a message with its content. See ``Spool.kept``."""
        number, bodies = to_number(queue_id), self._means.bodies
        try:
            read = partial(kept.read_kept, number=number, bodies=bodies)
            found: Kept | None = await self._means.ask(read)
        except rows.Unreadable as error:
            raise SpoolError(f"{queue_id} cannot be read: {error}") from error
        return found

    async def raw(self, queue_id: QueueId) -> Message | None:
        """Return what lies there of a message, readable or not."""
        number, bodies = to_number(queue_id), self._means.bodies
        read = partial(kept.read_raw, number=number, bodies=bodies)
        found: Message | None = await self._means.ask(read)
        return found

    async def shape(self, now: Now) -> Shape:
        """Count what waits by destination, age and sender. See ``Spool.shape``."""
        self._counts_begun += 1
        try:
            return await asyncio.to_thread(read_shape, self._path, now.utc_us)
        finally:
            self._counts_begun -= 1

    @property
    def is_counting(self) -> bool:
        """Whether an operator waits for a ``shape``."""
        return self._counts_begun > 0

    def carry_out(
        self, order: Order, wanted: QueueFilter, now: Now
    ) -> AsyncIterator[Handled]:
        """Do what an operator orders, page by page. See ``Spool.carry_out``."""
        return self._orders.carry_out(order, wanted, now)

    def give_up(
        self, wanted: QueueFilter, now: Now, farewell: Farewell
    ) -> AsyncIterator[Handled]:
        """Take recipients out with reports about them. See ``Spool.give_up``."""
        return self._orders.give_up(wanted, now, farewell)

    async def retry(self, wanted: QueueFilter, now: Now) -> int:
        """Make matching waiting recipients due now; returns how many messages."""
        return len(await self._all(self.carry_out(Retry(), wanted, now)))

    async def hold(self, wanted: QueueFilter, reason: str) -> int:
        """Keep matching waiting recipients from being tried; returns messages."""
        return len(
            await self._all(self.carry_out(Hold(reason), wanted, self._means.clock()))
        )

    async def release(self, wanted: QueueFilter, now: Now) -> int:
        """Let matching held and shunted recipients be tried now; returns messages."""
        return len(await self._all(self.carry_out(Release(), wanted, now)))

    async def remove(self, wanted: QueueFilter) -> Sequence[QueueId]:
        """Remove matching messages that are not being delivered; returns their ids."""
        return await self._all(self.carry_out(TakeOut(), wanted, self._means.clock()))

    async def _all(self, handled: AsyncIterator[Handled]) -> list[QueueId]:
        return [QueueId(each) async for page in handled for each in page.queue_ids]

    def _with_active(self, entry: Entry) -> Entry:
        held = self._means.book.held(to_number(QueueId(entry.queue_id)))
        if not held:
            return entry
        recipients = tuple(
            msgspec.structs.replace(each, active=each.number in held)
            for each in entry.recipients
        )
        return msgspec.structs.replace(entry, recipients=recipients)
