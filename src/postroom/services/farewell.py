"""Returning mail to its sender because an operator says so, not a peer.

Each recipient fails with the operator's reason and what the last try said; the report
is written as for any other failure. A null sender is told as reports allow.
"""

from collections.abc import Sequence

from postroom.mail.outcome import Failed
from postroom.mail.reported import ReportKind
from postroom.observe.events import AttemptDone, MessageOrdered
from postroom.services.report import Reported, Reporter
from postroom.services.workshop import Workshop
from postroom.spool.spool import Lease, NewMessage

STATUS = "5.0.0"
"""RFC 3463 §3.1: other undefined status; there is none for a person's decision."""
REASON_CHARACTERS_MAX = 500


class Undertaker:
    """Writes the reports about what one operator gives up in one shard.

    Args:
        shop: what is worked with.
        reporter: writes reports.
        reason: what the sender is told; may be empty.
        by: the operator's name, for the log.
    """

    def __init__(
        self, shop: Workshop, reporter: Reporter, reason: str, by: str
    ) -> None:
        self._shop = shop
        self._reporter = reporter
        self._reason = reason
        self._by = by

    async def report(self, lease: Lease, waited: Sequence[str]) -> Sequence[NewMessage]:
        """Return the reports about recipients, given why each of them waited."""
        now = self._shop.clock()
        self._shop.emit(
            MessageOrdered(now.utc_us, lease.queue_id, "bounce", self._by, self._reason)
        )
        failed = []
        for index, recipient in enumerate(lease.envelope.recipients):
            outcome = Failed(STATUS, self._text(waited[index]))
            failed.append(Reported(recipient, outcome))
            self._shop.emit(
                AttemptDone(
                    utc_us=now.utc_us,
                    queue_id=lease.queue_id,
                    recipient=recipient.address,
                    outcome=outcome,
                    agent="operator",
                    tries=lease.tries[index],
                    delay_us=max(now.utc_us - lease.envelope.arrival_us, 0),
                    transfer_us=0,
                )
            )
        return await self._reporter.report(lease, {ReportKind.FAILED: failed}, now)

    def _text(self, waited: str) -> str:
        said = "Returned by the administrator of this host"
        if self._reason:
            said += f": {self._reason}"
        if waited:
            said += f" (it was waiting: {waited[:REASON_CHARACTERS_MAX]})"
        return said
