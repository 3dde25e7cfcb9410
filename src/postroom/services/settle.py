"""What becomes of recipients after an attempt: gone, waiting, or reported.

The retry schedule says whether a deferred recipient waits or expires; failures and
expiries go to the reporter, whose reports are queued in the same transaction that
removes the recipients, so that neither can be lost without the other.
"""

from collections.abc import Sequence
from typing import assert_never

from postroom.mail.ids import to_number
from postroom.mail.now import Now
from postroom.mail.outcome import Deferred, Delivered, Failed, Outcome
from postroom.schedule.retry import Deferral, Expire, Retry, verdict_on_deferral
from postroom.schedule.settings import RetrySettings
from postroom.services.report import Reported, Reporter, wants
from postroom.spool.spool import Lease, NewMessage, Settle


class Settler:
    """Judges the outcomes of attempts."""

    def __init__(self, retry: RetrySettings, reporter: Reporter) -> None:
        self._retry = retry
        self._reporter = reporter

    async def judge(
        self,
        lease: Lease,
        outcomes: Sequence[Outcome],
        now: Now,
        *,
        due_us: int | None = None,
    ) -> tuple[Sequence[Settle], Sequence[NewMessage]]:
        """Return what becomes of each leased recipient, and reports to be queued.

        ``due_us`` is a given time for the next try, where the hop rests until then.
        """
        if settled_at_once := done(lease, outcomes):
            return settled_at_once, ()
        settled: list[Settle] = []
        failed: list[Reported] = []
        delayed: list[Reported] = []
        for index, outcome in enumerate(outcomes):
            reported = Reported(lease.envelope.recipients[index], outcome)
            match outcome:
                case Delivered():
                    settled.append(Settle(lease.numbers[index]))
                case Failed():
                    settled.append(Settle(lease.numbers[index]))
                    failed.append(reported)
                case Deferred():
                    verdict = self._verdict(lease, index, now, due_us)
                    settled.append(_settled(lease, index, outcome, verdict))
                    if isinstance(verdict, Expire):
                        failed.append(reported)
                    elif verdict.warn:
                        delayed.append(reported)
                case _:
                    assert_never(outcome)
        new = await self._reporter.report(lease, failed, delayed, now)
        return settled, new

    def _verdict(
        self, lease: Lease, index: int, now: Now, due_us: int | None
    ) -> Retry | Expire:
        deferral = Deferral(
            tries=lease.tries[index] + 1,
            arrival_us=lease.envelope.arrival_us,
            seed=to_number(lease.queue_id) + lease.numbers[index],
            warned=lease.warned,
            sender_is_null=lease.envelope.sender.is_null,
        )
        verdict = verdict_on_deferral(deferral, now, self._retry, due_us)
        if isinstance(verdict, Retry) and verdict.warn:
            warn = wants(lease.envelope.recipients[index], "DELAY")
            return Retry(verdict.due_us, warn)
        return verdict


def done(lease: Lease, outcomes: Sequence[Outcome]) -> Sequence[Settle]:
    """Return what becomes of recipients that were all delivered to; else nothing."""
    for outcome in outcomes:
        if type(outcome) is not Delivered:
            return ()
    return [Settle(number) for number in lease.numbers]


def _settled(
    lease: Lease, index: int, outcome: Deferred, verdict: Retry | Expire
) -> Settle:
    number = lease.numbers[index]
    if isinstance(verdict, Expire):
        return Settle(number)
    return Settle(
        number,
        due_us=verdict.due_us,
        status_text=f"Deferred: {outcome.text}",
        warned=verdict.warn,
    )
