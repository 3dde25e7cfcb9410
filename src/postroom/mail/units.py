"""Durations and sizes with units, as people write them: ``5d``, ``50MiB``."""

import re

_DURATION = re.compile(r"(?:([0-9]+)(us|ms|s|m|h|d|w))+")
_DURATION_PART = re.compile(r"([0-9]+)(us|ms|s|m|h|d|w)")
_US = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_SIZE = re.compile(r"([0-9]+) ?(B|KiB|MiB|GiB|TiB|kB|MB|GB|TB)?")
_OCTETS = {
    None: 1,
    "B": 1,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_DIGITS_MAX = 18
_DURATION_MAX = 36_525 * _US["d"]
_SIZE_MAX = 1 << 60
# Both leave room for sums in 64 bits, which the queue and the links keep.


class Duration(int):
    """A length of time in whole microseconds."""

    __slots__ = ()

    @classmethod
    def from_text(cls, text: str) -> "Duration":
        """Read ``"90s"``, ``"1h30m"`` or ``"5d"``.

        Raises:
            ValueError: the text is no duration; the message says what is expected.
        """
        if not _DURATION.fullmatch(text):
            raise ValueError(f'"{text}" is no duration: write "30s", "1h30m" or "5d"')
        parts = _DURATION_PART.findall(text)
        if max(len(number) for number, _ in parts) > _DIGITS_MAX:
            raise ValueError(f'"{text}" is too long: nothing takes 100 years')
        length = cls(sum(int(number) * _US[unit] for number, unit in parts))
        if length > _DURATION_MAX:
            raise ValueError(f'"{text}" is too long: nothing takes 100 years')
        return length

    @property
    def seconds(self) -> float:
        """The same length in seconds."""
        return self / 1_000_000

    def to_text(self) -> str:
        """Write it back with the largest units that fit: ``"1h30m"``."""
        rest, out = int(self), []
        for unit in ("w", "d", "h", "m", "s", "ms", "us"):
            count, rest = divmod(rest, _US[unit])
            if count:
                out.append(f"{count}{unit}")
        return "".join(out) or "0s"


class Size(int):
    """A number of octets."""

    __slots__ = ()

    @classmethod
    def from_text(cls, text: str) -> "Size":
        """Read ``"64KiB"``, ``"50MiB"``, ``"10MB"`` or ``"512"`` (octets).

        Raises:
            ValueError: the text is no size; the message says what is expected.
        """
        match = _SIZE.fullmatch(text)
        if not match:
            raise ValueError(f'"{text}" is no size: write "64KiB", "50MiB" or "512B"')
        if len(match[1]) > _DIGITS_MAX:
            raise ValueError(f'"{text}" is more than any disk has')
        size = cls(int(match[1]) * _OCTETS[match[2]])
        if size > _SIZE_MAX:
            raise ValueError(f'"{text}" is more than any disk has')
        return size

    def to_text(self) -> str:
        """Write it back with the largest binary unit that divides it."""
        for unit in ("TiB", "GiB", "MiB", "KiB"):
            if self and self % _OCTETS[unit] == 0:
                return f"{self // _OCTETS[unit]}{unit}"
        return f"{int(self)}B"
