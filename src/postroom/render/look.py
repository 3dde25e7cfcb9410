"""Looking through a stretch of a body: what is in it, and where its delimiter is.

Windows of the body are asked for and sent in (``Span``); no octet is kept. Each is
judged by a few calls on the whole of it.
"""

import codecs
import re
from collections.abc import Generator, Sequence
from typing import Final

import msgspec

from postroom.mail.message import CHUNK_OCTETS
from postroom.render.demand import LINE_OCTETS_MAX, has_long_line

DELIMITER_OCTETS_MAX: Final = 1000
"""A line of a delimiter with its padding."""
_HIGH = bytes(range(128, 256))


WINDOW_OCTETS_MIN: Final = 2 * DELIMITER_OCTETS_MAX
"""Less would not do to tell a delimiter from a line that begins like one."""


class Span(msgspec.Struct, frozen=True, gc=False):
    """A question for octets of the body.

    Fewer may be sent, but not under ``WINDOW_OCTETS_MIN`` unless the body ends or
    ``is_whole`` asks for all of them.
    """

    offset: int
    octets: int = CHUNK_OCTETS
    is_whole: bool = False


class Delimiter(msgspec.Struct, frozen=True, gc=False):
    """A delimiter line: of which of the boundaries, and where.

    ``start`` is where the content before it ends, ``after`` where the next line begins.
    ``is_last`` says that it closes the multipart. At the end of the body ``level`` is
    -1: there was none.
    """

    level: int
    start: int
    after: int
    is_last: bool = False


class Delimiters:
    """Finds the delimiters of multiparts that are open, outermost first.

    Who reads mail compares the whole line (RFC 2046 §5.1.1 lets it be longer).
    """

    __slots__ = ("_boundaries", "_find", "_first", "_levels")

    def __init__(self, boundaries: Sequence[bytes] = ()) -> None:
        self._boundaries = tuple(boundaries)
        # an inner multipart that repeats the boundary of an outer one hides it
        self._levels = {boundary: i for i, boundary in enumerate(boundaries)}
        any_of = b"|".join(re.escape(b) for b in self._levels) or rb"(?!)"
        line = rb"--(" + any_of + rb")(--)?[ \t]*+(?=\r\n)"
        self._find = re.compile(rb"\r\n" + line)
        self._first = re.compile(line)

    @property
    def innermost(self) -> int:
        """The level of the multipart that was opened last."""
        return len(self._boundaries) - 1

    def within(self, boundary: bytes) -> "Delimiters":
        """Return those, and the one of a multipart inside."""
        return Delimiters((*self._boundaries, boundary))

    def at_start(self, window: bytes, offset: int) -> Delimiter | None:
        """Return the delimiter that a window begins with."""
        match = self._first.match(window) if self._levels else None
        return self._made(match, offset, match.start()) if match else None

    def search(self, window: bytes, offset: int) -> Delimiter | None:
        """Return the first delimiter in a window."""
        match = self._find.search(window) if self._levels else None
        return self._made(match, offset, match.start()) if match else None

    def _made(self, match: re.Match[bytes], offset: int, start: int) -> Delimiter:
        level = self._levels[match[1]]
        is_last = match[2] is not None
        return Delimiter(level, offset + start, offset + match.end() + 2, is_last)


class Contents:
    """What a stretch holds, gathered window by window.

    Attributes:
        octets: how many.
        high: how many outside ASCII.
        has_long_line: one over ``LINE_OCTETS_MAX``.
        is_canonical: each CR and LF is of a CRLF, and there is no NUL.
        is_utf8: it is UTF-8 throughout.
    """

    __slots__ = (
        "_decoder",
        "_open_octets",
        "has_long_line",
        "high",
        "is_canonical",
        "is_utf8",
        "octets",
    )

    def __init__(self) -> None:
        self.octets = 0
        self.high = 0
        self.has_long_line = False
        self.is_canonical = True
        self.is_utf8 = True
        self._open_octets = 0  # of the line that the last window left open
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def add(self, piece: bytes) -> None:
        """Take the next octets; a CRLF must not be cut in two."""
        if not piece:
            return
        self.octets += len(piece)
        if not piece.isascii():
            self.high += len(piece) - len(piece.translate(None, _HIGH))
        if self.high and self.is_utf8:
            self._decode(piece, final=False)
        pairs = piece.count(b"\r\n")
        bare = piece.count(b"\n") != pairs or piece.count(b"\r") != pairs
        if bare or b"\0" in piece:
            self.is_canonical = False
        self._measure(piece)

    def end(self) -> None:
        """Say that this was all."""
        if self.high and self.is_utf8:
            self._decode(b"", final=True)

    def _decode(self, piece: bytes, *, final: bool) -> None:
        try:
            self._decoder.decode(piece, final)
        except UnicodeDecodeError:
            self.is_utf8 = False

    def _measure(self, piece: bytes) -> None:
        first = piece.find(b"\r\n")
        if first < 0:
            self._open_octets += len(piece)
            self.has_long_line |= self._open_octets > LINE_OCTETS_MAX
            return
        if self._open_octets + first > LINE_OCTETS_MAX or has_long_line(piece):
            self.has_long_line = True
        self._open_octets = len(piece) - piece.rfind(b"\r\n") - 2


Look = Generator[Span, bytes, Delimiter]


def look_through(at: int, size: int, delimiters: Delimiters, into: Contents) -> Look:
    """Look from ``at`` to the next delimiter, or to the end of the body."""
    fresh = True
    while at < size:
        window = yield Span(at)
        if not window:
            break
        final = at + len(window) >= size
        # At the end of the body a delimiter may lack its line end.
        seen = window + b"\r\n" if final and not window.endswith(b"\r\n") else window
        found = delimiters.at_start(seen, at) if fresh else None
        found = found or delimiters.search(seen, at)
        fresh = False
        if found is not None:
            into.add(window[: found.start - at])
            into.end()
            after = min(found.after, size)
            return msgspec.structs.replace(found, after=after)
        taken = len(window) if final else _taken(window)
        into.add(window[:taken] if taken < len(window) else window)
        at += taken
    into.end()
    return Delimiter(-1, size, size)


def _taken(window: bytes) -> int:
    """How much of a window can be left behind: no delimiter is cut in two."""
    last = window.rfind(b"\r\n")
    if last > 0 and len(window) - last <= DELIMITER_OCTETS_MAX:
        return last
    return len(window) - window.endswith(b"\r")
