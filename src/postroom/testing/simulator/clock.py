"""Virtual time: what is to happen, in order."""

import heapq
from collections.abc import Callable

from postroom.mail.now import Now

START_UTC_US = 1_795_348_800_000_000
"""2026-11-22T12:00:00Z."""


class VirtualClock:
    """Calls what was asked for when its time has come.

    Attributes:
        us: the present moment, from the start of the simulation.
    """

    def __init__(self) -> None:
        self.us = 0
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0

    def now(self) -> Now:
        """Return the present moment as the product sees it."""
        return Now(START_UTC_US + self.us, self.us)

    def after(self, delay_us: int, act: Callable[[], None]) -> None:
        """Call ``act`` in so long; what is asked for first is called first."""
        self._count += 1
        heapq.heappush(self._events, (self.us + max(delay_us, 0), self._count, act))

    def at(self, us: int, act: Callable[[], None]) -> None:
        """Call ``act`` at a moment."""
        self.after(us - self.us, act)

    def run(self, until_us: int, is_over: Callable[[], bool] | None = None) -> None:
        """Let time pass until a moment, or until it is over."""
        events = self._events
        while events and events[0][0] <= until_us:
            if is_over is not None and is_over():
                return
            self.us, _, act = heapq.heappop(events)
            act()
        self.us = max(self.us, until_us)
