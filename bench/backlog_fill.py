"""Makes a large backlog: ``python -m bench.backlog_fill`` fills one shard.

Messages go through the spool's own code (rows, groups, counters), thousands in one
transaction. ``synchronous`` is relaxed while preparing, and only then. Half of the
messages are for one dead hop, the rest is spread over live domains. A million takes
a quarter of a minute, less than keeping one to be used again would.
"""

import argparse
import asyncio
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import msgspec

from bench.packages import BenchError
from postroom.mail.address import Address
from postroom.mail.envelope import Envelope, Origin, Recipient
from postroom.mail.ids import QueueIds
from postroom.mail.message import MemoryBody, Message, Prepend
from postroom.mail.route import Route
from postroom.mail.units import Size
from postroom.net.clock import read_now
from postroom.services.lanes import lane_of
from postroom.spool import groups, rows
from postroom.spool.changes import COUNTED, Change
from postroom.spool.database import Database
from postroom.spool.opening import BODIES, DATABASE
from postroom.spool.settings import SpoolSettings
from postroom.spool.spool import NewMessage, NewRecipient

SHARDS = 2
SENDERS = 1_000
LANES = 16
_GROUP = 5_000
_CACHE = Size(512 << 20)
_SPREAD_US = 3_600_000_000
"""The messages came within the last hour."""
_TEXT = b"What is written here is of no importance, only that there is enough.\r\n"
_HEADER = b"From: <sender@src.test>\r\nSubject: backlog\r\nX-Filling: " + b"x" * 180


class Plan(msgspec.Struct, frozen=True):
    """What the backlog is."""

    messages: int = 1_000_000
    domains: int = 10_000
    octets: int = 1_024
    dead_port: int = 3526
    """Nobody listens there: each connection is refused at once."""

    @property
    def dead_hop(self) -> str:
        """The hop that half of the messages are for."""
        return f"[127.0.0.1]:{self.dead_port}"


def fill(folder: Path, plan: Plan, progress: Callable[[int], None]) -> None:
    """Make a spool in ``folder``, with what ``plan`` says in its shards.

    Raises:
        BenchError: it could not be made.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "bench.backlog_fill", str(folder)]
    command += ["--plan", msgspec.json.encode(plan).decode()]
    now_us = read_now().utc_us
    started = [
        subprocess.Popen(
            [*command, "--shard", str(shard), "--now", str(now_us)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for shard in range(SHARDS)
    ]
    done = [0] * SHARDS

    def follow(shard: int, lines: IO[str]) -> None:
        for line in lines:
            done[shard] = int(line)
            progress(sum(done))

    threads = [
        threading.Thread(target=follow, args=(shard, process.stdout))
        for shard, process in enumerate(started)
    ]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if any(process.wait() for process in started):
            raise BenchError(f"the backlog in {folder} could not be made")
    finally:
        for process in started:
            process.kill()
            process.wait()


def octets_of(folder: Path) -> int:
    """Return the disk space the queue takes; what has left stays in the history."""
    shards = [path for shard in folder.glob("shard-*") for path in shard.rglob("*")]
    return sum(path.stat().st_blocks * 512 for path in shards if path.is_file())


def _relaxed(path: Path, shard: int) -> Database:
    settings = SpoolSettings(cache_octets=_CACHE)
    database = Database(str(path / DATABASE), shard, settings)
    database.writer.pragma("synchronous", "OFF")
    return database


def _messages(plan: Plan, shard: int, now_us: int) -> Iterator[NewMessage]:
    """Make this shard's part: every other one is for the dead hop."""
    ids, count = QueueIds(shard), plan.messages // SHARDS
    live = plan.domains - 1
    body = _TEXT * (plan.octets // len(_TEXT) + 1)
    senders = [Address(f"sender{n}", "src.test") for n in range(SENDERS)]
    origin = Origin("ESMTP", "127.0.0.1", 4000, "", "client.test")
    received = b"Received: from client.test by postroom.test; in the past\r\n"
    edits = (Prepend(received),)
    dead = Route("smtp", plan.dead_hop, "table routes: dead.test")
    for n in range(count):
        sender = senders[n * 7919 % SENDERS]
        arrival_us = now_us - _SPREAD_US + n * _SPREAD_US // count
        if n % 2:
            to, route = Address(f"user{n}", "dead.test"), dead
        else:
            domain = f"d{(n // 2 * SHARDS + shard) * 7919 % live}.test"
            to = Address(f"user{n}", domain)
            route = Route("discard", domain, "table routes: .test")
        head = b"%s\r\nMessage-ID: <%d.%d@src.test>\r\n" % (_HEADER, n, shard)
        left = plan.octets - len(head) - len(received)
        yield NewMessage(
            queue_id=ids.next(arrival_us),
            envelope=Envelope(
                sender=sender,
                recipients=(Recipient(to),),
                origin=origin,
                arrival_us=arrival_us,
            ),
            message=Message(head, MemoryBody(body[:left]), edits),
            recipients=(
                NewRecipient(to, route, lane_of(sender, left, LANES), arrival_us),
            ),
            message_id=f"<{n}.{shard}@src.test>",
        )


def _fill_shard(folder: Path, plan: Plan, shard: int, now_us: int) -> None:
    path = folder / f"shard-{shard:03}"
    (path / BODIES).mkdir(parents=True)
    database = _relaxed(path, shard)
    counts = dict.fromkeys(COUNTED, 0)
    future: asyncio.Future[object] = asyncio.Future(loop=asyncio.new_event_loop())
    group: list[Change] = []
    done = 0
    for message in _messages(plan, shard, now_us):
        group.append(Change(future, new=[rows.message_rows(message)]))
        if len(group) == _GROUP:
            counts = _commit(database, group, counts)
            done += len(group)
            print(done, flush=True)
            group = []
    counts = _commit(database, group, counts)
    database.close(clean=True)


def _commit(
    database: Database, group: list[Change], counts: dict[str, int]
) -> dict[str, int]:
    with database.writer as writer:
        counts = groups.apply(writer, group, counts).counts
    database.checkpoint()
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--plan", required=True, help="as JSON")
    parser.add_argument("--shard", type=int, required=True)
    parser.add_argument("--now", type=int, required=True)
    given = parser.parse_args()
    plan = msgspec.json.decode(given.plan, type=Plan)
    _fill_shard(given.folder, plan, given.shard, given.now)
    return 0


if __name__ == "__main__":
    sys.exit(main())
