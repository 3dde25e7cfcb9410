"""The spool loses nothing: the power goes, the disk fails, the process is killed, at n.

A scenario runs on a recording disk (``postroom.testing.crash``). Here a sample of all
points is tried; ``make crash-points`` tries every one, and prints how many there are.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from postroom.testing.crash.trials import Bench, Tally
from postroom.testing.disk import Fault, Kind, Loss
from postroom.testing.spool import MEMORY

STEP = int(os.environ.get("POSTROOM_CRASH_STEP", "0"))
"""Every so many points are tried; 0: a sample for each trial that takes seconds."""
EVERY_POINT = (Loss.ALL, Loss.NAMES, Loss.DATABASE, Loss.HOLES)
"""Losses that leave few different states."""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    if MEMORY is None:
        yield Bench(tmp_path)
        return
    with tempfile.TemporaryDirectory(prefix="crash-", dir=MEMORY) as place:
        yield Bench(Path(place))


def sample(step: int) -> int:
    return STEP or step


@pytest.mark.parametrize("loss", list(Loss), ids=lambda loss: loss.name)
async def test_the_power_goes(loss: Loss, bench: Bench) -> None:
    tally = Tally()
    step = sample(1 if loss in EVERY_POINT else 13)
    async for each in bench.power_cuts([loss], step):
        tally.add(each)
    assert tally.states == tally.operations // step + 1
    assert tally.opened > 50


async def test_the_scenario_does_everything(bench: Bench) -> None:
    operations = await bench.operations()
    done = {(o.kind, os.path.basename(o.path)) for o in operations}
    assert {kind for kind, _ in done} == set(Kind) - {Kind.DROP}
    assert (Kind.SYNC, "queue.db") in done, "no checkpoint"
    assert (Kind.TRUNCATE, "queue.db") in done, "no space given back"
    assert len([o for o in operations if o.path.endswith("bodies")]) > 2
    assert len(operations) > 500


@pytest.mark.parametrize("times", [1, 12], ids=["once", "for a while"])
@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name)
async def test_the_disk_fails(fault: Fault, times: int, bench: Bench) -> None:
    indices = [
        index
        for index, operation in enumerate(await bench.operations())
        if fault.applies_to(operation)
    ]
    tally = Tally()
    for index in indices[:: sample(1 + len(indices) // 12)]:
        tally.add(await bench.fault(index, fault, times))
    assert tally.faults >= times
    assert tally.refused


@pytest.mark.parametrize(
    "fault", [Fault.INTERRUPTED, Fault.IO], ids=lambda fault: fault.name
)
async def test_a_call_of_a_file_operation_fails(fault: Fault, bench: Bench) -> None:
    disk, _ = await bench.record()
    tally = Tally()
    for index in range(0, disk.calls, sample(5)):
        tally.add(await bench.failing_call(index, fault))
    assert tally.faults


@pytest.mark.parametrize("sync_fails", [False, True], ids=["at any n", "failed sync"])
async def test_the_process_is_killed(sync_fails: bool, bench: Bench) -> None:
    indices = [
        index
        for index, operation in enumerate(await bench.operations())
        if operation.kind is Kind.SYNC or not sync_fails
    ]
    tally = Tally()
    for index in indices[:: sample(1 + len(indices) // 20)]:
        tally.add(await bench.kill(index, sync_fails=sync_fails))
    assert tally.kills
