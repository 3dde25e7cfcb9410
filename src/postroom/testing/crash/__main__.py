"""Tries every crash point and every fault, showing how far it is.

    python -m postroom.testing.crash [--jobs N] [--step N]

Ends with 1 if a promise was broken, or if a sabotage was not noticed; says which.
"""

import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import click
import msgspec
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from postroom.testing.crash.promises import Lost
from postroom.testing.crash.sabotage import SABOTAGES
from postroom.testing.crash.trials import Bench, Tally
from postroom.testing.disk import Fault, Kind, Loss, Operation
from postroom.testing.spool import MEMORY

_CHUNK = 24
_PARTS = 8
_WHILE_TIMES, _WHILE_STEP = 12, 4
_EXIT_LOST = 1


class Task(msgspec.Struct, frozen=True):
    """Some trials of one kind, done by one process in one go."""

    kind: str
    what: str = ""
    times: int = 1
    indices: tuple[int, ...] = ()


class Done(msgspec.Struct, frozen=True):
    """What came of a task; ``lost`` is empty if every promise was kept."""

    task: Task
    tally: Tally
    lost: str = ""


def plan(operations: list[Operation], calls: int, step: int) -> Iterator[Task]:
    """Yield all there is to do."""
    for number in range(len(SABOTAGES)):
        yield Task("sabotage", SABOTAGES[number].name, indices=(number,))
    for loss in Loss:
        for part in range(0, _PARTS, step):
            yield Task("power cut", loss.name, indices=(part,))
    for fault in Fault:
        where = [i for i, o in enumerate(operations) if fault.applies_to(o)]
        yield from _chunks(Task("fault", fault.name), where[::step])
        for_a_while = Task("fault", fault.name, _WHILE_TIMES)
        yield from _chunks(for_a_while, where[:: step * _WHILE_STEP])
    for fault in (Fault.INTERRUPTED, Fault.IO):
        yield from _chunks(Task("failing call", fault.name), range(calls)[::step])
    yield from _chunks(Task("kill"), range(len(operations))[::step])
    syncs = [i for i, o in enumerate(operations) if o.kind is Kind.SYNC]
    yield from _chunks(Task("kill at a failed sync"), syncs[::step])


def _chunks(task: Task, indices: list[int] | range) -> Iterator[Task]:
    for start in range(0, len(indices), _CHUNK):
        chunk = tuple(indices[start : start + _CHUNK])
        yield msgspec.structs.replace(task, indices=chunk)


def work(task: Task) -> Done:
    """Do a task, in a process of its own."""
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="crash-", dir=MEMORY) as place:
        try:
            asyncio.run(_work(task, Path(place), tally))
        except Lost as lost:
            return Done(task, tally, str(lost))
    return Done(task, tally)


async def _work(task: Task, place: Path, tally: Tally) -> None:
    bench = Bench(place)
    if task.kind == "power cut":
        [part] = task.indices
        async for each in bench.power_cuts([Loss[task.what]], _PARTS, part):
            tally.add(each)
        return
    for index in task.indices:
        match task.kind:
            case "sabotage":
                if not await SABOTAGES[index].is_noticed(place):
                    raise Lost(f"nobody noticed that {task.what}")
                tally.add(Tally(sabotages=1))
            case "fault":
                tally.add(await bench.fault(index, Fault[task.what], task.times))
            case "failing call":
                tally.add(await bench.failing_call(index, Fault[task.what]))
            case "kill":
                tally.add(await bench.kill(index))
            case _:
                tally.add(await bench.kill(index, sync_fails=True))


def run(jobs: int, step: int) -> tuple[int, Tally, list[Done]]:
    """Do everything; returns the scenario's length, the sum, and what was lost."""
    with tempfile.TemporaryDirectory(prefix="crash-", dir=MEMORY) as place:
        disk, _ = asyncio.run(Bench(Path(place)).record())
    tasks = list(plan(disk.operations, disk.calls, step))
    total, lost = Tally(), []
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[counts]}"),
    )
    with Progress(*columns) as progress, ProcessPoolExecutor(jobs) as pool:
        bar = progress.add_task("crash points", total=len(tasks), counts="")
        for future in as_completed([pool.submit(work, task) for task in tasks]):
            done = future.result()
            total.add(done.tally)
            if done.lost:
                lost.append(done)
                progress.print(f"LOST: {_where(done.task)}: {done.lost}")
            counts = (
                f"{total.states} states, {total.faults} faults, {total.kills} kills"
            )
            progress.update(bar, advance=1, counts=counts)
    return disk.now, total, lost


def _where(task: Task) -> str:
    indices = f"{task.indices[0]}..{task.indices[-1]}" if task.indices else ""
    return f"{task.kind} {task.what} {indices}"


@click.command()
@click.option("--jobs", default=2 * (os.cpu_count() or 1), help="Processes.")
@click.option("--step", default=1, help="Try every so many only, to be quick.")
def main(jobs: int, step: int) -> None:
    """Try every crash point and every fault of the spool."""
    operations, total, lost = run(jobs, step)
    print(f"operations of the scenario    {operations:>7}")
    print(f"crash points tried            {total.states:>7}")
    print(f"  of them different on disk   {total.opened:>7}")
    print(f"faults                        {total.faults:>7}")
    print(f"  steps refused with a 4xx    {total.refused:>7}")
    print(f"processes killed              {total.kills:>7}")
    print(f"sabotages noticed             {total.sabotages:>7} of {len(SABOTAGES)}")
    print(f"promises broken               {len(lost):>7}")
    sys.exit(_EXIT_LOST if lost else 0)


if __name__ == "__main__":
    main()
