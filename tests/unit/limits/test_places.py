"""Places that workers share: never too many, and nobody goes without for long."""

from hypothesis import given, settings
from hypothesis import strategies as st

from postroom.limits.places import TURN, Places
from postroom.limits.shared import SharedCounters, map_octets, prepare_map


def workers(count: int, bound: int) -> list[Places]:
    buffer = bytearray(map_octets(count, 64))
    prepare_map(buffer)
    rows = [SharedCounters(buffer, count, row) for row in range(count)]
    return [Places(row, "mx.test:25", bound) for row in rows]


def test_the_bound_holds_over_all_workers() -> None:
    a, b = workers(2, 5)
    assert [a.take() for _ in range(3)] == [True] * 3
    assert [b.take() for _ in range(4)] == [True, True, False, False]
    a.give_back()
    assert b.take()
    assert (a.held, b.held) == (2, 3)


def test_who_wants_places_gets_as_many_up_to_its_share() -> None:
    a, b = workers(2, 6)
    assert all(a.take() for _ in range(6))
    assert not a.is_owed(0, 0)
    b.want(2)
    assert [a.is_owed(leaving, 0) for leaving in (0, 1, 2)] == [True, True, False]
    b.want(9)
    assert [a.is_owed(leaving, 0) for leaving in (2, 3)] == [True, False]


def test_an_idle_place_is_kept_within_the_share() -> None:
    a, b = workers(2, 4)
    assert all(a.take() for _ in range(3))
    assert b.take()
    assert not a.is_unfair
    b.want(1)
    assert a.is_unfair
    a.want(1)
    assert not b.is_unfair


def test_a_free_place_is_nobody_s_debt() -> None:
    a, b = workers(2, 4)
    assert all(a.take() for _ in range(3))
    b.want(1)
    assert not a.is_owed(0, 0)


def test_what_was_given_up_is_not_taken_back_while_another_wants_it() -> None:
    a, b = workers(2, 4)
    assert all(a.take() for _ in range(4))
    b.want(1)
    for _ in range(2):
        a.give_back()
    assert not a.take()
    assert b.take()
    b.want(0)
    assert a.take()


def test_fewer_places_than_workers_go_round() -> None:
    a, b = workers(2, 1)
    assert a.take()
    b.want(1)
    assert not a.is_owed(0, TURN - 1)
    assert a.is_owed(0, TURN)
    a.give_back()
    a.want(1)
    assert not a.take()
    assert not b.take()
    assert b.take(waited=True)
    b.want(0)


def test_a_worker_that_wants_nothing_any_more_is_owed_nothing() -> None:
    a, b = workers(2, 2)
    assert all(a.take() for _ in range(2))
    b.want(2)
    b.want(0)
    assert not a.is_owed(0, TURN)
    assert a.wanted_elsewhere == 0


def test_shares_of_the_dead_are_free() -> None:
    buffer = bytearray(map_octets(2, 64))
    prepare_map(buffer)
    rows = [SharedCounters(buffer, 2, row) for row in range(2)]
    a, b = (Places(row, "mx.test:25", 3) for row in rows)
    assert all(a.take() for _ in range(3))
    a.want(4)
    rows[1].zero_row(0)
    assert b.wanted_elsewhere == 0
    assert all(b.take() for _ in range(3))


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 6),
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from("tgw")), max_size=80),
)
def test_whatever_is_done_each_worker_can_come_to_its_share(
    bound: int, acts: list[tuple[int, str]]
) -> None:
    all_ = workers(3, bound)
    for number, act in acts:
        one = all_[number]
        if act == "t":
            one.take()
        elif act == "w":
            one.want(len(acts) % 4)
        elif one.held:
            one.give_back()
        assert sum(each.held for each in all_) <= bound
    for each in all_:
        each.want(0)
    last = all_[0]
    last.want(1)
    before = last.held
    for _ in range(50 * TURN):  # the others work on; what they owe they give
        for each in all_[1:]:
            if each.held and each.is_owed(0, TURN):
                each.give_back()
            each.take()
        if last.take(waited=True):
            break
    assert last.held == before + 1 or last.held >= bound // 3
