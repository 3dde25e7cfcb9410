"""The scheduler, rule by rule, and a day in its life on a virtual clock."""

import heapq
from collections import defaultdict
from typing import Any

import pytest

from postroom.limits.grades import Grade, graded
from postroom.mail.now import MINUTE_US, SECOND_US, Now
from postroom.mail.outcome import Deferred, Delivered, Failed, Outcome
from postroom.schedule.scheduler import Claim, Scheduler
from postroom.schedule.settings import ScheduleSettings

T0 = 1_795_361_711_000_000
NOW = Now(T0, 1_000)
SENT = (Delivered("2.0.0", "Ok"),)
REFUSED = (Failed("5.1.1", "User unknown", code=550),)
DOWN = (Deferred("4.4.1", "Connection refused by a.test.", hop_failed=True),)


def later(us: int) -> Now:
    return Now(T0 + us, 1_000 + us)


def scheduler(**settings: Any) -> Scheduler:
    return Scheduler(ScheduleSettings(backoff_jitter_percent=0, **settings), seed=7)


def test_a_fresh_hop_takes_its_first_window_at_once() -> None:
    one = scheduler(window_start=3)
    assert [one.admit("a.test", 0, NOW) for _ in range(4)] == [True, True, True, False]


def test_success_opens_the_window_and_keeps_work_ahead() -> None:
    one = scheduler(window_start=1, window_max=3, messages_ahead=2)
    assert one.admit("a.test", 0, NOW)
    one.done("a.test", 0, SENT, NOW)
    assert one.window("a.test") == 2
    assert [one.admit("a.test", 0, NOW) for _ in range(5)] == [True] * 4 + [False]


def test_a_recipients_refusal_is_a_sign_of_life() -> None:
    one = scheduler(window_start=1)
    assert one.admit("a.test", 0, NOW)
    one.done("a.test", 0, REFUSED, NOW)
    assert one.window("a.test") == 2


def test_an_attempt_without_outcome_teaches_nothing() -> None:
    one = scheduler(window_start=2)
    assert one.admit("a.test", 0, NOW)
    one.done("a.test", 0, (), NOW)
    assert one.window("a.test") == 2
    assert one.active == 0


def test_a_first_refused_connection_makes_the_destination_rest() -> None:
    one = scheduler()
    assert one.admit("a.test", 0, NOW)
    one.done("a.test", 0, DOWN, NOW)
    assert not one.admit("a.test", 0, NOW)
    assert one.resting_until_us("a.test") == NOW.mono_us + MINUTE_US
    assert one.admit("b.test", 0, NOW)


def test_mail_for_a_resting_destination_is_put_off_until_the_rest_ends() -> None:
    one = scheduler()
    one.admit("a.test", 0, NOW)
    one.done("a.test", 0, DOWN, NOW)
    one.due("a.test", 3, NOW)
    (claim,) = one.next(NOW)
    assert (claim.hop, claim.lane, claim.count) == ("a.test", 3, 1)
    assert claim.put_off is not None
    assert claim.put_off.outcome is DOWN[0]
    assert claim.put_off.due_us == T0 + MINUTE_US
    assert one.next(NOW) == []
    one.claimed("a.test", 3, 200, 200, NOW)
    assert len(one.next(NOW)) == 1
    one.claimed("a.test", 3, 200, 7, NOW)
    assert one.next(NOW) == []
    assert one.active == 0


def test_after_the_rest_one_probe_goes_and_each_failure_doubles_the_rest() -> None:
    one = scheduler()
    one.admit("a.test", 0, NOW)
    one.done("a.test", 0, DOWN, NOW)
    at_us = 0
    for minutes in (1, 2, 4, 8, 16, 32, 60, 60):
        at_us += minutes * MINUTE_US
        one.due("a.test", 0, later(at_us))
        assert one.next(later(at_us)) == [Claim("a.test", 0, 1)]
        one.claimed("a.test", 0, 1, 1, later(at_us))
        assert one.next(later(at_us)) == []
        one.done("a.test", 0, DOWN, later(at_us))
        (put_off,) = one.next(later(at_us))
        assert put_off.put_off is not None
        one.claimed("a.test", 0, 200, 0, later(at_us))


@pytest.mark.parametrize("hop", [None, "a.test"])
def test_an_operator_may_end_rests(hop: str | None) -> None:
    one = scheduler()
    one.admit("a.test", 0, NOW)
    one.done("a.test", 0, DOWN, NOW)
    one.due("a.test", 0, NOW)
    one.end_rests("unknown.test")
    assert one.resting_until_us("a.test")
    one.end_rests(hop)
    assert one.next(NOW) == [Claim("a.test", 0, 1)]


