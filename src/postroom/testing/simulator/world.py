"""A mail system of several workers, its peers and its users, in virtual time."""

from collections.abc import Callable

from postroom.limits.shared import SharedCounters, map_octets, prepare_map
from postroom.mail.now import SECOND_US
from postroom.testing.simulator.clock import VirtualClock
from postroom.testing.simulator.letter import Draft
from postroom.testing.simulator.peer import Peer
from postroom.testing.simulator.record import Record
from postroom.testing.simulator.worker import Ground, Settings, SimulatedWorker

WORKERS = 2
_SLOTS = 1 << 15


class World:
    """Everything.

    Args:
        peers: by destination; one that is not named is an ordinary host.
        routes: by domain, the destination it goes to if that is not its own.
        settings: the product's.
        seed: the same seed gives the same course of things.
        sample_us: how often the lengths of the queues are noted; 0 for never.
    """

    def __init__(
        self,
        peers: dict[str, Peer] | None = None,
        *,
        routes: dict[str, str] | None = None,
        settings: Settings | None = None,
        seed: int = 1,
        workers: int = WORKERS,
        sample_us: int = 0,
    ) -> None:
        self.clock = VirtualClock()
        self.record = Record()
        self.settings = settings or Settings()
        self._sample_us = sample_us
        ground = Ground(
            self.clock, self.record, self.settings, peers or {}, routes or {}
        )
        buffer = bytearray(map_octets(workers, _SLOTS))
        prepare_map(buffer)
        self.workers = [
            SimulatedWorker(
                ground, SharedCounters(buffer, workers, row), seed * 1_000 + row
            )
            for row in range(workers)
        ]
        self._dealt = 0
        if sample_us:
            self._sample()

    def send(self, draft: Draft) -> None:
        """Let the next worker in turn take a message now."""
        worker = self.workers[self._dealt % len(self.workers)]
        self._dealt += 1
        worker.submit(draft)

    def send_at(self, us: int, draft: Draft) -> None:
        """Let a message come at a moment."""
        self.clock.at(us, lambda: self.send(draft))

    def run(self, seconds: float, is_over: Callable[[], bool] | None = None) -> None:
        """Let time pass, counted from the start, or until it is over."""
        self.clock.run(int(seconds * SECOND_US), is_over)

    @property
    def is_empty(self) -> bool:
        """Whether every letter that came has been settled."""
        return self.record.ended == len(self.record.letters)

    def _sample(self) -> None:
        self.record.sample(self.clock.us)
        self.clock.after(self._sample_us, self._sample)
