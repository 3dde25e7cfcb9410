"""What the bench of the backlog found: the table, and the picture."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import msgspec
from matplotlib.figure import Figure
from rich.table import Table
from rich.text import Text

from bench.backlog_server import Look


class Goal(msgspec.Struct, frozen=True):
    """A figure and its bound: at least ``bound`` if ``sign`` is 1, else at most."""

    title: str
    unit: str
    found: float
    bound: float
    sign: int = -1

    @property
    def is_met(self) -> bool:
        """Whether it is as it should be."""
        return self.sign * self.found >= self.sign * self.bound


class Result(msgspec.Struct, frozen=True):
    """All that was found. ``details`` have no goals."""

    goals: list[Goal]
    details: dict[str, float]
    looks: list[Look]
    empty_per_s: list[float]
    with_backlog_per_s: list[float]


def table_of(result: Result) -> Table:
    """Return the goals, whether they are met, and what else was found."""
    table = Table()
    table.add_column("")
    for title in ("found", "goal", ""):
        table.add_column(title, justify="right")
    for goal in result.goals:
        bound = f"{'>=' if goal.sign > 0 else '<'} {goal.bound:g} {goal.unit}"
        verdict = Text("met", "green") if goal.is_met else Text("MISSED", "bold red")
        table.add_row(goal.title, f"{goal.found:.2f} {goal.unit}", bound, verdict)
    table.add_section()
    for name, value in result.details.items():
        table.add_row(name.replace("_", " "), f"{value:,.1f}", "", "")
    return table


def draw(result: Result, path: Path) -> None:
    """Draw the queue's length, what left a second, and the memory, over time."""
    looks = result.looks
    at_s = [look.at_s for look in looks]
    figure = Figure(figsize=(10, 9), layout="constrained")
    length, rate, memory = figure.subplots(3, 1, sharex=True)
    length.plot(at_s, [look.queued for look in looks])
    length.set_ylabel("messages queued")
    rate.plot(at_s, _rates(looks))
    rate.set_ylabel("deliveries a second")
    for worker in range(max((len(look.memory) for look in looks), default=0)):
        megabytes = [
            look.memory[worker] / 1e6 if worker < len(look.memory) else None
            for look in looks
        ]
        memory.plot(at_s, megabytes, label=f"worker {worker}")
    memory.set_ylabel("memory (PSS), MB")
    memory.set_ylim(bottom=0)
    memory.set_xlabel("seconds")
    memory.legend()
    for phase, begin_s in _phases(looks):
        length.axvline(begin_s, linewidth=0.5, color="grey")
        length.annotate(phase, (begin_s, 0), rotation=90, fontsize=7)
    figure.savefig(path)


def _rates(looks: Sequence[Look]) -> list[float]:
    rates = [0.0] * min(len(looks), 1)
    for before, look in pairwise(looks):
        sent = look.sent - before.sent
        # Counting begins anew with each start of the server.
        rates.append(max(sent, 0) / max(look.at_s - before.at_s, 0.1))
    return rates


def _phases(looks: Sequence[Look]) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for look in looks:
        if not found or found[-1][0] != look.phase:
            found.append((look.phase, look.at_s))
    return found
