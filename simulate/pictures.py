"""Draws what happened in a scenario: lengths of queues, delays, attempts to connect."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    MultipleLocator,
    NullLocator,
)

from postroom.testing.simulator.scenario import Course, Report, Scenario

mpl.use("Agg")
_SECOND = 1e6
_COLOURS = ("#1f5fa8", "#d1601f", "#2c8a57", "#8a4fa3", "#777777")
_PER_ROW = 3
_INCHES = (5.6, 3.3)
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
_STEPS = (
    *(0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
    *(_MINUTE, 2 * _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 30 * _MINUTE),
    *(_HOUR, 2 * _HOUR, 6 * _HOUR, 12 * _HOUR, _DAY),
)
"""Lengths of time that people count in, in seconds."""
_TICKS_MAX = 7


def draw(scenario: Scenario, report: Report, folder: Path) -> Path:
    """Draw one picture, a row for each course; returns where it is."""
    rows = len(report.courses)
    size = (_INCHES[0] * _PER_ROW, _INCHES[1] * rows + 0.7)
    figure, axes = plt.subplots(
        rows, _PER_ROW, figsize=size, squeeze=False, layout="constrained"
    )
    for row, course in zip(axes, report.courses, strict=True):
        _queues(row[0], course)
        _delays(row[1], course)
        _attempts(row[2], course)
    word = "all goals met" if report.met else "GOALS MISSED"
    figure.suptitle(f"{scenario.title} ({word})", fontsize=14, fontweight="bold")
    path = folder / f"{scenario.key}.png"
    figure.savefig(path, dpi=80)
    plt.close(figure)
    return path


def _queues(axes: Any, course: Course) -> None:
    record = course.world.record
    for colour, name in zip(_COLOURS, course.destinations, strict=False):
        samples = record.samples.get(name, [])
        last = _end_s(course)
        shown = [(us / _SECOND, n) for us, n in samples if us / _SECOND <= last]
        if shown:
            axes.plot(*zip(*shown, strict=True), color=colour, label=name, lw=1.8)
    axes.set_title(f"queued: {course.title}", fontsize=9)
    axes.set_ylabel("transactions queued or in hand")
    axes.set_ylim(bottom=0)
    _finish(axes, _end_s(course))


def _delays(axes: Any, course: Course) -> None:
    record, highest = course.world.record, 0.0
    for colour, group in reversed(list(zip(_COLOURS, course.groups, strict=False))):
        found = [one for one in record.of(group) if one.delivered]
        step = max(1, len(found) // 4_000)
        shown = [
            (one.arrival_us / _SECOND, (one.ended_us - one.arrival_us) / _SECOND)
            for one in found[::step]
        ]
        if shown:
            axes.plot(
                *zip(*shown, strict=True),
                ".",
                color=colour,
                label=group,
                ms=3,
                alpha=0.6,
            )
            highest = max(highest, *(delay for _, delay in shown))
    axes.set_title("delay of each, by its arrival", fontsize=9)
    axes.set_ylabel("delay")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(FixedLocator([*_STEPS, 0.05, 0.02]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(_length))
    arrivals = [one.arrival_us / _SECOND for one in record.letters]
    _finish(axes, max(arrivals) * 1.02 + 0.01)


def _attempts(axes: Any, course: Course) -> None:
    last = _end_s(course)
    width = max(1, int(last / 200))
    attempts = course.world.record.attempts
    bins = [0] * (int(last) // width + 1)
    for second, count in attempts.items():
        if second <= last:
            bins[second // width] += count
    heights = [count / width for count in bins]
    axes.bar(
        [number * width for number in range(len(bins))],
        heights,
        width=width,
        align="edge",
        color=_COLOURS[0],
    )
    axes.set_title("attempts to connect, to all destinations", fontsize=9)
    axes.set_ylabel("a second" if width == 1 else f"a second, over {width} s")
    _finish(axes, last, legend=False)


def _end_s(course: Course) -> float:
    """Return when the last transaction that is drawn was settled."""
    letters = course.world.record.letters
    ended = max((one.ended_us for one in letters), default=0)
    return max(1.0, ended / _SECOND * 1.02)


def _finish(axes: Any, last_s: float, *, legend: bool = True) -> None:
    axes.set_xlim(0, last_s)
    step = next((one for one in _STEPS if last_s / one <= _TICKS_MAX), _DAY)
    axes.xaxis.set_major_locator(MultipleLocator(step))
    axes.xaxis.set_major_formatter(FuncFormatter(_length))
    axes.set_xlabel("time")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if legend and axes.get_legend_handles_labels()[0]:
        found = axes.legend(fontsize=8, frameon=True, markerscale=3)
        for handle in found.legend_handles:
            handle.set_alpha(1)


def _length(seconds: float, _position: object = None) -> str:
    for unit, name in ((_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= unit and seconds % (unit / 2) == 0:
            return f"{seconds / unit:g} {name}"
    if seconds >= 1 or seconds == 0:
        return f"{seconds:.4g} s"
    return f"{seconds * 1_000:g} ms"
