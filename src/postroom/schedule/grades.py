"""Grades of mail: single letters before busy senders, and both before lists. Pure.

A lane belongs to a grade, written into its number, so that the queue keeps it. Mail of
a better grade goes first wherever the two meet (a destination's turns, a connection's
next message), but not always: after ``PASSES_MAX`` messages that went before, one of
the worse grade has its turn. Nothing starves, and what is sent in bulk takes at most
one turn in sixteen from those who wait for a single letter.
"""

from collections import OrderedDict
from collections.abc import Sequence
from enum import IntEnum

import msgspec

from postroom.limits.gcra import Allowed, Rate, decide
from postroom.mail.units import Duration

PASSES_MAX = 15
"""How many messages of better grades may go before one of a worse grade that waits."""

SENDERS_MAX = 10_000
"""Senders that are watched; of the others each is taken for a quiet one."""

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


class GradeSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """What counts as sending in bulk: such mail lets single letters go first."""

    list_recipients: int = 100
    """A message with more recipients is graded as a list."""
    busy_burst: int = 100
    """Recipients that a sender may write to at a stretch; further mail is graded as
    that of a busy sender."""
    busy_interval: Duration = Duration.from_text("1s")
    """How soon a sender has one more recipient of that stretch back."""

    def __post_init__(self) -> None:
        """Check what the types do not."""
        for name in ("list_recipients", "busy_burst", "busy_interval"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")


class Senders:
    """How much each sender has sent lately, as far as one worker has seen.

    A message that is graded down counts nothing: a busy sender's mail goes on in
    both grades, one a ``busy_interval`` as a letter.
    """

    def __init__(self, settings: GradeSettings) -> None:
        self._settings = settings
        self._rate = Rate(1, settings.busy_interval, settings.busy_burst)
        self._arrivals: OrderedDict[str, int] = OrderedDict()

    def grade(self, sender: str, recipients: int, mono_us: int) -> Grade:
        """Grade a message that has just come."""
        if recipients > self._settings.list_recipients:
            return Grade.LIST
        arrivals = self._arrivals
        verdict = decide(arrivals.get(sender, 0), mono_us, self._rate, recipients)
        if not isinstance(verdict, Allowed):
            return Grade.BUSY
        arrivals[sender] = verdict.tat_us
        arrivals.move_to_end(sender)
        if len(arrivals) > SENDERS_MAX:
            arrivals.popitem(last=False)
        return Grade.LETTER
