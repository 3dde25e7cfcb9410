"""One worker: its queue and schedule, and what ``services/dispatch.py`` does with them.

Work on the processor is done one after the other: a message costs ``CPU_US`` and the
noting of a rest as much, so that a worker that is busy with the dead is late for the
living here, too.
"""

import heapq
from collections import defaultdict
from typing import NamedTuple

from postroom.agents.settings import SmtpAgentSettings
from postroom.limits.grades import Grade, grade_of
from postroom.limits.places import Places
from postroom.limits.shared import SharedCounters
from postroom.mail.address import Address
from postroom.mail.now import SECOND_US
from postroom.mail.outcome import Deferred, Delivered, Outcome
from postroom.schedule.destination import PutOff
from postroom.schedule.retry import Deferral, Retry, verdict_on_deferral
from postroom.schedule.scheduler import Claim, Scheduler
from postroom.schedule.senders import Senders
from postroom.schedule.settings import ScheduleSettings
from postroom.services.lanes import lane_of
from postroom.services.settings import DeliverSettings
from postroom.testing.simulator.clock import START_UTC_US, VirtualClock
from postroom.testing.simulator.dice import Dice
from postroom.testing.simulator.letter import Draft, Letter
from postroom.testing.simulator.peer import Peer
from postroom.testing.simulator.pool import Around, SimulatedPool
from postroom.testing.simulator.record import Record

CPU_US = 300
"""What a message costs on the processor."""
COMMIT_US = 5_000
"""Until a message or a result is durable."""
CLAIM_US = 2_000
"""Until a claim is answered."""
_REST_US = CPU_US
_SCAN_PAUSE_US = SECOND_US
_EXPANDED = 250
_EXPANDED_EACH_US = 10_000
_TRANSACTION = 100
"""Recipients of a list that go in one transaction."""

Place = tuple[str, int]


class Settings(NamedTuple):
    """The product's settings that matter here."""

    schedule: ScheduleSettings = ScheduleSettings()
    outbound: SmtpAgentSettings = SmtpAgentSettings()
    deliver: DeliverSettings = DeliverSettings()


class Ground(NamedTuple):
    """What all workers stand on. ``routes`` names each domain's destination."""

    clock: VirtualClock
    record: Record
    settings: Settings
    peers: dict[str, Peer]
    routes: dict[str, str]

    def destination(self, hop: str) -> str:
        """Return where mail for a domain goes: an MX set, or the domain itself."""
        return self.routes.get(hop, hop)