def test_one_failure_among_many_only_narrows_the_window() -> None:
    one = scheduler(window_start=5)
    for _ in range(5):
        assert one.admit("a.test", 0, NOW)
    one.done("a.test", 0, DOWN, NOW)
    assert one.window("a.test") == 4
    assert one.resting_until_us("a.test") == 0
    one.done("a.test", 0, SENT, NOW)
    assert one.admit("a.test", 0, NOW)


def test_a_late_success_ends_the_rest() -> None:
    one = scheduler(window_start=5)
    for _ in range(5):
        assert one.admit("a.test", 0, NOW)
    for _ in range(3):
        one.done("a.test", 0, DOWN, NOW)
    assert one.resting_until_us("a.test")
    one.done("a.test", 0, SENT, NOW)
    assert one.resting_until_us("a.test") == 0


def test_one_admission_may_become_several_attempts() -> None:
    one = scheduler(window_start=2)
    assert one.admit("a.test", 0, NOW)
    one.started("a.test", 0, 2)
    assert one.active == 3
    assert not one.admit("a.test", 0, NOW)
    for _ in range(3):
        one.done("a.test", 0, SENT, NOW)
    assert one.active == 0


def test_a_new_message_does_not_overtake_those_that_wait() -> None:
    one = scheduler()
    one.due("a.test", 0, NOW)
    assert not one.admit("a.test", 1, NOW)
    assert one.admit("b.test", 1, NOW)


def test_hints_during_a_claim_are_not_lost() -> None:
    one = scheduler(window_start=5)
    one.due("a.test", 0, NOW)
    assert one.next(NOW) == [Claim("a.test", 0, 5)]
    one.due("a.test", 0, NOW)
    assert one.next(NOW) == []
    one.claimed("a.test", 0, 5, 2, NOW)
    assert one.next(NOW) == [Claim("a.test", 0, 3)]
    one.claimed("a.test", 0, 3, 0, NOW)
    assert one.next(NOW) == []
    assert one.active == 2


def test_lanes_share_a_window() -> None:
    one = scheduler(window_start=6, window_max=6)
    for lane in (1, 2, 3):
        one.due("a.test", lane, NOW)
    assert one.next(NOW) == [Claim("a.test", lane, 2) for lane in (1, 2, 3)]


def test_hops_behind_one_mx_set_share_a_window() -> None:
    one = scheduler(window_start=2)
    for hop in ("a.test", "b.test", "c.test"):
        one.due(hop, 0, NOW)
        one.bind(hop, "mx.test")
    claims = one.next(NOW)
    assert [(c.hop, c.count) for c in claims] == [("a.test", 1), ("b.test", 1)]
    one.claimed("a.test", 0, 1, 1, NOW)
    one.done("a.test", 0, DOWN, NOW)
    one.claimed("b.test", 0, 1, 1, NOW)
    one.done("b.test", 0, DOWN, NOW)
    assert all(one.resting_until_us(h) for h in ("a.test", "b.test", "c.test"))


def test_binding_moves_what_is_in_hand() -> None:
    one = scheduler(window_start=2)
    assert one.admit("a.test", 0, NOW)
    assert one.admit("b.test", 0, NOW)
    one.bind("a.test", "mx.test")
    one.bind("b.test", "mx.test")
    one.due("c.test", 0, NOW)
    one.bind("c.test", "mx.test")
    assert one.next(NOW) == []
    assert not one.admit("a.test", 0, NOW)
    one.done("a.test", 0, SENT, NOW)
    one.done("b.test", 0, SENT, NOW)
    assert [claim.hop for claim in one.next(NOW)] == ["c.test"]


def test_local_delivery_has_its_own_window() -> None:
    one = scheduler(local_window=10, probing_max=1)
    assert one.admit("a.test", 0, NOW)
    assert not one.admit("b.test", 0, NOW)
    assert [one.admit("local", 0, NOW) for _ in range(11)] == [True] * 10 + [False]
    one.done("local", 0, DOWN, NOW)
    one.done("local", 0, SENT, NOW)
    assert one.window("local") == 10


