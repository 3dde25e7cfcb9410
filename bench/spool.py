"""Measures the hot path of the spool: accept with leases, then settle.

    python bench/spool.py [--messages 6000] [--flights 30] [--octets 4096]

Prints CPU microseconds per message over all threads of the process, so the figure
holds on a busy machine, and the wall time beside it.
"""

import argparse
import asyncio
import sys
import tempfile
import time

import uvloop

from postroom.mail.address import Address
from postroom.mail.envelope import BodyType, Envelope, Origin, Recipient
from postroom.mail.ids import QueueIds
from postroom.mail.message import MemoryBody, Message, Prepend
from postroom.mail.route import Route
from postroom.net.clock import read_now
from postroom.spool.engine import Shard, open_shard
from postroom.spool.settings import SpoolSettings
from postroom.spool.spool import NewMessage, NewRecipient, Settle

HEADER = b"From: betty@gonzo.test\r\nSubject: a letter\r\n" * 8
RECEIVED = Prepend(b"Received: from client.test by gonzo.test; a date\r\n" * 2)


def new_message(ids: QueueIds, octets: int, hop: str = "whizzer.test") -> NewMessage:
    now = read_now()
    joe = Address("joe", hop)
    body = MemoryBody(b"x" * (octets - len(HEADER)))
    return NewMessage(
        queue_id=ids.next(now.utc_us),
        envelope=Envelope(
            sender=Address("betty", "gonzo.test"),
            recipients=(Recipient(joe),),
            origin=Origin("ESMTP", "127.0.0.1", 4000, "", "client.test"),
            body=BodyType.EIGHT_BIT,
            size=octets,
            arrival_us=now.utc_us,
        ),
        message=Message(HEADER, body, (RECEIVED,)),
        recipients=(
            NewRecipient(joe, Route("smtp", hop, "MX of whizzer.test"), 3, now.utc_us),
        ),
        message_id="<1234@gonzo.test>",
    )


async def flight(shard: Shard, ids: QueueIds, count: int, octets: int) -> None:
    for _ in range(count):
        leases = await shard.accept(new_message(ids, octets), claim=True)
        await shard.settle(leases[0], [Settle(0)])


async def prepare_only(ids: QueueIds, count: int, octets: int) -> float:
    begin = time.process_time()
    for _ in range(count):
        new_message(ids, octets)
    return (time.process_time() - begin) / count * 1e6


async def run(messages: int, flights: int, octets: int) -> None:
    with tempfile.TemporaryDirectory(dir=".") as directory:
        shard = await open_shard(directory, 0, SpoolSettings(), clock=read_now)
        ids = QueueIds(0, shard.last_number)
        made_us = await prepare_only(ids, 2000, octets)
        await flight(shard, ids, 200, octets)
        cpu, wall = time.process_time(), time.perf_counter()
        each = messages // flights
        await asyncio.gather(
            *(flight(shard, ids, each, octets) for _ in range(flights))
        )
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        done = each * flights
        print(
            f"flights {flights:3}  {octets} octets:"
            f" {cpu / done * 1e6 - made_us:6.1f} us CPU per message"
            f" (and {made_us:.1f} us for making it), {wall / done * 1e6:6.1f} us wall"
        )
        assert (await shard.counts())["messages"] == 0
        await shard.aclose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=6000)
    parser.add_argument("--flights", type=int, nargs="*", default=[1, 20, 50])
    parser.add_argument("--octets", type=int, default=4096)
    options = parser.parse_args()
    sys.setswitchinterval(0.0005)
    for flights in options.flights:
        count = options.messages if flights > 1 else options.messages // 10
        uvloop.run(run(count, flights, options.octets))


if __name__ == "__main__":
    main()
