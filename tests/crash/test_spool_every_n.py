"""The spool loses nothing: the power goes, or the disk fails, at every operation.

A scenario runs on a recording disk. For every n the state that a power cut after n
operations leaves is rebuilt and opened: each message that was answered is there and
whole, none is half there, and nothing that was settled before comes back.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from postroom.mail.now import Now
from postroom.mail.units import Size
from postroom.spool.engine import Shard, open_shard
from postroom.spool.settings import SpoolSettings
from postroom.spool.spool import NewMessage, QueueFilter, Settle, SpoolError
from postroom.testing.disk import Disk, Fault, Kind, Loss
from postroom.testing.spool import Letters

START_US = 1_790_000_000_000_000
WRITES_STEP = int(os.environ.get("POSTROOM_CRASH_STEP", "5"))
"""Every sync fails once, and every fifth write; 1 in the environment: every write."""
LARGE = b"large\r\n" * 3000
SETTINGS = SpoolSettings(
    reserve_octets=Size(0),
    reserve_inodes=0,
    body_memory_octets_max=Size(8192),
    wal_octets_max=Size(96 << 10),
)


def clock() -> Now:
    return Now(START_US, 0)


class Ledger:
    """What was promised, and when: each with the number of operations done by then.

    ``owed`` maps an address, unique in the scenario, to when its message was
    answered; ``begun`` to when removing it was begun, ``done`` to when that was
    answered.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.asked: dict[str, bytes] = {}
        self.owed: dict[str, int] = {}
        self.begun: dict[str, int] = {}
        self.done: dict[str, int] = {}
        self.refused = 0
        self.closing = 0

    @property
    def now(self) -> int:
        return len(self._disk.operations)

    def ask(self, new: NewMessage, body: bytes) -> list[str]:
        names = [str(recipient.address) for recipient in new.recipients]
        self.asked.update(dict.fromkeys(names, body))
        return names

    def must(self, count: int) -> set[str]:
        owed = {name for name, at in self.owed.items() if at <= count}
        return {name for name in owed if self.begun.get(name, count) >= count}

    def must_not(self, count: int) -> set[str]:
        return {name for name, at in self.done.items() if at <= count}


class Scenario:
    """Accepts, expands, defers, delivers and removes; goes on where a step fails."""

    def __init__(self, shard: Shard, ledger: Ledger) -> None:
        self._shard = shard
        self._ledger = ledger
        self._letters = Letters(shard, clock)

    async def run(self) -> None:
        for i in range(3):
            await self._try(self.deliver, f"now{i}@whizzer.test")
        await self._try(self.accept, [f"many{i}@whizzer.test" for i in range(20)])
        await self._try(self.large, "large@whizzer.test")
        await self._try(self.expand)
        await self._try(self.defer, "later@whizzer.test")
        await self._try(self.deliver_large, "gone@whizzer.test")
        await self._try(self.remove, "removed@whizzer.test")
        for i in range(4):
            await self._try(self.deliver, f"last{i}@whizzer.test")

    async def _try(self, step: object, *arguments: object) -> None:
        assert callable(step)
        try:
            await step(*arguments)
        except SpoolError:
            self._ledger.refused += 1

    async def accept(self, names: list[str]) -> None:
        new = self._letters.letter(*names)
        self._ledger.ask(new, b"hello\r\n")
        await self._shard.accept(new)
        self._ledger.owed.update(dict.fromkeys(names, self._ledger.now))

    async def deliver(self, name: str) -> None:
        new = self._letters.letter(name)
        self._ledger.ask(new, b"hello\r\n")
        [lease] = await self._shard.accept(new, claim=True)
        self._ledger.owed[name] = self._ledger.now
        self._ledger.begun[name] = self._ledger.now
        await self._shard.settle(lease, [Settle(0)])
        self._ledger.done[name] = self._ledger.now

    async def _large(self, name: str) -> NewMessage:
        new = self._letters.letter(name)
        writer = self._shard.body_writer(new.queue_id)
        await writer.write(LARGE)
        message = msgspec.structs.replace(new.message, body=await writer.finish())
        self._ledger.asked[name] = LARGE
        return msgspec.structs.replace(new, message=message)

    async def large(self, name: str) -> None:
        await self._shard.accept(await self._large(name))
        self._ledger.owed[name] = self._ledger.now

    async def deliver_large(self, name: str) -> None:
        [lease] = await self._shard.accept(await self._large(name), claim=True)
        self._ledger.owed[name] = self._ledger.now
        self._ledger.begun[name] = self._ledger.now
        await self._shard.settle(lease, [Settle(0)])
        self._ledger.done[name] = self._ledger.now

    async def defer(self, name: str) -> None:
        new = self._letters.letter(name)
        self._ledger.ask(new, b"hello\r\n")
        [lease] = await self._shard.accept(new, claim=True)
        self._ledger.owed[name] = self._ledger.now
        await self._shard.settle(lease, [Settle(0, START_US + 1, "busy")])

    async def expand(self) -> None:
        new = self._letters.letter(":pals")
        self._ledger.ask(new, b"hello\r\n")
        [lease] = await self._shard.accept(new, claim=True)
        self._ledger.owed["pals"] = self._ledger.now
        for cursor, end in ((0, 30), (30, None)):
            names = [f"pal{cursor + i}" for i in range(30)]
            self._ledger.asked.update(dict.fromkeys(names, b"hello\r\n"))
            if end is None:
                self._ledger.begun["pals"] = self._ledger.now
            children = [self._letters.recipient(name) for name in names]
            await self._shard.expand(lease, 0, children, end)
            self._ledger.owed.update(dict.fromkeys(names, self._ledger.now))
        self._ledger.done["pals"] = self._ledger.now

    async def remove(self, name: str) -> None:
        await self.accept([name])
        self._ledger.begun[name] = self._ledger.now
        await self._shard.remove(QueueFilter(recipients=(name,)))
        self._ledger.done[name] = self._ledger.now


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    (tmp_path / "spool").mkdir()
    recording = Disk(str(tmp_path / "spool"))
    yield recording
    recording.close()


