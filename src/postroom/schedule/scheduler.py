"""The scheduler: what the spool is asked for next, given what is known now. Pure.

It keeps records of hops, lanes and destinations, never of messages, so its size does
not depend on the backlog. Turns go round over destinations; within one the better
grade of mail goes first, with a turn now and then for the worse; within a grade turns
go round over the destination's hops, and over the lanes of a hop; within a lane the
spool gives the oldest due first. So neither one sender, nor one list, nor one dead hop
holds up the rest.

The caller's part::

    accept  -> admit(): True: deliver it now | False: it stays queued, call due()
    scan    -> due() for every hop and lane that the spool says has something due
    always  -> next(): claims; ask the spool; claimed() with what came;
               deliver each lease; learn() its outcomes, settle it, done()
    put_off -> a claim with ``put_off`` asks for nothing: let the hop's mail be found
               again only when the rest is over, then claimed() with nothing

A hint that is dropped because too many hops are known is found by a later scan.
"""

from collections import deque
from collections.abc import Sequence

import msgspec

from postroom.limits.grades import GRADES, PASSES_MAX, grade_of
from postroom.limits.windows import FeedbackWindow
from postroom.mail.now import Now
from postroom.mail.outcome import Deferred, Outcome
from postroom.mail.route import LOCAL_HOP
from postroom.schedule.active_set import ActiveSet
from postroom.schedule.destination import Destination, Hop, PutOff, Standing
from postroom.schedule.settings import ScheduleSettings

EXPANSION_HOP = ""
"""The hop of recipients that are still to be expanded."""
DISCARD_HOP = "discard"
LOCAL_HOPS = frozenset({LOCAL_HOP, EXPANSION_HOP, DISCARD_HOP})
"""Hops that are no other host: their window is wide and fixed."""

_LANES_MAX = 1_024
"""Lanes of one grade that a hop remembers as due; a later scan finds the others."""
_CLAIMED_AT_ONCE = 4
"""While all connections have work, one in so many places has to be free for a claim."""
_KEPT_FOR_LETTERS = 8
"""One in so many places at a destination is kept free of what is sent in bulk."""


class Claim(msgspec.Struct, frozen=True, gc=False):
    """Ask the spool for up to ``count`` messages due at this hop and lane.

    With ``put_off`` nothing is asked for: the hop's mail is to be left alone until that
    time, because of that outcome.
    """

    hop: str
    lane: int
    count: int
    put_off: PutOff | None = None


