"""The trials: the power goes, the disk fails, or the process is killed, at every n.

Each yields its findings one by one, so that a caller can show how far it is. A trial
that finds a promise broken raises ``Lost`` at once.
"""

import shutil
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import msgspec

from postroom.spool.spool import SpoolError
from postroom.testing.crash.oracle import Oracle
from postroom.testing.crash.promises import Lost, Promises
from postroom.testing.crash.scenario import Scenario, Successor
from postroom.testing.disk import Disk, Fault, Loss, Operation

_SOON = (1, 2, 4, 8, 16, 32)
"""After how many more operations the power goes, once something has failed."""
_STUCK_TIMES = 12
"""How many operations in a row fail when a fault is there to stay for a while."""


class Tally(msgspec.Struct):
    """What was tried. Of the ``states`` that many were ``opened``: they differed."""

    operations: int = 0
    states: int = 0
    opened: int = 0
    faults: int = 0
    kills: int = 0
    refused: int = 0
    sabotages: int = 0

    def add(self, other: "Tally") -> None:
        """Add another's numbers."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Bench:
    """A place to run scenarios, each on a new disk.

    Args:
        place: a directory, best in memory.
        name: unlike that of any other living bench of this process.
        skips: which syncs are left out, to see that this is noticed.
    """

    def __init__(
        self,
        place: Path,
        name: str = "bench",
        skips: Callable[[Operation], bool] | None = None,
    ) -> None:
        self._place = place
        self._name = name
        self._skips = skips
        self._oracle = Oracle(place / "after")

    def disk(self) -> Disk:
        """Return a new disk, in the place of the one before."""
        root = self._place / "spool"
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        disk = Disk(str(root), self._name)
        if self._skips is not None:
            disk.skips = self._skips
        return disk

    async def record(self) -> tuple[Disk, Promises]:
        """Run the scenario without any trouble."""
        disk = self.disk()
        try:
            scenario = Scenario(disk)
            await scenario.run()
        finally:
            disk.close()
        if scenario.refused:
            raise Lost("a step failed though nothing was wrong with the disk")
        return disk, scenario.promises

    async def operations(self) -> list[Operation]:
        """Return the operations of an undisturbed run."""
        disk, _ = await self.record()
        return disk.operations

    async def power_cuts(
        self, losses: Iterable[Loss], step: int = 1, first: int = 0
    ) -> AsyncIterator[Tally]:
        """Cut the power after every ``step``-th operation, with every loss given.

        ``first`` is the first of them, less than ``step``.

        Raises:
            Lost: a promise was broken.
        """
        losses = tuple(losses)
        disk, promises = await self.record()
        yield Tally(operations=disk.now)
        for moment, platter in disk.points():
            if moment % step != first:
                continue
            for loss in losses:
                files = platter.surviving(loss, moment)
                yield await self._look(files, disk, promises, moment, loss.value)

    async def fault(self, index: int, fault: Fault, times: int = 1) -> Tally:
        """Let operations fail from ``index`` on, and cut the power some time after.

        Raises:
            Lost: a promise was broken.
        """
        disk = self.disk()
        disk.fail_at(index, fault, times=times)
        scenario = await self._run(disk)
        closing = scenario.closing or disk.now
        moments = {min(index + soon, closing) for soon in _SOON} | {closing}
        found = await self._cuts(disk, scenario.promises, moments, fault.value)
        found.add(Tally(faults=disk.faults, refused=scenario.refused))
        return found

    async def failing_call(self, index: int, fault: Fault) -> Tally:
        """Let one call of a file operation of the spool fail, be it only reading.

        Raises:
            Lost: a promise was broken.
        """
        disk = self.disk()
        disk.fail_call(index, fault)
        scenario = await self._run(disk)
        moments = {scenario.closing or disk.now, disk.now}
        found = await self._cuts(disk, scenario.promises, moments, fault.value)
        found.add(Tally(faults=disk.faults, refused=scenario.refused))
        return found

    async def kill(self, index: int, *, sync_fails: bool = False) -> Tally:
        """Kill the process at ``index``, let another go on, then cut the power.

        What the killed one had not synced is still there for the other, which must
        not take it for certain. ``sync_fails``: the operation ``index``, a sync, fails
        before; what it should have synced will be there, and never on the disk.

        Raises:
            Lost: a promise was broken.
        """
        disk = self.disk()
        if sync_fails:
            disk.fail_at(index, Fault.IO)
        disk.die_at(index + sync_fails)
        try:
            scenario = Scenario(disk)
            await scenario.run()
            disk.revive()
            moments = await Successor(disk, scenario.promises).run((0, 1))
        finally:
            disk.close()
        found = await self._cuts(disk, scenario.promises, set(moments), "a kill")
        found.add(Tally(kills=1, faults=disk.faults))
        return found

    async def _run(self, disk: Disk) -> Scenario:
        try:
            scenario = Scenario(disk)
            await scenario.run()
        finally:
            disk.close()
        return scenario

    async def _cuts(
        self, disk: Disk, promises: Promises, moments: set[int], why: str
    ) -> Tally:
        found = Tally()
        for moment, platter in disk.points():
            if moment not in moments:
                continue
            for loss in (
                (Loss.ALL, Loss.NONE) if moment == max(moments) else (Loss.ALL,)
            ):
                files = platter.surviving(loss, moment)
                text = f"{why}, then {loss.value}"
                found.add(await self._look(files, disk, promises, moment, text))
        return found

    async def _look(
        self,
        files: dict[str, bytes | None],
        disk: Disk,
        promises: Promises,
        moment: int,
        why: str,
    ) -> Tally:
        opened = self._oracle.opened
        try:
            found = await self._oracle.look(files, disk.root)
        except SpoolError as error:
            raise Lost(f"after {moment} operations ({why}): {error}") from error
        promises.judge(found, moment, f" ({why})")
        return Tally(states=1, opened=self._oracle.opened - opened)
