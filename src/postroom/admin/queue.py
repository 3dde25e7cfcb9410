"""The queue as operators see it: what one worker answers about its shards.

Answers are streams in short pages, whatever the length of the queue. An order that
fails in the middle says so; what it had done until then is done and was told.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from postroom.admin.control import Access, Caller, ControlError, Handler
from postroom.admin.letters import letter_parts
from postroom.admin.merging import merge_entries
from postroom.admin.requests import (
    Counted,
    GivenUp,
    HopNow,
    LetterPart,
    Letters,
    Ordered,
    QueueCounts,
    Recipients,
)
from postroom.mail.ids import QueueId, parse_queue_id
from postroom.mail.now import Now
from postroom.observe.events import AnyEvent, MessageOrdered, MessageRemoved
from postroom.spool.orders import Farewell
from postroom.spool.selection import HELD_BY, QueueFilter
from postroom.spool.shape import Shape
from postroom.spool.spool import (
    Entry,
    EntryRecipient,
    Handled,
    Order,
    Release,
    Requeue,
    Retry,
    Spool,
    SpoolError,
    TakeOut,
)

T = TypeVar("T")
Emit = Callable[[AnyEvent], None]

ENTRIES_A_PAGE = 200
RECIPIENTS_A_PAGE = 1_000


class Hands(NamedTuple):
    """What an operator's orders need of the rest of a worker.

    Attributes:
        clock: gives the present moment.
        emit: is told what was done.
        wake: is called with the hops that were made due (None for all of them), to
            end their rests and to have due mail looked for.
        farewell: makes what reports about recipients that are given up, for a shard,
            a reason, and the name of who gives them up.
        hop_now: tells how a shard gets on with a hop, from its number.
        shards_there: lists the shards that lie in the spool, held by whomever: who
            asks may not look there.
        own_uid: who the worker runs as: workers ask one another for their callers.
    """

    clock: Callable[[], Now]
    emit: Emit
    wake: Callable[[Sequence[str] | None], None]
    farewell: Callable[[int, str, str], Farewell]
    hop_now: Callable[[str], HopNow]
    shards_there: Callable[[], Sequence[int]]
    own_uid: int


def queue_handlers(shards: Sequence[Spool], hands: Hands) -> Mapping[str, Handler]:
    """Return the ``queue.*`` methods of a worker's control socket.

    ``shards`` is what the worker holds; it is looked at anew for each request.
    """
    answers = _QueueAnswers(shards, hands)
    return {
        "queue.shards": answers.shards,
        "queue.shards_there": answers.shards_there,
        "queue.list": answers.list,
        "queue.count": answers.count,
        "queue.recipients": answers.recipients,
        "queue.letters": answers.letters,
        "queue.order": answers.order,
        "queue.bounce": answers.bounce,
        "queue.stat": answers.stat,
        "queue.shape": answers.shape,
        "queue.hop": answers.hop,
    }


class _QueueAnswers:
    def __init__(self, shards: Sequence[Spool], hands: Hands) -> None:
        self._shards = shards
        self._hands = hands

    async def shards(
        self, caller: Caller, arguments: msgspec.Raw
    ) -> AsyncIterator[int]:
        for shard in tuple(self._shards):
            yield shard.shard

    async def shards_there(
        self, caller: Caller, arguments: msgspec.Raw
    ) -> AsyncIterator[int]:
        for shard in self._hands.shards_there():
            yield shard

    async def list(
        self, caller: Caller, arguments: msgspec.Raw
    ) -> AsyncIterator[Entry]:
        wanted = _read(arguments, QueueFilter)
        sources = [flatten(shard.entries(wanted)) for shard in tuple(self._shards)]
        async for entry in merge_entries(sources):
            if caller.access is Access.FULL or may_see(caller.name, entry):
                yield entry

    async def count(
        self, caller: Caller, arguments: msgspec.Raw
    ) -> AsyncIterator[Counted]:
        wanted = _read(arguments, QueueFilter)
        for shard in tuple(self._shards):
            async for part in counted(shard.entries(wanted)):
                yield part

    async def recipients(
        self, caller: Caller, arguments: msgspec.Raw
    ) -> AsyncIterator[EntryRecipient]:
        asked = _read(arguments, Recipients)
        queue_id, after = _id(asked.queue_id), asked.after
        for shard in tuple(self._shards):
            while page := await _spooled(
                shard.recipients(queue_id, after, RECIPIENTS_A_PAGE)
            ):
                for recipient in page:
                    yield recipient
                after = page[-1].number

    async def letters(
        self, caller: Caller, arguments: msgspec.Raw
    ) -> AsyncIterator[LetterPart]:
        asked = _read(arguments, Letters)
        for shard in tuple(self._shards):
            async for entry in flatten(shard.entries(asked.wanted)):
                async for part in letter_parts(shard, entry, asked):
                    yield part

    async def order(
        self, caller: Caller, arguments: msgspec.Raw
    ) -> AsyncIterator[Handled]:
        ordered = _read(arguments, Ordered)
        user = self._user(caller, ordered.by)
        order, now = ordered.order_of(user), self._hands.clock()
        for shard in tuple(self._shards):
            pages = shard.carry_out(order, ordered.wanted, now)
            async for handled in self._done(pages, order, ordered.wanted):
                for event in ordered_events(order, handled, user, now.utc_us):
                    self._hands.emit(event)
                yield handled

    async def bounce(
        self, caller: Caller, arguments: msgspec.Raw
    ) -> AsyncIterator[Handled]:
        given_up, now = _read(arguments, GivenUp), self._hands.clock()
        user = self._user(caller, given_up.by)
        for shard in tuple(self._shards):
            farewell = self._hands.farewell(shard.shard, given_up.reason, user)
            pages = shard.give_up(given_up.wanted, now, farewell)
            async for handled in self._done(pages, None, given_up.wanted):
                yield handled

    async def _done(
        self, pages: AsyncIterator[Handled], order: Order | None, wanted: QueueFilter
    ) -> AsyncIterator[Handled]:
        """Pass on what was done, and wake those who are to go on with it."""
        hops: set[str] = set()
        try:
            async for handled in _spooled_pages(pages):
                hops.update(handled.hops)
                yield handled
        finally:
            match order:
                case Retry() | Release() if wanted.is_empty:
                    self._hands.wake(None)
                case Retry() | Release():
                    self._hands.wake(sorted(hops))
                case Requeue() | None:
                    self._hands.wake(())

    async def stat(
        self, caller: Caller, arguments: msgspec.Raw
    ) -> AsyncIterator[QueueCounts]:
        for shard in tuple(self._shards):
            yield QueueCounts(await _spooled(shard.counts()))

    async def shape(
        self, caller: Caller, arguments: msgspec.Raw
    ) -> AsyncIterator[Shape]:
        for shard in tuple(self._shards):
            yield await _spooled(shard.shape(self._hands.clock()))

    async def hop(
        self, caller: Caller, arguments: msgspec.Raw
    ) -> AsyncIterator[HopNow]:
        yield self._hands.hop_now(_read(arguments, str))

    def _user(self, caller: Caller, by: str) -> str:
        """Who gives an order: another worker speaks for its own caller."""
        return by if by and caller.uid == self._hands.own_uid else caller.name


def ordered_events(
    order: Order, handled: Handled, user: str, utc_us: int
) -> list[AnyEvent]:
    """Return what is to be told of messages with which something was done."""
    match order:
        case TakeOut():
            return [
                MessageRemoved(utc_us, QueueId(queue_id), user)
                for queue_id in handled.queue_ids
            ]
        case _:
            act = type(order).__name__.lower()
            reason = getattr(order, "text", "").removeprefix(f"{HELD_BY}{user}")
            reason = reason.removeprefix(": ")
            return [
                MessageOrdered(utc_us, QueueId(queue_id), act, user, reason)
                for queue_id in handled.queue_ids
            ]


def may_see(user: str, entry: Entry) -> bool:
    """Whether an entry was submitted on this host by this user."""
    return entry.origin == f"local {user}"


async def counted(pages: AsyncIterator[Sequence[Entry]]) -> AsyncIterator[Counted]:
    """Count entries, page by page.

    Raises:
        ControlError: the spool cannot be read.
    """
    async for page in _spooled_pages(pages):
        if page:
            yield Counted(
                len(page),
                sum(entry.recipients_count for entry in page),
                sum(entry.size_octets for entry in page),
            )


async def flatten(pages: AsyncIterator[Sequence[Entry]]) -> AsyncIterator[Entry]:
    """Yield the entries of pages one by one."""
    async for page in pages:
        for entry in page:
            yield entry


def _read(arguments: msgspec.Raw, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(arguments, type=kind)
    except msgspec.MsgspecError as error:
        name = "filter" if kind is QueueFilter else "request"
        raise ControlError(f"malformed {name}: {error}") from error


def _id(text: str) -> QueueId:
    try:
        return parse_queue_id(text)
    except ValueError as error:
        raise ControlError(str(error)) from error


async def _spooled(work: Awaitable[T]) -> T:
    try:
        return await work
    except SpoolError as error:
        raise ControlError(f"the spool cannot do it now: {error}") from error


async def _spooled_pages(pages: AsyncIterator[T]) -> AsyncIterator[T]:
    try:
        async for page in pages:
            yield page
    except SpoolError as error:
        raise ControlError(f"the spool cannot do it now: {error}") from error
