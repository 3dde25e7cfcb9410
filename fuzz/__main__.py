"""Runs the fuzzers one after another: ``make fuzz``, ``python -m fuzz --seconds 60``.

Each target begins with its committed corpus and what earlier runs found, which is kept
in ``.fuzz/``. Ends with 1 if one crashed; the octets that did it are in
``.fuzz/crashes/``, and ``python -m fuzz.replay TARGET FILE`` shows why.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from fuzz.targets import CORPUS, TARGETS

KEPT = Path(".fuzz")
TOKENS = Path(__file__).parent / "tokens.dict"
_RUNS = re.compile(r"stat::number_of_executed_units: +(\d+)")


class Result(msgspec.Struct, frozen=True):
    """What a run of one target came to."""

    name: str
    runs: int
    new_inputs: int
    seconds: float
    crash: str = ""


def main() -> int:
    """Fuzz what was asked for; return the exit status."""
    given = arguments()
    console = Console(width=None if sys.stdout.isatty() else 100)
    os.nice(19)  # it is never urgent
    results = []
    for name in given.only or TARGETS:
        console.print(f"fuzzing {name} for {given.seconds} s")
        results.append(fuzzed(name, given.seconds, given.seed))
        if results[-1].crash:
            console.print(results[-1].crash, style="red", markup=False)
    console.print(table_of(results))
    return 1 if any(result.crash for result in results) else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--seed", type=int, default=0, help="0: another each time")
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=[],
        help=f"of {', '.join(TARGETS)}",
    )
    given = parser.parse_args()
    for name in given.only:
        if name not in TARGETS:
            parser.error(f'there is no target "{name}"')
    return given


def fuzzed(name: str, seconds: int, seed: int) -> Result:
    """Fuzz one target in a process of its own."""
    found, crashes = KEPT / name, KEPT / "crashes"
    found.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(exist_ok=True)
    before = len(list(found.iterdir()))
    begun = time.monotonic()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "fuzz.one", name, str(found), str(CORPUS / name)),
            f"-max_total_time={seconds}",
            f"-seed={seed}",
            f"-dict={TOKENS}",
            f"-artifact_prefix={crashes}/{name}-",
            *("-max_len=4096", "-timeout=10", "-rss_limit_mb=1024"),
            *("-print_final_stats=1", "-verbosity=0"),
        ],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    runs = _RUNS.search(done.stderr)
    return Result(
        name,
        int(runs[1]) if runs else 0,
        len(list(found.iterdir())) - before,
        time.monotonic() - begun,
        (done.stdout + done.stderr)[-3000:] if done.returncode else "",
    )


def table_of(results: list[Result]) -> Table:
    table = Table("target", "runs", "new inputs", "seconds", "crashes")
    for one in results:
        crashed = "1" if one.crash else "0"
        cells = (f"{one.runs:,}", str(one.new_inputs), f"{one.seconds:.0f}", crashed)
        table.add_row(one.name, *cells)
    return table


if __name__ == "__main__":
    sys.exit(main())