class Scheduler:
    """One worker's schedule.

    Args:
        settings: windows, rests and bounds.
        seed: makes rests of different workers differ.
    """

    def __init__(self, settings: ScheduleSettings, seed: int) -> None:
        self._settings = settings
        self._seed = seed
        self._hops: dict[str, Hop] = {}
        self._destinations: dict[str, Destination] = {}
        self._idle: dict[str, Hop] = {}  # oldest first
        self._turns: deque[Destination] = deque()
        self._fresh_turns: deque[Destination] = deque()
        self._is_fresh_next = True
        self._whole = ActiveSet(settings.active_max, settings.probing_max)

    @property
    def active(self) -> int:
        """Messages in hand for other hosts."""
        return self._whole.active

    @property
    def hops(self) -> int:
        """How many hops are remembered."""
        return len(self._hops)

    @property
    def has_turns(self) -> bool:
        """Whether ``next`` may have something to claim."""
        return bool(self._turns or self._fresh_turns)

    def window(self, hop: str) -> int:
        """Return how many connections the hop's destination bears now."""
        entry = self._hops.get(hop)
        if entry is None:
            return self._settings.window_start
        return entry.destination.window.limit

    def resting_until_us(self, hop: str) -> int:
        """Return when (monotonic) the hop's rest ends; 0 if it does not rest."""
        entry = self._hops.get(hop)
        return entry.destination.rests_until_us if entry else 0

    def due(self, hop: str, lane: int, now: Now, *, is_fresh: bool = False) -> None:
        """Take the hint that something is due there.

        ``is_fresh``: it came just now. Every other turn belongs to destinations with
        such mail, so that thousands with a backlog do not make it wait for a round.
        """
        entry = self._hops.get(hop) or self._remember(hop)
        if entry is None:
            return
        if is_fresh:
            entry.destination.is_fresh = True
        if lane in entry.asking:
            entry.again.add(lane)
            return
        due = entry.due[grade_of(lane)]
        if lane not in due and len(due) < _LANES_MAX:
            self._idle.pop(hop, None)
            self._want(entry, lane)

    def admit(self, hop: str, lane: int, now: Now) -> bool:
        """Whether a message that was just accepted may go at once.

        If so it counts as started, and ``done`` is owed. It may not overtake mail
        of its own or a better grade that is due for the same destination.
        """
        entry = self._hops.get(hop) or self._remember(hop)
        if entry is None:
            return False
        destination = entry.destination
        if destination.rests_until_us or destination.has_before(lane):
            return False
        grade = grade_of(lane)
        if self._room(destination, grade) <= 0:
            return False
        if not entry.active:
            self._idle.pop(hop, None)
        self._count(entry, grade, 1)
        destination.precedence.went(grade, 1, destination.waiting)
        return True

    def started(self, hop: str, lane: int, count: int) -> None:
        """Count more that goes at once with what was admitted for this hop.

        One accepted message may become several leases; ``done`` is owed for each.
        The window may be passed by these few.
        """
        entry = self._hops.get(hop) or self._remember(hop)
        if entry is not None:
            self._idle.pop(hop, None)
            self._count(entry, grade_of(lane), count)

    def next(self, now: Now, most: int | None = None) -> list[Claim]:
        """Return what to claim now, ``most`` claims; they count as started."""
        claims: list[Claim] = []
        claims_max = self._settings.claims_max
        if most is not None:
            claims_max = min(claims_max, most)
        while self.has_turns and len(claims) < claims_max:
            destination = self._next_turns().popleft()
            destination.queued = False
            claim = self._turn(destination, now)
            if claim is not None:
                claims.append(claim)
                self._queue(destination)
        return claims

    def claimed(self, hop: str, lane: int, asked: int, got: int, now: Now) -> None:
        """Take note of what a claim brought: fewer than asked empties the lane.

        A claim that failed is told as ``got=0`` and followed by ``due`` later.
        """
        entry = self._hops[hop]
        destination, grade = entry.destination, grade_of(lane)
        asked_for = entry.asking.pop(lane)
        if not asked_for:
            destination.putting_off = False
        else:
            destination.asking[grade] -= 1
            destination.asked -= asked
            self._count(entry, grade, got - asked)
            destination.precedence.went(grade, got, destination.waiting)
        if got >= asked or lane in entry.again:
            entry.again.discard(lane)
            self._want(entry, lane)
        else:
            self._queue(entry.destination)
            self._note_if_idle(entry)
        self._unstall()

    def learn(self, hop: str, outcomes: Sequence[Outcome], now: Now) -> PutOff | None:
        """Take the outcomes of one message that is in hand still; ``done`` follows.

        Returns the rest that the destination takes now, if it failed: a message that
        failed with it is due again when the rest is over, like those that wait.
        """
        entry = self._hops.get(hop)
        if entry is None:
            return None
        failure = _hop_failure(outcomes)
        if failure is not None:
            self._fail(entry.destination, failure, now)
            return entry.destination.put_off(now)
        if outcomes:
            self._succeed(entry.destination)
        return None

    def done(self, hop: str, lane: int, outcomes: Sequence[Outcome], now: Now) -> None:
        """Give back one message that was started.

        Its outcomes are taken too, unless ``learn`` was given them; without (the
        attempt broke off by our own fault) nothing is learned.
        """
        entry = self._hops.get(hop)
        if entry is None or not entry.active:
            return  # a put-off claim's lease: there is nothing to learn from it
        if outcomes:
            self.learn(hop, outcomes, now)
        self._count(entry, grade_of(lane), -1)
        destination = entry.destination
        self._queue(destination)
        self._unstall()
        if not entry.active:
            self._note_if_idle(entry)

    def bind(self, hop: str, destination: str) -> None:
        """Let a hop share limits with all others that go to ``destination``.

        To be called after each MX resolution. A hop whose DNS does not answer keeps
        the destination it had.
        """
        entry = self._hops.get(hop)
        if entry is None or entry.destination.name == destination:
            return
        old = entry.destination
        new = self._destinations.get(destination)
        if new is None:
            new = self._new_destination(destination, local=old.local)
        self._move(entry, old, new)

    def end_rests(self, hop: str | None = None) -> None:
        """Let resting destinations be tried again at once: an operator asks for it.

        Without ``hop`` all of them.
        """
        if hop is None:
            found = list(self._destinations.values())
        else:
            entry = self._hops.get(hop)
            found = [entry.destination] if entry else []
        for destination in found:
            destination.rests_until_us = destination.rests = 0
            self._queue(destination)

    def wake_at(self, now: Now) -> int | None:
        """When (monotonic) to call ``next`` unasked; None if only hints can help.

        There is no timer for rests: the spool does not find mail for resting hops due
        until the rest ends, and its own next due time brings it back.
        """
        return now.mono_us if self.has_turns else None

    # -- turns ---------------------------------------------------------------

    def _turn(self, destination: Destination, now: Now) -> Claim | None:
        if not destination.is_wanted:
            return None
        put_off = destination.put_off(now)
        if put_off is not None:
            if destination.putting_off:
                return None
            destination.putting_off = True
            grade = next(g for g, lanes in enumerate(destination.waiting) if lanes)
            entry, lane = self._take_lane(destination, grade, 0)
            return Claim(entry.name, lane, 1, put_off)
        grade, passed_over = self._whose_turn(destination)
        if not destination.waiting[grade]:
            return None  # a claim of it is under way, which is not to be overtaken
        # One that was passed over often enough may use what is kept for letters.
        room = self._room(destination, 0 if passed_over else grade)
        if room <= 0:
            if self._own_room(destination, grade) > 0:
                self._whole.stall(destination, grade)
            return None
        share = 1
        if not passed_over:
            if self._is_busy_with(destination, grade, room):
                return None
            share = max(1, room // destination.waiting[grade])
        count = min(share, self._settings.claim_max)
        destination.filling = count < room
        destination.precedence.turn(grade)
        entry, lane = self._take_lane(destination, grade, count)
        destination.asking[grade] += 1
        destination.asked += count
        self._count(entry, grade, count)
        return Claim(entry.name, lane, count)

    def _whose_turn(self, destination: Destination) -> tuple[int, bool]:
        """Return the grade that is next, and whether it goes before a better one."""
        waiting, asking = destination.waiting, destination.asking
        wanted = [waiting[grade] + asking[grade] for grade in range(GRADES)]
        best = next(grade for grade, lanes in enumerate(wanted) if lanes)
        grade = destination.precedence.choose(wanted)
        if grade == best or not waiting[grade]:
            return best, False
        # A list's transactions may take long: one turn in sixteen is no more than a
        # sixteenth of the connections.
        share = self._capacity(destination) // (PASSES_MAX + 1)
        if destination.in_hand[grade] > share:
            return best, False
        return grade, True

    def _is_busy_with(self, destination: Destination, grade: int, room: int) -> bool:
        """Whether so much is in hand that it is better to claim more at a time."""
        in_hand = sum(destination.in_hand[: grade + 1])
        if destination.filling or in_hand < destination.window.limit:
            return False
        return room < self._capacity(destination) // _CLAIMED_AT_ONCE

    def _take_lane(
        self, destination: Destination, grade: int, count: int
    ) -> tuple[Hop, int]:
        ring = destination.rings[grade]
        name = next(iter(ring))
        entry = ring.pop(name)
        due = entry.due[grade]
        lane = next(iter(due))
        del due[lane]
        entry.asking[lane] = count
        destination.waiting[grade] -= 1
        if due:
            ring[name] = entry  # at the end
        return entry, lane

    def _want(self, entry: Hop, lane: int) -> None:
        grade = grade_of(lane)
        entry.due[grade][lane] = None
        destination = entry.destination
        destination.rings[grade].setdefault(entry.name, entry)
        destination.waiting[grade] += 1
        self._queue(destination)

    def _queue(self, destination: Destination) -> None:
        if destination.queued:
            return
        if destination.is_wanted:
            destination.queued = True
            turns = self._fresh_turns if destination.is_fresh else self._turns
            turns.append(destination)
        elif not any(destination.asking):
            destination.is_fresh = False

    def _next_turns(self) -> deque[Destination]:
        """Return whose turn it is; by turns, while there are both."""
        self._is_fresh_next = not self._is_fresh_next
        if self._is_fresh_next:
            return self._turns or self._fresh_turns
        return self._fresh_turns or self._turns

    def _unstall(self) -> None:
        # Only as many as there is room for: thousands may be stalled.
        if self._whole.has_stalled:
            for destination in self._whole.released():
                self._queue(destination)

    # -- room ----------------------------------------------------------------

    def _capacity(self, destination: Destination) -> int:
        window = destination.window
        if destination.local:
            return window.limit
        if window.proven:
            return window.limit * self._settings.messages_ahead
        if destination.standing is Standing.UNKNOWN and self._whole.is_tight:
            return 1
        return window.limit

    def _own_room(self, destination: Destination, grade: int) -> int:
        capacity = self._capacity(destination)
        if grade:
            capacity -= capacity // _KEPT_FOR_LETTERS
        return capacity - destination.active

    def _room(self, destination: Destination, grade: int) -> int:
        room = self._own_room(destination, grade)
        if destination.local:
            return room
        return min(room, self._whole.room(destination.standing, grade))

    def _count(self, entry: Hop, grade: int, change: int) -> None:
        entry.active += change
        entry.in_hand[grade] += change
        destination = entry.destination
        destination.active += change
        destination.in_hand[grade] += change
        if not destination.local:
            self._whole.count(destination.standing, grade, change)

    # -- feedback ------------------------------------------------------------

    def _succeed(self, destination: Destination) -> None:
        self._stand(destination, Standing.PROVEN)
        destination.succeeded()
        if destination.rests_until_us:  # it answers after all
            destination.rests_until_us = 0

    def _fail(self, destination: Destination, failure: Deferred, now: Now) -> None:
        self._stand(destination, Standing.SUSPECT)
        if destination.failed() and destination.put_off(now) is None:
            self._seed += 1
            destination.rest(failure, now, self._settings, self._seed)

    def _stand(self, destination: Destination, standing: Standing) -> None:
        if destination.standing is not standing and not destination.local:
            self._whole.move(destination, standing)

    # -- what is remembered ----------------------------------------------------

    def _remember(self, hop: str) -> Hop | None:
        if len(self._hops) >= self._settings.hops_max and not self._forget_one():
            return None
        destination = self._destinations.get(hop)
        if destination is None:
            destination = self._new_destination(hop, local=hop in LOCAL_HOPS)
        entry = Hop(hop, destination)
        destination.hops += 1
        self._hops[hop] = self._idle[hop] = entry
        return entry

    def _new_destination(self, name: str, *, local: bool) -> Destination:
        settings = self._settings
        if local:
            window = FeedbackWindow(settings.local_window, settings.local_window)
        else:
            start = min(settings.window_start, settings.window_max)
            window = FeedbackWindow(start, settings.window_max)
        destination = Destination(name, window, local=local)
        self._destinations[name] = destination
        return destination

    def _forget_one(self) -> bool:
        for hop in self._idle:
            entry = self._idle.pop(hop)
            del self._hops[hop]
            self._unbind(entry.destination)
            return True
        return False

    def _unbind(self, destination: Destination) -> None:
        destination.hops -= 1
        if not destination.hops:
            del self._destinations[destination.name]

    def _note_if_idle(self, entry: Hop) -> None:
        if entry.is_idle:
            self._idle[entry.name] = entry

    def _move(self, entry: Hop, old: Destination, new: Destination) -> None:
        in_hand = list(entry.in_hand)
        for grade, count in enumerate(in_hand):
            self._count(entry, grade, -count)
            old.waiting[grade] -= len(entry.due[grade])
            old.rings[grade].pop(entry.name, None)
        for lane, count in entry.asking.items():
            if not count:
                old.putting_off = False
                new.putting_off = True
                continue
            old.asking[grade_of(lane)] -= 1
            new.asking[grade_of(lane)] += 1
            old.asked -= count
            new.asked += count
        entry.destination = new
        new.hops += 1
        for grade, count in enumerate(in_hand):
            self._count(entry, grade, count)
            if due := len(entry.due[grade]):
                new.rings[grade][entry.name] = entry
                new.waiting[grade] += due
        self._queue(new)
        self._queue(old)
        self._unbind(old)


def _hop_failure(outcomes: Sequence[Outcome]) -> Deferred | None:
    for outcome in outcomes:
        if isinstance(outcome, Deferred) and outcome.hop_failed:
            return outcome
    return None
