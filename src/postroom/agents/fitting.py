"""What one host can take, and how a job is fitted to it.

Asked once per connection what the host demands of content, and once per message what
that means for it. A message that needs nothing passes with a few comparisons. What a
host can never be given (too large, too late) is told as ``Failed`` without asking it.
"""

import msgspec

from postroom.agents.content import plan_for
from postroom.agents.job import Job
from postroom.agents.settings import SmtpAgentSettings
from postroom.agents.smtp_words import Peer
from postroom.mail.deliver_by import EXPIRED, by_now, has_expired, is_return, is_traced
from postroom.mail.outcome import Delivered, Failed, Outcome
from postroom.net.clock import read_now
from postroom.render.demand import Demand, demand_of
from postroom.render.plan import Plan, Unconvertible
from postroom.smtp.extensions import Extensions
from postroom.smtp.transaction import Transaction


class Fitting:
    """Fits jobs to one host.

    Args:
        offered: its extensions, as far as they are used.
        peer: the host.
        hostname: ours, for what conversions leave in the header.
        settings: what is converted.
    """

    __slots__ = ("_binary_demand", "_demand", "_hostname", "_offered", "_peer", "_size")

    def __init__(
        self,
        offered: Extensions,
        peer: Peer,
        hostname: str,
        settings: SmtpAgentSettings,
    ) -> None:
        self._offered = offered
        self._peer = peer
        self._hostname = hostname
        self._size = offered.size_octets_max
        long_lines = settings.long_lines == "convert"
        self._demand = demand_of(offered, is_binary=False, long_lines=long_lines)
        self._binary_demand = demand_of(offered, is_binary=True, long_lines=long_lines)
        if settings.eight_bit == "pass":
            self._demand = Demand() if long_lines else None

    def transaction(self, job: Job) -> Transaction | Failed:
        """Return what to announce to the host now, or why it cannot have it."""
        value = job.transaction
        size = value.size_octets
        if self._size and size > self._size:  # RFC 1870 §6.1: no use in trying
            text = f"Message of {size} octets is too large for {self._peer.label}"
            text = f"{text} which takes {self._size}"
            return Failed("5.3.4", text, self._peer.text)
        envelope = job.attempt.envelope
        if envelope.deliver_by:
            utc_us = read_now().utc_us
            if has_expired(envelope, utc_us):
                return EXPIRED
            if self._offered.deliver_by or not self._peer.is_final:
                value = msgspec.structs.replace(value, by=by_now(envelope, utc_us))
        if value.binary and self._binary_demand is not None:
            # it will be converted; what may be left are lines of 8 bits
            value = msgspec.structs.replace(value, binary=False, eight_bit=True)
        return value

    async def plan(self, job: Job) -> Plan | Unconvertible | None:
        """Return how the content is made fit; None: it is as it is.

        Raises:
            OSError: the stored body cannot be read.
        """
        demand = self._binary_demand if job.transaction.binary else self._demand
        if demand is None:
            return None
        attempt = job.attempt
        by = f"{self._hostname} id {attempt.queue_id}"
        return await plan_for(attempt.message, job.head, demand, by)

    def told(self, job: Job, outcomes: list[Outcome]) -> list[Outcome]:
        """Return the outcomes of a job with BY: who sent it may hear of relaying."""
        if not self._tells(job):
            return outcomes
        return [
            msgspec.structs.replace(outcome, tells=True)
            if isinstance(outcome, Delivered) and outcome.relayed
            else outcome
            for outcome in outcomes
        ]

    def _tells(self, job: Job) -> bool:
        # RFC 2852 §4.1.4: a trace is wanted; §4.1.4.2: the host knows no BY
        envelope = job.attempt.envelope
        unknown = not self._offered.deliver_by and not is_return(envelope)
        return unknown or is_traced(envelope)
