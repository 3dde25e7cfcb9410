"""Rates of clients and logins, over the counters of two workers."""

from typing import Any

import pytest

from postroom.limits.gcra import Rate
from postroom.limits.shared import SharedCounters, map_octets, prepare_map
from postroom.mail.now import HOUR_US, SECOND_US, Now
from postroom.mail.units import Duration
from postroom.policy.builtin import Guards, SharedLimiter
from postroom.policy.settings import PolicySettings
from postroom.testing.policy import make_session

RATES = PolicySettings(
    connection_rate="3/1h", message_rate="4/1h", recipient_rate="5/1h"
)
REFUSALS = {
    "connection": (3, "421 4.7.0"),
    "message": (4, "450 4.7.1"),
    "recipient": (5, "450 4.7.1"),
}


class Workers:
    """The guards of two workers, which share their counters and a clock."""

    def __init__(self) -> None:
        buffer = bytearray(map_octets(2))
        prepare_map(buffer)
        self.now = Now(0, HOUR_US)
        self.limiters = [
            SharedLimiter(SharedCounters(buffer, 2, row), lambda: self.now)
            for row in (0, 1)
        ]
        self.guards = [Guards(RATES, 0, one) for one in self.limiters]
        self._turn = 0

    def ask(self, what: str, ip: str) -> str:
        """Ask one worker, the other one next; returns the refusal's code."""
        self._turn += 1
        guard: Any = getattr(self.guards[self._turn % 2], f"{what}_rate")
        refusal = guard(make_session(ip), None)
        return f"{refusal.reply.code} {refusal.reply.status}" if refusal else ""


@pytest.mark.parametrize("what", REFUSALS)
@pytest.mark.parametrize(
    ("clients", "stranger"),
    [
        pytest.param(("198.51.100.1",), "198.51.100.2", id="an-address"),
        pytest.param(
            ("2001:db8:1:1::1", "2001:db8:1:1:9::9"), "2001:db8:1:2::1", id="a-64"
        ),
        pytest.param(
            ("::ffff:198.51.100.1", "198.51.100.1"), "198.51.100.2", id="mapped"
        ),
    ],
)
def test_a_rate_holds_over_both_workers(
    what: str, clients: tuple[str, ...], stranger: str
) -> None:
    workers = Workers()
    count, refusal = REFUSALS[what]
    for turn in range(count):
        assert workers.ask(what, clients[turn % len(clients)]) == ""
    for _ in range(4):
        assert workers.ask(what, clients[0]) == refusal
    assert workers.ask(what, stranger) == ""
    workers.now = Now(0, HOUR_US + HOUR_US // count)
    assert workers.ask(what, clients[-1]) == ""
    assert workers.ask(what, clients[-1]) == refusal


def test_each_rate_is_counted_by_itself() -> None:
    workers = Workers()
    for what, (count, _) in REFUSALS.items():
        for _ in range(count):
            assert workers.ask(what, "198.51.100.1") == ""


def test_several_events_are_admitted_together_or_not_at_all() -> None:
    one, other = Workers().limiters
    rate = Rate(10, Duration.from_text("1h"), 10)
    assert one.admit("login-recipients/joe", 6, rate) == 0
    wait_us = other.admit("login-recipients/joe", 5, rate)
    assert wait_us == HOUR_US // 10  # for the one that is too many
    assert other.admit("login-recipients/joe", 4, rate) == 0
    assert one.admit("login-recipients/joe", 1, rate) > 0
    assert one.admit("login-recipients/betty", 10, rate) == 0
    assert one.admit("login-recipients/ann", 11, rate) > 0


def test_asking_for_nothing_costs_nothing() -> None:
    one, _ = Workers().limiters
    rate = Rate(1, Duration(SECOND_US), 1)
    for _ in range(5):
        assert one.admit("k", 0, rate) == 0
    assert one.admit("k", 1, rate) == 0
