"""The active set: how many messages are in hand in all, and for whom there is room.

Destinations that have shown life have their own room; those that have not share
another, half of which is for those that are not known yet. So hosts that accept
connections and then hang take nothing from the living, and thousands of dead ones that
are probed again and again do not keep out one that is tried for the first time. An
eighth of the room of the living is kept free of what is sent in bulk. Pure.
"""

from postroom.limits.grades import PASSES_MAX
from postroom.schedule.destination import Destination, Standing

_BULK = len(Standing)
"""Where the living wait for room for mail of a worse grade, apart from the others."""


class ActiveSet:
    """Counts what is in hand for other hosts, and remembers who waits for room.

    Attributes:
        active: messages in hand.
    """

    def __init__(self, most: int, probing_most: int) -> None:
        self._most = most
        self._probing_most = probing_most
        self._suspects_most = max(1, probing_most // 2)
        self._kept_for_letters = most // 8
        self._bulk_share = max(1, most // (PASSES_MAX + 1))
        self.active = 0
        self._bulk = 0  # for those that have shown life
        self._standings = [0] * len(Standing)
        self._stalled: list[dict[Destination, None]] = [
            {} for _ in range(len(Standing) + 1)
        ]

    def room(self, standing: Standing, grade: int) -> int:
        """How many more there is room for, for such a destination and such mail."""
        proven, unknown, suspect = self._standings
        # What is in hand moves along with the standing, so the sum is looked at too.
        whole = self._most + self._probing_most - self.active
        if standing is Standing.PROVEN:
            room = min(self._most - proven, whole)
            if not grade:
                return room
            # Even if letters fill it for hours, bulk keeps a small share.
            share = min(room, self._bulk_share - self._bulk)
            return max(room - self._kept_for_letters, share)
        room = min(self._probing_most - unknown - suspect, whole)
        if standing is Standing.SUSPECT:
            room = min(room, self._suspects_most - suspect)
        return room

    @property
    def is_tight(self) -> bool:
        """Whether there is little room for the unknown: each is to try with one."""
        _, unknown, suspect = self._standings
        return (unknown + suspect) * 2 >= self._probing_most

    def count(self, standing: Standing, grade: int, change: int) -> None:
        """Count messages that were taken in hand, or (negative) are done."""
        self.active += change
        self._standings[standing] += change
        if grade and standing is Standing.PROVEN:
            self._bulk += change

    def move(self, destination: Destination, standing: Standing) -> None:
        """Note what is known of a destination now, and count its messages so."""
        bulk = sum(destination.in_hand[1:])
        if destination.standing is Standing.PROVEN:
            self._bulk -= bulk
        self._standings[destination.standing] -= destination.active
        destination.standing = standing
        self._standings[standing] += destination.active
        if standing is Standing.PROVEN:
            self._bulk += bulk

    def stall(self, destination: Destination, grade: int) -> None:
        """Remember one that would go on if there were room in the whole."""
        which: int = destination.standing
        if grade and which is Standing.PROVEN:
            which = _BULK
        self._stalled[which][destination] = None

    @property
    def has_stalled(self) -> bool:
        """Whether someone waits for room."""
        return any(self._stalled)

    def released(self) -> list[Destination]:
        """Return those who may go on now: as many as there is room for, in turn."""
        released: list[Destination] = []
        for standing in Standing:
            self._release(self._stalled[standing], self.room(standing, 0), released)
        room = self.room(Standing.PROVEN, 1)
        self._release(self._stalled[_BULK], room, released)
        return released

    def _release(
        self,
        stalled: dict[Destination, None],
        room: int,
        released: list[Destination],
    ) -> None:
        while stalled and room > 0:
            destination = next(iter(stalled))
            del stalled[destination]
            released.append(destination)
            room -= 1
