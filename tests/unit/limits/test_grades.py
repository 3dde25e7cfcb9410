"""Grades of mail: who counts as sending in bulk, and whose turn it is."""

import msgspec
import pytest

from postroom.limits.grades import (
    GRADES,
    PASSES_MAX,
    Grade,
    Precedence,
    grade_of,
    graded,
)
from postroom.mail.now import SECOND_US
from postroom.mail.units import Duration
from postroom.schedule.senders import SENDERS_MAX, GradeSettings, Senders

SETTINGS = GradeSettings(list_recipients=50, busy_burst=10)


@pytest.mark.parametrize("grade", list(Grade))
@pytest.mark.parametrize("lane", [0, 7, 4095])
def test_a_lane_keeps_its_grade(lane: int, grade: Grade) -> None:
    assert grade_of(graded(lane, grade)) == grade


@pytest.mark.parametrize("lane", [3 << 12, 9 << 12, 1 << 40])
def test_a_number_that_means_no_grade_is_of_the_worst(lane: int) -> None:
    assert grade_of(lane) == Grade.LIST


def test_numbers_of_old_queues_are_letters() -> None:
    assert {grade_of(lane) for lane in range(64)} == {Grade.LETTER}


@pytest.mark.parametrize(
    ("recipients", "expected"),
    [(1, Grade.LETTER), (10, Grade.LETTER), (11, Grade.BUSY), (51, Grade.LIST)],
)
def test_a_first_message(recipients: int, expected: Grade) -> None:
    assert Senders(SETTINGS).grade("ann@a.test", recipients, 0) is expected


def test_a_sender_is_busy_after_a_stretch_and_others_are_not() -> None:
    senders = Senders(SETTINGS)
    found = [senders.grade("ann@a.test", 1, 5) for _ in range(12)]
    assert found == [Grade.LETTER] * 10 + [Grade.BUSY] * 2
    assert senders.grade("bob@a.test", 1, 5) is Grade.LETTER


def test_a_busy_sender_has_one_letter_back_a_second() -> None:
    senders = Senders(SETTINGS)
    tenth_us = SECOND_US // 10
    found = [senders.grade("ann@a.test", 1, n * tenth_us) for n in range(1_000)]
    assert found.count(Grade.LETTER) == 10 + 99
    later_us = 200 * SECOND_US
    assert senders.grade("ann@a.test", 10, later_us) is Grade.LETTER
    assert senders.grade("ann@a.test", 1, later_us) is Grade.BUSY


def test_senders_are_forgotten_oldest_first() -> None:
    senders = Senders(SETTINGS)
    senders.grade("ann@a.test", 10, 0)
    assert senders.grade("ann@a.test", 1, 0) is Grade.BUSY
    for number in range(SENDERS_MAX):
        senders.grade(f"{number}@b.test", 1, 0)
    assert senders.grade("ann@a.test", 1, 0) is Grade.LETTER


@pytest.mark.parametrize("name", ["list_recipients", "busy_burst", "busy_interval"])
def test_bounds_of_zero_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1"):
        msgspec.structs.replace(SETTINGS, **{name: Duration(0)})


def served(waiting: list[int], turns: int) -> list[int]:
    """Let one message of the chosen grade go each turn; return the grades."""
    precedence, order = Precedence(), []
    for _ in range(turns):
        grade = precedence.choose(waiting)
        precedence.turn(grade)
        waiting[grade] -= 1
        precedence.went(grade, 1, waiting)
        order.append(grade)
    return order


def test_letters_go_first_and_lists_in_every_sixteenth_turn() -> None:
    order = served([1_000, 0, 1_000], 160)
    assert order.count(Grade.LIST) == 10
    assert order[PASSES_MAX] == Grade.LIST
    assert order[:PASSES_MAX] == [Grade.LETTER] * PASSES_MAX


def test_all_grades_have_turns() -> None:
    order = served([2_000, 2_000, 2_000], 1_600)
    counts = [order.count(grade) for grade in range(GRADES)]
    assert counts[Grade.LETTER] >= 1_300
    assert counts[Grade.BUSY] >= 80
    assert counts[Grade.LIST] >= 80


def test_the_worst_goes_when_nothing_else_waits() -> None:
    assert served([0, 0, 5], 5) == [Grade.LIST] * 5
    assert served([0, 3, 5], 3) == [Grade.BUSY] * 3
