"""The present moment as a value; pure code is given it and never reads a clock."""

from datetime import UTC, datetime

import msgspec

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US


class Now(msgspec.Struct, frozen=True, gc=False):
    """One reading of both clocks, in microseconds.

    ``utc_us`` counts from 1970 and is what is stored and printed; it may jump.
    ``mono_us`` never goes back, orders deadlines within one process, and is never
    stored.
    """

    utc_us: int
    mono_us: int

    def utc(self) -> datetime:
        """Return the moment as an aware ``datetime`` in UTC."""
        return datetime.fromtimestamp(self.utc_us / SECOND_US, UTC)
