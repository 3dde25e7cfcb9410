"""Rates on one number: bursts, even flow, and how long to wait."""

import pytest

from postroom.limits.gcra import Allowed, Rate, TooFast, decide
from postroom.mail.units import Duration

SECOND = 1_000_000
TEN_A_MINUTE = Rate(10, Duration(60 * SECOND), 3)


@pytest.mark.parametrize(
    ("tat_us", "now_us", "events", "expected"),
    [
        (0, 100 * SECOND, 1, Allowed(106 * SECOND)),
        (106 * SECOND, 100 * SECOND, 1, Allowed(112 * SECOND)),
        (112 * SECOND, 100 * SECOND, 1, Allowed(118 * SECOND)),
        (118 * SECOND, 100 * SECOND, 1, TooFast(6 * SECOND)),
        (118 * SECOND, 106 * SECOND, 1, Allowed(124 * SECOND)),
        (0, 100 * SECOND, 3, Allowed(118 * SECOND)),
        (0, 100 * SECOND, 4, TooFast(6 * SECOND)),
        (5 * SECOND, 100 * SECOND, 1, Allowed(106 * SECOND)),
    ],
)
def test_decisions(
    tat_us: int, now_us: int, events: int, expected: Allowed | TooFast
) -> None:
    assert decide(tat_us, now_us, TEN_A_MINUTE, events) == expected


def test_waiting_as_told_is_enough() -> None:
    verdict = decide(118 * SECOND, 100 * SECOND, TEN_A_MINUTE)
    assert isinstance(verdict, TooFast)
    again = decide(118 * SECOND, 100 * SECOND + verdict.wait_us, TEN_A_MINUTE)
    assert isinstance(again, Allowed)


def test_more_than_one_per_microsecond_is_still_a_rate() -> None:
    assert Rate(10**9, Duration(1), 1).interval_us == 1
