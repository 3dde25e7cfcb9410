"""A million queued messages: ``make bench-backlog``, or ``python -m bench.backlog``.

Two workers get a queue of 1,000,000 messages of 1 KiB for 10,000 domains, half of them
for one host that refuses connections. Measured are: how soon the first message leaves,
the workers' memory, ``postroom queue stat``, and how fast new mail is taken meanwhile;
then all drains, the dead host coming back for it, and it is measured whether the disk
space comes back, and the speed of new mail. Speeds are compared with those of an empty
spool in the same minutes, in turns, by medians. Ends with 1 if a goal is missed.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import apsw
import msgspec
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from bench.backlog_fill import Plan, fill, octets_of
from bench.backlog_report import Goal, Result, draw, table_of
from bench.backlog_server import DIFFERENCES, Loaded, Look, Watcher, queued
from bench.packages import BenchError
from bench.servers import Server, wait_for_port
from postroom.mail.ids import from_number
from postroom.testing.host import HostError, check_free

MEMORY_MAX = 300_000_000
FIRST_S_MAX = 15.0
RATE_RATIO_MIN = 0.8
STAT_S_MAX = 1.0
SPACE_SHARE_MAX = 0.1
SPACE_S_MAX = 60.0
AFTER_RATIO_MIN = 0.9
SESSIONS = 20
STALLED_S = 120.0
LAST_PAUSE_S = 5.0
_EX_UNAVAILABLE = 69


class Rates(msgspec.Struct):
    """Messages a second that were taken, in turns."""

    empty: list[float] = []
    loaded: list[float] = []

    @property
    def ratio(self) -> float:
        """The medians' ratio."""
        return median(self.loaded) / median(self.empty)


