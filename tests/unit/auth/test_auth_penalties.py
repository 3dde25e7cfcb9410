"""What failed logins cost, counted over two workers, by address, /64 and user."""

import pytest

from postroom.auth.penalties import Penalties
from postroom.auth.settings import AuthSettings
from postroom.limits.shared import SharedCounters, map_octets, prepare_map
from postroom.mail.now import SECOND_US
from postroom.mail.units import Duration

NOW = 1_000 * SECOND_US
PERIOD = Duration.from_text("10m")
DOMAINS = ("gonzo.test", "whizzer.test")
SETTINGS = AuthSettings(
    failures_per_client=4,
    failures_per_user=6,
    failures_period=PERIOD,
    failure_delay=Duration.from_text("2s"),
    failure_delay_max=Duration.from_text("20s"),
)


def two_workers() -> tuple[Penalties, Penalties]:
    buffer = bytearray(map_octets(2))
    prepare_map(buffer)
    one, other = (
        Penalties(SETTINGS, SharedCounters(buffer, 2, row), lambda: DOMAINS)
        for row in (0, 1)
    )
    return one, other


@pytest.mark.parametrize(
    ("guessing", "also_barred", "free"),
    [
        (("192.0.2.1",) * 2, "192.0.2.1", "192.0.2.2"),
        (("::ffff:192.0.2.1", "192.0.2.1"), "192.0.2.1", "::ffff:192.0.2.2"),
        (
            ("2001:db8:1:1::1", "2001:db8:1:1:9:9:9:9"),
            "2001:db8:1:1::77",
            "2001:db8:1:2::1",
        ),
    ],
    ids=["an address", "IPv4 within IPv6", "a /64"],
)
def test_who_guesses_too_often_is_barred_by_both_workers(
    guessing: tuple[str, str], also_barred: str, free: str
) -> None:
    one, other = two_workers()
    for turn in range(4):
        worker, ip = (one, other)[turn % 2], guessing[turn % 2]
        assert not worker.is_barred(ip, NOW)
        worker.failed(ip, f"user{turn}", NOW)
    assert one.is_barred(also_barred, NOW)
    assert other.is_barred(also_barred, NOW)
    assert not one.is_barred(free, NOW)
    assert not other.is_barred(free, NOW)


def test_who_was_barred_is_heard_again_after_a_while() -> None:
    one, other = two_workers()
    for _ in range(4):
        one.failed("192.0.2.1", "joe", NOW)
    assert other.is_barred("192.0.2.1", NOW + PERIOD // 4 - 1)
    assert not other.is_barred("192.0.2.1", NOW + PERIOD // 4 + 1)


def test_asking_whether_somebody_is_barred_costs_nothing() -> None:
    one, other = two_workers()
    for _ in range(3):
        one.failed("192.0.2.1", "joe", NOW)
    for _ in range(100):
        assert not other.is_barred("192.0.2.1", NOW)


def test_a_user_guessed_from_everywhere_is_slow_and_not_locked_out() -> None:
    one, other = two_workers()
    for turn in range(6):
        worker = (one, other)[turn % 2]
        wait = worker.failed(f"192.0.2.{turn}", ("joe", "JOE")[turn % 2], NOW)
        assert wait == SETTINGS.failure_delay
    assert one.failed("192.0.2.99", "joe", NOW) == SETTINGS.failure_delay_max
    assert other.delay_of("joe", NOW) == SETTINGS.failure_delay_max
    assert other.delay_of("betty", NOW) == 0
    assert not other.is_barred("192.0.2.100", NOW)
    assert other.delay_of("joe", NOW + PERIOD) == 0


def test_a_failure_without_a_user_counts_against_the_client_only() -> None:
    one, other = two_workers()
    for _ in range(4):
        assert one.failed("192.0.2.1", "", NOW) == SETTINGS.failure_delay
    assert other.is_barred("192.0.2.1", NOW)
    assert other.delay_of("", NOW) == 0


def test_a_user_is_the_same_in_each_of_our_domains() -> None:
    one, other = two_workers()
    spellings = ("joe", "joe@gonzo.test", "JOE@Whizzer.test")
    for turn in range(6):
        one.failed(f"192.0.2.{turn}", spellings[turn % 3], NOW)
    for spelling in spellings:
        assert other.delay_of(spelling, NOW) == SETTINGS.failure_delay_max
    assert other.delay_of("joe@elsewhere.test", NOW) == 0


def test_nobody_is_barred_because_many_others_fail() -> None:
    one, _ = two_workers()
    for number in range(20_000):
        one.failed(f"2001:db8:{number:x}::1", f"user{number}", NOW)
    assert not any(one.is_barred(f"192.0.2.{n}", NOW) for n in range(200))
