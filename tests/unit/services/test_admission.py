"""Sessions in all and from one place, counted over two workers."""

import pytest

from postroom.limits.shared import SharedCounters, map_octets, prepare_map
from postroom.services.admission import Admission, Admitted, TurnedAway
from postroom.services.settings import ReceiveSettings


class Worker:
    """One worker's door, over counters that two share."""

    def __init__(self, counters: SharedCounters, settings: ReceiveSettings) -> None:
        self.counters = counters
        self.admission = Admission(settings)
        self.inside: list[Admitted] = []

    def enter(self, ip: str) -> str:
        """Let a client in; returns "in", or the reply's code and the limit."""
        place = self.admission.enter(self.counters, ip)
        if isinstance(place, TurnedAway):
            return f"{place.reply.code} {place.reply.status} {place.limit}"
        self.inside.append(place)
        return "in"

    def leave(self) -> None:
        for place in self.inside:
            self.admission.leave(self.counters, place)
        self.inside.clear()


def two_workers(**settings: object) -> tuple[Worker, Worker]:
    buffer = bytearray(map_octets(2))
    prepare_map(buffer)
    receive = ReceiveSettings(**settings)  # type: ignore[arg-type]
    one, other = (Worker(SharedCounters(buffer, 2, row), receive) for row in (0, 1))
    return one, other


A, B = "2001:db8:1:1::a", "2001:db8:1:1::b"  # one /64
C, D = "2001:db8:1:2::c", "2001:db8:2:1::d"  # the same /48, another

CASES = {
    "all": (
        {"sessions_max": 2},
        ("192.0.2.1", "192.0.2.2"),
        ("192.0.2.3", "421 4.3.2 sessions_max"),
        "",
    ),
    "one address": (
        {"sessions_per_client_max": 2},
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1", "421 4.7.0 sessions_per_client_max"),
        "192.0.2.2",
    ),
    "one IPv6 address": (
        {"sessions_per_client_max": 1},
        (A,),
        (A, "421 4.7.0 sessions_per_client_max"),
        B,
    ),
    "one /64": (
        {"sessions_per_ipv6_64_max": 2},
        (A, B),
        ("2001:db8:1:1:ffff::", "421 4.7.0 sessions_per_ipv6_64_max"),
        C,
    ),
    "one /48": (
        {"sessions_per_ipv6_48_max": 2},
        (A, C),
        ("2001:db8:1:3::", "421 4.7.0 sessions_per_ipv6_48_max"),
        D,
    ),
    "one /24": (
        {"sessions_per_ipv4_24_max": 2},
        ("192.0.2.1", "192.0.2.2"),
        ("192.0.2.3", "421 4.7.0 sessions_per_ipv4_24_max"),
        "192.0.3.1",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_bound_holds_over_both_workers(name: str) -> None:
    settings, first, (over, refusal), elsewhere = CASES[name]
    one, other = two_workers(**settings)
    for turn, ip in enumerate(first):
        assert (one, other)[turn % 2].enter(ip) == "in"
    assert one.enter(over) == refusal
    assert other.enter(over) == refusal
    if elsewhere:
        assert one.enter(elsewhere) == "in"
    one.leave()
    assert other.enter(over) == "in"


def test_whoever_is_refused_holds_nothing() -> None:
    one, other = two_workers(sessions_max=10, sessions_per_ipv6_48_max=1)
    assert one.enter(A) == "in"
    for _ in range(20):
        assert other.enter(C) == "421 4.7.0 sessions_per_ipv6_48_max"
    for key in ("smtp", f"smtp:{A}", "smtp:2001:db8:1::/48"):
        assert other.counters.count(key) == 1, key
    assert other.counters.count(f"smtp:{C}") == 0
    assert other.counters.count("smtp:2001:db8:1:2::/64") == 0


def test_exempt_networks_are_bound_by_the_whole_only() -> None:
    one, other = two_workers(
        sessions_max=3,
        sessions_per_client_max=1,
        sessions_per_ipv6_64_max=1,
        exempt_networks=("192.0.2.0/24", "2001:db8::/32"),
    )
    assert one.enter("192.0.2.1") == other.enter("192.0.2.1") == one.enter(A) == "in"
    assert other.enter("192.0.2.1") == "421 4.3.2 sessions_max"


def test_a_flood_does_not_keep_users_out() -> None:
    settings = ReceiveSettings(sessions_max=4, sessions_for_users=99)
    counters = SharedCounters.private()
    door = Admission(settings, has_users=True)
    said = [door.enter(counters, f"192.0.2.{n}") for n in range(5)]
    assert [type(one) for one in said] == [Admitted] * 2 + [TurnedAway] * 3
    users = [door.enter(counters, "198.51.100.1", is_user=True) for _ in range(3)]
    assert [type(one) for one in users] == [Admitted] * 2 + [TurnedAway]


def test_nothing_is_kept_for_users_where_there_are_none() -> None:
    counters = SharedCounters.private()
    door = Admission(ReceiveSettings(sessions_max=2, sessions_for_users=1))
    assert isinstance(door.enter(counters, "192.0.2.1"), Admitted)
    assert isinstance(door.enter(counters, "192.0.2.2"), Admitted)


def test_networks_without_a_bound_are_not_counted() -> None:
    one, _ = two_workers(sessions_per_ipv6_64_max=0, sessions_per_ipv6_48_max=0)
    assert one.enter(A) == "in"
    assert one.inside == [Admitted(("smtp", f"smtp:{A}"))]


@pytest.mark.parametrize(
    "settings",
    [
        {"sessions_max": 0},
        {"sessions_per_client_max": 0},
        {"sessions_per_ipv6_64_max": -1},
        {"exempt_networks": ("192.0.2.1/24",)},
        {"bad_recipients_max": -1},
        {"data_rate_min": -1},
    ],
)
def test_senseless_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must be at least|write|host bits"):
        ReceiveSettings(**settings)  # type: ignore[arg-type]
