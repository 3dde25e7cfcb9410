"""Settings of delivery reports: to whom, how many, how large."""

from typing import Literal

import msgspec

from postroom.mail.reported import RETURNED_OCTETS_MAX
from postroom.mail.units import Duration, Size
from postroom.policy.settings import parse_rate

DoubleBounce = Literal["reports", "others"]


class ReportSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """Reports to senders: of failure, delay, and success where it was asked for."""

    double_bounce_to: str = "postmaster"
    """Who is told when a message without a sender (null sender) fails; empty: nobody,
    but the log has it."""
    double_bounces: tuple[DoubleBounce, ...] = ("reports", "others")
    """Which of these ``double_bounce_to`` is told of: ``reports`` that were made here,
    ``others`` that came from elsewhere."""
    returned_octets_max: Size = Size(RETURNED_OCTETS_MAX)
    """Larger messages come back as their header only, and headers are cut here."""
    recipients_max: int = 1_000
    """Recipients named in one report; of more, the number is given."""
    sender_rate: str = "1000/1h"
    """Reports to one address, over all workers; empty: no limit. What is over it is
    not sent, but counted and logged, and the recipients are done with all the same."""
    domain_rate: str = "10000/1h"
    """The same for all addresses of one domain that is not ours."""
    over_rate: Literal["tell", "silent"] = "tell"
    """Over a rate: ``tell`` the sender in one last report that more are held back, and
    in the next one how many were; or be ``silent``."""
    gather: Duration = Duration.from_text("1s")
    """How long a failed recipient is kept back so that others of the same message that
    fail meanwhile are told of in the same report; 0: not at all."""
    warn_automatic: bool = False
    """Whether senders of bulk and automatic mail (RFC 3834) are warned of delays too,
    without having asked for it."""

    def __post_init__(self) -> None:
        """Check what the types do not."""
        for rate in (self.sender_rate, self.domain_rate):
            parse_rate(rate)
        if self.recipients_max < 1:
            raise ValueError("recipients_max must be at least 1")
