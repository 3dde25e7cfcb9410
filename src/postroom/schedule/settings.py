"""What a site may set about the schedule."""

import msgspec

from postroom.mail.units import Duration
from postroom.schedule.senders import GradeSettings


class RetrySettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """When a deferred recipient is tried again, and when that ends."""

    expire: Duration = Duration.from_text("5d")
    """How long after arrival a message is given up (RFC 5321 §4.5.4.1: 4-5 days)."""
    warn_after: Duration = Duration.from_text("4h")
    """After what delay the sender is told, once; 0 for never."""
    first_wait: Duration = Duration.from_text("5m")
    """The wait after the first try; each later one is ``growth_percent`` of it."""
    longest_wait: Duration = Duration.from_text("4h")
    """No wait is longer than this."""
    growth_percent: int = 160
    """How each wait grows over the one before; 100 for even waits."""
    jitter_percent: int = 10
    """By how much waits vary, so that what failed together is spread."""
    bounce_expire: Duration = Duration.from_text("5d")
    """As ``expire``, for reports: mail whose sender is null."""
    bounce_first_wait: Duration = Duration.from_text("15m")
    """As ``first_wait``, for reports: nobody waits for them, and many go to senders
    that do not exist."""
    bounce_longest_wait: Duration = Duration.from_text("8h")
    """As ``longest_wait``, for reports."""


class ScheduleSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """How much is in hand at once, in one worker, and how dead hops are spared."""

    active_max: int = 1_000
    """Messages in hand for hosts that answered last time; local delivery has its own
    window."""
    probing_max: int = 500
    """Messages in hand for hosts that are not known yet or failed last time; those
    that failed have at most half of it."""
    hops_max: int = 10_000
    """Hops remembered; hints about more are dropped, a later scan finds them."""
    window_start: int = 5
    """Connections to a destination not yet known."""
    window_max: int = 20
    """The most connections to one destination."""
    messages_ahead: int = 2
    """Messages in hand per connection of a proven destination, so that a
    connection never waits for its next message."""
    local_window: int = 64
    """Messages in hand for local delivery and for expansion, each."""
    claim_max: int = 50
    """The most messages asked of the spool in one claim."""
    claims_max: int = 64
    """The most claims one call of ``next`` returns."""
    backoff_start: Duration = Duration.from_text("1m")
    """How long a destination rests after its first failure."""
    backoff_max: Duration = Duration.from_text("1h")
    """The longest rest; each failed probe doubles it up to here."""
    backoff_jitter_percent: int = 20
    """By how much rests vary."""
    retry: RetrySettings = RetrySettings()
    """When recipients are tried again."""
    grades: GradeSettings = GradeSettings()
    """What counts as sending in bulk."""
