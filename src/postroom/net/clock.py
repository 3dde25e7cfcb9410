"""The one place where the clock, the zone and the use of the processor are read."""

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


def processor_wanted_us() -> int:
    """Return how long this thread has run, or waited for a processor, so far.

    Two readings tell how busy it was between them. Where the kernel does not keep
    account of the waiting, it is left out.
    """
    try:
        with open("/proc/thread-self/schedstat", "rb") as file:
            ran_ns, waited_ns, _ = file.read().split()
    except (OSError, ValueError):
        return time.thread_time_ns() // 1000
    return (int(ran_ns) + int(waited_ns)) // 1000


def zone_offset_s(utc_us: int) -> int:
    """Return the local zone's offset east of UTC, in seconds, at a moment."""
    return _offset_of_quarter_s(utc_us // _QUARTER_US)


@lru_cache(maxsize=8)
def _offset_of_quarter_s(quarter: int) -> int:
    return time.localtime(quarter * _QUARTER_US / 1_000_000).tm_gmtoff
