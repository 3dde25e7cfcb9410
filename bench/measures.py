"""What is measured, the goals for it, and what becomes of several rounds."""

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

OURS = "Postroom"
MEMORY_MAX = 250_000_000


class Measure(NamedTuple):
    """One figure of a scenario.

    Attributes:
        goal: what the ratio of our figure to the peer's should at least be, or at
            most if less is better; None for no goal.
    """

    key: str
    title: str
    unit: str
    more_is_better: bool
    goal: float | None = None

    def is_met(self, ratio: float) -> bool:
        """Whether a ratio is as it should be; the goal must exist."""
        assert self.goal is not None
        return ratio >= self.goal if self.more_is_better else ratio <= self.goal

    @property
    def wanted(self) -> str:
        """The goal in words."""
        how = "at least" if self.more_is_better else "at most"
        return f"{how} {self.goal:g} times" if self.goal else "no goal"


class Sample(NamedTuple):
    """One run of a scenario on one server.

    Attributes:
        figures: by the measure's key.
        cpu_us: CPU time of the server's processes for each operation, by key.
        memory_octets: peak of the sum of PSS over the server's processes.
        details: more to know, for the JSON file.
    """

    figures: dict[str, float]
    cpu_us: dict[str, float]
    memory_octets: int = 0
    details: dict[str, float] = {}  # noqa: RUF012 - never changed


class Summary(NamedTuple):
    """Medians over the rounds; a ratio only where both sides were measured."""

    ours: float | None
    peer: float | None
    our_cpu_us: float | None
    peer_cpu_us: float | None
    ratio: float | None


def summary(
    measure: Measure, ours: Sequence[Sample], peers: Sequence[Sample]
) -> Summary:
    """Summarize one measure."""
    our_median = middle([one.figures[measure.key] for one in ours])
    peer_median = middle([one.figures[measure.key] for one in peers])
    return Summary(
        our_median,
        peer_median,
        middle([one.cpu_us[measure.key] for one in ours if measure.key in one.cpu_us]),
        middle([one.cpu_us[measure.key] for one in peers if measure.key in one.cpu_us]),
        our_median / peer_median if our_median and peer_median else None,
    )


def middle(values: Sequence[float]) -> float | None:
    """Return the median; None of nothing."""
    return median(values) if values else None