class _Run:
    """One run; ``began_s`` is the zero of all times."""

    def __init__(self, given: argparse.Namespace, bar: Progress) -> None:
        self._given = given
        self._bar = bar
        self._plan = Plan(given.messages, given.domains, dead_port=given.port + 1)
        self._folder: Path = given.directory.resolve() / "backlog"
        self._loaded = Loaded(self._folder / "loaded", given.port)
        self._empty = Loaded(self._folder / "empty", given.port)
        self._began_s = time.perf_counter()
        self._looks: list[Look] = []
        self._first_s: list[float] = []
        self._stat_s: list[float] = []
        self._full_octets = 0
        self._space_s = 0.0

    def all(self) -> Result:
        """Do everything in turn."""
        shutil.rmtree(self._folder, ignore_errors=True)
        fill_s = self._fill()
        self._full_octets = octets_of(self._loaded.spool)
        before = self._rates("with the backlog", self._given.rounds)
        live_s = self._drain("live domains", self._plan.messages // 2)
        dead_s = self._drain("the dead host is back", 0, revive=True)
        after_octets = octets_of(self._loaded.spool)
        after = self._rates("after the drain", self._given.rounds)
        peak = max((max(look.memory, default=0) for look in self._looks), default=0)
        goals = [
            Goal("memory of a worker, peak", "MB", peak / 1e6, MEMORY_MAX / 1e6),
            Goal("start to first delivery", "s", max(self._first_s), FIRST_S_MAX),
            Goal("new mail, of an empty spool's", "", before.ratio, RATE_RATIO_MIN, 1),
            Goal("postroom queue stat", "s", median(self._stat_s), STAT_S_MAX),
            Goal(
                "disk space after the drain, of the full",
                "",
                after_octets / self._full_octets,
                SPACE_SHARE_MAX,
            ),
            Goal("new mail after, of an empty's", "", after.ratio, AFTER_RATIO_MIN, 1),
        ]
        details = {
            "fill_s": fill_s,
            "disk_full_mb": self._full_octets / 1e6,
            "disk_back_after_s": self._space_s,
            "disk_after_mb": after_octets / 1e6,
            "live_drain_per_s": self._plan.messages / 2 / live_s,
            "dead_drain_per_s": self._plan.messages / 2 / dead_s,
            "queue_stat_max_s": max(self._stat_s),
            "empty_per_s": median(before.empty + after.empty),
            "with_backlog_per_s": median(before.loaded),
            "after_per_s": median(after.loaded),
            "load_average": os.getloadavg()[0],
        }
        return Result(goals, details, self._looks, before.empty, before.loaded)

    def _fill(self) -> float:
        begin = time.perf_counter()
        name = "filling two shards (unsynced, only here)"
        task = self._bar.add_task(name, total=self._plan.messages)
        fill(
            self._loaded.spool,
            self._plan,
            lambda done: self._bar.update(task, completed=done),
        )
        self._bar.update(task, completed=self._plan.messages)
        return time.perf_counter() - begin

    def _rates(self, phase: str, rounds: int) -> Rates:
        rates = Rates()
        task = self._bar.add_task(f"new mail {phase}", total=2 * rounds)
        for _ in range(rounds):
            shutil.rmtree(self._empty.folder, ignore_errors=True)
            with _running(self._empty):
                self._empty.start()
                rates.empty.append(self._load())
            self._bar.advance(task)
            with self._watched(phase, first=phase == "with the backlog"):
                rates.loaded.append(self._load())
                if phase == "with the backlog":
                    self._stat()
            self._bar.advance(task)
        return rates

    def _drain(self, phase: str, left: int, *, revive: bool = False) -> float:
        """Wait until only so many are left; returns how long it took."""
        with self._watched(phase), _sink(self._plan, wanted=revive):
            if revive:
                self._loaded.retry(_oldest(self._loaded.spool))
            begin = time.perf_counter()
            least = total = queued(self._loaded.spool)
            task = self._bar.add_task(f"draining: {phase}", total=total - left)
            moved_s = begin
            while least > left:
                time.sleep(0.5)
                now_s, found = time.perf_counter(), queued(self._loaded.spool)
                if found < least:
                    least, moved_s = found, now_s
                elif revive and found and now_s - moved_s > LAST_PAUSE_S:
                    # The few that were tried while the host was dead wait on their own.
                    self._loaded.retry(["--all"])
                if now_s - moved_s > STALLED_S:
                    raise BenchError(f"{found} messages do not leave: {phase}")
                self._bar.update(task, completed=total - least)
            took_s = time.perf_counter() - begin
            self._stat()
            if revive:
                self._space_s = self._wait_for_space()
        return took_s

    def _wait_for_space(self) -> float:
        """Wait until the disk space is back, which takes a while; not for ever."""
        begin = time.perf_counter()
        enough = SPACE_SHARE_MAX * self._full_octets
        while octets_of(self._loaded.spool) > enough:
            if time.perf_counter() - begin > SPACE_S_MAX:
                break
            time.sleep(0.5)
        return time.perf_counter() - begin

    def _load(self) -> float:
        command = [sys.executable, "-m", "bench.load_smtp", "--to", "a@dst.test"]
        command += ["--port", str(self._given.port), "--sessions", str(SESSIONS)]
        command += ["--seconds", str(self._given.seconds), "--messages", "100"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise BenchError(f"the load of new mail failed: {done.stderr.strip()}")
        return float(msgspec.json.decode(done.stdout)["count"] / self._given.seconds)

    def _stat(self) -> None:
        self._stat_s.append(self._loaded.queue_stat_s())

    @contextmanager
    def _watched(self, phase: str, *, first: bool = False) -> Iterator[None]:
        with _running(self._loaded):
            if first:
                self._first_s.append(self._loaded.first_delivery_s())
            else:
                self._loaded.start()
            with Watcher(self._loaded, self._began_s, phase) as watcher:
                yield
            self._looks += watcher.looks


@contextmanager
def _running(server: Loaded) -> Iterator[None]:
    try:
        yield
    finally:
        server.stop()


@contextmanager
def _sink(plan: Plan, *, wanted: bool) -> Iterator[None]:
    """Let the dead host come back."""
    if not wanted:
        yield
        return
    sink = Server()
    sink.name = "the sink"
    command = [sys.executable, "-m", "bench.backlog_sink", str(plan.dead_port)]
    sink.process = subprocess.Popen(command)
    try:
        wait_for_port("127.0.0.1", plan.dead_port, sink)
        yield
    finally:
        sink.stop()


def _oldest(spool: Path) -> list[str]:
    """Return the id of the oldest message of each shard."""
    ids = []
    for path in spool.glob("shard-*/queue.db"):
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            ids.append(connection.execute("SELECT min(id) FROM messages").get)
        finally:
            connection.close()
    return [from_number(number) for number in ids if number]


def main() -> int:
    """Run it; returns the exit status."""
    given = _arguments(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(width=None if sys.stdout.isatty() else 120)
    given.directory.mkdir(parents=True, exist_ok=True)
    for line in (DIFFERENCES, _busy()):
        if line:
            console.print(line, markup=False, highlight=False)
    try:
        for port in (given.port, given.port + 1):
            check_free("127.0.0.1", port)
        with _bar(console) as bar:
            result = _Run(given, bar).all()
    except (BenchError, HostError) as error:
        console.print(f"\nThe bench cannot go on: {error}", style="red", markup=False)
        return _EX_UNAVAILABLE
    except KeyboardInterrupt:
        console.print("\nStopped.")
        return 130
    console.print(table_of(result))
    (given.directory / "backlog.json").write_bytes(
        msgspec.json.format(msgspec.json.encode(result))
    )
    draw(result, given.directory / "backlog.png")
    console.print(f"written: {given.directory}/backlog.json and backlog.png")
    if not given.keep:
        shutil.rmtree(given.directory / "backlog", ignore_errors=True)
    return 0 if all(goal.is_met for goal in result.goals) else 1


def _bar(console: Console) -> Progress:
    columns = TextColumn("{task.description:42}"), BarColumn(), MofNCompleteColumn()
    return Progress(*columns, TimeElapsedColumn(), console=console)


def _busy() -> str:
    load = os.getloadavg()[0]
    return f"The machine is busy (load {load:.1f}).\n" if load > 0.7 else ""


def _arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path(".bench"))
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--domains", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3, help="of new mail")
    parser.add_argument("--seconds", type=float, default=6.0, help="of new mail")
    parser.add_argument("--keep", action="store_true", help="keep logs and spools")
    port = int(os.environ.get("POSTROOM_TEST_PORT", "3525"))
    parser.add_argument("--port", type=int, default=port, help="and the next one")
    return parser.parse_args(given)


if __name__ == "__main__":
    sys.exit(main())
