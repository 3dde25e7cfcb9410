"""What all loops of one worker work with."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from postroom.mail.ids import QueueIds
from postroom.mail.now import Now
from postroom.observe.events import AnyEvent, Lifecycle, SpoolFailed
from postroom.schedule.senders import Senders
from postroom.services.generation import Generation
from postroom.spool.spool import Spool, SpoolError


class Log(Protocol):
    """Where events are written; when it is full no new mail is taken."""

    @property
    def full(self) -> bool:
        """Whether too much waits to be written."""

    @property
    def overfull(self) -> bool:
        """Whether so much waits that nothing may be delivered, either."""

    async def drained(self) -> None:
        """Wait until there is room again."""


class Workshop(NamedTuple):
    """One worker's spool, clock, and the settings in force.

    ``generation`` returns the generation that new work begins with; ``lanes`` is how
    many lanes the senders of a hop are dealt into; ``senders`` tells who sends much.
    """

    spool: Spool
    ids: QueueIds
    generation: Callable[[], Generation]
    emit: Callable[[AnyEvent], None]
    log: Log
    clock: Callable[[], Now]
    zone_offset_s: Callable[[int], int]
    lanes: int
    senders: Senders

    def now_us(self) -> int:
        """Return the present moment in UTC."""
        return self.clock().utc_us

    def tell(self, what: str, *, level: str) -> None:
        """Log a sentence about this worker; ``level`` is ``warning`` or ``error``."""
        self.emit(Lifecycle(utc_us=self.now_us(), what=what, level=level))

    def tell_spool(self, error: SpoolError) -> None:
        """Log that the spool could not do something."""
        shard = self.spool.shard
        self.emit(SpoolFailed(utc_us=self.now_us(), shard=shard, error=str(error)))
