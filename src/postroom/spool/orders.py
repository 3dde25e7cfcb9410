"""What operators have done to the queue, page by page, whatever its length.

Each page looks at a bounded number of messages, keeps those that nobody delivers from
being leased, and changes them in one transaction; what is being delivered is left
alone and named. A page that fails raises ``SpoolError``: those before it are done.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, assert_never

import apsw

from postroom.mail.ids import from_number
from postroom.mail.now import Now
from postroom.spool import kept, queries
from postroom.spool.acts import Erase, Move, MoveTo, Remove, Touched
from postroom.spool.bodies import BodyDirectory
from postroom.spool.changes import Act
from postroom.spool.conditions import Condition, condition
from postroom.spool.leases import LeaseBook
from postroom.spool.rows import Unreadable
from postroom.spool.selection import QueueFilter
from postroom.spool.spool import (
    Handled,
    Hold,
    Lease,
    NewMessage,
    Order,
    Release,
    Requeue,
    Retry,
    TakeOut,
)

PAGE_MESSAGES = 500
AT_ONCE_US = 0
"""When what an operator wants tried is due: before all else that waits there, so that
it is the first that a destination is tried with after its rest."""
Ask = Callable[[Callable[[apsw.Connection], Any]], Awaitable[Any]]
"""Asks the reader thread."""
Do = Callable[[Act, Sequence[NewMessage]], Awaitable[Any]]
"""Has the writer thread apply an act, and queue messages, in one transaction."""
Farewell = Callable[[Lease, Sequence[str]], Awaitable[Sequence[NewMessage]]]
"""Makes the reports about recipients that are given up, from why they waited."""


class Means(NamedTuple):
    """What of a shard is needed to carry out orders."""

    book: LeaseBook
    ask: Ask
    do: Do
    bodies: BodyDirectory
    clock: Callable[[], Now]


class _Page(NamedTuple):
    free: list[int]
    busy: tuple[str, ...]


class Orders:
    """Carries out operators' orders in one shard."""

    def __init__(self, means: Means) -> None:
        self._means = means

    async def carry_out(
        self, order: Order, wanted: QueueFilter, now: Now
    ) -> AsyncIterator[Handled]:
        """Do what is ordered to matching messages; yields what was done, by page."""
        chosen = self._condition(wanted, now)
        async for page in self._pages(chosen):
            done = Touched()
            if page.free:
                act = _act(order, page.free, chosen, wanted, now)
                done = await self._means.do(act, ())
            ids = tuple(map(_text, done.numbers))
            yield Handled(ids, page.busy, hops=tuple(done.hops))

    async def give_up(
        self, wanted: QueueFilter, now: Now, farewell: Farewell
    ) -> AsyncIterator[Handled]:
        """Take matching recipients out of the queue, with reports about them.

        Each message with its reports is one transaction. What cannot be read is
        left alone and named in ``Handled.unreadable``.
        """
        chosen = self._condition(wanted, now)
        async for page in self._pages(chosen):
            done, unreadable = [], []
            for number in page.free:
                try:
                    if await self._give_up(number, chosen, farewell):
                        done.append(_text(number))
                except Unreadable:
                    unreadable.append(_text(number))
            yield Handled(tuple(done), page.busy, tuple(unreadable))

    async def _give_up(
        self, number: int, chosen: Condition, farewell: Farewell
    ) -> bool:
        means = self._means
        taken = await means.ask(
            partial(kept.read_taken, number=number, chosen=chosen, bodies=means.bodies)
        )
        for lease, reasons in taken:
            new = await farewell(lease, reasons)
            await means.do(Erase(number, lease.numbers), new)
        return bool(taken)

    def _condition(self, wanted: QueueFilter, now: Now) -> Condition:
        return condition(wanted, now.utc_us, self._means.book.numbers())

    async def _pages(self, chosen: Condition) -> AsyncIterator[_Page]:
        """Yield matching messages, kept from being leased meanwhile.

        Those that come after the order was given are not meant: the reports that it
        makes itself, above all.
        """
        book = self._means.book
        last = await self._means.ask(queries.last_number)
        after: int | None = queries.FIRST
        while after is not None and after < last:
            found = await self._means.ask(
                partial(
                    queries.numbers_page,
                    wanted=chosen,
                    after=after,
                    limit=PAGE_MESSAGES,
                )
            )
            after = found.next_after
            meant = [number for number in found.numbers if number <= last]
            free = book.lock(meant)
            try:
                busy = set(meant).difference(free)
                yield _Page(free, tuple(_text(n) for n in sorted(busy)))
            finally:
                book.unlock(free)


def _act(
    order: Order,
    numbers: Sequence[int],
    chosen: Condition,
    wanted: QueueFilter,
    now: Now,
) -> Act:
    named = wanted.names_waiting_states
    match order:
        case Hold(text):
            return Move(tuple(numbers), chosen, MoveTo.HELD, text=text)
        case Release():
            return Move(tuple(numbers), chosen, MoveTo.READY, AT_ONCE_US)
        case Retry():
            to = MoveTo.READY if named else MoveTo.DUE
            return Move(tuple(numbers), chosen, to, AT_ONCE_US, all_states=named)
        case Requeue():
            return Move(
                tuple(numbers), chosen, MoveTo.EXPANDING, now.utc_us, all_states=named
            )
        case TakeOut():
            return Remove(tuple(numbers))
        case _:
            assert_never(order)


def _text(number: int) -> str:
    return str(from_number(number))
