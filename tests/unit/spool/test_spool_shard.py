"""What is the embedded engine's own: its file gets smaller again.

What every engine promises is in ``tests/contract``.
"""

import asyncio
from pathlib import Path

from postroom.mail.units import Size
from postroom.spool.settings import SpoolSettings
from postroom.spool.spool import Settle
from postroom.testing.engines import HandClock
from postroom.testing.spool import Letters, temporary_shard


async def test_space_comes_back_after_a_drain(tmp_path: Path) -> None:
    small = SpoolSettings(reserve_octets=Size(0), free_octets_max=Size(1 << 20))
    clock = HandClock()
    database = tmp_path / "shard-000" / "queue.db"
    async with temporary_shard(
        directory=str(tmp_path), settings=small, clock=clock
    ) as shard:
        letters = Letters(shard, clock)
        news = [letters.letter(body=b"x" * 60_000) for _ in range(200)]
        leases = await asyncio.gather(*(shard.accept(new, claim=True) for new in news))
        await asyncio.gather(*(shard.settle(lease, [Settle(0)]) for [lease] in leases))
    assert database.stat().st_size < 2 << 20
