"""Keeps failed recipients back for a moment, so that one report tells of several.

The recipients of one message fail one after another, each at its own host. Their leases
wait here, in memory, until the time is over; then one report is written about all, and
they are settled. A crash in between repeats their attempts: they failed, so nobody gets
anything twice. Leases of which something was delivered are never kept.
"""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from postroom.mail.ids import QueueId
from postroom.mail.now import SECOND_US
from postroom.mail.outcome import Delivered, Outcome
from postroom.services.settle import Happened
from postroom.spool.spool import Lease, Settle

MESSAGES_MAX = 1_000
"""Messages kept back at a time; more are reported on at once."""


class Kept(NamedTuple):
    """A lease that waits, with what is to become of it."""

    lease: Lease
    settled: Sequence[Settle]
    happened: Happened


class Gatherer:
    """What is kept back.

    Args:
        wait_us: for how long; 0: nothing is.
    """

    def __init__(self, wait_us: int) -> None:
        self._wait_us = wait_us
        self._kept: dict[QueueId, list[Kept]] = {}
        self._hurry = asyncio.Event()

    def takes(self, outcomes: Sequence[Outcome], happened: Happened) -> bool:
        """Whether a lease with these outcomes should wait."""
        if not (happened and self._wait_us) or self._hurry.is_set():
            return False
        if len(self._kept) >= MESSAGES_MAX:
            return False
        return not any(isinstance(outcome, Delivered) for outcome in outcomes)

    def add(self, kept: Kept) -> bool:
        """Keep a lease; whoever is told True has to ``wait`` for its message."""
        queue_id = kept.lease.queue_id
        is_first = queue_id not in self._kept
        self._kept.setdefault(queue_id, []).append(kept)
        return is_first

    async def wait(self, queue_id: QueueId) -> tuple[list[Kept], Happened]:
        """Wait until the time is over; returns all that came, and all to report."""
        try:
            async with asyncio.timeout(self._wait_us / SECOND_US):
                await self._hurry.wait()
        except TimeoutError:
            pass
        kept = self._kept.pop(queue_id)
        together: Happened = {}
        for one in kept:
            for kind, reported in one.happened.items():
                together.setdefault(kind, []).extend(reported)
        return kept, together

    def hurry(self) -> None:
        """Keep nothing back any more."""
        self._hurry.set()