def test_hosts_that_hang_take_nothing_from_those_that_answer() -> None:
    one = scheduler(active_max=5, probing_max=10, window_start=5)
    one.admit("good.test", 0, NOW)
    one.done("good.test", 0, SENT, NOW)
    for number in range(10):
        one.due(f"hangs{number}.test", 0, NOW)
    # Two take five and one more makes it tight: the others try with one each.
    claims = one.next(NOW)
    assert [claim.count for claim in claims] == [5, 1, 1, 1, 1, 1]
    assert [one.admit("good.test", 0, NOW) for _ in range(6)] == [True] * 5 + [False]


def test_stalled_destinations_go_on_when_room_comes() -> None:
    one = scheduler(probing_max=2, window_start=2)
    for name in "abc":
        one.due(f"{name}.test", 0, NOW)
    assert [c.hop for c in one.next(NOW)] == ["a.test"]
    one.claimed("a.test", 0, 2, 0, NOW)
    assert [c.hop for c in one.next(NOW)] == ["b.test"]
    one.claimed("b.test", 0, 2, 1, NOW)
    one.done("b.test", 0, SENT, NOW)
    assert [c.hop for c in one.next(NOW)] == ["c.test"]


def test_what_is_idle_is_forgotten_first_and_hints_beyond_are_dropped() -> None:
    one = scheduler(hops_max=2)
    assert one.admit("a.test", 0, NOW)
    one.due("b.test", 0, NOW)
    assert not one.admit("c.test", 0, NOW)
    one.due("c.test", 0, NOW)
    assert [c.hop for c in one.next(NOW)] == ["b.test"]
    one.done("a.test", 0, SENT, NOW)
    assert one.admit("c.test", 0, NOW)
    assert one.hops == 2


def test_wake_at_says_whether_next_has_more() -> None:
    one = scheduler(claims_max=1)
    assert one.wake_at(NOW) is None
    one.due("a.test", 0, NOW)
    one.due("b.test", 0, NOW)
    assert one.wake_at(NOW) == NOW.mono_us
    assert len(one.next(NOW)) == 1
    assert len(one.next(NOW)) == 1
    one.next(NOW)
    assert one.wake_at(NOW) is None


@pytest.mark.parametrize("outcomes", [SENT, DOWN, ()])
def test_done_for_a_put_off_lease_is_harmless(outcomes: tuple[Outcome, ...]) -> None:
    one = scheduler()
    one.done("a.test", 0, outcomes, NOW)
    assert one.active == 0


LETTER, BUSY, LIST = (graded(3, grade) for grade in Grade)


def proven(**settings: Any) -> Scheduler:
    """One that knows a.test with a window of 16, twice as many in hand."""
    one = scheduler(window_start=15, window_max=16, **settings)
    assert one.admit("a.test", LETTER, NOW)
    one.done("a.test", LETTER, SENT, NOW)
    assert one.window("a.test") == 16
    return one


def test_letters_pass_lists_that_wait() -> None:
    one = proven()
    one.due("a.test", LIST, NOW)
    assert one.admit("a.test", LETTER, NOW)
    assert not one.admit("a.test", LIST, NOW)
    one.due("a.test", BUSY, NOW)
    one.due("a.test", LETTER, NOW)
    assert not one.admit("a.test", LETTER + 1, NOW)
    claims = one.next(NOW)
    assert [claim.lane for claim in claims] == [LETTER]


def test_bulk_leaves_an_eighth_free_for_letters() -> None:
    one = proven()
    assert sum(one.admit("a.test", LIST, NOW) for _ in range(40)) == 28
    assert sum(one.admit("a.test", LETTER, NOW) for _ in range(40)) == 4


def test_a_list_has_a_turn_after_fifteen_letters_even_if_letters_wait() -> None:
    one = proven(claim_max=5)
    lanes = []
    for lane in (LIST, LETTER):
        one.due("a.test", lane, NOW)
    for _ in range(100):
        for claim in one.next(NOW):
            lanes += [claim.lane] * claim.count
            one.claimed(claim.hop, claim.lane, claim.count, claim.count, NOW)
            for _ in range(claim.count):
                one.done(claim.hop, claim.lane, SENT, NOW)
    assert lanes.count(LIST) >= 5
    assert lanes.count(LETTER) >= 15 * (lanes.count(LIST) - 1)


def test_a_list_does_not_use_the_time_in_which_letters_are_claimed() -> None:
    one = proven(claim_max=5)
    for lane in (LIST, LETTER):
        one.due("a.test", lane, NOW)
    assert one.next(NOW) == [Claim("a.test", LETTER, 5)]
    assert one.next(NOW) == []
    one.claimed("a.test", LETTER, 5, 2, NOW)
    assert [claim.lane for claim in one.next(NOW)] == [LIST]


