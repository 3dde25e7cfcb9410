"""Whatever is asked in whatever order, the schedule keeps its bounds and its books."""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from postroom.limits.grades import Grade, graded
from postroom.mail.now import MINUTE_US, Now
from postroom.mail.outcome import Deferred, Delivered, Failed, Outcome
from postroom.schedule.scheduler import Claim, Scheduler
from postroom.schedule.settings import ScheduleSettings

HOPS = st.sampled_from(["", "local", "a.test", "b.test", "c.test", "d.test"])
LANES = st.sampled_from([graded(n, g) for g in Grade for n in range(3)])
OUTCOMES: dict[str, tuple[Outcome, ...]] = {
    "sent": (Delivered("2.0.0", "Ok"),),
    "refused": (Failed("5.1.1", "no"), Deferred("4.2.2", "full")),
    "down": (Deferred("4.4.1", "refused", hop_failed=True),),
    "broken": (),
}
SETTINGS = ScheduleSettings(
    active_max=12,
    probing_max=6,
    hops_max=5,
    window_start=2,
    window_max=4,
    local_window=5,
    claims_max=3,
    claim_max=4,
)


class Schedule(RuleBasedStateMachine):
    """A spool and agents that do anything a real one may."""

    def __init__(self) -> None:
        super().__init__()
        self.one = Scheduler(SETTINGS, seed=1)
        self.now = Now(1_795_361_711_000_000, 0)
        self.flying: Counter[tuple[str, int]] = Counter()
        self.asked: list[Claim] = []

    def remote(self) -> int:
        return sum(n for (hop, _), n in self.flying.items() if "." in hop)

    @rule(hop=HOPS, lane=LANES)
    def hint(self, hop: str, lane: int) -> None:
        self.one.due(hop, lane, self.now)

    @rule(hop=HOPS, lane=LANES)
    def accept(self, hop: str, lane: int) -> None:
        if self.one.admit(hop, lane, self.now):
            self.flying[hop, lane] += 1
        else:
            self.one.due(hop, lane, self.now)

    @rule()
    def ask(self) -> None:
        for claim in self.one.next(self.now):
            assert claim.count >= 1
            assert (claim.hop, claim.lane) not in {(c.hop, c.lane) for c in self.asked}
            self.asked.append(claim)
            if claim.put_off:
                assert claim.put_off.due_us > self.now.utc_us
            else:
                self.flying[claim.hop, claim.lane] += claim.count

    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        if not self.asked:
            return
        claim = self.asked.pop(data.draw(st.integers(0, len(self.asked) - 1)))
        got = data.draw(st.integers(0, claim.count))
        if not claim.put_off:
            self.flying[claim.hop, claim.lane] -= claim.count - got
        self.one.claimed(claim.hop, claim.lane, claim.count, got, self.now)

    @rule(data=st.data(), kind=st.sampled_from(sorted(OUTCOMES)))
    def land(self, data: st.DataObject, kind: str) -> None:
        asked: Counter[tuple[str, int]] = Counter()
        for claim in self.asked:
            if not claim.put_off:
                asked[claim.hop, claim.lane] += claim.count
        ready = sorted(key for key, n in self.flying.items() if n > asked[key])
        if ready:
            hop, lane = data.draw(st.sampled_from(ready))
            self.flying[hop, lane] -= 1
            self.one.done(hop, lane, OUTCOMES[kind], self.now)

    @rule(hop=st.sampled_from(["a.test", "b.test", "c.test"]), mx=st.integers(0, 1))
    def resolve(self, hop: str, mx: int) -> None:
        self.one.bind(hop, f"mx{mx}")

    @rule(minutes=st.integers(0, 90))
    def wait(self, minutes: int) -> None:
        us = minutes * MINUTE_US
        self.now = Now(self.now.utc_us + us, self.now.mono_us + us)

    @invariant()
    def books_agree(self) -> None:
        assert self.one.active == self.remote()

    @invariant()
    def bounds_hold(self) -> None:
        assert self.one.active <= SETTINGS.active_max + SETTINGS.probing_max
        assert self.one.hops <= SETTINGS.hops_max
        for hop in ("", "local"):
            count = sum(n for (name, _), n in self.flying.items() if name == hop)
            assert count <= SETTINGS.local_window

    def teardown(self) -> None:
        """Whatever happened, all that is hinted at is asked for in the end."""
        for claim in self.asked:
            if not claim.put_off:
                self.flying[claim.hop, claim.lane] -= claim.count
            self.one.claimed(claim.hop, claim.lane, claim.count, 0, self.now)
        for (hop, lane), count in self.flying.items():
            for _ in range(count):
                self.one.done(hop, lane, OUTCOMES["sent"], self.now)
        self.wait(90)
        for _ in range(200):
            claims = self.one.next(self.now)
            for claim in claims:
                assert claim.put_off is None
                self.one.claimed(claim.hop, claim.lane, claim.count, 0, self.now)
            if not claims:
                break
        assert self.one.wake_at(self.now) is None
        assert self.one.active == 0
        seen = set()
        for hop in ("a.test", "b.test", "c.test"):
            self.one.due(hop, 0, self.now)
        while claims := self.one.next(self.now):
            for claim in claims:
                seen.add(claim.hop)
                self.one.claimed(claim.hop, claim.lane, claim.count, 0, self.now)
        assert seen == {"a.test", "b.test", "c.test"}


Schedule.TestCase.settings = settings(
    max_examples=60, stateful_step_count=60, deadline=None
)
TestSchedule = Schedule.TestCase
