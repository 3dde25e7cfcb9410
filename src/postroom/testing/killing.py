"""Kills a real server again and again under load, and proves that nothing was lost.

Clients hand in mail without a pause, for mailboxes, an alias and another host, small
and large; each 250 is written down. Workers and supervisors are killed meanwhile, and
new supervisors start beside the workers that the old ones left. At the end each promise
must have been kept, whole; and a second copy of anything is allowed only where its
first delivery was in hand at a kill: its outcome had not been committed.

As a program (``python -m postroom.testing.killing``) it ends with 1 if that is not so.
"""

import argparse
import asyncio
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random, SystemRandom  # noqa: TID251 - the seed is printed

import msgspec
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from postroom.testing.host import Host, HostError
from postroom.testing.kills import Killer, victims_of
from postroom.testing.ledger import (
    Due,
    Ledger,
    Load,
    delivered_in,
    entries_of,
    queued_in,
)
from postroom.testing.sink import Copy, Sink, copy_of
from postroom.testing.world import QUICK, World

DOMAIN, FAR = "crash.test", "sink.test"
DOMAIN_NUMBER, FAR_NUMBER = 31, 32
FAR_JOE = f"joe@{FAR}"
FRIENDS = f"friends@{DOMAIN}"
ALIASES = {FRIENDS: (f"betty@{DOMAIN}", f"joe@{DOMAIN}")}
LARGE_OCTETS = 200_000
"""More than fits into a row of the queue: such contents lie in files."""
CLIENTS = 4
BATCH = 20
PROMISED_BETWEEN_MAX = 200
HASTY_SHARE = 0.3
PAUSE_S_MAX = 0.8
ORPHAN_S_MAX = 0.15
QUIET_S_MAX = 60.0
REST_S_MAX = 120.0
_POLL_S = 0.003

SETTINGS = {
    **QUICK,
    # A busy machine must not add kills that nobody has counted.
    "process": {**QUICK["process"], "drain_s_max": 20, "heartbeat_timeout": "60s"},
    "outbound": {"quit_timeout": "200ms"},
    "log": {"to": "log", "sessions": False},
}

DECK = ("worker",) * 6 + ("supervisor",) * 2 + ("supervisor, then an orphan", "all")
"""What is killed: each ten kills are these, in random order."""

Told = Callable[[int], object]


class Figures(msgspec.Struct, frozen=True):
    """How it ended.

    ``kills`` are counted by what was killed. ``promises`` are messages times
    recipients answered 250. ``bound`` is how many attempts were in hand at kills, which
    is how many ``duplicates`` there may be; ``beyond`` lists copies for which there is
    no such excuse, ``doubled`` those in mailboxes, which know their own and so have
    none. ``unasked`` messages were never acknowledged, but arrived: at most as many as
    connections broke between content and reply (``in_doubt``).
    """

    kills: dict[str, int]
    processes: int
    promises: int
    missing: list[Due]
    broken: list[str]
    duplicates: int
    bound: int
    beyond: list[str]
    doubled: list[str]
    unasked: int
    in_doubt: int
    shunted: int
    seconds: float

    @property
    def is_good(self) -> bool:
        """Whether nothing is lost, halved, or there too often."""
        return not self.why

    @property
    def why(self) -> list[str]:
        """What is wrong, in sentences."""
        wrong = []
        if self.missing:
            wrong.append(f"{len(self.missing)} are missing: {self.missing[:5]}")
        if self.broken:
            wrong.append(f"{len(self.broken)} are not whole: {self.broken[:5]}")
        if self.beyond or self.duplicates > self.bound:
            wrong.append(f"copies that were in hand at no kill: {self.beyond[:5]}")
        if self.doubled:
            wrong.append(f"second copies in a mailbox: {self.doubled[:5]}")
        if self.unasked > self.in_doubt:
            wrong.append("more arrived than can have been taken without an answer")
        if not self.promises:
            wrong.append("nothing was promised")
        return wrong

    def to_text(self) -> str:
        """Return the figures for people."""
        kinds = ", ".join(f"{kind} {n}" for kind, n in sorted(self.kills.items()))
        return (
            f"kills         {sum(self.kills.values())} ({kinds}),"
            f" {self.processes} processes\n"
            f"promises      {self.promises}, of which {len(self.missing)} missing,"
            f" {len(self.broken)} not whole\n"
            f"duplicates    {self.duplicates}, bound {self.bound} (attempts in hand at"
            f" the kills), {len(self.beyond)} beyond it\n"
            f"unasked       {self.unasked}, bound {self.in_doubt} (connections that"
            f" broke between content and answer)\n"
            f"put aside     {self.shunted} at the end, and then delivered\n"
            f"time          {self.seconds:.0f} s"
        )