def test_lanes_in_turn_fill_the_room_that_is_worth_claiming() -> None:
    one = proven()
    assert sum(one.admit("a.test", LETTER, NOW) for _ in range(32)) == 32
    for lane in range(8):
        one.due("a.test", lane, NOW)
    for _ in range(7):
        one.done("a.test", LETTER, SENT, NOW)
        assert one.next(NOW) == []
    one.done("a.test", LETTER, SENT, NOW)
    assert one.next(NOW) == [Claim("a.test", lane, 1) for lane in range(8)]


def test_claims_wait_until_they_are_worth_it_while_all_connections_have_work() -> None:
    one = proven()
    one.due("a.test", LETTER, NOW)
    assert one.next(NOW) == [Claim("a.test", LETTER, 32)]
    one.claimed("a.test", LETTER, 32, 32, NOW)
    for _ in range(7):
        one.done("a.test", LETTER, SENT, NOW)
        assert one.next(NOW) == []
    one.done("a.test", LETTER, SENT, NOW)
    assert one.next(NOW) == [Claim("a.test", LETTER, 8)]


def test_slow_lists_hold_no_more_than_a_sixteenth_while_letters_wait() -> None:
    one = proven()
    for lane in (LIST, LETTER):
        one.due("a.test", lane, NOW)
    in_hand = 0
    for _ in range(200):  # letters come back at once, lists never
        for claim in one.next(NOW):
            one.claimed(claim.hop, claim.lane, claim.count, claim.count, NOW)
            if claim.lane == LIST:
                in_hand += claim.count
            else:
                for _ in range(claim.count):
                    one.done(claim.hop, LETTER, SENT, NOW)
    assert in_hand == 3


def test_a_window_of_one_serves_a_list_between_letters() -> None:
    one = scheduler(window_start=1, window_max=1, messages_ahead=1)
    for lane in (LIST, LETTER):
        one.due("a.test", lane, NOW)
    order = []
    for _ in range(64):
        for claim in one.next(NOW):
            order.append(claim.lane)
            one.claimed(claim.hop, claim.lane, claim.count, claim.count, NOW)
            one.done(claim.hop, claim.lane, SENT, NOW)
    assert order[15] == LIST
    assert order.count(LIST) == 4


def test_the_whole_keeps_an_eighth_free_of_bulk() -> None:
    one = scheduler(active_max=80, probing_max=200, window_start=5)
    for number in range(40):
        name = f"{number}.test"
        assert one.admit(name, LETTER, NOW)
        one.done(name, LETTER, SENT, NOW)
        one.due(name, LIST, NOW)
    started = 0
    while claims := one.next(NOW):
        for claim in claims:
            started += claim.count
            one.claimed(claim.hop, claim.lane, claim.count, claim.count, NOW)
    assert started == 70
    assert one.admit("new.test", LETTER, NOW)


def test_bulk_has_a_share_of_the_whole_even_if_letters_fill_it() -> None:
    one = scheduler(active_max=32, probing_max=32, window_start=32, window_max=32)
    for name in ("a.test", "b.test"):
        assert one.admit(name, LETTER, NOW)
        one.done(name, LETTER, SENT, NOW)
    assert sum(one.admit("a.test", LETTER, NOW) for _ in range(32)) == 32
    one.due("b.test", LIST, NOW)
    assert one.next(NOW) == []
    one.done("a.test", LETTER, SENT, NOW)
    assert [(c.hop, c.count) for c in one.next(NOW)] == [("b.test", 1)]


def test_suspects_leave_half_of_the_unproven_room_to_those_not_known_yet() -> None:
    one = scheduler(probing_max=20, window_start=2)
    suspects = [f"dead{number}.test" for number in range(60)]
    for name in suspects:
        assert one.admit(name, 0, NOW)
        one.done(name, 0, DOWN, NOW)
    awake = later(2 * MINUTE_US)
    for name in suspects:
        one.due(name, 0, awake)
    assert sum(claim.count for claim in one.next(awake)) == 10
    assert [one.admit(f"new{n}.test", 0, awake) for n in range(11)] == (
        [True] * 10 + [False]
    )


