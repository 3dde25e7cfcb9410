"""The active set: how many messages are in hand in all, and for whom there is room.

Three quarters of it are reserved: half for destinations that have shown life, and of
the other half again half for those that are not known yet. So hosts that accept
connections and then hang cannot fill it, and thousands of dead ones that are probed
again and again do not keep out one that is tried for the first time. An eighth is
kept free of what is sent in bulk. Pure.
"""

from postroom.limits.grades import PASSES_MAX
from postroom.schedule.destination import Destination, Standing

_BULK = len(Standing)
"""Who waits for room for mail of a worse grade, waits apart from the others."""


class ActiveSet:
    """Counts what is in hand for other hosts, and remembers who waits for room.

    Attributes:
        active: messages in hand.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._half = max(1, most // 2)
        self._quarter = max(1, most // 4)
        self._kept_for_letters = most // 8
        self._bulk_share = max(1, most // (PASSES_MAX + 1))
        self.active = 0
        self._bulk = 0
        self._standings = [0] * len(Standing)
        self._stalled: list[dict[Destination, None]] = [
            {} for _ in range(len(Standing) + 1)
        ]

    def room(self, standing: Standing, grade: int) -> int:
        """How many more there is room for, for such a destination and such mail."""
        room = self._most - self.active
        if grade:
            # Even if letters fill the whole for hours, bulk keeps a small share.
            share = min(room, self._bulk_share - self._bulk)
            room = max(room - self._kept_for_letters, share)
        if standing is Standing.PROVEN:
            return room
        _, unknown, suspect = self._standings
        room = min(room, self._half - unknown - suspect)
        if standing is Standing.SUSPECT:
            room = min(room, self._quarter - suspect)
        return room

    def count(self, standing: Standing, grade: int, change: int) -> None:
        """Count messages that were taken in hand, or (negative) are done."""
        self.active += change
        self._standings[standing] += change
        if grade:
            self._bulk += change

    def move(self, destination: Destination, standing: Standing) -> None:
        """Note what is known of a destination now, and count its messages so."""
        self._standings[destination.standing] -= destination.active
        destination.standing = standing
        self._standings[standing] += destination.active

    def stall(self, destination: Destination, grade: int) -> None:
        """Remember one that would go on if there were room in the whole."""
        self._stalled[_BULK if grade else destination.standing][destination] = None

    @property
    def has_stalled(self) -> bool:
        """Whether someone waits for room."""
        return any(self._stalled)

    def released(self) -> list[Destination]:
        """Return those who may go on now: as many as there is room for, in turn."""
        released: list[Destination] = []
        for standing in Standing:
            self._release(self._stalled[standing], self.room(standing, 0), released)
        bulk_room = self.room(Standing.PROVEN, 1)
        self._release(self._stalled[_BULK], bulk_room, released)
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
