"""What is told of attempts: an event for each recipient, and the site's outcome hooks.

Decides nothing. A hook that fails is the chain's business, which tells of it.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from postroom.mail.envelope import Envelope
from postroom.mail.now import Now
from postroom.mail.outcome import Outcome
from postroom.observe.events import AttemptDone
from postroom.policy.session import OutcomeSubject, Session
from postroom.services.generation import Generation
from postroom.services.workshop import Workshop
from postroom.spool.spool import Lease, Settle

ASIDE_MAX = 1_000
"""Attempts whose ``outcome`` hooks may be under way beside the deliveries."""


class Span(NamedTuple):
    """From when to when something took."""

    began: Now
    ended: Now


class Tried(NamedTuple):
    """One attempt and what came of it, recipient by recipient."""

    lease: Lease
    agent: str
    outcomes: Sequence[Outcome]
    settled: Sequence[Settle]
    span: Span


def events_of(
    tried: Tried, which: Iterable[int] | None = None
) -> Iterator[AttemptDone]:
    """Yield what the log is told; only of the recipients ``which``, if that is given.

    ``which`` are their places in the lease.
    """
    lease, agent, outcomes, settled, (began, ended) = tried
    for i in range(len(outcomes)) if which is None else which:
        yield AttemptDone(
            utc_us=ended.utc_us,
            queue_id=lease.queue_id,
            recipient=lease.envelope.recipients[i].address,
            outcome=outcomes[i],
            agent=agent,
            tries=lease.tries[i] + 1,
            delay_us=max(ended.utc_us - lease.envelope.arrival_us, 0),
            transfer_us=ended.mono_us - began.mono_us,
            next_us=settled[i].due_us or 0,
        )


class Observers:
    """Tells the site's ``outcome`` hooks what the log is told of attempts.

    Hooks that wait are told aside, so that a slow one holds up no mail; only when
    ``ASIDE_MAX`` wait already does the attempt wait for its own.
    """

    def __init__(self, shop: Workshop) -> None:
        self._shop = shop
        self._aside: set[asyncio.Task[None]] = set()

    async def tell(
        self, envelope: Envelope, events: Callable[[], Iterable[AttemptDone]]
    ) -> None:
        """Tell the hooks, if there are any; else ``events`` are not asked for."""
        generation = self._shop.generation()
        chain = generation.chain
        if not chain.has("outcome"):
            return
        told = tuple(events())
        if not told:
            return
        # From now on, not from when the task begins: a crash must not come between.
        self._shop.spool.in_hand.begin(told[0].queue_id)
        telling = self._tell(generation, envelope, told)
        if not chain.waits("outcome") or len(self._aside) >= ASIDE_MAX:
            return await telling
        task = asyncio.get_running_loop().create_task(telling)
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)

    async def drain(self, seconds: float) -> None:
        """Wait for the hooks that are being told, at most so long."""
        if self._aside:
            await asyncio.wait(self._aside, timeout=max(seconds, 0.0))
        left = list(self._aside)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _tell(
        self, generation: Generation, envelope: Envelope, events: Sequence[AttemptDone]
    ) -> None:
        # The generation is in use as long as its hooks are: its threads go on.
        session = Session(origin=envelope.origin, opened_us=envelope.arrival_us)
        try:
            for event in events:
                subject = OutcomeSubject(
                    queue_id=event.queue_id,
                    recipient=event.recipient,
                    outcome=event.outcome,
                    sender=envelope.sender,
                    agent=event.agent,
                    tries=event.tries,
                    delay_us=event.delay_us,
                    next_us=event.next_us,
                )
                await generation.chain.observe(session, subject)
        finally:
            self._shop.spool.in_hand.done(events[0].queue_id)