class Simulation:
    """A queue in memory, peers that answer after a while, and a virtual clock."""

    def __init__(self, one: Scheduler) -> None:
        self.one = one
        self.queue: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
        self.now = Now(T0, 0)
        self.flights: list[tuple[int, int, str, int]] = []
        self.sent: dict[tuple[str, int], list[int]] = defaultdict(list)
        self.tried: dict[str, int] = defaultdict(int)
        self.dead: set[str] = set()
        self.number = 0

    def add(self, hop: str, lane: int, count: int) -> None:
        self.queue[hop, lane] += [(0, n) for n in range(count)]
        self.one.due(hop, lane, self.now)

    def run(self, until_us: int) -> None:
        while self.now.mono_us < until_us:
            self.claim()
            next_due = min((q[0][0] for q in self.queue.values() if q), default=1 << 60)
            wake = min(
                self.flights[0][0] if self.flights else 1 << 60,
                max(next_due, self.now.mono_us + SECOND_US),
            )
            if wake >= 1 << 60:
                return
            self.now = Now(T0 + wake, wake)
            self.land()
            self.scan()

    def scan(self) -> None:
        for (hop, lane), waiting in self.queue.items():
            if waiting and waiting[0][0] <= self.now.mono_us:
                self.one.due(hop, lane, self.now)

    def claim(self) -> None:
        while claims := self.one.next(self.now):
            for claim in claims:
                waiting = self.queue[claim.hop, claim.lane]
                due = [item for item in waiting if item[0] <= self.now.mono_us]
                got = due if claim.put_off else due[: claim.count]
                for item in got:
                    waiting.remove(item)
                found = 0 if claim.put_off else len(got)
                self.one.claimed(claim.hop, claim.lane, claim.count, found, self.now)
                if claim.put_off:
                    due_us = claim.put_off.due_us - T0
                    for _, number in got:
                        heapq.heappush(waiting, (due_us, number))
                else:
                    for _ in got:
                        self.start(claim.hop, claim.lane)

    def start(self, hop: str, lane: int) -> None:
        self.tried[hop] += 1
        slow_us = 30 * SECOND_US if hop in self.dead else SECOND_US // 10
        self.number += 1
        heapq.heappush(
            self.flights, (self.now.mono_us + slow_us, self.number, hop, lane)
        )

    def land(self) -> None:
        while self.flights and self.flights[0][0] <= self.now.mono_us:
            _, _, hop, lane = heapq.heappop(self.flights)
            if hop in self.dead:
                self.one.done(hop, lane, DOWN, self.now)
                due_us = self.now.mono_us + 5 * MINUTE_US
                heapq.heappush(self.queue[hop, lane], (due_us, 0))
            else:
                self.one.done(hop, lane, SENT, self.now)
                self.sent[hop, lane].append(self.now.mono_us)


def test_a_dead_hop_delays_nobody_and_is_tried_seldom() -> None:
    world = Simulation(scheduler(active_max=50, probing_max=25))
    world.dead.add("dead.test")
    world.add("dead.test", 0, 500)
    for name in ("a.test", "b.test"):
        world.add(name, 0, 200)
    world.run(10 * SECOND_US)
    assert len(world.sent["a.test", 0]) == len(world.sent["b.test", 0]) == 200
    assert world.sent["a.test", 0][-1] < 5 * SECOND_US
    world.run(120 * MINUTE_US)
    assert world.tried["dead.test"] < 20


def test_a_large_list_does_not_starve_a_small_sender() -> None:
    world = Simulation(scheduler(window_start=2, window_max=4))
    world.add("a.test", 0, 1_000)
    world.add("a.test", 1, 20)
    world.run(60 * SECOND_US)
    assert world.sent["a.test", 1][-1] < 2 * SECOND_US
    assert len(world.sent["a.test", 0]) == 1_000


def test_what_came_just_now_does_not_wait_for_a_round_of_all() -> None:
    one = scheduler()
    for n in range(500):
        one.due(f"backlog{n}.test", 0, NOW)
    one.due("fresh.test", 0, NOW, is_fresh=True)
    claims = {claim.hop: claim for claim in one.next(NOW, 4)}
    assert "fresh.test" in claims
    assert len(claims) == 4, "the others have their turns, too"
    count = claims["fresh.test"].count
    one.claimed("fresh.test", 0, count, count, NOW)  # there is more
    for _ in range(count):
        one.done("fresh.test", 0, (), NOW)
    assert "fresh.test" in [claim.hop for claim in one.next(NOW, 2)]
    one.claimed("fresh.test", 0, 1, 0, NOW)  # that was all
    one.due("fresh.test", 0, NOW)
    assert "fresh.test" not in [claim.hop for claim in one.next(NOW, 50)]
