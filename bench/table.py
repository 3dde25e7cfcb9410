"""The table, and the goals beside what was measured."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from bench.measures import MEMORY_MAX, OURS, Measure, Sample, Summary, summary
from bench.scenarios import SCENARIOS, Scenario

Samples = dict[tuple[str, str], list[Sample]]
"""What was measured, by scenario and side."""


def summaries(samples: Samples) -> list[tuple[Scenario, Measure, Summary]]:
    """Summarize all that was measured so far, in order."""
    found = []
    for scenario in SCENARIOS:
        ours = samples.get((scenario.key, OURS), [])
        peers = samples.get((scenario.key, scenario.peer), [])
        if ours or peers:
            found += [
                (scenario, measure, summary(measure, ours, peers))
                for measure in scenario.measures
            ]
    return found


def table_of(samples: Samples, caption: str) -> Table:
    """Return the table of medians."""
    table = Table(caption=caption, caption_justify="left")
    table.add_column("")
    for title in ("unit", "Postroom", "peer", "ratio", "goal", "CPU us", "peer's"):
        table.add_column(title, justify="left" if title == "unit" else "right")
    for title in ("MB", "peer's"):
        table.add_column(title, justify="right")
    last = ""
    for scenario, measure, found in summaries(samples):
        if scenario.key != last:
            last = scenario.key
            table.add_section()
            memory = [_megabytes(peak) for peak in peaks(samples, scenario)]
            row = Text(f"{scenario.title}; {scenario.peer}", style="bold")
            table.add_row(row, *[""] * 7, *memory)
        table.add_row(
            f"  {measure.title}",
            measure.unit,
            _figure(found.ours),
            _figure(found.peer),
            _ratio(measure, found),
            _goal(measure),
            _figure(found.our_cpu_us),
            _figure(found.peer_cpu_us),
        )
    return table


def verdicts(samples: Samples) -> list[tuple[str, bool | None]]:
    """Return each goal in words, and whether it is met; None if not measured."""
    found: list[tuple[str, bool | None]] = []
    for scenario, measure, one in summaries(samples):
        if measure.goal is None:
            continue
        what = f"{scenario.title}: {measure.title}, {measure.wanted} {scenario.peer}"
        if one.ratio is None:
            found.append((f"{what}: no ratio was measured", None))
        else:
            found.append((f"{what}: {one.ratio:.2f}", measure.is_met(one.ratio)))
    ours = [one for (_, side), all_ in samples.items() if side == OURS for one in all_]
    peak = max((one.memory_octets for one in ours), default=0)
    text = f"memory of the whole system, under {_megabytes(MEMORY_MAX)} MB in all runs"
    found.append((f"{text}: {_megabytes(peak)} MB", peak < MEMORY_MAX))
    return found


def peaks(samples: Samples, scenario: Scenario) -> list[int]:
    """Return the peak memory of both sides over all rounds; 0 if not measured."""
    sides = (OURS, scenario.peer)
    return [_peak(samples.get((scenario.key, side), [])) for side in sides]


def _peak(some: Sequence[Sample]) -> int:
    return max((one.memory_octets for one in some), default=0)


def _megabytes(octets: int) -> str:
    return f"{octets / 1e6:.0f}" if octets else ""


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _goal(measure: Measure) -> str:
    if measure.goal is None:
        return ""
    return f"{'>=' if measure.more_is_better else '<='} {measure.goal:g}"


def _ratio(measure: Measure, found: Summary) -> Text:
    if found.ratio is None:
        return Text("-")
    text = f"{found.ratio:.2f}"
    if measure.goal is None:
        return Text(text)
    return Text(text, style="green" if measure.is_met(found.ratio) else "red")
