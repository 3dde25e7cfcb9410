"""Makes an archived spool of the present schema, as a killed server leaves it.

    python tests/spools/make.py tests/spools/schema-N

Run once for each schema, when it is new; what it made is kept and never made again.
Messages in every state: ready, deferred, held, expanding half way, with a large body in
a file, sharing a body, in hand at the crash; and the last commits still in the log.
"""

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

import msgspec

from postroom.mail.message import Prepend, Remove
from postroom.mail.now import Now
from postroom.mail.units import Size
from postroom.spool.engine import Shard, open_shard
from postroom.spool.settings import SpoolSettings
from postroom.spool.spool import QueueFilter, Rest, Settle
from postroom.testing.spool import Letters

START_US = 1_790_000_000_000_000
SETTINGS = SpoolSettings(reserve_octets=Size(0), reserve_inodes=0)


def clock() -> Now:
    return Now(START_US, 0)


async def fill(shard: Shard) -> None:
    letters = Letters(shard, clock)
    await shard.accept(letters.letter("ready@whizzer.test", "second@whizzer.test"))
    [lease] = await shard.accept(letters.letter("later@whizzer.test"), claim=True)
    later = Settle(0, START_US + 60_000_000, "Connection refused", warned=True)
    await shard.settle(lease, [later])
    await shard.accept(letters.letter("held@whizzer.test"))
    await shard.hold(QueueFilter(recipients=("held",)), "suspicious")
    shared = letters.letter(":pals", body=b"shared\r\n")
    [lease] = await shard.accept(shared, claim=True)
    owned = letters.letter("owned", sender="owner-pals@gonzo.test")
    owned = msgspec.structs.replace(owned, body_of=shared.queue_id)
    await shard.expand(lease, 0, [letters.recipient("joe")], 1000, [owned])
    edited = letters.letter("edited@whizzer.test")
    edits = (Prepend(b"Received: from a\r\n"), Remove("Bcc"))
    message = msgspec.structs.replace(edited.message, edits=edits)
    await shard.accept(msgspec.structs.replace(edited, message=message))
    large = letters.letter("large@whizzer.test")
    writer = shard.body_writer(large.queue_id)
    await writer.write(b"large\r\n" * 100)
    message = msgspec.structs.replace(large.message, body=await writer.finish())
    await shard.accept(msgspec.structs.replace(large, message=message))
    await shard.rest("whizzer.test", Rest(START_US + 1_000_000, "4.4.1", "is down"))
    shard.in_hand.begin(large.queue_id)


async def make(target: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        shard = await open_shard(directory, 0, SETTINGS, clock=clock)
        await fill(shard)
        await asyncio.to_thread(
            shutil.copytree,
            Path(directory),
            target,
            ignore=shutil.ignore_patterns("*-shm"),
        )
        await shard.aclose()


if __name__ == "__main__":
    asyncio.run(make(Path(sys.argv[1])))
