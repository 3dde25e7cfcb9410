"""What callers are told when the disk fails, and how the shard goes on."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from postroom.net.clock import read_now
from postroom.observe.events import AnyEvent, SpoolFailed
from postroom.spool.engine import open_shard
from postroom.spool.spool import BodyWriter, Settle, SpoolError, SpoolFull
from postroom.testing.disk import Disk, Fault, Kind
from postroom.testing.spool import QUICK, Letters


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    recording = Disk(str(tmp_path), "failing")
    yield recording
    recording.close()


class Site:
    """A shard on a failing disk, and what it reported."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.events: list[AnyEvent] = []

    async def __aenter__(self) -> "Site":
        self.shard = await open_shard(
            self.disk.root,
            0,
            QUICK,
            clock=read_now,
            emit=self.events.append,
            seam=self.disk.seam,
        )
        self.letters = Letters(self.shard)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.shard.aclose()

    def fail_next(self, kind: Kind, fault: Fault) -> None:
        """Let the next operation of a kind fail."""
        self.disk.fail_next(kind, fault)


async def test_a_full_disk_refuses_mail_and_lets_the_queue_drain(disk: Disk) -> None:
    async with Site(disk) as site:
        [lease] = await site.shard.accept(site.letters.letter(), claim=True)
        site.fail_next(Kind.WRITE, Fault.FULL)
        refused, settled = await asyncio.gather(
            site.shard.accept(site.letters.letter(), claim=True),
            site.shard.settle(lease, [Settle(0)]),
            return_exceptions=True,
        )
        assert isinstance(refused, SpoolFull)
        assert settled is None
        assert set((await site.shard.counts()).values()) == {0}
        assert not site.shard.check_space(0)
        assert isinstance(site.events[0], SpoolFailed)


@pytest.mark.parametrize("kind", [Kind.WRITE, Kind.SYNC], ids=lambda kind: kind.name)
async def test_after_a_failure_of_the_disk_the_shard_goes_on(
    kind: Kind, disk: Disk
) -> None:
    async with Site(disk) as site:
        kept = site.letters.letter()
        await site.shard.accept(kept)
        site.fail_next(kind, Fault.IO)
        with pytest.raises(SpoolError):
            await site.shard.accept(site.letters.letter(), claim=True)
        await site.shard.accept(site.letters.letter("ann"))
        found = await site.shard.claim("whizzer.test", 0, 9, read_now())
        assert [lease.queue_id for lease in found] == [kept.queue_id]
        assert (await site.shard.counts())["messages"] == 2


async def test_a_settlement_that_failed_may_be_repeated(disk: Disk) -> None:
    async with Site(disk) as site:
        [lease] = await site.shard.accept(site.letters.letter(), claim=True)
        site.fail_next(Kind.SYNC, Fault.IO)
        with pytest.raises(SpoolError):
            await site.shard.settle(lease, [Settle(0)])
        await site.shard.settle(lease, [Settle(0)])
        assert (await site.shard.counts())["messages"] == 0


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name)
@pytest.mark.parametrize("kind", [Kind.WRITE, Kind.SYNC], ids=lambda kind: kind.name)
async def test_a_large_body_that_cannot_be_written(
    kind: Kind, fault: Fault, disk: Disk
) -> None:
    async with Site(disk) as site:
        writer = site.shard.body_writer(site.letters.letter().queue_id)
        site.fail_next(kind, fault)
        with pytest.raises(SpoolFull if fault is Fault.FULL else SpoolError):
            await write_all(writer, b"x" * (1 << 20))
        assert disk.files.names(f"{disk.root}/shard-000/bodies") == []


async def write_all(writer: BodyWriter, data: bytes) -> None:
    await writer.write(data)
    await writer.finish()
