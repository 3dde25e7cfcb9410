"""Spools of every schema are opened, and so upgraded, while the power goes at every n.

Whatever of the opening got to the disk, the next opening finds every message whole.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from postroom.spool.engine import Shard, open_shard
from postroom.spool.spool import SpoolError
from postroom.testing.crash.oracle import SETTINGS, Oracle, clock
from postroom.testing.disk import Disk, Fault, Loss
from postroom.testing.spool import MEMORY

ARCHIVES = sorted(Path(__file__).parents[1].glob("spools/schema-*"))
LOSSES = (Loss.ALL, Loss.NONE, Loss.LAST, Loss.DATABASE, Loss.SECTORS)
RECIPIENTS = 9
_NEVER = 1 << 62


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="upgrade-", dir=MEMORY) as made:
        yield Path(made)


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name)
def archive(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


async def opened(disk: Disk) -> Shard:
    return await open_shard(disk.root, 0, SETTINGS, clock=clock, seam=disk.seam)


async def test_the_power_goes_while_it_is_opened(archive: Path, place: Path) -> None:
    shutil.copytree(archive, place / "spool")
    disk = Disk(str(place / "spool"), "upgrade")
    await (await opened(disk)).aclose()
    disk.close()
    oracle = Oracle(place / "after")
    whole = None
    for moment, platter in disk.points():
        for loss in LOSSES:
            found = await oracle.look(platter.surviving(loss, moment), disk.root)
            whole = whole or found
            assert len(found) == RECIPIENTS
            assert found == whole, f"after {moment} operations ({loss.value})"
    assert oracle.opened > 10


@pytest.mark.parametrize("fault", [Fault.IO, Fault.FULL], ids=lambda f: f.name)
async def test_any_operation_fails_while_it_is_opened(
    fault: Fault, archive: Path, place: Path
) -> None:
    """It is refused, and the next opening, or one after a power cut, finds all."""
    index, faults = 0, 1
    while faults:
        shutil.copytree(archive, place / f"spool-{index}")
        disk = Disk(str(place / f"spool-{index}"), "upgrade")
        disk.fail_at(index, fault)
        with suppress(SpoolError):
            await (await opened(disk)).aclose()
        faults = disk.faults
        disk.fail_at(_NEVER, fault)
        shard = await opened(disk)
        assert (await shard.counts())["recipients"] == RECIPIENTS
        now = disk.now
        await shard.aclose()
        disk.close()
        oracle = Oracle(place / "after")
        for moment, platter in disk.points():
            if moment in (now, disk.now):
                found = await oracle.look(platter.surviving(Loss.ALL), disk.root)
                assert len(found) == RECIPIENTS
        index += 1
    assert index > 20
