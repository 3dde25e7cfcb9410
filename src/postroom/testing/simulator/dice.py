"""Numbers that look random and are the same each time."""

from postroom.schedule.jitter import mix

_UNIT = 1 << 64


class Dice:
    """A source of numbers.

    Args:
        seed: the same seed gives the same numbers.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._thrown = 0

    def below(self, bound: int) -> int:
        """Return a whole number from 0 to ``bound - 1``."""
        self._thrown += 1
        return mix(self._seed, self._thrown) % bound

    def around(self, length_us: int, percent: int) -> int:
        """Return a length within ``percent`` above or below ``length_us``."""
        width = length_us * percent // 100
        return length_us - width + self.below(2 * width + 1) if width else length_us

    def chance(self, share: float) -> bool:
        """Return True in ``share`` of the cases."""
        self._thrown += 1
        return mix(self._seed, self._thrown) < share * _UNIT
