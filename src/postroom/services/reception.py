"""What those who take mail work with, and what they talk over."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from postroom.limits.gcra import Rate
from postroom.net.demand import Demand
from postroom.net.stream import Taker
from postroom.services.accept import Acceptor
from postroom.services.budget import Budget
from postroom.services.logins import Logins
from postroom.services.workshop import Workshop
from postroom.spool.selection import QueueFilter


class Conversation(Protocol):
    """What a session talks over: a stream, or ``sendmail -bs``."""

    async def read(self) -> bytes:
        """Return the next octets, ``b""`` at the end; raises ``StreamError``."""

    async def feed(self, taker: Taker) -> None:
        """Give the taker what comes, as it comes, until it says False; as ``read``."""

    def write(self, data: bytes) -> None:
        """Send octets."""

    @property
    def is_congested(self) -> bool:
        """Whether ``drain`` has to be awaited before more is sent."""

    async def drain(self) -> None:
        """Wait until the peer has taken enough of what was sent."""

    def allow(self, wait_us: int) -> None:
        """Say how long ``read`` and ``drain`` may wait from now on."""

    async def pause(self, wait_us: int, *, until_octets: bool = False) -> bool:
        """Let the peer wait; whether it has sent something meanwhile.

        With ``until_octets`` that ends the pause.
        """

    def end_at(self, mono_us: int) -> None:
        """Set when the session is over, whatever the peer does until then."""

    def demand(self, demand: Demand | None) -> None:
        """Set how fast the peer has to send while it is waited for."""

    async def aclose(self) -> None:
        """Send what is left and close."""


class Counters(Protocol):
    """Counts that all workers share."""

    def add(self, key: str, amount: int, bound: int) -> bool:
        """Add, unless the sum over all workers would go over ``bound``."""

    def release(self, key: str, amount: int) -> None:
        """Take back what was added."""

    def hit(self, key: str, rate: Rate, mono_us: int) -> int:
        """Count an event; returns 0, or in how many microseconds it may come."""


class Tools(NamedTuple):
    """What every session of this worker works with.

    ``flush`` has what waits, and is chosen, tried now in all workers; it returns how
    many messages those are.
    """

    shop: Workshop
    acceptor: Acceptor
    budget: Budget
    counters: Counters
    logins: Logins | None = None
    flush: Callable[[QueueFilter], Awaitable[int]] | None = None
