"""Until when a message is to be delivered, and what then (RFC 2852).

The BY value is kept as it came, ``"3600;R"`` or ``"-5;NT"``: seconds from the arrival,
R to give up after that or N to tell of it, T to tell of each relaying. What is passed
on counts from the moment of passing on (RFC 2852 §4.1.4).
"""

from typing import Final

from postroom.mail.envelope import Envelope
from postroom.mail.now import SECOND_US, Now
from postroom.mail.outcome import Failed

EXPIRED: Final = Failed("5.4.7", "Delivery time expired")
"""What becomes of recipients when the time is over (RFC 2852 §4.1.3)."""
LATE_STATUS: Final = "4.4.7"
"""The status of a delay that the sender hears of then."""


def deadline_us(envelope: Envelope) -> int:
    """Return the moment named by BY, in microseconds since 1970."""
    seconds = int(envelope.deliver_by.partition(";")[0])
    return envelope.arrival_us + seconds * SECOND_US


def is_return(envelope: Envelope) -> bool:
    """Whether it is given up when the time is over (by-mode R)."""
    return "R" in envelope.deliver_by.upper()


def is_traced(envelope: Envelope) -> bool:
    """Whether the sender wants to hear of each relaying (by-trace)."""
    return "T" in envelope.deliver_by.upper()


def is_late(envelope: Envelope, now: Now) -> bool:
    """Whether a time was named that is over."""
    return bool(envelope.deliver_by) and now.utc_us >= deadline_us(envelope)


def has_expired(envelope: Envelope, utc_us: int) -> bool:
    """Whether no further attempt may be made (RFC 2852 §4.1.3)."""
    return is_return(envelope) and utc_us >= deadline_us(envelope)


def by_now(envelope: Envelope, utc_us: int) -> str:
    """Return the BY value as it is at a moment; with R never under a second."""
    mode = envelope.deliver_by.partition(";")[2]
    left = (deadline_us(envelope) - utc_us) // SECOND_US
    return f"{max(left, 1) if is_return(envelope) else left};{mode}"
