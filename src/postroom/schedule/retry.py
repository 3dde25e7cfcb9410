"""What becomes of a deferred recipient: tried again, and when, or given up. Pure."""

import msgspec

from postroom.mail.now import Now
from postroom.schedule.jitter import spread
from postroom.schedule.settings import RetrySettings

_STEPS_MAX = 64


class Retry(msgspec.Struct, frozen=True, gc=False):
    """Try again at ``due_us`` (UTC). ``warn``: tell the sender of the delay now."""

    due_us: int
    warn: bool = False


class Expire(msgspec.Struct, frozen=True, gc=False):
    """Give up: the sender is to be told of a failure."""


class Deferral(msgspec.Struct, frozen=True, gc=False):
    """A recipient that was deferred just now.

    ``tries`` counts this one too. ``arrival_us`` is when the message came (UTC); if it
    lies in the future because the clock went back, the message is as good as new.
    ``seed`` spreads recipients. ``warned``: the sender was told of a delay before.
    ``sender_is_null``: it is a report, of whose delay nobody is told.
    """

    tries: int
    arrival_us: int
    seed: int = 0
    warned: bool = False
    sender_is_null: bool = False


def verdict_on_deferral(
    deferral: Deferral,
    now: Now,
    settings: RetrySettings,
    due_us: int | None = None,
) -> Retry | Expire:
    """Decide about a recipient that was deferred just now.

    Args:
        deferral: the recipient.
        now: the present moment.
        settings: the waits in force.
        due_us: a given time for the next try (a dead hop's next probe), instead of
            the one that the number of tries would give.
    """
    end_us = expires_us(
        deferral.arrival_us, settings, sender_is_null=deferral.sender_is_null
    )
    if now.utc_us >= end_us:
        return Expire()
    told = deferral.warned or deferral.sender_is_null or not settings.warn_after
    warn_us = deferral.arrival_us + settings.warn_after
    warn = not told and now.utc_us >= warn_us
    if due_us is None:
        due_us = _next_due(deferral, now, settings, end_us)
        if not told and now.utc_us < warn_us:
            due_us = min(due_us, warn_us)
    return Retry(due_us, warn)


def expires_us(
    arrival_us: int, settings: RetrySettings, *, sender_is_null: bool = False
) -> int:
    """Return when (UTC) a message is given up: ``Will-Retry-Until`` of a report."""
    length = settings.bounce_expire if sender_is_null else settings.expire
    return arrival_us + length


def _next_due(
    deferral: Deferral, now: Now, settings: RetrySettings, end_us: int
) -> int:
    """When (UTC) to try again.

    Waits grow from ``first_wait`` to ``longest_wait`` (RFC 5321 §4.5.4.1); reports
    have their own two. The last try falls on the moment of expiry, not up to four
    hours before or after it; so does one on the moment of the warning.
    """
    wait_us, longest_us = int(settings.first_wait), int(settings.longest_wait)
    if deferral.sender_is_null:
        wait_us = int(settings.bounce_first_wait)
        longest_us = int(settings.bounce_longest_wait)
    for _ in range(min(deferral.tries - 1, _STEPS_MAX)):
        if wait_us >= longest_us:
            break
        wait_us = wait_us * settings.growth_percent // 100
    wait_us = min(wait_us, longest_us)
    percent = settings.jitter_percent
    wait_us = max(1, spread(wait_us, percent, deferral.seed, deferral.tries))
    due_us = now.utc_us + wait_us
    return end_us if now.utc_us < end_us < due_us else due_us
