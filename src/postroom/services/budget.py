"""A bound on octets in hand: who wants more than is left waits in line."""

from asyncio import Future, get_running_loop
from collections import deque


class Budget:
    """Octets that one worker may hold at a time. First come, first served.

    A single request larger than the whole budget is let through alone, so that no
    request waits for ever.
    """

    def __init__(self, octets_max: int) -> None:
        self._octets_max = octets_max
        self._used = 0
        self._waiting: deque[tuple[int, Future[None]]] = deque()

    @property
    def used(self) -> int:
        """Octets given out at present."""
        return self._used

    def try_take(self, octets: int) -> bool:
        """Take ``octets`` if they are free and nobody waits before us."""
        if self._waiting or not self._fits(octets):
            return False
        self._used += octets
        return True

    async def take(self, octets: int) -> None:
        """Take ``octets``, waiting until they are free."""
        if self.try_take(octets):
            return
        future: Future[None] = get_running_loop().create_future()
        self._waiting.append((octets, future))
        try:
            await future
        except BaseException:
            if future.done() and not future.cancelled():
                self.give_back(octets)  # it came just as we were cancelled
            raise

    def give_back(self, octets: int) -> None:
        """Return ``octets`` and let those in line go on."""
        self._used -= octets
        assert self._used >= 0
        while self._waiting:
            wanted, future = self._waiting[0]
            if future.done():
                self._waiting.popleft()
                continue
            if not self._fits(wanted):
                return
            self._waiting.popleft()
            self._used += wanted
            future.set_result(None)

    def _fits(self, octets: int) -> bool:
        return self._used == 0 or self._used + octets <= self._octets_max
