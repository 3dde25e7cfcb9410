"""Counters in a shared map: exact, bounded over all rows, and nothing leaks."""

import os
import subprocess
import sys
from mmap import mmap

import pytest

from postroom.limits.gcra import Rate
from postroom.limits.shared import BUCKET, SharedCounters, map_octets, prepare_map
from postroom.mail.units import Duration

SECOND = 1_000_000


def workers(rows: int, slots: int = 64) -> list[SharedCounters]:
    buffer = bytearray(map_octets(rows, slots))
    prepare_map(buffer)
    return [SharedCounters(buffer, rows, row) for row in range(rows)]


def test_the_bound_holds_over_all_workers() -> None:
    a, b, c = workers(3)
    assert a.add("x", 2, 4)
    assert b.add("x", 1, 4)
    assert c.add("x", 1, 4)
    assert not a.add("x", 1, 4)
    assert a.count("x") == b.count("x") == 4
    b.release("x")
    assert a.add("x", 1, 4)


def test_a_refusal_leaves_no_trace() -> None:
    a, b = workers(2)
    assert not a.add("x", 5, 4)
    assert b.count("x") == 0
    assert b.add("x", 4, 4)


def test_keys_do_not_share_counts_even_in_one_bucket() -> None:
    a, b = workers(2, slots=BUCKET)
    for number in range(BUCKET):
        assert a.add(f"k{number}", number + 1, 100)
    for number in range(BUCKET):
        assert b.count(f"k{number}") == number + 1


def test_a_full_bucket_says_no_and_room_comes_back() -> None:
    a, b = workers(2, slots=BUCKET)
    for number in range(BUCKET):
        assert a.add(f"k{number}", 1, 100)
    assert not a.add("one more", 1, 100)
    assert a.full == 1
    assert b.add("one more", 1, 100)
    a.release("k3")
    assert a.add("one more", 1, 100)
    assert a.count("one more") == 2
    assert a.count("k3") == 0


def test_releasing_more_than_was_added_is_a_bug() -> None:
    (a,) = workers(1)
    assert a.add("x", 1, 1)
    a.release("x")
    with pytest.raises(AssertionError):
        a.release("x")


def test_a_dead_workers_counts_are_zeroed_and_its_row_is_used_again() -> None:
    buffer = bytearray(map_octets(2, 64))
    prepare_map(buffer)
    a, b = SharedCounters(buffer, 2, 0), SharedCounters(buffer, 2, 1)
    assert a.add("x", 3, 3)
    assert not b.add("x", 1, 3)
    b.zero_row(0)
    assert b.add("x", 1, 3)
    again = SharedCounters(buffer, 2, 0)
    assert again.add("x", 2, 3)
    assert not again.add("x", 1, 3)


def test_a_rate_is_one_for_all_workers() -> None:
    a, b = workers(2)
    rate = Rate(10, Duration(10 * SECOND), 3)
    answers = [w.hit("x", rate, 100 * SECOND) for w in (a, b, a, b, a)]
    assert answers == [0, 0, 0, SECOND, SECOND]
    assert b.hit("x", rate, 101 * SECOND) == 0
    assert a.hit("x", rate, 101 * SECOND) == SECOND
    assert a.hit("y", rate, 101 * SECOND) == 0


def test_rates_whose_time_is_past_give_up_their_cells() -> None:
    (a,) = workers(1, slots=BUCKET)
    rate = Rate(1, Duration(SECOND), 1)
    for number in range(BUCKET):
        assert a.hit(f"k{number}", rate, 100 * SECOND) == 0
    assert a.hit("more", rate, 100 * SECOND) == SECOND
    assert a.full == 1
    assert a.hit("more", rate, 101 * SECOND) == 0


def test_a_look_at_a_rate_needs_no_room() -> None:
    """Or whoever fills the map, by failing from many networks, bars everybody."""
    (a,) = workers(1, slots=BUCKET)
    rate = Rate(1, Duration(SECOND), 1)
    for number in range(BUCKET):
        assert a.hit(f"k{number}", rate, 100 * SECOND, 0) == 0
        assert a.hit(f"k{number}", rate, 100 * SECOND) == 0
    assert a.hit("more", rate, 100 * SECOND, 0) == 0
    assert a.full == 0
    assert a.hit("k3", Rate(1, Duration(SECOND), 0), 100 * SECOND, 0) == SECOND


def test_a_rate_survives_the_death_of_its_worker() -> None:
    buffer = bytearray(map_octets(2, 64))
    prepare_map(buffer)
    a, b = SharedCounters(buffer, 2, 0), SharedCounters(buffer, 2, 1)
    rate = Rate(1, Duration(60 * SECOND), 1)
    assert a.hit("x", rate, 100 * SECOND) == 0
    b.zero_row(0)
    assert b.hit("x", rate, 100 * SECOND) == 60 * SECOND
    assert SharedCounters(buffer, 2, 0).hit("x", rate, 100 * SECOND) == 60 * SECOND


def test_many_keys_do_not_grow_what_is_remembered() -> None:
    one = SharedCounters.private(slots=256)
    for number in range(20_000):
        assert one.add(f"client:{number}", 1, 5)
        one.release(f"client:{number}")
    assert one.full == 0


CHILD = """
import sys
from mmap import mmap
from postroom.limits.shared import SharedCounters
fd, row = int(sys.argv[1]), int(sys.argv[2])
mine = SharedCounters(mmap(fd, 0), 2, row)
got = most = 0
for turn in range(20_000):
    if mine.add("x", 1, 5):
        got += 1
        most = max(most, mine.count("x"))
        if got == 3:
            mine.release("x", 3)
            got = 0
print(got)
"""


def test_two_processes_never_pass_the_bound() -> None:
    fd = os.memfd_create("limits")
    os.ftruncate(fd, map_octets(2, 64))
    with mmap(fd, 0) as view:
        prepare_map(view)
        children = [
            subprocess.Popen(
                [sys.executable, "-c", CHILD, str(fd), str(row)],
                pass_fds=[fd],
                stdout=subprocess.PIPE,
                text=True,
            )
            for row in range(2)
        ]
        left = [int(child.communicate(timeout=60)[0]) for child in children]
        mine = SharedCounters(view, 2, 0)
        assert mine.count("x") == sum(left) <= 5
        mine.close()
    os.close(fd)
