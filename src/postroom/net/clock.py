"""The one place where the clock and the zone are read."""

import time
from functools import lru_cache

from postroom.mail.now import MINUTE_US, Now

# Zones change their offset at quarters of an hour only.
_QUARTER_US = 15 * MINUTE_US


def read_now() -> Now:
    """Return the present moment on both clocks."""
    return Now(time.time_ns() // 1000, time.monotonic_ns() // 1000)


def read_mono_us() -> int:
    """Return the clock that never goes back, as in ``Now.mono_us``."""
    return time.monotonic_ns() // 1000


def zone_offset_s(utc_us: int) -> int:
    """Return the local zone's offset east of UTC, in seconds, at a moment."""
    return _offset_of_quarter_s(utc_us // _QUARTER_US)


@lru_cache(maxsize=8)
def _offset_of_quarter_s(quarter: int) -> int:
    return time.localtime(quarter * _QUARTER_US / 1_000_000).tm_gmtoff
