"""When a deferred recipient is tried again, and when it is given up."""

import pytest

from postroom.mail.now import DAY_US, HOUR_US, MINUTE_US, Now
from postroom.mail.units import Duration
from postroom.schedule.retry import (
    Deferral,
    Expire,
    Retry,
    expires_us,
    verdict_on_deferral,
)
from postroom.schedule.settings import RetrySettings

SETTINGS = RetrySettings(jitter_percent=0)
T0 = 1_795_361_711_000_000


def at(age_us: int) -> Now:
    return Now(T0 + age_us, age_us)


def due(tries: int, now: Now, settings: RetrySettings = SETTINGS, seed: int = 1) -> int:
    deferral = Deferral(tries, T0, seed, warned=True)
    verdict = verdict_on_deferral(deferral, now, settings)
    assert isinstance(verdict, Retry)
    return verdict.due_us


@pytest.mark.parametrize(
    ("tries", "wait_us"),
    [
        (0, 5 * MINUTE_US),
        (1, 5 * MINUTE_US),
        (2, 8 * MINUTE_US),
        (3, 12 * MINUTE_US + 48_000_000),
        (10, 4 * HOUR_US),
        (1_000_000, 4 * HOUR_US),
    ],
)
def test_waits_grow_to_the_longest(tries: int, wait_us: int) -> None:
    assert due(tries, at(1)) == T0 + 1 + wait_us


@pytest.mark.parametrize(
    ("tries", "wait_us"),
    [
        (0, 20 * MINUTE_US),
        (1, 20 * MINUTE_US),
        (2, 32 * MINUTE_US),
        (9, 6 * HOUR_US),
        (1_000_000, 6 * HOUR_US),
    ],
)
def test_reports_have_waits_of_their_own(tries: int, wait_us: int) -> None:
    settings = RetrySettings(
        bounce_first_wait=Duration(20 * MINUTE_US),
        bounce_longest_wait=Duration(6 * HOUR_US),
        jitter_percent=0,
    )
    deferral = Deferral(tries, T0, 1, sender_is_null=True)
    verdict = verdict_on_deferral(deferral, at(1), settings)
    assert verdict == Retry(T0 + 1 + wait_us)


def test_even_waits_end_too() -> None:
    even = RetrySettings(growth_percent=100, jitter_percent=0)
    assert due(10**9, at(1), even) == T0 + 1 + 5 * MINUTE_US


def test_the_last_try_falls_on_the_expiry() -> None:
    late = at(5 * DAY_US - MINUTE_US)
    assert due(40, late) == T0 + 5 * DAY_US


@pytest.mark.parametrize(
    ("age_us", "null", "warn_after_us", "due_us"),
    [
        pytest.param(3 * HOUR_US, False, 4 * HOUR_US, 4 * HOUR_US, id="before-it"),
        pytest.param(4 * HOUR_US, False, 4 * HOUR_US, 8 * HOUR_US, id="at-it"),
        pytest.param(3 * HOUR_US, False, 0, 7 * HOUR_US, id="never"),
        pytest.param(3 * HOUR_US, True, 4 * HOUR_US, 11 * HOUR_US, id="a-report"),
    ],
)
def test_one_try_falls_on_the_warning(
    age_us: int, null: bool, warn_after_us: int, due_us: int
) -> None:
    """Else who has four hours in the settings is told after five or seven."""
    settings = RetrySettings(jitter_percent=0, warn_after=Duration(warn_after_us))
    deferral = Deferral(40, T0, 1, sender_is_null=null)
    verdict = verdict_on_deferral(deferral, at(age_us), settings)
    assert isinstance(verdict, Retry)
    assert verdict.due_us == T0 + due_us


def test_jitter_differs_by_seed_and_stays_within_bounds() -> None:
    settings = RetrySettings()
    waits = {due(1, at(0), settings, seed) - T0 for seed in range(100)}
    assert len(waits) > 90
    assert min(waits) >= 5 * MINUTE_US * 9 // 10
    assert max(waits) <= 5 * MINUTE_US * 11 // 10


@pytest.mark.parametrize(
    ("age_us", "warned", "null", "expected"),
    [
        (0, False, False, Retry(T0 + 5 * MINUTE_US)),
        (4 * HOUR_US, False, False, Retry(T0 + 4 * HOUR_US + 5 * MINUTE_US, warn=True)),
        (4 * HOUR_US, True, False, Retry(T0 + 4 * HOUR_US + 5 * MINUTE_US)),
        (4 * HOUR_US, False, True, Retry(T0 + 4 * HOUR_US + 15 * MINUTE_US)),
        (5 * DAY_US - 1, True, False, Retry(T0 + 5 * DAY_US)),
        (5 * DAY_US, True, False, Expire()),
        (5 * DAY_US, False, True, Expire()),
        (-DAY_US, False, False, Retry(T0 - DAY_US + 5 * MINUTE_US)),
    ],
)
def test_verdicts(
    age_us: int, warned: bool, null: bool, expected: Retry | Expire
) -> None:
    deferral = Deferral(1, T0, 1, warned=warned, sender_is_null=null)
    assert verdict_on_deferral(deferral, at(age_us), SETTINGS) == expected


def test_no_warning_when_switched_off() -> None:
    settings = RetrySettings(warn_after=Duration(0))
    verdict = verdict_on_deferral(Deferral(1, T0), at(DAY_US), settings)
    assert isinstance(verdict, Retry)
    assert not verdict.warn


def test_a_given_time_replaces_the_step() -> None:
    verdict = verdict_on_deferral(Deferral(9, T0), at(1), SETTINGS, T0 + 7)
    assert verdict == Retry(T0 + 7)


def test_reports_may_expire_earlier() -> None:
    settings = RetrySettings(bounce_expire=Duration(DAY_US))
    assert expires_us(T0, settings, sender_is_null=True) == T0 + DAY_US
    assert expires_us(T0, settings) == T0 + 5 * DAY_US
