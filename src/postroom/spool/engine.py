"""The embedded spool: one shard as a SQLite database and a directory of body files.

``Shard`` lives on the loop thread and keeps the leases; it prepares changes for the
writer thread and questions for the reader thread, and never touches a file itself.
On failure of the disk nothing is acknowledged: callers get ``SpoolError``, or
``SpoolFull`` where space is what is missing.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import apsw

from postroom.mail.ids import QueueId, from_number, to_number
from postroom.mail.now import Now
from postroom.observe.events import AnyEvent, MessageShunted, SpoolFailed
from postroom.spool import claims, rests, rows
from postroom.spool.acts import Expand, Shunt
from postroom.spool.bodies import FileBodyWriter
from postroom.spool.changes import Act, Change
from postroom.spool.claims import Broken, Found, Wanted
from postroom.spool.files import Seam
from postroom.spool.in_hand import InHand
from postroom.spool.leases import LeaseBook, Watch
from postroom.spool.opening import Opened, Wish, open_files
from postroom.spool.operated import Operated
from postroom.spool.orders import Means
from postroom.spool.reader import Reader
from postroom.spool.rests import EndRests, SetRest
from postroom.spool.settings import SpoolSettings
from postroom.spool.spool import (
    DueHop,
    Lease,
    NewMessage,
    NewRecipient,
    Patience,
    RecipientState,
    Rest,
    Settle,
    SpoolError,
    SpoolFull,
)
from postroom.spool.writer import Writer

_Found = TypeVar("_Found")
Emit = Callable[[AnyEvent], None]
CHILDREN_MAX = 1_000
_SYSTEM = Seam()
_READY = RecipientState.READY
_EXPANDING = RecipientState.EXPANDING

_SAME_REST_US = 1_000_000
"""Two clocks tell the end of a rest; if they nearly agree, it is the same."""
_CLAIM_ROUNDS_MAX = 5
"""How often a claim looks again because what it found had changed meanwhile."""


async def open_shard(
    directory: str,
    shard: int,
    settings: SpoolSettings,
    *,
    generation: int = 0,
    clock: Callable[[], Now],
    emit: Emit | None = None,
    seam: Seam = _SYSTEM,
) -> "Shard":
    """Open shard number ``shard`` below ``directory``, made if it does not exist.

    ``generation`` is the least fence; it grows by itself with each opening.

    Raises:
        SpoolError: it cannot be opened; the text says why. ``SpoolLocked`` names the
            process that holds it.
    """
    now = clock()
    wish = Wish(directory, shard, settings, generation, now.utc_us, seam)
    loop = asyncio.get_running_loop()
    opened = await loop.run_in_executor(None, open_files, wish)
    return Shard(shard, opened, settings, clock, emit or _ignore)


class Shard(Operated):
    """One shard, held by this process; see ``spool.Spool`` for its methods.

    ``last_number`` is the largest queue id number ever given out here.
    """

    def __init__(
        self,
        shard: int,
        opened: Opened,
        settings: SpoolSettings,
        clock: Callable[[], Now],
        emit: Emit,
    ) -> None:
        book = LeaseBook(opened.database.generation)
        super().__init__(
            Means(book, self._ask, self._do, opened.bodies, clock),
            shard,
            opened.database.path,
        )
        self._opened = opened
        self._settings = settings
        self._clock = clock
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._space = opened.space
        self._suspects = opened.suspects
        if opened.suspects:
            opened.in_hand.on_left = self._left_hand
        self._book = book
        self._writer = Writer(
            opened.database, opened.bodies, opened.space, settings, self._failed
        )
        self._reader = Reader(opened.database, opened.space)
        self._place: tuple[str, int] | None = None
        self._rests = opened.rests
        self._elder_after = rests.FIRST
        self._closed = False
        self.last_number = self._writer.counts["last_number"]
        self._tell_shunted(opened.shunted)

    @property
    def fence(self) -> int:
        """The fence of all leases given out; grows when the shard changes hands."""
        return self._book.fence

    @property
    def in_hand(self) -> InHand:
        """Where the worker notes what it is attempting, for the case of a crash."""
        return self._opened.in_hand

    @property
    def body_memory_octets_max(self) -> int:
        """Bodies up to this size are kept in the row; larger ones want a writer."""
        return self._settings.body_memory_octets_max

    def body_writer(self, queue_id: QueueId) -> FileBodyWriter:
        """Begin a large body."""
        return FileBodyWriter(self._opened.bodies, self._space, queue_id)

    def check_space(self, octets: int) -> bool:
        """Whether about ``octets`` more may be taken: a cached answer, no disk work."""
        needs_file = octets > self._settings.body_memory_octets_max
        return self._space.has(octets, int(needs_file))

    def expect(self, messages: int) -> None:
        """Take the hint that so many more (or fewer) messages are on their way."""
        self._writer.expect(messages)

    @property
    def is_receiving(self) -> bool:
        """Whether new messages are on their way just now."""
        return self._writer.is_expecting

    async def accept(
        self, message: NewMessage, *, claim: bool = False
    ) -> Sequence[Lease]:
        """Make a message durable; returns after the commit. See ``Spool.accept``."""
        new = rows.message_rows(message)
        if not self._space.has(new.octets):
            raise SpoolFull("the reserve of the queue's disk is reached")
        self._space.took(new.octets)
        number: int = new.message[0]  # type: ignore[assignment]
        leases: list[Lease] = []
        if claim:
            leases = rows.new_leases(message, self._book.fence, self._clock().utc_us)
            for lease in leases:
                self._book.take(number, lease)
        change = Change(self._loop.create_future(), new=[new])
        if not leases:
            await self._change(change)
            return leases
        try:
            await self._change(change)
        except BaseException:
            # Refused, or nobody waits any more: then the schedule will find it.
            for lease in leases:
                self._book.release(number, lease)
            raise
        return leases

    async def claim(
        self, hop: str, lane: int | None, count: int, now: Now
    ) -> Sequence[Lease]:
        """Lease what is due for a hop. See ``Spool.claim``."""
        leases: list[Lease] = []
        for _ in range(_CLAIM_ROUNDS_MAX):
            found, admitted = await self._claim(hop, lane, count - len(leases), now)
            leases += admitted
            # The schedule takes fewer than it asked for as the end of the lane. Where
            # some that were found had changed meanwhile, there may be more behind.
            if len(admitted) == found or len(leases) == count:
                break
        return leases

    async def _claim(
        self, hop: str, lane: int | None, count: int, now: Now
    ) -> tuple[int, list[Lease]]:
        """Return how many leases were found, and those of them that could be given."""
        book, settings = self._book, self._settings
        wanted = Wanted(
            hop=hop,
            lane=lane,
            count=count,
            now_us=now.utc_us,
            leased=book.held_at(hop, lane),
            fence=book.fence,
            recipients_max=settings.recipients_per_lease_max,
            octets_max=settings.claim_octets_max,
        )
        find = partial(claims.claim, wanted=wanted, bodies=self._opened.bodies)
        watch = book.watch()
        try:
            found = await self._ask(partial(find, watch=watch))
            leases = self._admitted(found, watch)
        finally:
            book.end_watch(watch)
        return len(found.leases), leases

    def _admitted(self, found: Found, watch: Watch) -> list[Lease]:
        """Take those leases that may still be given; put aside what is unreadable."""
        if found.broken:
            self._shunt(found.broken)
        return [
            lease
            for lease in found.leases
            if self._book.admit(to_number(lease.queue_id), lease, watch)
        ]

    async def settle(
        self,
        lease: Lease,
        settled: Sequence[Settle],
        new: Sequence[NewMessage] = (),
    ) -> None:
        """Give back a lease with results. See ``Spool.settle``."""
        number = to_number(lease.queue_id)
        change = self._settling(number, lease, settled)
        if new:
            change.new = [rows.message_rows(message) for message in new]
            change.frees = False
        self._book.begin_settle(number, lease)
        if not (change.gone or change.later or change.warned or change.new):
            self._book.end_settle(number, lease)
            self._book.release(number, lease)
            return
        change.done = partial(self._settled, number, lease)
        await self._change(change)

    async def expand(
        self,
        lease: Lease,
        number: int,
        children: Sequence[NewRecipient],
        cursor: int | None,
        new: Sequence[NewMessage] = (),
    ) -> int:
        """Add children of an EXPANDING recipient. See ``Spool.expand``."""
        assert len(children) <= CHILDREN_MAX
        message = to_number(lease.queue_id)
        act = Expand(message, number, tuple(children), cursor)
        added = [rows.message_rows(each) for each in new]
        self._book.begin_settle(message, lease)
        ended = cursor is None
        count: int = await self._change(
            Change(
                self._loop.create_future(),
                new=added,
                message=message,
                act=act,
                done=partial(self._settled, message, lease, ended=ended),
                frees=True,
            )
        )
        return count

    async def due_hops(self, now: Now, limit: int) -> Sequence[DueHop]:
        """Return hops with something due. See ``Spool.due_hops``.

        Each call goes on behind the last hop of the one before, round and round, so
        that every hop gets its turn however many there are.
        """
        found = await self._places(self._place, now.utc_us, limit)
        if not found and self._place is not None:
            self._place = None
            found = await self._places(None, now.utc_us, limit)
        full = len(found) >= limit
        self._place = (found[-1].hop, found[-1].lane) if full else None
        due = [place for place in found if place.due_us <= now.utc_us]
        return sorted(due, key=lambda place: place.due_us)

    async def next_due_us(self) -> int | None:
        """When the next recipient that is not leased falls due; None if none waits."""
        find = partial(
            claims.next_due_us, leased=self._leased_places(), held=self._book.held
        )
        return await self._ask(find)

    @property
    def has_rests(self) -> bool:
        """Whether some hop rests, or did and has not been heard of since."""
        return bool(self._rests)

    def rest_of(self, hop: str) -> Rest | None:
        """Return a hop's rest, which may be over by now; None if it has none."""
        return self._rests.get(hop)

    async def rest(self, hop: str, rest: Rest) -> None:
        """Leave a hop alone for a while. See ``Spool.rest``."""
        known = self._rests.get(hop)
        if known and abs(known.until_us - rest.until_us) < _SAME_REST_US:
            return
        await self._do(SetRest(hop, rest))
        self._rests[hop] = rest

    async def end_rests(self, hops: Sequence[str] | None = None) -> None:
        """Let hops be found due again; without ``hops`` all of them."""
        ended = list(self._rests) if hops is None else hops
        ended = [hop for hop in ended if self._rests.pop(hop, None)]
        if ended:
            await self._do(EndRests(None if hops is None else tuple(ended)))

    async def claim_elders(
        self, patience: Patience, now: Now
    ) -> Sequence[Lease] | None:
        """Lease what is too old to wait with its hop. See ``Spool.claim_elders``."""
        if not self._rests:
            return None
        search = self._search(now, patience)
        watch = self._book.watch()
        try:
            find = partial(rests.elders, search=search, bodies=self._opened.bodies)
            page = await self._ask(partial(find, watch=watch))
            leases = self._admitted(page.found, watch)
        finally:
            self._book.end_watch(watch)
        over = page.next_after is None
        self._elder_after = rests.FIRST if page.next_after is None else page.next_after
        return None if over else leases

    async def claim_messages(
        self, queue_ids: Sequence[QueueId], now: Now
    ) -> Sequence[Lease]:
        """Lease recipients of some messages that wait for resting hops."""
        numbers = [to_number(queue_id) for queue_id in queue_ids]
        search = self._search(now, Patience(0, 0, 0))
        watch = self._book.watch()
        try:
            find = partial(rests.of_messages, numbers=numbers, search=search)
            bodies = self._opened.bodies
            found = await self._ask(partial(find, watch=watch, bodies=bodies))
            return self._admitted(found, watch)
        finally:
            self._book.end_watch(watch)

    def _search(self, now: Now, patience: Patience) -> rests.Search:
        return rests.Search(
            fence=self._book.fence,
            recipients_max=self._settings.recipients_per_lease_max,
            octets_max=self._settings.claim_octets_max,
            after=self._elder_after,
            now_us=now.utc_us,
            patience=patience,
        )

    async def counts(self) -> dict[str, int]:
        """Return ``messages``, ``recipients``, ``octets`` and counts per state.

        ``active`` is how many messages are leased.
        """
        counts = dict(self._writer.counts)
        del counts["last_number"]
        counts["active"] = len(self._book)
        return counts

    async def aclose(self) -> None:
        """Finish what is pending, then let go of the shard."""
        if self._closed:
            return
        self._closed = True
        await self._reader.aclose()
        await self._writer.aclose()
        await self._loop.run_in_executor(None, self._close_files)

    def _close_files(self) -> None:
        opened = self._opened
        opened.bodies.threads.shutdown()
        try:
            opened.database.close(clean=not self._writer.broken)
        except apsw.Error as error:
            raise SpoolError(f"closing the queue: {error}") from error
        finally:
            opened.in_hand.close()
            opened.lock.release()

    async def _change(self, change: Change) -> Any:
        if self._closed:
            raise SpoolError("this shard is closed")
        self._writer.submit(change)
        return await change.future

    async def _ask(self, ask: Callable[[apsw.Connection], _Found]) -> _Found:
        if self._closed:
            raise SpoolError("this shard is closed")
        return await self._reader.ask(ask)

    def _settling(self, number: int, lease: Lease, settled: Sequence[Settle]) -> Change:
        """Turn results into what the writer has to do."""
        expanding = lease.route is None
        before = _EXPANDING if expanding else _READY
        change = Change(
            self._loop.create_future(),
            message=number,
            gone=[(number, each.number) for each in settled if each.due_us is None],
            gone_state=before,
            frees=True,
        )
        if len(change.gone) == len(settled):
            return change
        last_us = self._clock().utc_us
        for each in settled:
            if each.due_us is None:
                continue
            state = each.state
            if expanding and state is _READY and each.route is None:
                state = _EXPANDING
            change.later.append(rows.later_row(number, each, state, last_us))
            change.moved.append((before, state))
            change.warned = change.warned or each.warned
        return change

    def _settled(
        self, number: int, lease: Lease, committed: bool, *, ended: bool = True
    ) -> None:
        """On the loop thread, once the writer is done with a lease."""
        self._book.end_settle(number, lease)
        if committed and ended:
            self._book.release(number, lease)

    def _left_hand(self, queue_id: QueueId) -> None:
        """A message was in hand and its worker lives: it is no suspect any more."""
        number = to_number(queue_id)
        if number in self._suspects and not self._closed:
            self._suspects.discard(number)
            future = self._loop.create_future()
            future.add_done_callback(_seen)
            change = Change(future, message=number, survived=True, frees=True)
            self._writer.submit(change)

    async def _places(
        self, after: tuple[str, int] | None, now_us: int, limit: int
    ) -> list[DueHop]:
        """Return places with something due that is not leased."""
        return await self._ask(
            partial(
                claims.free_places,
                after=after,
                now_us=now_us,
                limit=limit,
                leased=self._leased_places(),
                held=self._book.held,
            )
        )

    def _leased_places(self) -> dict[tuple[str, int], int]:
        return {(hop, lane): count for hop, lane, count in self._book.places()}

    async def _do(self, act: Act, new: Sequence[NewMessage] = ()) -> Any:
        added = [rows.message_rows(message) for message in new]
        future = self._loop.create_future()
        return await self._change(Change(future, new=added, act=act, frees=not added))

    def _shunt(self, broken: Sequence[Broken]) -> None:
        """Put aside what a claim could not read; nobody waits for it."""
        future = self._loop.create_future()
        future.add_done_callback(_seen)
        self._writer.submit(Change(future, act=Shunt(tuple(broken)), frees=True))
        self._tell_shunted(broken)

    def _tell_shunted(self, broken: Sequence[Broken]) -> None:
        for each in broken:
            queue_id = str(from_number(each.message))
            self._emit(MessageShunted(self._clock().utc_us, queue_id, each.reason))

    def _failed(self, error: str) -> None:
        self._emit(SpoolFailed(self._clock().utc_us, self._shard, error))


def _ignore(_event: AnyEvent) -> None:
    """Take an event for which nobody asked."""


def _seen(future: asyncio.Future[Any]) -> None:
    """Look at a result nobody waits for; a failure has been reported already."""
    if not future.cancelled():
        future.exception()
