"""What a scenario says when it is over: what was to be, what was, and how it looked."""

from collections.abc import Callable
from typing import NamedTuple

from postroom.testing.simulator.world import World

MS = 1_000


class Finding(NamedTuple):
    """One goal and what became of it."""

    what: str
    goal: str
    measured: str
    met: bool


class Course(NamedTuple):
    """A world that has run, for pictures.

    Attributes:
        title: what was different in this one.
        world: the world.
        destinations: whose queues are worth drawing.
        groups: whose delays are worth drawing.
    """

    title: str
    world: World
    destinations: tuple[str, ...]
    groups: tuple[str, ...]


class Report(NamedTuple):
    """What came of one scenario."""

    findings: list[Finding]
    courses: list[Course]

    @property
    def met(self) -> bool:
        """Whether every goal was met."""
        return all(finding.met for finding in self.findings)


class Scenario(NamedTuple):
    """One scenario; ``run`` takes its size (1.0 for all of it) and a seed."""

    key: str
    title: str
    run: Callable[[float, int], Report]


def seconds(us: float) -> str:
    """Write a length as people read it."""
    return f"{us / 1_000_000:.2f} s"


def at_most(what: str, value: float, bound: float, unit: str = "us") -> Finding:
    """Find that something is small enough; microseconds are written as seconds."""
    if unit == "us":
        return Finding(what, f"≤ {seconds(bound)}", seconds(value), value <= bound)
    met = value <= bound
    return Finding(what, f"≤ {bound:,.4g} {unit}", f"{value:,.4g} {unit}", met)


def at_least(what: str, value: float, bound: float, unit: str) -> Finding:
    """Find that something is large enough."""
    met = value >= bound
    return Finding(what, f"≥ {bound:,.4g} {unit}", f"{value:,.4g} {unit}", met)


def all_ended(world: World) -> Finding:
    """Find that every message was settled once, and delivered."""
    letters = world.record.letters
    lost = sum(not letter.delivered for letter in letters)
    return Finding(
        "not delivered", "0", f"{lost:,} of {len(letters):,} transactions", lost == 0
    )
