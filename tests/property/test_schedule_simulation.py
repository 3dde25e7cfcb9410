"""The schedule in virtual time: each scenario, small; and random worlds.

Whatever hosts do, every message is settled once, no bound is passed, and nobody waits
for ever. ``make simulate`` runs the scenarios in full.
"""

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from postroom.agents.settings import SmtpAgentSettings
from postroom.mail.now import HOUR_US, MINUTE_US, SECOND_US
from postroom.mail.units import Duration
from postroom.schedule.settings import RetrySettings, ScheduleSettings
from postroom.testing.simulator import fairness, illness
from postroom.testing.simulator.dice import Dice
from postroom.testing.simulator.letter import Draft
from postroom.testing.simulator.peer import Death, Peer
from postroom.testing.simulator.scenario import Scenario
from postroom.testing.simulator.worker import Settings
from postroom.testing.simulator.world import World

SIZES = {"list": 0.3, "slow": 0.5, "busy": 0.2, "mx-set": 0.5, "bound": 0.3}
SIZES |= {"dead": 0.04, "outage": 0.1, "greylist": 0.2}
ALL = {one.key: one for one in (*fairness.SCENARIOS, *illness.SCENARIOS)}


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("key", sorted(ALL))
def test_scenarios(key: str, seed: int) -> None:
    scenario: Scenario = ALL[key]
    report = scenario.run(SIZES[key], seed)
    missed = [finding for finding in report.findings if not finding.met]
    assert missed == []


def test_the_same_seed_gives_the_same_course() -> None:
    first, again, other = (
        [
            one.ended_us
            for one in fairness.busy_sender(0.05, seed).courses[0].world.record.letters
        ]
        for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other


CONNECTIONS_MAX = 6
HOPS = [f"h{number}.test" for number in range(6)]
SMALL = Settings(
    schedule=ScheduleSettings(
        active_max=12,
        probing_max=6,
        window_start=2,
        window_max=5,
        claim_max=4,
        claims_max=3,
        hops_max=4,
        retry=RetrySettings(expire=Duration(12 * HOUR_US)),
    ),
    outbound=SmtpAgentSettings(
        connections_max=CONNECTIONS_MAX, messages_per_connection_max=7
    ),
)

peers = st.builds(
    Peer,
    service_us=st.sampled_from([SECOND_US // 50, SECOND_US // 2, 20 * SECOND_US]),
    recipient_us=st.sampled_from([0, SECOND_US // 1_000]),
    connections_max=st.sampled_from([0, 1, 3]),
    death=st.sampled_from([None, None, None, *Death]),
    greylist_us=st.sampled_from([0, 0, 3 * MINUTE_US]),
    out=st.sampled_from([(0, 0), (0, 2 * HOUR_US), (MINUTE_US, 20 * MINUTE_US)]),
)
drafts = st.builds(
    Draft,
    group=st.just("mail"),
    sender=st.sampled_from(["ann@x.test", "bob@x.test", "eve@y.test"]),
    hop=st.sampled_from(HOPS),
    recipients=st.sampled_from([1, 1, 1, 90, 1_500]),
    size=st.sampled_from([1_000, 300_000]),
)
mail = st.lists(
    st.tuples(st.integers(0, 600), drafts, st.sampled_from([1, 1, 40])),
    min_size=1,
    max_size=12,
)


@settings(
    max_examples=40,
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    st.lists(peers, min_size=4, max_size=4),
    st.dictionaries(st.sampled_from(HOPS), st.sampled_from(["p0", "p1", "p2", "p3"])),
    mail,
    st.integers(1, 5),
)
def test_random_worlds(
    given_peers: list[Peer],
    routes: dict[str, str],
    given_mail: list[tuple[int, Draft, int]],
    seed: int,
) -> None:
    named = {f"p{number}": peer for number, peer in enumerate(given_peers)}
    world = World(named, routes=routes, settings=SMALL, seed=seed)
    for at_s, draft, times in given_mail:
        for _ in range(times):
            world.send_at(at_s * SECOND_US, draft)
    # Longer than anything may wait (``retry.expire``). Leasing or settling a letter
    # twice is asserted on the way.
    for hour in range(1, 15):
        world.run(hour * 3_600, lambda: world.clock.us > 6e8 and world.is_empty)
        most = SMALL.schedule.active_max + SMALL.schedule.probing_max
        assert all(worker.scheduler.active <= most for worker in world.workers)
    record = world.record
    assert world.is_empty
    assert all(worker.scheduler.active == 0 for worker in world.workers)
    assert max(record.connections_max.values(), default=0) <= CONNECTIONS_MAX
    assert not any(record.in_hand.values())
    assert not any(record.waiting.values())
    for letter in record.letters:
        peer = named.get(routes.get(letter.draft.hop, ""), Peer())
        if peer.death is None:
            assert letter.delivered
        else:
            assert not letter.delivered


@pytest.mark.parametrize("percent", [0, 10, 50])
def test_dice_stay_in_bounds(percent: int) -> None:
    dice = Dice(7)
    found = [dice.around(1_000, percent) for _ in range(2_000)]
    assert 1_000 - 10 * percent <= min(found) <= max(found) <= 1_000 + 10 * percent
    assert sum(dice.chance(0.25) for _ in range(4_000)) in range(850, 1_150)
    assert {dice.below(3) for _ in range(100)} == {0, 1, 2}
