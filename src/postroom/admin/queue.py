"""The queue as operators see it: one list, whatever the number of workers.

Each worker answers for its own shards; shards without a live worker are opened
directly. The parts come in the order of arrival, and are merged so, holding a page of
each only.
"""

import heapq
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import msgspec

from postroom.admin.control import Access, Caller, ControlError, Handler
from postroom.mail.ids import QueueId
from postroom.mail.now import Now
from postroom.observe.events import AnyEvent, MessageRemoved
from postroom.spool.spool import Entry, QueueFilter, SpoolError

T = TypeVar("T")
Emit = Callable[[AnyEvent], None]


class QueueCounts(msgspec.Struct, frozen=True):
    """What lies in one or more shards, by name as ``Spool.counts`` gives it."""

    counts: dict[str, int] = {}

    def __add__(self, other: "QueueCounts") -> "QueueCounts":
        """Return the sums."""
        names = [*self.counts, *(n for n in other.counts if n not in self.counts)]
        mine, theirs = self.counts, other.counts
        return QueueCounts({n: mine.get(n, 0) + theirs.get(n, 0) for n in names})


class Retried(msgspec.Struct, frozen=True):
    """How many messages were made due."""

    messages: int


class Removed(msgspec.Struct, frozen=True):
    """Which messages were removed."""

    queue_ids: tuple[str, ...]


class QueueView(Protocol):
    """What is needed of a shard; every ``Spool`` has it, and offline shards do."""

    @property
    def shard(self) -> int:
        """The number of this shard."""

    def entries(
        self, wanted: QueueFilter, *, page: int = 200
    ) -> AsyncIterator[Sequence[Entry]]:
        """Yield matching entries, oldest first, in short pages."""

    async def counts(self) -> dict[str, int]:
        """Return counts by name."""

    async def retry(self, wanted: QueueFilter, now: Now) -> int:
        """Make matching waiting recipients due now; returns how many messages."""

    async def release(self, wanted: QueueFilter, now: Now) -> int:
        """Let matching held and shunted recipients be tried now; returns messages."""

    async def remove(self, wanted: QueueFilter) -> Sequence[QueueId]:
        """Remove matching messages that are not being delivered; returns their ids."""


async def try_now(shard: QueueView, wanted: QueueFilter, now: Now) -> int:
    """Have matching messages tried now; returns how many.

    What is held or shunted waits for an operator who says so by that state.

    Raises:
        SpoolError: the spool cannot do it.
    """
    return await shard.retry(wanted, now)


def queue_handlers(
    shards: Sequence[QueueView],
    clock: Callable[[], Now],
    emit: Emit,
    retried: Callable[[], None],
) -> Mapping[str, Handler]:
    """Return the ``queue.*`` methods of a worker's control socket.

    Args:
        shards: what the worker holds; looked at anew for each request.
        clock: gives the present moment.
        emit: is told what is removed.
        retried: is called when messages were made due, to have them looked for.
    """
    answers = _QueueAnswers(shards, clock, emit, retried)
    return {
        "queue.shards": answers.shards,
        "queue.list": answers.list,
        "queue.show": answers.list,
        "queue.retry": answers.retry,
        "queue.remove": answers.remove,
        "queue.stat": answers.stat,
    }


class _QueueAnswers:
    def __init__(
        self,
        shards: Sequence[QueueView],
        clock: Callable[[], Now],
        emit: Emit,
        retried: Callable[[], None],
    ) -> None:
        self._shards = shards
        self._clock = clock
        self._emit = emit
        self._retried = retried

    async def shards(
        self, caller: Caller, arguments: msgspec.Raw
    ) -> AsyncIterator[int]:
        for shard in tuple(self._shards):
            yield shard.shard

    async def list(
        self, caller: Caller, arguments: msgspec.Raw
    ) -> AsyncIterator[Entry]:
        wanted = _filter(arguments)
        sources = [flatten(shard.entries(wanted)) for shard in tuple(self._shards)]
        async for entry in merge_entries(sources):
            if caller.access is Access.FULL or may_see(caller.name, entry):
                yield entry

    async def retry(
        self, caller: Caller, arguments: msgspec.Raw
    ) -> AsyncIterator[Retried]:
        wanted, now = _filter(arguments), self._clock()
        messages = 0
        for shard in tuple(self._shards):
            messages += await _spooled(try_now(shard, wanted, now))
        if messages:
            self._retried()
        yield Retried(messages)

    async def remove(
        self, caller: Caller, arguments: msgspec.Raw
    ) -> AsyncIterator[Removed]:
        wanted = _filter(arguments)
        for shard in tuple(self._shards):
            removed = await _spooled(shard.remove(wanted))
            for queue_id in removed:
                self._emit(MessageRemoved(self._clock().utc_us, queue_id, caller.name))
            if removed:
                yield Removed(tuple(removed))

    async def stat(
        self, caller: Caller, arguments: msgspec.Raw
    ) -> AsyncIterator[QueueCounts]:
        for shard in tuple(self._shards):
            yield QueueCounts(await _spooled(shard.counts()))


def may_see(user: str, entry: Entry) -> bool:
    """Whether an entry was submitted on this host by this user."""
    return entry.origin == f"local {user}"


async def flatten(pages: AsyncIterator[Sequence[Entry]]) -> AsyncIterator[Entry]:
    """Yield the entries of pages one by one."""
    async for page in pages:
        for entry in page:
            yield entry


async def merge_entries(
    sources: Sequence[AsyncIterator[Entry]],
) -> AsyncIterator[Entry]:
    """Merge sources that are each in order of arrival, holding one entry of each."""
    heads: list[tuple[int, str, int, Entry]] = []
    for number, source in enumerate(sources):
        if (entry := await anext(source, None)) is not None:
            heads.append((entry.arrival_us, entry.queue_id, number, entry))
    heapq.heapify(heads)
    while heads:
        *_, number, entry = heads[0]
        yield entry
        follower = await anext(sources[number], None)
        if follower is None:
            heapq.heappop(heads)
        else:
            key = (follower.arrival_us, follower.queue_id, number, follower)
            heapq.heapreplace(heads, key)


def _filter(arguments: msgspec.Raw) -> QueueFilter:
    try:
        return msgspec.json.decode(arguments, type=QueueFilter)
    except msgspec.MsgspecError as error:
        raise ControlError(f"malformed filter: {error}") from error


async def _spooled(work: Awaitable[T]) -> T:
    try:
        return await work
    except SpoolError as error:
        raise ControlError(f"the spool cannot do it now: {error}") from error
