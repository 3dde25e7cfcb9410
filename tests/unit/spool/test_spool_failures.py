"""What callers are told when the disk fails, and how the shard goes on."""

import asyncio
import errno
import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from postroom.net.clock import read_now
from postroom.observe.events import AnyEvent, SpoolFailed
from postroom.spool.bodies import FileBody
from postroom.spool.engine import open_shard
from postroom.spool.files import Seam, SystemFiles
from postroom.spool.spool import BodyWriter, Settle, SpoolError, SpoolFull
from postroom.testing.disk import Disk, Fault, Kind
from postroom.testing.spool import QUICK, Letters, temporary_shard


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


class Passing(SystemFiles):
    """A disk whose files cannot be looked at while ``error`` is set."""

    error = 0

    def size(self, path: str) -> int:
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        return super().size(path)


@pytest.mark.parametrize(
    ("error", "shunted"),
    [
        pytest.param(errno.EINTR, 0, id="EINTR"),
        pytest.param(errno.EMFILE, 0, id="EMFILE"),
        pytest.param(errno.ENOMEM, 0, id="ENOMEM"),
        pytest.param(errno.ENOENT, 1, id="ENOENT"),
        pytest.param(errno.EIO, 1, id="EIO"),
    ],
)
async def test_what_passes_is_no_reason_to_put_a_message_aside(
    error: int, shunted: int, tmp_path: Path
) -> None:
    files = Passing()
    seam = Seam(None, files)
    async with temporary_shard(directory=str(tmp_path), seam=seam) as shard:
        new = Letters(shard).letter()
        writer = shard.body_writer(new.queue_id)
        await write_all(writer, b"x")
        body = FileBody(shard._opened.bodies, str(new.queue_id), 1)
        message = msgspec.structs.replace(new.message, body=body)
        await shard.accept(msgspec.structs.replace(new, message=message))
        files.error = error
        with suppress(SpoolError):
            assert await shard.claim("whizzer.test", 0, 9, read_now()) == []
        files.error = 0
        await shard.accept(Letters(shard).letter("joe"))  # after what was put aside
        found = await shard.claim("whizzer.test", 0, 9, read_now())
        assert len(found) == 1 - shunted
        assert (await shard.counts())["shunted"] == shunted


async def test_after_a_failed_sync_the_database_is_opened_anew(disk: Disk) -> None:
    async with Site(disk) as site:
        await site.shard.accept(site.letters.letter())
        database = site.shard._opened.database
        trusted, writes = database.writer, len(disk.operations)
        site.fail_next(Kind.SYNC, Fault.IO)
        with pytest.raises(SpoolError):
            await site.shard.accept(site.letters.letter())
        await site.shard.accept(site.letters.letter())
        assert database.writer is not trusted
        after = disk.operations[writes:]
        failed = next(i for i, o in enumerate(after) if o.kind is Kind.DROP)
        kinds = [o.kind for o in after[failed + 1 :] if o.path.endswith("-wal")]
        assert kinds[:2] == [Kind.TRUNCATE, Kind.SYNC], "the log is cut first"


async def test_a_full_write_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    files, path = SystemFiles(), str(tmp_path / "short")
    descriptor = files.create(path)
    files.append(descriptor, b"0123456789")
    files.close(descriptor)
    assert files.read(path, 0, 99) == b"0123456789"


async def test_a_signal_interrupts_no_system_call(tmp_path: Path) -> None:
    """Python repeats what a signal has interrupted; a pipe shows it, full or empty."""
    reading, writing = os.pipe()
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
    data = b"x" * (1 << 18)

    def read() -> int:
        left = len(data)
        while left:
            select.select([], [], [], 0.003)
            left -= len(os.read(reading, 1 << 14))
        return left

    thread = threading.Thread(target=read)
    thread.start()
    try:
        SystemFiles().append(writing, data)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        thread.join()
        os.close(reading)
        os.close(writing)


async def test_what_was_refused_is_not_read_back_before_the_log_is_cut(
    disk: Disk,
) -> None:
    async with Site(disk) as site:
        kept = site.letters.letter("joe")
        await site.shard.accept(kept)
        for kind in (Kind.SYNC, Kind.TRUNCATE):  # of the commit; of the cut
            site.fail_next(kind, Fault.IO)
            with pytest.raises(SpoolError):
                await site.shard.accept(site.letters.letter("joe"))
        with pytest.raises(SpoolError, match="still to be cut"):
            await site.shard.claim("local", 0, 9, read_now())
        await site.shard.accept(site.letters.letter("ann@whizzer.test"))
        found = await site.shard.claim("local", 0, 9, read_now())
        assert [lease.queue_id for lease in found] == [kept.queue_id]
