"""What becomes of recipients after an attempt: gone, waiting, or reported.

The retry schedule says whether a deferred recipient waits or expires; failures,
expiries, and deliveries that the sender asked to hear of go to the reporter, whose
reports are queued in the same transaction that removes the recipients, so that neither
can be lost without the other.
"""

from collections.abc import Sequence
from typing import assert_never

import msgspec

from postroom.mail.automatic import automatic
from postroom.mail.deliver_by import LATE_STATUS, deadline_us, is_late, is_return
from postroom.mail.envelope import released_us
from postroom.mail.headers import edited_header
from postroom.mail.ids import to_number
from postroom.mail.now import MINUTE_US, Now
from postroom.mail.outcome import Deferred, Delivered, Failed, Outcome
from postroom.mail.reported import ReportKind
from postroom.schedule.retry import (
    Deferral,
    Expire,
    Retry,
    expires_us,
    verdict_on_deferral,
)
from postroom.schedule.settings import RetrySettings
from postroom.services.report import Reported, Reporter, wants
from postroom.spool.spool import (
    Lease,
    NewMessage,
    Patience,
    RecipientState,
    Settle,
)

Happened = dict[ReportKind, list[Reported]]
"""What there is to report, by kind."""

_FAULT_PAUSE_US = 5 * MINUTE_US
"""When mail is looked at again, at the soonest, whose handling was broken off by a
fault of ours."""
_FAULT_AGE_SHARE = 8
"""The older it is, the longer it waits then: one part in so many of its age."""


class Settler:
    """Judges the outcomes of attempts.

    Args:
        retry: when deferred recipients are tried again.
        reporter: writes the reports.
        warn_automatic: warn the senders of automatic mail of delays, too.
    """

    def __init__(
        self,
        retry: RetrySettings,
        reporter: Reporter,
        *,
        warn_automatic: bool = False,
    ) -> None:
        self._retry = retry
        self._reporter = reporter
        self._warn_automatic = warn_automatic

    @property
    def patience(self) -> Patience:
        """How long mail waits without a word to its sender, and at all."""
        retry = self._retry
        return Patience(retry.warn_after, retry.expire, retry.bounce_expire)

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
        settled, happened = self.weigh(lease, outcomes, now, due_us=due_us)
        return settled, await self.report(lease, happened, now)

    async def report(
        self, lease: Lease, happened: Happened, now: Now
    ) -> Sequence[NewMessage]:
        """Return the reports about what happened, also to other leases' recipients."""
        return await self._reporter.report(lease, happened, now)

    def weigh(
        self,
        lease: Lease,
        outcomes: Sequence[Outcome],
        now: Now,
        *,
        due_us: int | None = None,
    ) -> tuple[list[Settle], Happened]:
        """Return what becomes of each leased recipient, and what is to be reported."""
        settled: list[Settle] = []
        happened: Happened = {}
        for index, outcome in enumerate(outcomes):
            kind: ReportKind | None
            settle = Settle(lease.numbers[index])
            match outcome:
                case Delivered():
                    kind = _of_delivery(outcome)
                case Failed():
                    kind = ReportKind.FAILED
                case Deferred():
                    given_us = due_us if outcome.hop_failed else None
                    verdict = self._verdict(lease, index, now, given_us)
                    settle = _settled(lease, index, outcome, verdict)
                    kind = _of_verdict(verdict)
                    if kind is ReportKind.DELAYED and is_late(lease.envelope, now):
                        outcome = msgspec.structs.replace(outcome, status=LATE_STATUS)
                case _:
                    assert_never(outcome)
            settled.append(settle)
            if kind is not None:
                reported = Reported(lease.envelope.recipients[index], outcome)
                happened.setdefault(kind, []).append(reported)
        return settled, happened

    def at_fault(
        self, lease: Lease, outcomes: Sequence[Outcome], now: Now
    ) -> list[Settle]:
        """Return what becomes of recipients that a bug of ours keeps from judgement.

        What was delivered is gone, the rest waits. It does not go round for ever: when
        its time is over it is put aside for an operator, since its end cannot be told.
        """
        sender_is_null = lease.envelope.sender.is_null
        begun_us = released_us(lease.envelope)
        end_us = expires_us(begun_us, self._retry, sender_is_null=sender_is_null)
        state, text = RecipientState.READY, "Deferred: internal error"
        if now.utc_us >= end_us:
            state, text = RecipientState.SHUNTED, "expired; the sender cannot be told"
        age_us = now.utc_us - begun_us
        due_us = now.utc_us + max(_FAULT_PAUSE_US, age_us // _FAULT_AGE_SHARE)
        return [
            Settle(number)
            if isinstance(outcome, Delivered)
            else Settle(number, due_us, text, state=state)
            for number, outcome in zip(lease.numbers, outcomes, strict=True)
        ]

    def _verdict(
        self, lease: Lease, index: int, now: Now, due_us: int | None
    ) -> Retry | Expire:
        deferral = Deferral(
            tries=lease.tries[index] + 1,
            arrival_us=released_us(lease.envelope),
            seed=to_number(lease.queue_id) + lease.numbers[index],
            warned=lease.warned,
            sender_is_null=lease.envelope.sender.is_null,
        )
        verdict = verdict_on_deferral(deferral, now, self._retry, due_us)
        if lease.envelope.deliver_by and isinstance(verdict, Retry):
            verdict = _in_time(lease, verdict, now)
        if isinstance(verdict, Retry) and verdict.warn:
            return Retry(verdict.due_us, self._warns(lease, index, now))
        return verdict

    def _warns(self, lease: Lease, index: int, now: Now) -> bool:
        """Whether to warn: the sender asked for it, or did not ask and is a person."""
        recipient = lease.envelope.recipients[index]
        if recipient.notify or self._warn_automatic or is_late(lease.envelope, now):
            return wants(recipient, ReportKind.DELAYED)
        return automatic(edited_header(lease.message), lease.envelope.sender) is None


def done(lease: Lease, outcomes: Sequence[Outcome]) -> Sequence[Settle]:
    """Return what becomes of recipients that were all delivered to; else nothing.

    Nothing, too, if somebody may want to hear of it.
    """
    for outcome in outcomes:
        if type(outcome) is not Delivered or outcome.tells:
            return ()
    for recipient in lease.envelope.recipients:
        if recipient.notify:
            return ()
    return [Settle(number) for number in lease.numbers]


def _in_time(lease: Lease, verdict: Retry, now: Now) -> Retry:
    """Come back when the time that MAIL named is over (RFC 2852 §4.1.3).

    With R it is given up then, with N the sender is told that it is late.
    """
    envelope = lease.envelope
    end_us = deadline_us(envelope)
    if now.utc_us < end_us or is_return(envelope):
        return Retry(min(verdict.due_us, max(end_us, now.utc_us)), verdict.warn)
    warn = verdict.warn or not (lease.warned or envelope.sender.is_null)
    return Retry(verdict.due_us, warn)


def _of_delivery(outcome: Delivered) -> ReportKind | None:
    if outcome.tells:  # RFC 2852 §4.1.4
        return ReportKind.RELAYED
    if outcome.reports:  # RFC 3461 §5.2.1: the next hop was told what is wanted
        return None
    # RFC 3461 §5.2.2 (b), §5.2.3 (a)
    return ReportKind.RELAYED if outcome.relayed else ReportKind.DELIVERED


def _of_verdict(verdict: Retry | Expire) -> ReportKind | None:
    if isinstance(verdict, Expire):
        return ReportKind.FAILED
    return ReportKind.DELAYED if verdict.warn else None


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
