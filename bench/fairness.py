"""Lets a list of 100,000 loose just before 1,000 letters: ``make fairness``.

Two real workers relay to a peer of this machine that takes ``--service`` milliseconds
over each message, list and letters to the same one. The delay of a letter is the time
from its 250 to the peer's. Each round measures it with an empty queue and behind the
list, on a host started afresh. Ends with 1 if the median delay grew by more than a
quarter (median of the rounds).
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from postroom.testing.caller import Caller
from postroom.testing.counting_peer import CountingPeer
from postroom.testing.host import HostError
from postroom.testing.ledger import letter
from postroom.testing.world import World, until

GROWTH_MAX = 1.25
BUSY = 0.7
_PATIENCE_S = 900
_OCTETS = 4_096
_HOST, _PEER = 4, 5
_NETWORK = "127.0.6"


class Outcome(NamedTuple):
    """What one run measured.

    Attributes:
        delays_s: of the letters, sorted.
        list_s: until the last recipient of the list had its copy; 0 without one.
        before: recipients of the list that had theirs when the last letter came.
    """

    delays_s: list[float]
    list_s: float
    before: int

    def at(self, percent: float) -> float:
        """Return the delay below which so many per cent lie, in milliseconds."""
        last = len(self.delays_s) - 1
        return self.delays_s[min(last, int(len(self.delays_s) * percent / 100))] * 1e3


class Client:
    """Sends letters over one connection after the other's answer."""

    def __init__(self, said: dict[str, float]) -> None:
        self._said = said

    async def run(self, ip: str, port: int, names: list[str], pause_s: float) -> None:
        """Send letters, a pause between their beginnings."""
        reader, writer = await asyncio.open_connection(ip, port)
        await _reply(reader)
        writer.write(b"EHLO client.example\r\n")
        await _reply(reader)
        due = time.monotonic()
        for name in names:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due += pause_s
            sender = f"user{name}@fair.test"
            writer.write(
                f"MAIL FROM:<{sender}>\r\nRCPT TO:<joe@peer.test>\r\nDATA\r\n".encode()
            )
            for _ in range(3):
                await _reply(reader)
            writer.write(letter(name, _OCTETS) + b".\r\n")
            await _reply(reader)
            self._said[name] = time.monotonic()
        writer.write(b"QUIT\r\n")
        await _reply(reader)
        writer.close()


async def _reply(reader: asyncio.StreamReader) -> None:
    while line := await reader.readline():
        if line[:1] not in b"23":
            raise ConnectionError(line.decode("utf-8", "replace"))
        if line[3:4] != b"-":
            return
    raise ConnectionError("connection lost")


async def _letters(
    world: World, count: int, rate: float, sessions: int
) -> dict[str, float]:
    said: dict[str, float] = {}
    pause_s = sessions / rate if rate else 0.0
    names = [f"n{number}" for number in range(count)]
    await asyncio.gather(
        *(
            Client(said).run(
                world.ip(_HOST), world.smtp_port, names[number::sessions], pause_s
            )
            for number in range(sessions)
        )
    )
    return said


def measure(given: argparse.Namespace, members: int) -> Outcome:
    """Run one host, with a list of so many members, or none."""
    aliases = "postmaster: betty\n"
    if members:
        aliases += f"all: {', '.join(f'm{n}@peer.test' for n in range(members))}\n"
    with World(network=_NETWORK) as world:
        world.name("peer.test", _PEER)
        sink = CountingPeer(given.service / 1e3)
        world.background.run(sink.start(world.ip(_PEER), world.smtp_port))
        relays = {"relay_networks": ["127.0.0.0/8"]}
        settings = {"policy": relays, "log": {"sessions": False}}
        with world.host("fair.test", _HOST, settings, aliases=aliases) as host:
            # Both workers know the peer, as they do in a day's work.
            asyncio.run(_letters(world, 40, 100, 8))
            until("warm", lambda: len(sink.arrivals) >= 40, host)
            sink.arrivals.clear()
            began = time.monotonic()
            if members:
                with Caller(world.ip(_HOST), world.smtp_port) as caller:
                    caller.hello()
                    caller.give("boss@fair.test", ["all@fair.test"], letter("list"))
            said = asyncio.run(
                _letters(world, given.letters, given.rate, given.sessions)
            )
            whole = given.letters + members
            until("all delivered", lambda: sink.recipients >= whole, host, _PATIENCE_S)
            world.background.run(sink.aclose())
            return _outcome(sink, said, began)


def _outcome(sink: CountingPeer, said: dict[str, float], began: float) -> Outcome:
    at = {one.message_id: one.at_s for one in sink.arrivals if one.message_id in said}
    listed = [one for one in sink.arrivals if one.message_id not in said]
    last = max(at.values())
    return Outcome(
        sorted(max(0.0, at[name] - said[name]) for name in said),
        max((one.at_s for one in listed), default=began) - began,
        sum(one.recipients for one in listed if one.at_s <= last),
    )


def main() -> int:
    """Measure; returns the exit status."""
    given = _arguments()
    console = Console(width=None if sys.stdout.isatty() else 110)
    busy = os.getloadavg()[0]
    if busy > BUSY:
        text = f"The machine is busy (load {busy:.1f}): the figures mean little."
        console.print(text, style="yellow", highlight=False)
    table = Table(box=box.SIMPLE_HEAD)
    for title in ("round", "queue", "median", "95 %", "99 %", "list: done before"):
        table.add_column(title, justify="right")
    growth = []
    try:
        for number in range(1, given.rounds + 1):
            empty, full = measure(given, 0), measure(given, given.members)
            growth.append(full.at(50) / empty.at(50))
            for title, one in (("empty", empty), ("list", full)):
                table.add_row(
                    str(number),
                    title,
                    *(f"{one.at(p):.1f} ms" for p in (50, 95, 99)),
                    f"{one.before:,}, all in {one.list_s:.0f} s" if one.list_s else "",
                )
    except HostError as error:
        console.print(f"The bench cannot go on: {error}", style="red", markup=False)
        return 69
    console.print(table)
    found = median(growth)
    word = "met" if found <= GROWTH_MAX else "NOT MET"
    console.print(
        f"{word}: behind a list of {given.members:,} the median delay of"
        f" {given.letters:,} letters is {found:.2f} times that with an empty queue"
        f" (at most {GROWTH_MAX}).",
        highlight=False,
    )
    return 0 if found <= GROWTH_MAX else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.fairness", description=__doc__
    )
    add: Callable[..., object] = parser.add_argument
    add("--rounds", type=int, default=3)
    add("--members", type=int, default=100_000)
    add("--letters", type=int, default=1_000)
    add("--rate", type=float, default=100.0, help="letters a second; 0: at once")
    add("--sessions", type=int, default=10)
    add("--service", type=float, default=50.0, help="the peer's milliseconds")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
