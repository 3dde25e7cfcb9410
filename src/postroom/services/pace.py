"""How fast a worker takes mail out of the queue, so that what it serves is not delayed.

A backlog could keep the loop busy without end: then a client waits for a reply as long
as hundreds of deliveries take their turns. Two rules prevent that. Nothing is claimed
while a turn of the loop takes long. And while new mail is being received, or an
operator has the whole queue counted, and a fourth of the claims bring mail of over five
seconds, claims are made in small steps: that mail has waited and can wait, the client
holds a connection open. It is not slowed down where the worker has time for both, and
mail that is only passing through the queue never is.
Nothing stops the steps altogether; every other one belongs to mail that came just now
(``Scheduler.due``).
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from postroom.mail.now import SECOND_US
from postroom.net.clock import processor_wanted_us
from postroom.spool.spool import Lease

TURN_S_MAX = 0.01
"""While a turn of the loop takes longer, nothing is claimed but in small steps."""
STEP_CLAIMS = 2
STEP_S = 0.08
"""A small step is so many claims in so much time."""
RECEIVING_S = 0.2
"""So long after a message was on its way more are expected."""
BUSY_SHARE = 0.3
"""A worker that wants a processor for less of the time has time for old mail, too.
It is measured while old mail goes in small steps, so it is new mail that counts."""
_LOOK_S = 0.1
_OLD_US = 5 * SECOND_US
_WEIGHT = 0.02
_OLD_SHARE = 0.25


class Awaited(Protocol):
    """Whether somebody waits; the spool."""

    @property
    def is_receiving(self) -> bool:
        """Whether new mail is on its way."""

    @property
    def is_counting(self) -> bool:
        """Whether an operator has the whole queue counted."""


class Pace:
    """The pace of one dispatcher's claims.

    Args:
        awaited: tells whether somebody waits for the queue just now.
        time_s: the loop's clock; tests have one of their own.
        wanted_us: tells how long the loop has run or waited for a processor so far.
    """

    def __init__(
        self,
        awaited: Awaited,
        time_s: Callable[[], float] | None = None,
        wanted_us: Callable[[], int] = processor_wanted_us,
    ) -> None:
        self._awaited = awaited
        self._loop = asyncio.get_running_loop()
        self._time_s = time_s or self._loop.time
        self._wanted_us = wanted_us
        self._looked_s, self._looked_us = self._time_s(), wanted_us()
        self._is_busy = True
        self._turn_s = 0.0
        self._is_measuring = False
        self._old_share = 0.0
        self._received_s = float("-inf")
        self._stepped_s = float("-inf")

    def claims(self) -> int | None:
        """Return how many claims may begin now, more in ``STEP_S``; None: any."""
        now_s = self._time_s()
        self._measure(now_s)
        gives_way = self._old_share > _OLD_SHARE and self._is_awaited(now_s)
        if not gives_way and self._turn_s <= TURN_S_MAX:
            return None
        if now_s - self._stepped_s < STEP_S:
            return 0
        self._stepped_s = now_s
        return STEP_CLAIMS

    def _is_awaited(self, now_s: float) -> bool:
        if self._awaited.is_counting:
            return True  # a person waits, and not for long
        if self._awaited.is_receiving:
            self._received_s = now_s
        return now_s - self._received_s < RECEIVING_S and self._is_busy_at(now_s)

    def _is_busy_at(self, now_s: float) -> bool:
        """Whether the loop was busy lately; looks at most every tenth of a second."""
        passed_s = now_s - self._looked_s
        if passed_s >= _LOOK_S:
            wanted_us = self._wanted_us()
            share = (wanted_us - self._looked_us) / (passed_s * SECOND_US)
            self._is_busy = share > BUSY_SHARE
            self._looked_s, self._looked_us = now_s, wanted_us
        return self._is_busy

    def brought(self, leases: Sequence[Lease], utc_us: int) -> None:
        """Take note of what a claim brought: whether it is old."""
        if leases:
            is_old = utc_us - leases[0].envelope.arrival_us > _OLD_US
            self._old_share += _WEIGHT * (is_old - self._old_share)

    def _measure(self, now_s: float) -> None:
        """See how long it takes until the loop has seen to all that waits now."""
        if not self._is_measuring:
            self._is_measuring = True
            self._loop.call_soon(self._measured, now_s)

    def _measured(self, since_s: float) -> None:
        self._is_measuring = False
        self._turn_s = self._time_s() - since_s
