"""Who sends in bulk: how mail is graded when it comes. Pure."""

from collections import OrderedDict

import msgspec

from postroom.limits.gcra import Allowed, Rate, decide
from postroom.limits.grades import Grade
from postroom.mail.units import Duration

SENDERS_MAX = 10_000
"""Senders that are watched; of the others each is taken for a quiet one."""


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

    @property
    def list_recipients(self) -> int:
        """A message with more recipients is graded as a list."""
        return self._settings.list_recipients

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