class SimulatedWorker:
    """One worker."""

    def __init__(self, ground: Ground, counters: SharedCounters, seed: int) -> None:
        schedule = ground.settings.schedule
        self._ground = ground
        self._clock = ground.clock
        self._record = ground.record
        self._counters = counters
        self.scheduler = Scheduler(schedule, seed)
        self._senders = Senders(schedule.grades)
        self._queue: dict[Place, list[tuple[int, int, Letter]]] = defaultdict(list)
        self._lanes: dict[str, set[int]] = defaultdict(set)
        self._rests: dict[str, int] = {}
        self._calendar: list[tuple[int, str, int]] = []
        self._scan_at_us: int | None = None
        self._scanned_us = 0
        self._pools: dict[str, SimulatedPool] = {}
        outbound = ground.settings.outbound
        self._around = Around(
            self._clock, Dice(seed), self._record, outbound, self._settled
        )
        self._free_us = 0
        self._active = 0
        self._clock.after(0, self._scan_all)

    # -- taking mail -----------------------------------------------------------

    def submit(self, draft: Draft) -> None:
        """Take mail from a client; a list is expanded bit by bit."""
        now = self._clock.now()
        grade = self._senders.grade(draft.sender, draft.recipients, now.mono_us)
        sender = Address.from_text(draft.sender)
        lanes = self._ground.settings.deliver.lanes
        lane = lane_of(sender, draft.size, lanes, grade)
        if grade is Grade.LIST:
            return self._expand(draft, lane, draft.recipients)
        letter = self._new_letter(draft, draft.recipients, lane)
        may_go = self._active < self._ground.settings.deliver.attempts_max
        if may_go and self.scheduler.admit(draft.hop, lane, now):
            self._clock.after(COMMIT_US, lambda: self._start(letter))
        else:
            self._clock.after(COMMIT_US, lambda: self._keep(letter, self._clock.us))

    def _expand(self, draft: Draft, lane: int, left: int) -> None:
        part = min(left, _EXPANDED)
        while part > 0:
            size = min(part, _TRANSACTION)
            self._keep(self._new_letter(draft, size, lane), self._clock.us)
            part -= size
            left -= size
        if left:
            more = left
            self._clock.after(
                _EXPANDED_EACH_US, lambda: self._expand(draft, lane, more)
            )

    def _new_letter(self, draft: Draft, recipients: int, lane: int) -> Letter:
        letters = self._record.letters
        letter = Letter(len(letters), draft, recipients, lane, self._clock.us)
        letters.append(letter)
        self._record.waiting[self._ground.destination(draft.hop)] += 1
        return letter

    def _keep(self, letter: Letter, due_us: int) -> None:
        """Put a letter into the queue."""
        place = letter.draft.hop, letter.lane
        heapq.heappush(self._queue[place], (due_us, letter.number, letter))
        self._lanes[place[0]].add(place[1])
        if due_us <= self._clock.us:
            self.scheduler.due(*place, self._clock.now())
            self._pump()
        else:
            heapq.heappush(self._calendar, (due_us, *place))
            self._plan_scan()

    # -- looking for what is due -----------------------------------------------

    def _plan_scan(self) -> None:
        if not self._calendar:
            return
        at_us = max(self._calendar[0][0], self._scanned_us + _SCAN_PAUSE_US)
        if self._scan_at_us is None or at_us < self._scan_at_us:
            self._scan_at_us = at_us
            self._clock.at(at_us, lambda: self._scan(at_us))

    def _scan(self, planned_us: int) -> None:
        if planned_us != self._scan_at_us:
            return  # there was one before it
        self._scan_at_us = None
        self._scanned_us = self._clock.us
        places: dict[Place, None] = {}
        while self._calendar and self._calendar[0][0] <= self._clock.us:
            _, hop, lane = heapq.heappop(self._calendar)
            places[hop, lane] = None
        now = self._clock.now()
        for hop, lane in places:
            if self._rests.get(hop, 0) <= now.mono_us:
                self.scheduler.due(hop, lane, now)
        self._pump()
        self._plan_scan()

    def _scan_all(self) -> None:
        """Find what no hint told of, as the product does by its ``scan_interval``."""
        now = self._clock.now()
        for (hop, lane), waiting in self._queue.items():
            if self._rests.get(hop, 0) > now.mono_us:
                continue
            if waiting and waiting[0][0] <= now.mono_us:
                self.scheduler.due(hop, lane, now)
        self._pump()
        interval = self._ground.settings.deliver.scan_interval
        self._clock.after(interval, self._scan_all)

    def _pump(self) -> None:
        scheduler, clock = self.scheduler, self._clock
        while scheduler.has_turns:
            for claim in scheduler.next(clock.now()):
                clock.after(CLAIM_US, lambda claim=claim: self._claim(claim))  # type: ignore[misc]

    def _claim(self, claim: Claim) -> None:
        now, scheduler = self._clock.now(), self.scheduler
        if claim.put_off is not None:
            scheduler.claimed(claim.hop, claim.lane, claim.count, 0, now)
            self._rest(claim.hop, claim.put_off)
            return self._pump()
        waiting = self._queue[claim.hop, claim.lane]
        got: list[Letter] = []
        while waiting and waiting[0][0] <= now.mono_us and len(got) < claim.count:
            got.append(heapq.heappop(waiting)[2])
        scheduler.claimed(claim.hop, claim.lane, claim.count, len(got), now)
        if 0 < len(got) < claim.count:
            scheduler.due(claim.hop, claim.lane, now)
        for letter in got:
            self._start(letter)
        self._pump()

    def _rest(self, hop: str, put_off: PutOff) -> None:
        """Let the mail of a hop be found again only when its rest is over."""
        until_us = put_off.due_us - START_UTC_US
        self._rests[hop] = until_us
        self._busy(_REST_US)
        self._give_up_elders(hop)
        self._look_at(hop, until_us)

    def _give_up_elders(self, hop: str) -> None:
        """Give up what waits for a resting hop and is too old, without a try."""
        expire = self._ground.settings.schedule.retry.expire
        for lane in self._lanes[hop]:
            waiting = self._queue[hop, lane]
            old = [x for x in waiting if x[2].arrival_us + expire <= self._clock.us]
            if old:
                waiting[:] = [x for x in waiting if x not in old]
                heapq.heapify(waiting)
                for _, _, letter in old:
                    self._end(letter, delivered=False)

    def _look_at(self, hop: str, us: int) -> None:
        for lane in self._lanes[hop]:
            heapq.heappush(self._calendar, (us, hop, lane))
        self._plan_scan()

    # -- trying -----------------------------------------------------------------

    def _busy(self, us: int) -> int:
        """Take time of the processor; returns in how long the work is done."""
        self._free_us = max(self._free_us, self._clock.us) + us
        return self._free_us - self._clock.us

    def _start(self, letter: Letter) -> None:
        assert letter.ended_us < 0
        assert not letter.in_hand, "leased twice"
        letter.in_hand = True
        self._active += 1
        destination = self._ground.destination(letter.draft.hop)
        self._record.handled(destination, 1)
        self._clock.after(self._busy(CPU_US), lambda: self._attempt(letter))

    def _attempt(self, letter: Letter) -> None:
        hop = letter.draft.hop
        name = self._ground.destination(hop)
        self.scheduler.bind(hop, name)
        pool = self._pools.get(name)
        if pool is None:
            bound = self._ground.settings.outbound.connections_max
            places = Places(self._counters, name, bound)
            peer = self._ground.peers.get(name) or Peer()
            pool = self._pools[name] = SimulatedPool(name, peer, places, self._around)
        bound = self._ground.settings.outbound.connections_max
        pool.put(letter, min(bound, self.scheduler.window(hop)))

    def _settled(self, letter: Letter, outcome: Outcome) -> None:
        letter.in_hand = False
        self._active -= 1
        hop = letter.draft.hop
        self._record.handled(self._ground.destination(hop), -1)
        now = self._clock.now()
        rest = self.scheduler.learn(hop, (outcome,), now)
        if isinstance(outcome, Deferred):
            letter.tries += 1
            given = rest is not None and outcome.hop_failed
            self._later(letter, rest.due_us if rest and given else None)
        else:
            self._end(letter, delivered=isinstance(outcome, Delivered))
        hop_failed = isinstance(outcome, Deferred) and outcome.hop_failed
        if not hop_failed and self._rests.pop(hop, 0):
            self._look_at(hop, now.mono_us)
        self.scheduler.done(hop, letter.lane, (), now)
        self._pump()

    def _later(self, letter: Letter, due_us: int | None) -> None:
        verdict = verdict_on_deferral(
            Deferral(
                tries=max(1, letter.tries),
                arrival_us=START_UTC_US + letter.arrival_us,
                seed=letter.number,
            ),
            self._clock.now(),
            self._ground.settings.schedule.retry,
            due_us,
        )
        if isinstance(verdict, Retry):
            self._keep(letter, verdict.due_us - START_UTC_US)
        else:
            self._end(letter, delivered=False)

    def _end(self, letter: Letter, *, delivered: bool) -> None:
        assert letter.ended_us < 0, "settled twice"
        letter.ended_us = self._clock.us
        letter.delivered = delivered
        self._record.ended += 1
        self._record.waiting[self._ground.destination(letter.draft.hop)] -= 1


def grade_name(letter: Letter) -> str:
    """Return the name of a letter's grade, for tables."""
    return Grade(grade_of(letter.lane)).name.lower()
