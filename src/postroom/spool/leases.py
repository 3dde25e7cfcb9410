"""Which recipients are leased: bookkeeping in memory, on the loop thread only.

A lease is never stored. When the process ends all its leases end with it, and the
recipients are found again by their due times.
"""

from collections.abc import Iterable

from postroom.spool.spool import Fenced, Lease

_Place = tuple[str, int]
_NONE: set[int] = set()


class LeaseBook:
    """The leases of one shard under one fence.

    A claim sees the database of a moment ago. What was given back since it began must
    not be leased on its word: ``Watch`` keeps note.
    """

    def __init__(self, fence: int) -> None:
        self.fence = fence
        self._held: dict[int, set[int]] = {}
        self._settling: dict[int, set[int]] = {}
        self._locked: set[int] = set()
        self._places: dict[_Place, int] = {}
        self._watches: list[Watch] = []

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
        for watch in self._watches:
            watch.given_back.add(number)

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
        for watch in self._watches:
            watch.given_back.update(numbers)

    def watch(self) -> "Watch":
        """Begin a claim."""
        watch = Watch(self)
        self._watches.append(watch)
        return watch

    def admit(self, number: int, lease: Lease, watch: "Watch") -> bool:
        """Take a lease found by a claim, unless things changed meanwhile."""
        free = (
            number not in watch.given_back
            and number not in self._locked
            and self.held(number).isdisjoint(lease.numbers)
        )
        if free:
            self.take(number, lease)
        return free

    def end_watch(self, watch: "Watch") -> None:
        """End a claim, once its leases are admitted."""
        self._watches = [other for other in self._watches if other is not watch]


class Watch:
    """A claim under way. ``busy`` and ``choose`` are for the reader thread."""

    def __init__(self, book: LeaseBook) -> None:
        self._book = book
        self._chosen: dict[int, set[int]] = {}
        self.given_back: set[int] = set()
        """Messages of which something was given back since the claim began."""

    def busy(self, number: int) -> set[int]:
        """Return the recipients of a message that are leased, or soon will be."""
        busy = self._book.held(number)
        for watch in self._book._watches:
            chosen = watch._chosen.get(number)
            if chosen:
                busy = busy | chosen
        return busy

    def choose(self, number: int, numbers: Iterable[int]) -> None:
        """Keep recipients from being chosen by another claim, too."""
        self._chosen.setdefault(number, set()).update(numbers)


def _place(lease: Lease) -> _Place:
    return ("" if lease.route is None else lease.route.hop, lease.lane)
