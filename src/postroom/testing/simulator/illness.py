"""Scenarios in which hosts or the network fail: the living are to notice nothing."""

from collections import Counter

from postroom.mail.now import HOUR_US, MINUTE_US, SECOND_US
from postroom.testing.simulator.letter import Draft
from postroom.testing.simulator.peer import Death, Peer
from postroom.testing.simulator.record import peak, percentile
from postroom.testing.simulator.scenario import (
    MS,
    Course,
    Finding,
    Report,
    Scenario,
    all_ended,
    at_least,
    at_most,
    seconds,
)
from postroom.testing.simulator.worker import Settings
from postroom.testing.simulator.world import World

LIVE = 100
_SERVICE_US = 500 * MS


def _dead(count: int) -> dict[str, Peer]:
    """Half of them refuse, half of them hang."""
    kinds = (Death.REFUSES, Death.HANGS)
    return {f"dead{n}.test": Peer(death=kinds[n % 2]) for n in range(count)}


def dead_destinations(size: float, seed: int) -> Report:
    """(b) 5,000 dead destinations beside 100 live ones under load."""
    dead, seconds_of_mail = int(5_000 * size), 300
    per_second = max(60, int(600 * size))

    def run(*, with_dead: bool) -> World:
        peers = _dead(dead)
        live = {f"live{n}.test": Peer(service_us=_SERVICE_US) for n in range(LIVE)}
        world = World({**peers, **live}, seed=seed, sample_us=2 * SECOND_US)
        for number in range(per_second * seconds_of_mail):
            hop = f"live{number % LIVE}.test"
            draft = Draft("live", f"user{number % 997}@x.test", hop)
            world.send_at(number * SECOND_US // per_second, draft)
        for number in range(3 * dead if with_dead else 0):
            draft = Draft("dead", f"user{number}@y.test", f"dead{number % dead}.test")
            world.send_at(MINUTE_US // 2 + number * 2 * MS, draft)
        for number in range(LIVE if with_dead else 0):
            draft = Draft("new", f"user{number}@z.test", f"new{number}.test")
            world.send_at(MINUTE_US * 2 + number * SECOND_US, draft)
        world.run(seconds_of_mail)
        return world

    alone, both = run(with_dead=False), run(with_dead=True)
    rates = [len(w.record.delays_us("live")) / seconds_of_mail for w in (alone, both)]
    p95 = [percentile(w.record.delays_us("live"), 95) for w in (alone, both)]
    new = both.record.delays_us("new")
    findings = [
        at_least(
            f"throughput of the live (without the dead {rates[0]:.0f}/s)",
            100 * rates[1] / rates[0],
            95,
            "%",
        ),
        at_most(
            f"their p95 delay (without the dead {seconds(p95[0])})",
            p95[1],
            p95[0] * 1.1,
        ),
        at_most(
            "p95 delay of mail to live hosts not known before", _p95(new), MINUTE_US
        ),
        Finding("of which are delivered", f"{LIVE}", str(len(new)), len(new) == LIVE),
    ]
    title = f"{dead:,} dead destinations beside {LIVE} live ones"
    drawn = ("live0.test", "live1.test", "dead0.test", "dead1.test")
    return Report(findings, [Course(title, both, drawn, ("live", "new"))])


def _p95(values: list[int]) -> int:
    return percentile(values, 95)


def outage(size: float, seed: int) -> Report:
    """(e) The whole network is away for six hours, then comes back."""
    hops, count = max(97, int(997 * size)), int(30_000 * size)
    begin, end = HOUR_US // 2, HOUR_US // 2 + 6 * HOUR_US
    names = [f"h{number}.test" for number in range(hops)]
    peers = {name: Peer(out=(begin, end)) for name in names}
    peers["big.test"] = Peer(out=(begin, end))
    world = World(peers, seed=seed, sample_us=MINUTE_US)
    for number in range(count):
        hop = names[number % hops] if number % 5 else "big.test"
        draft = Draft("mail", f"user{number % 1_009}@x.test", hop)
        world.send_at(number * end // count, draft)
    world.run(48 * 3_600, lambda: world.clock.us > end and world.is_empty)
    record, settings = world.record, Settings()
    back_s, most = end // SECOND_US, settings.outbound.connections_max
    drained = max(one.ended_us for one in record.letters) - end
    after = Counter({s: n for s, n in record.attempts.items() if s >= back_s})
    worst = max(peak(c, 10, back_s) for c in record.attempts_to.values())
    last_hours = begin // SECOND_US + 4 * 3_600
    during = [record.attempts[s] for s in range(last_hours, back_s)]
    rest_us = settings.schedule.backoff_max
    findings = [
        at_most("connections made to one destination in any 10 s", worst, most, ""),
        at_most(
            "most open to one destination",
            max(record.connections_max.values()),
            most,
            "",
        ),
        at_most(
            f"attempts in any second after it, of {hops + 1:,} destinations",
            peak(after),
            max(hops / 10, 20),
            "/s",
        ),
        at_most(
            "attempts in any second of the last two hours of it"
            f" (on average {sum(during) / len(during):.2f}/s)",
            max(during),
            max(10 * sum(during) / len(during), 10),
            "/s",
        ),
        at_most("until all is delivered", drained, rest_us * 1.2 + 10 * MINUTE_US),
        all_ended(world),
    ]
    title = f"six hours without a network, {hops + 1:,} destinations"
    drawn = ("big.test", "h1.test")
    return Report(findings, [Course(title, world, drawn, ("mail",))])


def greylisting(size: float, seed: int) -> Report:
    """(f) A destination that greylists for five minutes, beside one that does not."""
    count = int(1_000 * size)
    peers = {"grey.test": Peer(greylist_us=4 * MINUTE_US)}
    world = World(peers, seed=seed, sample_us=5 * SECOND_US)
    for number in range(count):
        world.send_at(number * 20 * MS, Draft("grey", f"u{number}@x.test", "grey.test"))
        world.send_at(number * 20 * MS, Draft("plain", f"u{number}@y.test", "b.test"))
    world.run(6 * 3_600, lambda: world.clock.us > 1e9 and world.is_empty)
    grey = world.record.delays_us("grey")
    tries = max(one.tries for one in world.record.of("grey"))
    again = Counter(
        one.ended_us // SECOND_US for one in world.record.of("grey") if one.delivered
    )
    first_wait = Settings().schedule.retry.first_wait
    findings = [
        at_most("p95 delay of greylisted mail", _p95(grey), 1.1 * first_wait + 10e6),
        at_most("tries before the last", tries, 1, ""),
        at_most("retries in any second (it came at 50/s)", peak(again), 75, "/s"),
        at_most(
            "p95 delay of the rest", _p95(world.record.delays_us("plain")), SECOND_US
        ),
        all_ended(world),
    ]
    title = "a destination that greylists"
    return Report(
        findings, [Course(title, world, ("grey.test", "b.test"), ("grey", "plain"))]
    )


SCENARIOS = (
    Scenario("dead", "(b) 5,000 dead destinations", dead_destinations),
    Scenario("outage", "(e) the network away for six hours", outage),
    Scenario("greylist", "(f) a greylisting destination", greylisting),
)
