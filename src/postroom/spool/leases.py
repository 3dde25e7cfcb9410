"""Which recipients are leased: bookkeeping in memory, on the loop thread only.

A lease is never stored. When the process ends all its leases end with it, and the
recipients are found again by their due times.
"""

from collections.abc import Iterable
from itertools import islice

from postroom.spool.spool import Fenced, Lease

_Place = tuple[str, int]
_NONE: set[int] = set()
_FORGOTTEN_AT_ONCE = 256
"""Each claim that ends forgets so many at most, so that none takes long."""


class LeaseBook:
    """The leases of one shard under one fence.

    A claim sees the database of a moment ago. What was given back since it began must
    not be leased on its word. Hundreds of claims may be under way, so what is given
    back is noted once for all of them, with its turn; a ``Watch`` knows when it began.
    """

    def __init__(self, fence: int) -> None:
        self.fence = fence
        self._held: dict[int, set[int]] = {}
        self._settling: dict[int, set[int]] = {}
        self._locked: set[int] = set()
        self._places: dict[_Place, int] = {}
        self._turn = 0
        self._watches: dict[Watch, None] = {}  # in the order they began
        self._given_back: dict[int, int] = {}  # message: last turn; oldest first
        self._choosers: dict[int, set[Watch]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def take(self, number: int, lease: Lease) -> None:
        """Note a lease of recipients that are free."""
        held = self._held.get(number)
        if held is None:
            self._held[number] = set(lease.numbers)
        else:
            held.update(lease.numbers)
        place = _place(lease)
        self._places[place] = self._places.get(place, 0) + len(lease.numbers)

    def begin_settle(self, number: int, lease: Lease) -> None:
        """Hand a lease over to the writer.

        Raises:
            Fenced: it is stale, given back already, or in the writer's hands.
        """
        held = self._held.get(number)
        if (
            lease.fence != self.fence
            or held is None
            or not held.issuperset(lease.numbers)
        ):
            raise Fenced(f"the lease of {lease.queue_id} is no longer in force")
        settling = self._settling.get(number)
        if settling is None:
            self._settling[number] = set(lease.numbers)
        elif settling.isdisjoint(lease.numbers):
            settling.update(lease.numbers)
        else:
            raise Fenced(f"the lease of {lease.queue_id} is being settled already")

    def end_settle(self, number: int, lease: Lease) -> None:
        """Take a lease back from the writer; it stays in force."""
        settling = self._settling[number]
        settling.difference_update(lease.numbers)
        if not settling:
            del self._settling[number]

    def release(self, number: int, lease: Lease) -> None:
        """End a lease."""
        held = self._held[number]
        held.difference_update(lease.numbers)
        if not held:
            del self._held[number]
        place = _place(lease)
        left = self._places[place] - len(lease.numbers)
        if left:
            self._places[place] = left
        else:
            del self._places[place]
        self._give_back(number)

    def held(self, number: int) -> set[int]:
        """Return the numbers of a message's leased recipients; not to be changed.

        The reader thread may ask, too, and must take the answer as a hint.
        """
        return self._held.get(number, _NONE)

    def held_at(self, hop: str, lane: int | None) -> int:
        """Return how many recipients of a hop (and lane) are leased."""
        if lane is not None:
            return self._places.get((hop, lane), 0)
        return sum(n for place, n in self._places.items() if place[0] == hop)

    def numbers(self) -> list[int]:
        """Return the messages that have a leased recipient."""
        return list(self._held)

    def places(self) -> list[tuple[str, int, int]]:
        """Return hop, lane and number of leased recipients, for each that has any."""
        return [(hop, lane, n) for (hop, lane), n in self._places.items()]

    def lock(self, numbers: Iterable[int]) -> list[int]:
        """Keep messages without leases from being leased; returns which."""
        free = [n for n in numbers if n not in self._held and n not in self._locked]
        self._locked.update(free)
        return free

    def unlock(self, numbers: Iterable[int]) -> None:
        """End ``lock``."""
        self._locked.difference_update(numbers)
        for number in numbers:
            self._give_back(number)

    def watch(self) -> "Watch":
        """Begin a claim."""
        watch = Watch(self, self._turn)
        self._watches[watch] = None
        return watch

    def admit(self, number: int, lease: Lease, watch: "Watch") -> bool:
        """Take a lease found by a claim, unless things changed meanwhile."""
        free = (
            self._given_back.get(number, -1) < watch.began
            and number not in self._locked
            and self.held(number).isdisjoint(lease.numbers)
        )
        if free:
            self.take(number, lease)
        return free

    def end_watch(self, watch: "Watch") -> None:
        """End a claim, once its leases are admitted."""
        del self._watches[watch]
        watch.is_over = True
        for number in watch.messages:
            choosers = self._choosers.get(number)
            if choosers is not None:
                choosers.discard(watch)
                if not choosers:
                    del self._choosers[number]
        self._forget_given_back()

    def busy(self, number: int) -> set[int]:
        """Return the recipients of a message that are leased, or soon will be.

        For the reader thread, and as a hint only.
        """
        busy = self.held(number)
        for watch in tuple(self._choosers.get(number, ())):
            # One that was called off goes on choosing for a moment: no matter.
            if not watch.is_over:
                busy = busy | watch.chosen(number)
        return busy

    def choose(self, number: int, watch: "Watch") -> None:
        """Note that a claim is going to lease some of a message; a hint, too."""
        self._choosers.setdefault(number, set()).add(watch)

    def _give_back(self, number: int) -> None:
        if self._watches:
            self._given_back.pop(number, None)  # to the end: it is the newest
            self._given_back[number] = self._turn
            self._turn += 1

    def _forget_given_back(self) -> None:
        """Forget what was given back before the oldest claim under way began."""
        oldest = next(iter(self._watches), None)
        if oldest is None:
            self._given_back.clear()
            return
        for number, turn in list(islice(self._given_back.items(), _FORGOTTEN_AT_ONCE)):
            if turn >= oldest.began:
                return
            del self._given_back[number]


class Watch:
    """A claim under way. ``busy``, ``choose`` and ``chosen`` are for the reader thread.

    Attributes:
        began: the turn of the first that can be given back after its beginning.
        is_over: the claim has ended; what it chose does not count any more.
    """

    def __init__(self, book: LeaseBook, began: int) -> None:
        self._book = book
        self._chosen: dict[int, set[int]] = {}
        self.began = began
        self.is_over = False

    @property
    def messages(self) -> list[int]:
        """The messages that it chose recipients of."""
        return list(self._chosen)

    def busy(self, number: int) -> set[int]:
        """Return the recipients of a message that are leased, or soon will be."""
        return self._book.busy(number)

    def chosen(self, number: int) -> set[int]:
        """Return what it chose of a message; not to be changed."""
        return self._chosen.get(number, _NONE)

    def choose(self, number: int, numbers: Iterable[int]) -> None:
        """Keep recipients from being chosen by another claim, too."""
        self._chosen.setdefault(number, set()).update(numbers)
        self._book.choose(number, self)


def _place(lease: Lease) -> _Place:
    return ("" if lease.route is None else lease.route.hop, lease.lane)
