"""What the schedule remembers of a hop and of a destination; nothing per message.

A *hop* is the routed name the queue is ordered by. A *destination* is where mail for
one or more hops really goes (an MX set): it owns the window and the rest after
failures. Both are plain records; the rules are in ``scheduler``.
"""

from enum import IntEnum

import msgspec

from postroom.limits.grades import GRADES, Precedence, grade_of
from postroom.limits.windows import FeedbackWindow
from postroom.mail.now import Now
from postroom.mail.outcome import Deferred
from postroom.schedule.jitter import spread
from postroom.schedule.settings import ScheduleSettings

_DOUBLINGS_MAX = 20


class PutOff(msgspec.Struct, frozen=True, gc=False):
    """What happens to mail for a resting destination, without a try.

    ``outcome`` is the failure that made it rest; ``due_us`` (UTC) is when its rest is
    over.
    """

    outcome: Deferred
    due_us: int


class Standing(IntEnum):
    """What is known of a destination; each worse one has less room in the whole."""

    PROVEN = 0
    """The last that came back was an answer."""
    UNKNOWN = 1
    """Nothing has come back yet."""
    SUSPECT = 2
    """The last that came back was a failure."""


class Destination:
    """One place that mail goes to.

    Attributes:
        name: the hop's name, or that of an MX set once a hop was bound to it.
        window: how many connections it bears.
        standing: what is known of it.
        active: messages in hand.
        in_hand: the same by grade.
        rings: hops with something due, in the order of their turns, by grade.
        waiting: due lanes over all hops of the ring, by grade.
        asking: claims under way, by grade; those to put off do not count.
        asked: messages that they ask for, which count as in hand.
        filling: its lanes are being asked in turn until there is no more room.
        precedence: which grade's turn it is.
        rests_until_us: end of its rest (monotonic); 0 when it does not rest.
        failure: what made it rest.
        putting_off: a claim of mail to be put off is under way.
        queued: it stands in the scheduler's queue of turns.
        is_fresh: some of what waits there came just now.
        hops: how many hops are bound to it.
        local: not another host: its window is fixed and not counted in the whole.
    """

    __slots__ = (
        "_streak",
        "active",
        "asked",
        "asking",
        "failure",
        "filling",
        "hops",
        "in_hand",
        "is_fresh",
        "local",
        "name",
        "precedence",
        "putting_off",
        "queued",
        "rests",
        "rests_until_us",
        "rings",
        "standing",
        "waiting",
        "window",
    )

    def __init__(self, name: str, window: FeedbackWindow, *, local: bool) -> None:
        self.name = name
        self.window = window
        self.local = local
        self.standing = Standing.UNKNOWN
        self.active = 0
        self.in_hand = [0] * GRADES
        self.rings: list[dict[str, Hop]] = [{} for _ in range(GRADES)]
        self.waiting = [0] * GRADES
        self.asking = [0] * GRADES
        self.asked = 0
        self.filling = False
        self.precedence = Precedence()
        self.rests_until_us = 0
        self.rests = 0
        self.failure: Deferred | None = None
        self.putting_off = False
        self.queued = False
        self.is_fresh = False
        self.hops = 0
        self._streak = 0

    @property
    def is_wanted(self) -> bool:
        """Whether something is due there."""
        return any(self.waiting)

    def has_before(self, lane: int) -> bool:
        """Whether something is due there that a message of this lane may not pass."""
        return any(self.waiting[: grade_of(lane) + 1])

    def succeeded(self) -> None:
        """It answered: whatever it said of the recipients, it is alive."""
        self.window.succeeded()
        self._streak = 0
        self.rests = 0

    def failed(self) -> bool:
        """It failed; returns whether it is to rest.

        It rests when the failures in a row outnumber what is still in flight: one
        refused connection among many that work only narrows the window, while a
        destination that refuses its first message rests at once.
        """
        if not self.local:  # a failing disk gets no better by fewer writers
            self.window.failed()
        self._streak += 1
        # This one is in flight still; what was only asked for is not.
        return self._streak >= self.active - self.asked

    def rest(
        self, failure: Deferred, now: Now, settings: ScheduleSettings, seed: int
    ) -> None:
        """Let it alone for a while, twice as long as the last time."""
        self.rests += 1
        doublings = min(self.rests - 1, _DOUBLINGS_MAX)
        length_us = min(settings.backoff_start << doublings, settings.backoff_max)
        percent = settings.backoff_jitter_percent
        self.rests_until_us = now.mono_us + spread(length_us, percent, seed, self.rests)
        self.failure = failure
        self.window.close()
        self._streak = 0

    def put_off(self, now: Now) -> PutOff | None:
        """What to do with its mail if it rests; None if it does not (any more)."""
        if not self.rests_until_us:
            return None
        left_us = self.rests_until_us - now.mono_us
        if left_us <= 0 or self.failure is None:
            self.rests_until_us = 0
            return None
        return PutOff(self.failure, now.utc_us + left_us)


class Hop:
    """One routed name and the lanes in which something is due there.

    Attributes:
        name: the routed name.
        destination: where its mail goes.
        active: messages in hand.
        in_hand: the same by grade.
        due: lanes with something due, in the order of their turns, by grade.
        asking: lanes whose claim is under way, and for how many; 0 for a rest.
        again: of those, the lanes about which a new hint came meanwhile.
    """

    __slots__ = (
        "active",
        "again",
        "asking",
        "destination",
        "due",
        "in_hand",
        "name",
    )

    def __init__(self, name: str, destination: Destination) -> None:
        self.name = name
        self.destination = destination
        self.active = 0
        self.in_hand = [0] * GRADES
        self.due: list[dict[int, None]] = [{} for _ in range(GRADES)]
        self.asking: dict[int, int] = {}
        self.again: set[int] = set()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in hand, asked for or due."""
        return not (self.active or self.asking or any(self.due))