async def opened(disk: Disk) -> Shard:
    return await open_shard(disk.root, 0, SETTINGS, clock=clock, seam=disk.seam)


async def run_scenario(disk: Disk) -> Ledger:
    ledger = Ledger(disk)
    try:
        shard = await opened(disk)
    except SpoolError:  # the fault was in opening: it must work the second time
        ledger.refused += 1
        shard = await opened(disk)
    try:
        await Scenario(shard, ledger).run()
    finally:
        ledger.closing = ledger.now
        try:
            await shard.aclose()
        except SpoolError:
            ledger.refused += 1
    return ledger


async def found_in(root: str) -> dict[str, bytes]:
    """Open a spool and claim everything: each address and its body."""
    shard = await open_shard(root, 0, SETTINGS, clock=clock)
    found: dict[str, bytes] = {}
    now = Now(START_US + 2, 0)
    try:
        for place in await shard.due_hops(now, 100):
            for lease in await shard.claim(place.hop, place.lane, 100, now):
                body = await lease.message.body.read(0, 1 << 20)
                for recipient in lease.envelope.recipients:
                    found[str(recipient.address)] = body
        counts = await shard.counts()
        assert counts["shunted"] == 0, "something was half there"
        assert counts["recipients"] == len(found)
    finally:
        await shard.aclose()
    return found


async def check(disk: Disk, ledger: Ledger, count: int, loss: Loss, at: Path) -> None:
    """Rebuild the state after ``count`` operations, and compare it to the ledger."""
    shutil.rmtree(at, ignore_errors=True)
    (at / "shard-000" / "bodies").mkdir(parents=True)
    disk.after(count, loss, str(at))
    found = await found_in(str(at))
    missing = ledger.must(count) - found.keys()
    assert not missing, f"lost after {count} operations ({loss.value}): {missing}"
    back = ledger.must_not(count) & found.keys()
    assert not back, f"came back after {count} operations ({loss.value}): {back}"
    for name, body in found.items():
        assert body == ledger.asked[name]


@pytest.mark.parametrize("loss", list(Loss), ids=lambda loss: loss.name)
async def test_power_cut_after_every_operation(
    loss: Loss, disk: Disk, tmp_path: Path
) -> None:
    ledger = await run_scenario(disk)
    assert ledger.refused == 0
    total = len(disk.operations)
    assert any(o.path.endswith("queue.db") for o in disk.operations[50:]), (
        "no checkpoint in the scenario"
    )
    # Between two syncs only the newest state matters when all is lost.
    for count in range(_first_commit(disk), total + 1):
        if loss is Loss.ALL and not _after_sync(disk, count):
            continue
        await check(disk, ledger, count, loss, tmp_path / "after")


def _first_commit(disk: Disk) -> int:
    """Before the first sync of the log nothing was ever promised."""
    synced = (o.kind is Kind.SYNC and o.path.endswith("-wal") for o in disk.operations)
    return next(i for i, found in enumerate(synced) if found)


def _after_sync(disk: Disk, count: int) -> bool:
    kinds = {Kind.SYNC, Kind.REMOVE}
    return count == len(disk.operations) or disk.operations[count - 1].kind in kinds


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name)
async def test_fault_at_every_operation(fault: Fault, tmp_path: Path) -> None:
    probe = _disk(tmp_path, "probe")
    await run_scenario(probe)
    probe.close()
    for index, operation in enumerate(probe.operations):
        if operation.kind is not Kind.SYNC and index % WRITES_STEP:
            continue
        disk = _disk(tmp_path, "faulty")
        disk.fail_at(index, fault)
        ledger = await run_scenario(disk)
        disk.close()
        assert disk.faults == 1
        # Whatever failed, what was answered is there after a power cut, too: soon
        # after, and before closing copies the log and so mends much.
        for count in (min(index + 25, ledger.closing), ledger.closing):
            await check(disk, ledger, count, Loss.ALL, tmp_path / "after")
        shutil.rmtree(disk.root)


def _disk(tmp_path: Path, name: str) -> Disk:
    root = tmp_path / name
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    return Disk(str(root), name)
