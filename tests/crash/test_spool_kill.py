"""A process killed in the middle of its work loses nothing that it had promised."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from postroom.mail.ids import QueueId
from postroom.net.clock import read_now
from postroom.spool.engine import open_shard
from postroom.testing.spool import QUICK

WORKER = """
import asyncio, sys
from postroom.net.clock import read_now
from postroom.spool.engine import open_shard
from postroom.spool.spool import Settle
from postroom.testing.spool import QUICK, Letters

async def flight(shard, letters, number):
    while True:
        new = letters.letter(f"keep{number}@whizzer.test")
        await shard.accept(new)
        print("+" + new.queue_id, flush=True)
        [lease] = await shard.accept(letters.letter("joe"), claim=True)
        await shard.settle(lease, [Settle(0)])
        print("-" + lease.queue_id, flush=True)

async def main():
    shard = await open_shard(sys.argv[1], 0, QUICK, clock=read_now)
    letters = Letters(shard)
    await asyncio.gather(*(flight(shard, letters, n) for n in range(8)))

asyncio.run(main())
"""


def work_until_killed(directory: Path, lines: int) -> list[str]:
    """Run a worker, kill it after it said so many lines, and return all it said."""
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, str(directory)],
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        assert worker.stdout is not None
        said = [worker.stdout.readline() for _ in range(lines)]
        worker.kill()
        return said + worker.stdout.readlines()


@pytest.mark.parametrize("lines", [1, 40, 333])
async def test_killed_after_so_many_answers(lines: int, tmp_path: Path) -> None:
    said = await asyncio.to_thread(work_until_killed, tmp_path, lines)
    # The last line may have been cut off by the kill.
    answers = [line.strip() for line in said if line.endswith("\n")]
    kept = {QueueId(line[1:]) for line in answers if line.startswith("+")}
    settled = {QueueId(line[1:]) for line in answers if line.startswith("-")}
    shard = await open_shard(str(tmp_path), 0, QUICK, clock=read_now)
    try:
        leases = await shard.claim("whizzer.test", None, 10_000, read_now())
        assert kept <= {lease.queue_id for lease in leases}
        local = await shard.claim("local", None, 10_000, read_now())
        assert settled.isdisjoint(lease.queue_id for lease in local)
        assert len(local) <= 8
    finally:
        await shard.aclose()
