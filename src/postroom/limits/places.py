"""Places that all workers share fairly: connections to one destination.

The bound holds over all workers. Whoever finds no place says in the shared map how
many it wants; a worker that holds more than its share then gives up as many, each after
the message in hand. A share is the bound divided by the workers that have a place or
want one. Where there are fewer places than workers, they take turns: a place goes on
after ``TURN`` messages.

A worker that dies needs no repair: its row of the map is zeroed.
"""

from postroom.limits.shared import SharedCounters

TURN = 20
"""Messages over a connection before it is given up, if there is less than one each."""

_ANY = 1 << 30


class Places:
    """One worker's view of the places at one destination.

    Args:
        counters: the shared map.
        name: the destination's.
        bound: how many places there are in all.

    Attributes:
        held: how many this worker has.
    """

    def __init__(self, counters: SharedCounters, name: str, bound: int) -> None:
        self._counters = counters
        self._held_key = f"out:{name}"
        self._wanted_key = f"want:{name}"
        self._bound = bound
        self._wanted = 0
        self.held = 0

    @property
    def wanted_elsewhere(self) -> int:
        """How many places other workers wait for."""
        return self._counters.count(self._wanted_key) - self._wanted

    def take(self, *, waited: bool = False) -> bool:
        """Take a place; False: there is none, or it is another's turn.

        ``waited`` says that this worker has wanted one for a while: of those who take
        turns it may be the next.
        """
        has_share = self.held >= self._share and (self.held > 0 or not waited)
        if has_share and self.wanted_elsewhere:
            return False
        if not self._counters.add(self._held_key, 1, self._bound):
            return False
        self.held += 1
        return True

    def give_back(self) -> None:
        """Give a place back."""
        self._counters.release(self._held_key)
        self.held -= 1

    def want(self, count: int) -> None:
        """Say how many places this worker waits for."""
        if count > self._wanted:
            more = count - self._wanted
            if not self._counters.add(self._wanted_key, more, _ANY):
                return  # the map is full: we wait until others have done
        elif count < self._wanted:
            self._counters.release(self._wanted_key, self._wanted - count)
        self._wanted = count

    @property
    def is_unfair(self) -> bool:
        """Whether this worker has more than its share, and another wants a place."""
        return bool(self.wanted_elsewhere) and self.held > self._share

    def is_owed(self, leaving: int, served: int) -> bool:
        """Whether one more place is to be given up for another worker.

        Args:
            leaving: how many are being given up already.
            served: messages that went over the connection in question.
        """
        free = self._bound - self._counters.count(self._held_key)
        if self.wanted_elsewhere <= free + leaving:
            return False
        share = self._share
        return self.held - leaving > share if share else served >= TURN

    @property
    def _share(self) -> int:
        others = self._counters.others(self._held_key, self._wanted_key)
        return self._bound // (1 + others)
