"""Scenarios in which much mail meets little: nobody is to wait for what others send."""

from postroom.mail.now import SECOND_US
from postroom.testing.simulator.letter import Draft
from postroom.testing.simulator.peer import Peer
from postroom.testing.simulator.record import percentile
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

SERVICE_US = 100 * MS
_PEER = Peer(service_us=SERVICE_US, recipient_us=MS // 5)
_AFTER_LIST_US = 10 * MS
_HOUR_S = 3_600


def _sender(number: int, kind: str) -> str:
    return "one@x.test" if kind == "one sender" else f"user{number}@x.test"


def _with_list(kind: str, members: int, letters: int, seed: int) -> World:
    """Let a list come, then letters: at once, or one every 10 ms."""
    world = World({"a.test": _PEER}, seed=seed, sample_us=SECOND_US // 5)
    if members:
        world.send(Draft("list", "boss@x.test", "a.test", members))
    gap_us = 10 * MS if kind == "steadily" else MS // 5
    for number in range(letters):
        draft = Draft("letters", _sender(number, kind), "a.test")
        world.send_at(_AFTER_LIST_US + number * gap_us, draft)
    world.run(_HOUR_S, lambda: len(world.record.letters) > 1 and world.is_empty)
    return world


def list_before_letters(size: float, seed: int) -> Report:
    """(a) A list of 100,000 just before 1,000 letters to the same destination."""
    members, letters = int(100_000 * size), max(100, int(1_000 * size))
    findings, courses = [], []
    for kind in ("at once", "steadily", "one sender"):
        empty = _with_list(kind, 0, letters, seed)
        full = _with_list(kind, members, letters, seed)
        before = percentile(empty.record.delays_us("letters"), 95)
        after = percentile(full.record.delays_us("letters"), 95)
        bound = before * 1.1 + SERVICE_US
        name = f"p95 of letters sent {kind} (alone {seconds(before)})"
        if kind == "one sender":
            name = f"p95 of letters of one sender (alone {seconds(before)})"
        findings.append(at_most(name, after, bound))
        findings.append(all_ended(full))
        how = "by one sender" if kind == "one sender" else kind
        title = f"letters sent {how}, behind a list of {members:,}"
        courses.append(Course(title, full, ("a.test",), ("letters", "list")))
    return Report(findings, courses)


def slow_destination(size: float, seed: int) -> Report:
    """(c) A destination that takes 30 s over each message."""
    others, each = 50, max(20, int(200 * size))
    backlog = max(200, int(2_000 * size))

    def run(*, slow: bool) -> World:
        peers = {"slow.test": Peer(service_us=30 * SECOND_US)}
        world = World(peers, seed=seed, sample_us=SECOND_US)
        for number in range(backlog if slow else 0):
            draft = Draft("slow", f"user{number}@x.test", "slow.test")
            world.send_at(number * MS, draft)
        for number in range(others * each):
            hop = f"good{number % others}.test"
            draft = Draft("others", f"user{number}@y.test", hop)
            world.send_at(number * 5 * MS, draft)
        world.run(6 * _HOUR_S, lambda: world.clock.us > 1e8 and world.is_empty)
        return world

    alone, both = run(slow=False), run(slow=True)
    before = percentile(alone.record.delays_us("others"), 95)
    after = percentile(both.record.delays_us("others"), 95)
    settings = Settings()
    record = both.record
    hand = settings.schedule.window_max * settings.schedule.messages_ahead
    findings = [
        at_most(
            f"p95 of the others (without it {seconds(before)})", after, 1.05 * before
        ),
        at_most(
            "connections to it, both workers",
            record.connections_max["slow.test"],
            settings.outbound.connections_max,
            "",
        ),
        at_most(
            "messages in hand for it, both workers",
            record.in_hand_max["slow.test"],
            hand * 2,
            "",
        ),
        all_ended(both),
    ]
    title = f"{backlog:,} messages to a slow destination"
    drawn = ("slow.test", "good0.test", "good1.test")
    return Report(findings, [Course(title, both, drawn, ("others",))])


def busy_sender(size: float, seed: int) -> Report:
    """(d) A sender with 10,000 messages, and 50 others, to the same destination."""
    many, letters = int(10_000 * size), max(100, int(500 * size))

    def run(heavy: int, light: int) -> World:
        world = World({"a.test": _PEER}, seed=seed, sample_us=SECOND_US // 2)
        for number in range(heavy):
            world.send_at(number * MS // 5, Draft("busy", "busy@x.test", "a.test"))
        for number in range(light):
            draft = Draft("letters", f"user{number % 50}@x.test", "a.test")
            world.send_at(SECOND_US + number * 10 * MS, draft)
        world.run(_HOUR_S, lambda: world.clock.us > 3e6 and world.is_empty)
        return world

    alone, crowd, both = run(0, letters), run(many, 0), run(many, letters)
    before = percentile(alone.record.delays_us("letters"), 95)
    after = percentile(both.record.delays_us("letters"), 95)
    last_alone = max(one.ended_us for one in crowd.record.of("busy"))
    last = max(one.ended_us for one in both.record.of("busy"))
    share = (many + letters) / many * 1.1
    what = f"p95 of the others (alone {seconds(before)})"
    late = f"until the last of the {many:,} (alone {seconds(last_alone)})"
    findings = [
        at_most(what, after, before * 1.1 + SERVICE_US),
        at_most(late, last, last_alone * share),
        all_ended(both),
    ]
    title = f"{many:,} messages of one sender, {letters:,} of fifty others"
    return Report(findings, [Course(title, both, ("a.test",), ("letters", "busy"))])


def one_mx_set(size: float, seed: int) -> Report:
    """(g) Ten domains behind one MX set: a list over all, and letters to each."""
    domains = [f"d{number}.test" for number in range(10)]
    routes = dict.fromkeys(domains, "mx.test")
    members, letters = int(20_000 * size), max(100, int(500 * size))

    def run(*, with_list: bool) -> World:
        world = World(
            {"mx.test": _PEER}, routes=routes, seed=seed, sample_us=SECOND_US // 5
        )
        for domain in domains if with_list else ():
            world.send(Draft("list", "boss@x.test", domain, members // 10))
        for number in range(letters):
            draft = Draft("letters", f"user{number}@x.test", domains[number % 10])
            world.send_at(_AFTER_LIST_US + number * 10 * MS, draft)
        world.run(_HOUR_S, lambda: world.clock.us > 1e6 and world.is_empty)
        return world

    alone, both = run(with_list=False), run(with_list=True)
    before = percentile(alone.record.delays_us("letters"), 95)
    after = percentile(both.record.delays_us("letters"), 95)
    slots = Settings().outbound.connections_max
    worst = [
        percentile(sorted(_delays(both, domain)), 95) / MS / 1_000 for domain in domains
    ]
    findings = [
        at_most(
            f"p95 of letters (alone {seconds(before)})",
            after,
            before * 1.1 + SERVICE_US,
        ),
        at_most("connections", both.record.connections_max["mx.test"], slots, ""),
        Finding(
            "p95 by domain, worst over best",
            "≤ 1.5",
            f"{max(worst) / min(worst):.2f}",
            max(worst) <= 1.5 * min(worst),
        ),
        all_ended(both),
    ]
    title = f"a list of {members:,} over ten domains behind one MX set"
    return Report(findings, [Course(title, both, ("mx.test",), ("letters", "list"))])


def _delays(world: World, hop: str) -> list[int]:
    return [
        one.ended_us - one.arrival_us
        for one in world.record.of("letters")
        if one.draft.hop == hop
    ]


def peer_bound(size: float, seed: int) -> Report:
    """(h) A peer that allows three connections in all."""
    count = int(3_000 * size)
    peer = Peer(service_us=SERVICE_US, connections_max=3)
    world = World({"a.test": peer}, seed=seed, sample_us=SECOND_US)
    for number in range(count):
        world.send_at(number * MS, Draft("letters", f"user{number}@x.test", "a.test"))
    world.run(_HOUR_S, lambda: world.clock.us > 3e6 and world.is_empty)
    took_s = max(one.ended_us for one in world.record.letters) / SECOND_US
    best_s = count * SERVICE_US / SECOND_US / 3
    attempts = sum(world.record.attempts.values())
    findings = [
        at_least("of what it can take", 100 * best_s / took_s, 80, "%"),
        at_most("attempts to connect per 100 messages", attempts / count * 100, 20, ""),
        all_ended(world),
    ]
    title = "a peer that allows three connections"
    return Report(findings, [Course(title, world, ("a.test",), ("letters",))])


SCENARIOS = tuple(
    Scenario(key, title, run)
    for key, title, run in (
        ("list", "(a) list of 100,000 before 1,000 letters", list_before_letters),
        ("slow", "(c) one slow destination", slow_destination),
        ("busy", "(d) a sender with 10,000 messages", busy_sender),
        ("mx-set", "(g) ten domains behind one MX set", one_mx_set),
        ("bound", "(h) a peer that allows three connections", peer_bound),
    )
)
