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


def next_due(
    tries: int,
    arrival_us: int,
    now: Now,
    settings: RetrySettings,
    seed: int,
    *,
    sender_is_null: bool = False,
) -> int:
    """Return when (UTC) to try again after try number ``tries``, counted from 1.

    Waits grow from ``first_wait`` to ``longest_wait`` (RFC 5321 §4.5.4.1). The last
    try falls on the moment of expiry, not up to four hours before or after it.
    """
    wait_us = int(settings.first_wait)
    for _ in range(min(tries - 1, _STEPS_MAX)):
        if wait_us >= settings.longest_wait:
            break
        wait_us = wait_us * settings.growth_percent // 100
    wait_us = min(wait_us, settings.longest_wait)
    wait_us = max(1, spread(wait_us, settings.jitter_percent, seed, tries))
    due_us = now.utc_us + wait_us
    end_us = expires_us(arrival_us, settings, sender_is_null=sender_is_null)
    return end_us if now.utc_us < end_us < due_us else due_us


def verdict_on_deferral(
    *,
    tries: int,
    arrival_us: int,
    now: Now,
    settings: RetrySettings,
    seed: int,
    warned: bool = False,
    sender_is_null: bool = False,
    due_us: int | None = None,
) -> Retry | Expire:
    """Decide about a recipient that was deferred just now.

    Args:
        tries: how many tries it has had, this one counted.
        arrival_us: when the message came (UTC). If it lies in the future because
            the clock went back, the message is as good as new.
        now: the present moment.
        settings: the waits in force.
        seed: spreads recipients; for example the message's number.
        warned: the sender was told of a delay before.
        sender_is_null: it is a report: nobody is told of its delay.
        due_us: a given time for the next try (a dead hop's next probe), instead of
            the one that ``tries`` would give.
    """
    end_us = expires_us(arrival_us, settings, sender_is_null=sender_is_null)
    if now.utc_us >= end_us:
        return Expire()
    if due_us is None:
        due_us = next_due(
            tries, arrival_us, now, settings, seed, sender_is_null=sender_is_null
        )
    age_us = now.utc_us - arrival_us
    warn = not warned and not sender_is_null and 0 < settings.warn_after <= age_us
    return Retry(due_us, warn)


def expires_us(
    arrival_us: int, settings: RetrySettings, *, sender_is_null: bool = False
) -> int:
    """Return when (UTC) a message is given up: ``Will-Retry-Until`` of a report."""
    length = settings.bounce_expire if sender_is_null else settings.expire
    return arrival_us + length
