"""The one place where the clock and the zone are read."""

import time

from postroom.mail.now import Now


def read_now() -> Now:
    """Return the present moment on both clocks."""
    return Now(time.time_ns() // 1000, time.monotonic_ns() // 1000)


def read_mono_us() -> int:
    """Return the clock that never goes back, as in ``Now.mono_us``."""
    return time.monotonic_ns() // 1000


def zone_offset_s(utc_us: int) -> int:
    """Return the local zone's offset east of UTC, in seconds, at a moment."""
    return time.localtime(utc_us / 1_000_000).tm_gmtoff
