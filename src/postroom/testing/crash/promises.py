"""What was promised in a scenario, when, and whether what a crash left keeps it.

A moment is a number of operations of the disk. A promise is certain after the moment
at which it was answered; from the moment at which it was to be ended until that was
answered it may be either there or not; then it is gone. Each breach is a ``Lost``.
"""

from collections.abc import Iterable, Mapping

import msgspec

_NEVER = 1 << 62
HEADER = b"Subject: test\r\n"


class Lost(AssertionError):
    """A promise was not kept; the text says which, after how many operations."""


class Seen(msgspec.Struct, frozen=True):
    """A recipient found in the queue, with what would be delivered to it.

    ``cursor`` is where the expansion of a list goes on.
    """

    sender: str
    header: bytes
    body: bytes
    state: str
    cursor: int = 0


class Promise(msgspec.Struct):
    """What is owed to one recipient, and the moments of it."""

    sender: str
    body: bytes
    owed: int = _NEVER
    begun: int = _NEVER
    done: int = _NEVER
    held: int = _NEVER
    let_go: int = _NEVER

    def must_be(self, moment: int) -> bool:
        """Whether it has to be there."""
        return self.owed <= moment <= self.begun

    def must_not_be(self, moment: int) -> bool:
        """Whether it may not be there any more."""
        return self.done <= moment

    def must_be_held(self, moment: int) -> bool:
        """Whether it has to wait for an operator."""
        return self.held <= moment <= min(self.let_go, self.begun)


class Swap(msgspec.Struct, frozen=True):
    """One act: a recipient goes, and others come."""

    gone: str
    come: tuple[str, ...]


class Promises:
    """All promises of a scenario, by recipient; the names of these are unique."""

    def __init__(self) -> None:
        self.made: dict[str, Promise] = {}
        self._together: list[tuple[str, ...]] = []
        self._swaps: list[Swap] = []

    def ask(
        self, names: Iterable[str], body: bytes, sender: str = "betty@gonzo.test"
    ) -> None:
        """Note that a message is about to be handed in: from now on it may be there.

        All its recipients come together or not at all.
        """
        names = tuple(names)
        for name in names:
            self.made[name] = Promise(sender, body)
        self._together.append(names)

    def swap(self, gone: str, come: Iterable[str]) -> None:
        """Note that in one act a recipient is about to go and others to come."""
        self._swaps.append(Swap(gone, tuple(come)))

    def ends_otherwise(self, names: Iterable[str]) -> None:
        """Note that these go in another act than was meant."""
        gone = set(names)
        self._swaps = [swap for swap in self._swaps if swap.gone not in gone]

    def owe(self, names: Iterable[str], moment: int) -> None:
        """Note that a message was answered."""
        for name in names:
            self.made[name].owed = moment

    def begin(self, names: Iterable[str], moment: int) -> None:
        """Note that something that ends a promise is about to be asked."""
        for name in names:
            promise = self.made[name]
            promise.begun = min(promise.begun, moment)

    def end(self, names: Iterable[str], moment: int) -> None:
        """Note that it was answered: it must not come back."""
        for name in names:
            self.made[name].done = moment

    def hold(self, name: str, moment: int) -> None:
        """Note that it was held."""
        self.made[name].held = moment

    def let_go(self, moment: int, name: str = "") -> None:
        """Note that the release of one, or of all, is about to be asked."""
        for promise in [self.made[name]] if name else self.made.values():
            promise.let_go = min(promise.let_go, moment)

    def judge(self, found: Mapping[str, Seen], moment: int, where: str = "") -> None:
        """Compare what was found after so many operations.

        Raises:
            Lost: something is missing, half there, or came back.
        """
        faults = [
            *self._judge_each(found, moment),
            *self._judge_acts(found, moment),
        ]
        if faults:
            raise Lost(f"after {moment} operations{where}: {'; '.join(faults)}")

    def _judge_each(self, found: Mapping[str, Seen], moment: int) -> Iterable[str]:
        for name, promise in self.made.items():
            if name not in found and promise.must_be(moment):
                yield f"{name} is lost"
            if name in found and promise.must_not_be(moment):
                yield f"{name} came back"
        for name, seen in found.items():
            asked = self.made.get(name)
            if asked is None:
                yield f"{name} was never asked for"
                continue
            whole = (asked.sender, HEADER, asked.body)
            if (seen.sender, seen.header, seen.body) != whole:
                yield f"{name} is not what was handed in"
            for child in [f"{name}-{i}" for i in range(seen.cursor)]:
                if child not in found and self.made[child].begun > moment:
                    yield f"{name} goes on behind {child}, which is not there"
            if asked.must_be_held(moment) and seen.state != "held":
                yield f"{name} is {seen.state}, not held"

    def _judge_acts(self, found: Mapping[str, Seen], moment: int) -> Iterable[str]:
        for names in self._together:
            if any(self.made[name].begun <= moment for name in names):
                continue
            there = sum(name in found for name in names)
            if 0 < there < len(names):
                yield f"of {len(names)} with {names[0]} only {there} are there"
        for swap in self._swaps:
            first = self.made[swap.gone]
            if first.owed > moment or any(
                self.made[name].begun <= moment for name in swap.come
            ):
                continue
            there = sum(name in found for name in swap.come)
            if there != (0 if swap.gone in found else len(swap.come)):
                yield f"{swap.gone} went apart from the coming of {swap.come[0]}"
