"""What is told of attempts: an event for each recipient, and the site's outcome hooks.

Decides nothing. A hook that fails is the chain's business, which tells of it.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from postroom.mail.now import Now
from postroom.mail.outcome import Outcome
from postroom.mail.route import Route
from postroom.observe.events import AttemptDone
from postroom.policy.chain import Chain
from postroom.policy.session import OutcomeSubject, Session
from postroom.spool.spool import Lease, Settle


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


async def tell_hooks(
    chain: Chain, lease: Lease, route: Route, outcomes: Sequence[Outcome], now: Now
) -> None:
    """Tell the ``outcome`` hooks of each recipient."""
    envelope = lease.envelope
    session = Session(origin=envelope.origin, opened_us=envelope.arrival_us)
    for i, outcome in enumerate(outcomes):
        subject = OutcomeSubject(
            queue_id=lease.queue_id,
            recipient=envelope.recipients[i].address,
            outcome=outcome,
            sender=envelope.sender,
            agent=route.agent,
            tries=lease.tries[i] + 1,
            delay_us=max(now.utc_us - envelope.arrival_us, 0),
        )
        await chain.observe(session, subject)
