"""Rates: the generic cell rate algorithm, as pure functions of one number.

All that is kept per key is the *theoretical arrival time* (``tat_us``): when the next
event would be due if events came evenly. An event is allowed when that lies no
further ahead than the burst. A key whose time has passed needs no record at all.
"""

import msgspec

from postroom.mail.units import Duration


class Rate(msgspec.Struct, frozen=True, gc=False):
    """``count`` events per ``period``; up to ``burst`` of them may come at once."""

    count: int
    period: Duration
    burst: int

    @property
    def interval_us(self) -> int:
        """The even distance between two events, at least one microsecond."""
        return max(1, self.period // self.count)


class Allowed(msgspec.Struct, frozen=True, gc=False):
    """The event may happen; ``tat_us`` is to be kept."""

    tat_us: int


class TooFast(msgspec.Struct, frozen=True, gc=False):
    """Not yet: it would be allowed after ``wait_us``. Nothing is to be kept."""

    wait_us: int


def decide(tat_us: int, mono_us: int, rate: Rate, events: int = 1) -> Allowed | TooFast:
    """Judge ``events`` at once.

    Args:
        tat_us: what was kept for the key, 0 if nothing.
        mono_us: the present moment on the same clock.
        rate: the limit in force.
        events: how many; more than the burst can never be allowed at once.
    """
    interval_us = rate.interval_us
    new_us = max(tat_us, mono_us) + events * interval_us
    ahead_us = new_us - mono_us - rate.burst * interval_us
    if ahead_us > 0:
        return TooFast(ahead_us)
    return Allowed(new_us)
