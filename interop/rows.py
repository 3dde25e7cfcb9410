"""What became of each case, and how it is shown: lines, a table, a report."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text


class Mark(StrEnum):
    """What became of a case."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_OFFERED = "not offered"
    """The program cannot do it; that is nobody's fault."""
    SKIPPED = "skipped"
    """It could not be tried here."""


_STYLES = {
    Mark.PASSED: ("ok", "green"),
    Mark.FAILED: ("FAILED", "bold red"),
    Mark.NOT_OFFERED: ("-", "dim"),
    Mark.SKIPPED: ("skipped", "yellow"),
}


class Row(NamedTuple):
    """One case with one program.

    Attributes:
        group: the table it belongs to.
        peer: the program.
        case: what was tried.
        mark: what became of it.
        why: the reason of all but a success.
        took_s: how long it took.
    """

    group: str
    peer: str
    case: str
    mark: Mark
    why: str = ""
    took_s: float = 0.0


def tell(console: Console, row: Row) -> None:
    """Print one case as it is done."""
    _, style = _STYLES[row.mark]
    line = Text(f"{row.peer:<14}{row.case:<24}")
    line.append(row.mark.value, style=style)
    line.append(f"  {row.took_s:.1f} s" if row.took_s else "")
    first = row.why.strip().splitlines()[:1]
    line.append(f"  {first[0]}" if first and row.mark is not Mark.PASSED else "")
    console.print(line, overflow="ellipsis", no_wrap=True)


def matrix(rows: Sequence[Row], group: str) -> Table:
    """Return the table of a group: a line for each case, a column for each peer."""
    chosen = [row for row in rows if row.group == group]
    peers = list(dict.fromkeys(row.peer for row in chosen))
    marks = {(row.case, row.peer): row.mark for row in chosen}
    table = Table(title=group, title_justify="left")
    table.add_column("")
    for peer in peers:
        table.add_column(peer)
    for case in dict.fromkeys(row.case for row in chosen):
        cells = [_cell(marks.get((case, peer))) for peer in peers]
        table.add_row(case, *cells)
    return table


def counts(rows: Sequence[Row]) -> str:
    """Return how many of each there are, in words."""
    numbers = [(mark, sum(row.mark is mark for row in rows)) for mark in Mark]
    return ", ".join(f"{number} {mark.value}" for mark, number in numbers)


def write_report(rows: Sequence[Row], versions: Sequence[str], path: Path) -> None:
    """Write everything as Markdown: the tables, then the reasons."""
    lines = ["# Interoperation", "", f"{counts(rows)}.", ""]
    for group in dict.fromkeys(row.group for row in rows):
        lines += _markdown(rows, group)
    lines += ["## Reasons", ""]
    reasons: dict[tuple[str, str, Mark], list[str]] = {}
    for row in rows:
        if row.mark is not Mark.PASSED:
            key = (row.peer, row.why.strip().replace("\n", " / "), row.mark)
            reasons.setdefault(key, []).append(row.case)
    lines += [
        f"- {peer}: {', '.join(cases)}: {mark.value}: {why}"
        for (peer, why, mark), cases in reasons.items()
    ]
    lines += ["", "## Programs", "", *(f"- {version}" for version in versions)]
    path.write_text("\n".join(lines) + "\n")


def _markdown(rows: Sequence[Row], group: str) -> list[str]:
    chosen = [row for row in rows if row.group == group]
    peers = list(dict.fromkeys(row.peer for row in chosen))
    marks = {(row.case, row.peer): row.mark for row in chosen}
    lines = [f"## {group}", "", f"| | {' | '.join(peers)} |"]
    lines.append("|---" * (len(peers) + 1) + "|")
    for case in dict.fromkeys(row.case for row in chosen):
        cells = [_cell(marks.get((case, peer))).plain for peer in peers]
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return [*lines, ""]


def _cell(mark: Mark | None) -> Text:
    if mark is None:
        return Text("")
    text, style = _STYLES[mark]
    return Text(text, style=style)
