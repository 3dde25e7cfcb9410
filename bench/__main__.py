"""Runs the bench: ``make bench``, or ``python -m bench --only accept,pop3``."""

import argparse
import fcntl
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from rich.console import Console
from rich.live import Live
from rich.text import Text

from bench import dovecot, ours, postfix
from bench.ground import Ground
from bench.measures import OURS, Sample
from bench.packages import BenchError, unpack
from bench.scenarios import SCENARIOS, Scenario
from bench.table import Samples, peaks, summaries, table_of, verdicts
from postroom.testing.host import HostError

EX_UNAVAILABLE = 69
BUSY = 0.7
"""At this load before the start something else is at work."""
DURABILITY = """\
Durability is as shipped. Before its 250, Postroom syncs the log of its queue's
database (fdatasync by SQLite, synchronous=FULL; messages that come together share one
sync); Postfix syncs the file of each message (fsync). Both are on the same file
system. Mail that is discarded or relayed is synced nowhere else; POP3 writes
nothing but indexes, which neither syncs."""


def main() -> int:
    """Run what was asked for; returns the exit status."""
    given = _arguments()
    # Both become exceptions: everything is stopped on the way out.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(width=None if sys.stdout.isatty() else 120)
    folder = given.directory.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(console, folder, given)
    try:
        with _alone_in(folder):
            run.all()
    except (BenchError, HostError) as error:
        console.print(f"\nThe bench cannot go on: {error}", style="red", markup=False)
        return EX_UNAVAILABLE
    except KeyboardInterrupt:
        console.print("\nStopped.")
        return 130
    return 0


class _Run:
    """One run of the bench."""

    def __init__(
        self, console: Console, folder: Path, given: argparse.Namespace
    ) -> None:
        self._console = console
        self._folder = folder
        self._given = given
        self._samples: Samples = {}
        self._begin = time.monotonic()
        self._why_alone = ""
        self._lacks_programs = False
        self._busy = os.getloadavg()[0]

    def all(self) -> None:
        """Measure everything, print the table, write the file."""
        ground = Ground(self._folder, self._unpack(), quick=self._given.quick)
        self._explain()
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            for round_ in range(1, self._given.rounds + 1):
                for scenario in self._scenarios(ground):
                    for side in self._sides(scenario):
                        self._measure(live, ground, scenario, side, round_)
        ground.clear()
        self._conclude()

    def _unpack(self) -> Path | None:
        try:
            root = unpack(self._folder / "debian")
        except BenchError as error:
            self._why_alone = str(error)
            self._lacks_programs = True
            return None
        if os.geteuid() != 0:
            self._why_alone = "Postfix and Dovecot can only be started by root"
        return root

    def _explain(self) -> None:
        say = self._console.print
        for one in (ours, postfix, dovecot):
            say(one.DIFFERENCES, markup=False, highlight=False)
        say(DURABILITY, markup=False, highlight=False)
        if self._busy > BUSY:
            text = f"The machine is busy (load {self._busy:.1f}): figures will be low."
            say(text, style="yellow", highlight=False)
        self._warn_if_alone()

    def _warn_if_alone(self) -> None:
        if self._why_alone:
            text = f"POSTROOM ALONE, THERE ARE NO RATIOS: {self._why_alone}"
            self._console.print(text, style="bold red", markup=False)
        for one in SCENARIOS:
            if one.needs_packages and self._lacks_programs:
                text = f"not run: {one.title}, which needs smtp-source or smtp-sink"
                self._console.print(text, style="red", markup=False)

    def _scenarios(self, ground: Ground) -> list[Scenario]:
        return [
            one
            for one in SCENARIOS
            if one.key in self._given.only
            and not (one.needs_packages and ground.root is None)
        ]

    def _sides(self, scenario: Scenario) -> tuple[str, ...]:
        return (OURS,) if self._why_alone else (OURS, scenario.peer)

    def _measure(
        self, live: Live, ground: Ground, scenario: Scenario, side: str, round_: int
    ) -> None:
        doing = f"round {round_} of {self._given.rounds}: {scenario.title}: {side}"
        if self._console.is_terminal:
            live.update(table_of(self._samples, doing), refresh=True)
        begin = time.monotonic()
        sample = scenario.run(ground, side)
        self._samples.setdefault((scenario.key, side), []).append(sample)
        if not self._console.is_terminal:
            said = ", ".join(
                f"{sample.figures[one.key]:,.4g} {one.unit} ({one.title})"
                for one in scenario.measures
            )
            took_s = time.monotonic() - begin
            print(f"{doing}: {said}  [{took_s:.0f} s]", flush=True)

    def _conclude(self) -> None:
        say, minutes = self._console.print, (time.monotonic() - self._begin) / 60
        rounds = self._given.rounds
        say(table_of(self._samples, _caption(rounds, minutes)))
        for text, is_met in verdicts(self._samples):
            word = {True: "met", False: "NOT MET", None: "unknown"}[is_met]
            style = {True: "green", False: "red", None: "yellow"}[is_met]
            say(Text(f"{word:8}", style=style), text, highlight=False, markup=False)
        self._warn_if_alone()
        path = self._folder / "results.json"
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self._results())))
        say(f"All figures are in {path}.", highlight=False, markup=False)

    def _results(self) -> dict[str, object]:
        goals = [
            {"goal": text, "met": is_met} for text, is_met in verdicts(self._samples)
        ]
        return {
            "machine": {"cpus": os.cpu_count(), "kernel": platform.release()},
            "load_before": self._busy,
            "python": platform.python_version(),
            "quick": self._given.quick,
            "why_no_ratios": self._why_alone,
            "measures": [
                {
                    "scenario": scenario.key,
                    "measure": measure.key,
                    "title": f"{scenario.title}: {measure.title}",
                    "unit": measure.unit,
                    "peer_name": scenario.peer,
                    **found._asdict(),
                    "memory_octets": peaks(self._samples, scenario),
                }
                for scenario, measure, found in summaries(self._samples)
            ],
            "goals": goals,
            "rounds": [
                {"scenario": key, "server": side, "samples": _plain(samples)}
                for (key, side), samples in self._samples.items()
            ],
            "durability": DURABILITY,
            "differences": [one.DIFFERENCES for one in (ours, postfix, dovecot)],
        }


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep a second bench out of the folder."""
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BenchError(f"another bench is at work in {folder}") from None
        yield


def _plain(samples: list[Sample]) -> list[dict[str, object]]:
    return [sample._asdict() for sample in samples]


def _caption(rounds: int, minutes: float) -> str:
    return (
        f"Median of {rounds}; {minutes:.0f} minutes in all. CPU us: of the server's "
        "processes (of the command too in f) for each message, session or RETR. MB: "
        "peak PSS of all its processes."
    )


def _arguments() -> argparse.Namespace:
    keys = [scenario.key for scenario in SCENARIOS]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a tenth of the load")
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=keys,
        help=f"some of: {','.join(keys)}",
    )
    parser.add_argument("--directory", type=Path, default=Path(".bench"))
    given = parser.parse_args()
    if unknown := set(given.only) - set(keys):
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    return given


if __name__ == "__main__":
    sys.exit(main())
