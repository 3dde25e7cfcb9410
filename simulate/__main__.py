"""Runs the scenarios: ``make simulate``, or ``python -m simulate --only list,dead``.

Prints each goal with what was measured, and draws what happened into ``.simulate/``.
Ends with 1 if a goal was missed.
"""

import argparse
import sys
import time
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from postroom.testing.simulator import fairness, illness
from postroom.testing.simulator.scenario import Report, Scenario
from simulate.pictures import draw

SCENARIOS = tuple(
    sorted((*fairness.SCENARIOS, *illness.SCENARIOS), key=lambda one: one.title)
)


def main() -> int:
    """Run what was asked for; returns the exit status."""
    given = _arguments()
    console = Console(width=None if sys.stdout.isatty() else 120)
    folder: Path = given.directory
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    reports: list[tuple[Scenario, Report]] = []
    pictures: list[Path] = []
    with console.status("") as status:
        for scenario in SCENARIOS:
            if scenario.key not in given.only:
                continue
            status.update(scenario.title)
            report = scenario.run(given.size, given.seed)
            reports.append((scenario, report))
            status.update(f"{scenario.title}: drawing")
            pictures.append(draw(scenario, report, folder))
    console.print(_table(reports))
    missed = sum(not f.met for _, report in reports for f in report.findings)
    took_s = time.monotonic() - begin
    text = f"{missed} goals missed" if missed else "All goals are met"
    console.print(text, style="red" if missed else "green", end="")
    console.print(
        f"; two workers, seed {given.seed}, size {given.size:g}, {took_s:.0f} s."
        f" Pictures: {', '.join(map(str, pictures))}.",
        highlight=False,
        soft_wrap=True,
    )
    return 1 if missed else 0


def _table(reports: list[tuple[Scenario, Report]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("scenario")
    table.add_column("what")
    table.add_column("goal", justify="right", no_wrap=True)
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("")
    for scenario, report in reports:
        for number, finding in enumerate(report.findings):
            last = number == len(report.findings) - 1
            table.add_row(
                scenario.title if not number else "",
                finding.what,
                finding.goal,
                finding.measured,
                Text("met", "green") if finding.met else Text("MISSED", "bold red"),
                end_section=last,
            )
    return table


def _arguments() -> argparse.Namespace:
    keys = [scenario.key for scenario in SCENARIOS]
    parser = argparse.ArgumentParser(prog="python -m simulate", description=__doc__)
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=keys,
        help=f"some of: {','.join(keys)}",
    )
    parser.add_argument(
        "--size", type=float, default=1.0, help="1 for the whole load, less for less"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--directory", type=Path, default=Path(".simulate"))
    given = parser.parse_args()
    if unknown := set(given.only) - set(keys):
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    if not 0 < given.size <= 10:
        parser.error("--size is a share of the load, above 0 and at most 10")
    return given


if __name__ == "__main__":
    sys.exit(main())
