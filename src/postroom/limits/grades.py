"""Grades of mail: single letters before busy senders, and both before lists. Pure.

A lane belongs to a grade, written into its number, so that the queue keeps it. Mail of
a better grade goes first wherever the two meet (a destination's turns, a connection's
next message), but not always: after ``PASSES_MAX`` messages that went before, one of
the worse grade has its turn. Nothing starves, and what is sent in bulk takes at most
one turn in sixteen from those who wait for a single letter.
"""

from collections.abc import Sequence
from enum import IntEnum

PASSES_MAX = 15
"""How many messages of better grades may go before one of a worse grade that waits."""

_GRADE_BITS = 12


class Grade(IntEnum):
    """How urgent mail is; the smaller, the sooner it goes."""

    LETTER = 0
    """A message to few, from one who does not send many."""
    BUSY = 1
    """One of very many messages that a sender sends in a short time."""
    LIST = 2
    """A message to very many recipients."""


GRADES = len(Grade)


def graded(lane: int, grade: Grade) -> int:
    """Return the number of a lane (below 4,096) in a grade."""
    assert 0 <= lane < 1 << _GRADE_BITS
    return grade << _GRADE_BITS | lane


def grade_of(lane: int) -> int:
    """Return the grade of a lane; a number that means none is of the worst."""
    return min(lane >> _GRADE_BITS, GRADES - 1)


class Precedence:
    """Chooses whose turn it is among grades that wait for the same thing."""

    __slots__ = ("_passed",)

    def __init__(self) -> None:
        self._passed = [0] * GRADES

    def choose(self, waiting: Sequence[object]) -> int:
        """Return the grade whose turn it is; something of some grade must wait.

        Args:
            waiting: what waits, by grade; only its truth counts.
        """
        best = -1
        for grade in range(GRADES):
            if not waiting[grade]:
                self._passed[grade] = 0
            elif best < 0:
                best = grade
            elif self._passed[grade] >= PASSES_MAX:
                return grade
        assert best >= 0
        return best

    def turn(self, grade: int) -> None:
        """Note that a grade has its turn."""
        self._passed[grade] = 0

    def went(self, grade: int, count: int, waiting: Sequence[object]) -> None:
        """Note that ``count`` of a grade went, past those worse that wait."""
        for worse in range(grade + 1, GRADES):
            if waiting[worse]:
                self._passed[worse] += count