class Killing:
    """One such run on a host that is up. Await ``run`` once.

    Args:
        host: the server, as ``killed_host`` makes it.
        world: where it is.
        seed: decides what is killed when.
    """

    def __init__(self, host: Host, world: World, seed: int) -> None:
        self._host = host
        self._random = Random(seed)  # noqa: S311 - no secret
        self._killer = Killer(host)
        self._kinds: Counter[str] = Counter()
        self._ids = iter(range(1 << 31))
        self._ended = False
        self.ledger = Ledger("kill", ALIASES)
        ip, port = world.ip(DOMAIN_NUMBER), world.smtp_port
        self._load = Load(self.ledger, ip, port, f"client@{DOMAIN}")
        self.sink = Sink(world.ip(FAR_NUMBER), port, seed)

    async def run(self, kills: int, told: Told = lambda _: None) -> Figures:
        """Kill so often, let all come to rest, and count.

        ``told`` is called with the number of kills after each.

        Raises:
            AssertionError: no mail is taken, or it does not come to rest.
        """
        began = time.monotonic()
        await self.sink.start()
        clients = [asyncio.create_task(self._client(n)) for n in range(CLIENTS)]
        try:
            for kind in self._draw(kills):
                await self._wait_a_while(clients)
                await self._kill(kind)
                self._kinds[kind] += 1
                told(1)
            self._ended = True
            await asyncio.gather(*clients)
            shunted = await self._come_to_rest()
        finally:
            for client in clients:
                client.cancel()
            self.sink.close()
        queued = await asyncio.to_thread(queued_in, self._host)
        return self._figures(queued, shunted, time.monotonic() - began)

    def _draw(self, kills: int) -> Iterator[str]:
        for number in range(kills):
            if number % len(DECK) == 0:
                deck = self._random.sample(DECK, len(DECK))
            yield deck[number % len(DECK)]

    async def _client(self, number: int) -> None:
        size = LARGE_OCTETS if number == 0 else 0
        recipients = [FRIENDS if number == 1 else f"betty@{DOMAIN}", FAR_JOE]
        while not self._ended:
            batch = [f"kill{next(self._ids)}" for _ in range(BATCH)]
            await self._load.send(batch, recipients, clients=1, size_octets=size)

    async def _wait_a_while(self, clients: Sequence["asyncio.Task[None]"]) -> None:
        """Until some more is promised; or shorter, as servers die while starting."""
        if self._random.random() < HASTY_SHARE and self._kinds:
            await asyncio.sleep(self._random.uniform(0, PAUSE_S_MAX))
            return
        more = self._random.randrange(PROMISED_BETWEEN_MAX)
        enough = len(self.ledger.promised) + more
        end = time.monotonic() + QUIET_S_MAX
        while len(self.ledger.promised) <= enough:
            await asyncio.sleep(_POLL_S)
            for client in clients:
                if client.done():
                    client.result()
            if time.monotonic() > end:
                raise AssertionError(self._silence())

    async def _kill(self, kind: str) -> None:
        killer, host = self._killer, self._host
        if kind == "worker":
            await self._kill_some_worker()
            return
        with victims_of(host) as victims:
            killer.kill_supervisor()
            if kind == "all":
                for victim in victims:
                    killer.kill_worker(victim)
            host.launch()
            if kind == "supervisor, then an orphan" and victims:
                await asyncio.sleep(self._random.uniform(0, ORPHAN_S_MAX))
                orphan = self._random.choice(victims)
                if orphan.is_alive:
                    killer.kill_worker(orphan)

    async def _kill_some_worker(self) -> None:
        end = time.monotonic() + QUIET_S_MAX
        while time.monotonic() < end:
            with victims_of(self._host) as victims:
                if victims:
                    self._killer.kill_worker(self._random.choice(victims))
                    return
            await asyncio.sleep(_POLL_S)
        raise AssertionError(self._silence())

    async def _come_to_rest(self) -> int:
        """Have all delivered; returns how many had been put aside for bad luck."""
        end = time.monotonic() + REST_S_MAX
        shunted: set[str] = set()
        while time.monotonic() < end:
            try:
                waiting = await asyncio.to_thread(entries_of, self._host)
            except subprocess.CalledProcessError:
                waiting = [{}]  # not all workers are up
            if not waiting:
                return len(shunted)
            shunted |= {
                one["queue_id"]
                for one in waiting
                if any(r["state"] == "shunted" for r in one.get("recipients", ()))
            }
            for which in (("--state", "shunted"), ("--all",)):
                retry = ("postroom", "queue", "retry", *which)
                await asyncio.to_thread(self._host.run, *retry)
            await asyncio.sleep(0.5)
        raise AssertionError(
            f"{len(waiting)} messages still wait\n{self._end_of_log()}"
        )

    def _figures(self, queued: list[Due], shunted: int, seconds: float) -> Figures:
        local = delivered_in(self._host, DOMAIN)
        far = [(FAR_JOE, copy.head) for copy in self.sink.copies]
        found = self.ledger.audit([*local, *far], queued)
        copies = [(owner, copy_of(content)) for owner, content in local]
        copies += [(FAR_JOE, copy) for copy in self.sink.copies]
        promised_ids = {due.id for due in self.ledger.promised}
        return Figures(
            kills=dict(self._kinds),
            processes=self._killer.processes,
            promises=len(self.ledger.promised),
            missing=found.missing,
            broken=[copy.message_id for _, copy in copies if not copy.is_whole],
            duplicates=found.duplicates,
            bound=sum(self._killer.in_hand.values()),
            beyond=beyond(copies, self._killer.in_hand),
            doubled=beyond(copies[: len(local)], Counter()),
            unasked=len({copy.message_id for _, copy in copies} - promised_ids),
            in_doubt=self.ledger.in_doubt,
            shunted=shunted,
            seconds=seconds,
        )

    def _silence(self) -> str:
        return f"no sign of life for {QUIET_S_MAX:.0f} s\n{self._end_of_log()}"

    def _end_of_log(self) -> str:
        return self._host.log[-4000:]


