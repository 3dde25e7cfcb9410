"""Real workers and one destination: how many connections, and whose turn it is.

Orders and bounds only: how long it takes is measured by ``make fairness``.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from postroom.testing.caller import Caller
from postroom.testing.counting_peer import CountingPeer
from postroom.testing.host import Host
from postroom.testing.ledger import Ledger, Load, entries_of, letter
from postroom.testing.world import World, until

Sections = Mapping[str, Mapping[str, object]]

MEMBERS = 3_000
LETTERS = 60
IN_HAND = 6
"""Transactions of the list that may have been begun, or asked for."""
# Of two workers, one may have the list and few letters: then the list has its place.
ONE_WORKER: Sections = {
    "outbound": {"connections_max": 2},
    "process": {"workers": 1},
}


@contextmanager
def peer(world: World, number: int, service_s: float) -> Iterator[CountingPeer]:
    made = CountingPeer(service_s)
    world.background.run(made.start(world.ip(number), world.smtp_port))
    try:
        yield made
    finally:
        world.background.run(made.aclose())


def flood(world: World, host: int, names: list[str], to: str, clients: int) -> None:
    """Hand in letters by so many connections: both workers get some."""
    load = Load(Ledger(), world.ip(host), world.smtp_port)
    asyncio.run(load.send(names, [to], clients=clients))


def test_bounds_on_connections_hold_over_two_workers(world: World) -> None:
    settings = {"outbound": {"connections_max": 3, "messages_per_connection_max": 20}}
    world.name("bound.test", 40)
    with (
        peer(world, 40, 0.005) as sink,
        world.host("bounds.test", 41, settings) as host,
    ):
        names: list[str] = []
        for again in range(10):  # which worker gets a connection is chance
            more = [f"b{again}-{number}" for number in range(600)]
            names += more
            flood(world, 41, more, "joe@bound.test", 12)
            whole = len(names)
            until("all delivered", lambda: len(sink.arrivals) >= whole, host)  # noqa: B023
            until("all let go", lambda: not sink.connections, host)
            if _senders(host) == 2:
                break
        assert sorted(a.message_id for a in sink.arrivals) == sorted(names)
        assert sink.connections_max == 3
        assert max(sink.served) == 20
        assert sum(sink.served) == len(names)
        assert _senders(host) == 2


def test_letters_pass_a_list_that_came_before_them(world: World) -> None:
    world.name("many.test", 42)
    members = ", ".join(f"m{number}@many.test" for number in range(MEMBERS))
    aliases = f"postmaster: betty\nall: {members}\n"
    with (
        peer(world, 42, 0.05) as sink,
        world.host("lists.test", 43, ONE_WORKER, aliases=aliases) as host,
    ):
        with Caller(world.ip(43), world.smtp_port) as caller:
            caller.hello()
            said = caller.give("boss@lists.test", ["all@lists.test"], letter("list"))
            assert said.code == 250, said
        until("the list is on its way", lambda: sink.arrivals, host)
        names = [f"l{number}" for number in range(LETTERS)]
        flood(world, 43, names, "joe@many.test", 6)
        begun = len(sink.arrivals)
        whole = MEMBERS + LETTERS
        until("all delivered", lambda: sink.recipients >= whole, host, 60)
        order = [arrival.message_id for arrival in sink.arrivals]
        assert sink.recipients == whole
        assert sorted(set(order)) == sorted(["list", *names])
        assert entries_of(host) == []
        # From when all had been handed in: what was in hand then, one in sixteen.
        left = [at for at in map(order.index, names) if at >= begun]
        passed = order[begun : max(left, default=begun)].count("list")
        assert passed <= IN_HAND + len(left) / 8
        assert sink.connections_max == 2


def _senders(host: Host) -> int:
    """Return how many worker processes have delivered, as the log tells."""
    lines = [line for line in host.log.splitlines() if "stat=Sent" in line]
    return len({line.split("[", 1)[1].split("]", 1)[0] for line in lines})