def beyond(copies: Sequence[tuple[str, Copy]], in_hand: Counter[str]) -> list[str]:
    """Return the queue ids that arrived more often than their kills excuse.

    Each copy is given with whose it is; ``in_hand`` tells how often a queue id was
    being attempted at a kill.
    """
    times = Counter((owner, copy.queue_id) for owner, copy in copies)
    return [
        f"{queue_id} {count} times for {owner}, in hand at {in_hand[queue_id]} kills"
        for (owner, queue_id), count in times.items()
        if count - 1 > in_hand[queue_id]
    ]


@contextmanager
def killed_host(world: World) -> Iterator[Host]:
    """Lend a running server of two workers, with its names."""
    world.name(DOMAIN, DOMAIN_NUMBER)
    world.name(FAR, FAR_NUMBER)
    aliases = "postmaster: betty\nfriends: betty, joe\n"
    with world.host(DOMAIN, DOMAIN_NUMBER, SETTINGS, aliases=aliases) as host:
        yield host


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a program; returns the exit status."""
    parser = argparse.ArgumentParser(prog="killing", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6))
    options = parser.parse_args(arguments)
    print(f"seed {options.seed}: {options.kills} kills", flush=True)
    try:
        with World() as world, killed_host(world) as host, _progress() as progress:
            task = progress.add_task("kills", total=options.kills)
            figures = asyncio.run(
                Killing(host, world, options.seed).run(
                    options.kills, lambda count: progress.advance(task, count)
                )
            )
    except (OSError, HostError, AssertionError) as error:
        print(f"killing: seed {options.seed}: {error}", file=sys.stderr)
        return 1
    print(figures.to_text())
    for why in figures.why:
        print(f"killing: seed {options.seed}: {why}", file=sys.stderr)
    return 0 if figures.is_good else 1


def _progress() -> Progress:
    return Progress(
        "{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    )


if __name__ == "__main__":
    sys.exit(main())
