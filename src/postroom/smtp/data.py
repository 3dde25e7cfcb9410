"""The content of a message on the wire: where it ends, its dots, its line ends.

Reading: only CRLF "." CRLF ends it (RFC 5321 §4.1.1.4, §2.3.8), looked for before
anything is changed, so that no repair can make a new end. Out come canonical pieces:
dots removed (RFC 5321 §4.5.2), every line ended by CRLF. What is wrong with the
content is remembered and told at the end; nothing more is handed on from there.

Writing: the same in reverse. A bare CR or LF never leaves; it becomes CRLF.

No loop over lines: whole buffers are searched, counted and replaced. A CRLF, and a
CRLF with a dot behind it, is never cut in two by the pieces, because what could be the
begin of an end is held back (at most four octets).
"""

import re
from enum import StrEnum
from typing import Final

END: Final = b"\r\n.\r\n"
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")
_NUL_DOT = re.compile(rb"(\r\n\0++)\.")
_NULS_LAST = re.compile(rb"\r\n\0++\Z")


class Problem(StrEnum):
    """Why content cannot be accepted."""

    TOO_LARGE = "too large"
    BARE_LINE_END = "bare CR or LF"
    LINE_TOO_LONG = "line too long"


_GRAVITY: Final = {
    Problem.LINE_TOO_LONG: 1,
    Problem.BARE_LINE_END: 2,
    Problem.TOO_LARGE: 3,
}


class ContentReader:
    """Reads the content of one message after 354; without ``dots`` none is doubled."""

    __slots__ = (
        "_dots",
        "_fix",
        "_fresh",
        "_held",
        "_line_octets",
        "_line_octets_max",
        "_octets_max",
        "ended",
        "problem",
        "rest",
        "size_octets",
    )

    def __init__(
        self, octets_max: int, line_octets_max: int, *, fix: bool, dots: bool = True
    ) -> None:
        self._octets_max = octets_max
        self._line_octets_max = line_octets_max
        self._fix = fix
        self._dots = dots
        self._fresh = True  # nothing decided yet: a CRLF stands before the content
        self._held = b""
        self._line_octets = 0  # of the line that the last piece left open
        self.size_octets = 0
        self.problem: Problem | None = None
        self.ended = False
        self.rest = b""  # what followed the end

    def read(self, data: bytes) -> bytes:
        """Take octets; return the canonical content they hold, which may be empty.

        After the end was found ``ended`` is true and ``rest`` holds what followed it.
        """
        if self._held:
            data = self._held + data
            self._held = b""
        start = 0
        if self._fresh:
            if data[:3] == b".\r\n":
                self.ended = True
                self.rest = data[3:]
                return b""
            if len(data) < 3 and b".\r\n".startswith(data):
                self._held = data
                return b""
            self._fresh = False
            start = data.startswith(b".")
        end = data.find(END, start)
        if end >= 0:
            self.ended = True
            self.rest = data[end + 5 :]
            return self.judge(data[start : end + 2])
        keep = _end_begun(data)
        if keep:
            self._held = data[-keep:]
            return self.judge(data[start:-keep])
        return self.judge(data[start:] if start else data)

    def judge(self, piece: bytes) -> bytes:
        """Return the canonical form of a piece that cuts no CRLF in two.

        Empty once something is wrong with the content.
        """
        if b"\r\n." in piece and self._dots:  # RFC 5321 §4.5.2
            piece = piece.replace(b"\r\n.", b"\r\n")
        if not _is_canonical(piece):
            if self._fix:
                piece = _BARE.sub(b"\r\n", piece)
            else:
                self._fail(Problem.BARE_LINE_END)
        self.size_octets += len(piece)
        if self._octets_max and self.size_octets > self._octets_max:
            self._fail(Problem.TOO_LARGE)
        if self.problem is None and self._has_long_line(piece):
            self._fail(Problem.LINE_TOO_LONG)
        return b"" if self.problem else piece

    def count(self, piece: bytes) -> bytes:
        """Return a piece of binary content as it is, unless it makes it too large."""
        self.size_octets += len(piece)
        if self._octets_max and self.size_octets > self._octets_max:
            self._fail(Problem.TOO_LARGE)
        return b"" if self.problem else piece

    def _fail(self, problem: Problem) -> None:
        # The gravest is told, wherever the pieces were cut. Size comes before all else:
        # no repair of the content would help.
        if self.problem is None or _GRAVITY[problem] > _GRAVITY[self.problem]:
            self.problem = problem

    def _has_long_line(self, piece: bytes) -> bool:
        limit = self._line_octets_max
        last = piece.rfind(b"\r\n")
        open_octets = self._line_octets
        if last < 0:
            self._line_octets = open_octets + len(piece)
            return self._line_octets > limit
        self._line_octets = len(piece) - last - 2
        if open_octets + len(piece) <= limit:
            return False
        if open_octets + piece.find(b"\r\n") > limit or self._line_octets > limit:
            return True
        # Stride over the piece: each window of the limit must hold a line's end.
        at = 0
        while len(piece) - at > limit:
            found = piece.rfind(b"\r\n", at, at + limit + 2)
            if found < 0:
                return True
            at = found + 2
        return False


def _end_begun(data: bytes) -> int:
    """How many octets at the end of ``data`` could begin ``END``."""
    if data.endswith(b"\r"):
        return 4 if data.endswith(b"\r\n.\r") else 1
    if data.endswith(b"\n"):
        return 2 if data.endswith(b"\r\n") else 0
    return 3 if data.endswith(b"\r\n.") else 0


def _is_canonical(piece: bytes) -> bool:
    """Whether every CR and LF is part of a CRLF. Counting beats a search by regex."""
    pairs = piece.count(b"\r\n")
    return piece.count(b"\n") == pairs and piece.count(b"\r") == pairs


class ContentWriter:
    """Makes the octets that are sent for the content of one message."""

    __slots__ = ("_after_nuls", "_ends")

    def __init__(self) -> None:
        self._ends = LineEnds()
        self._after_nuls = False  # nothing but NULs stands before in the line

    def write(self, piece: bytes) -> bytes:
        """Return what to send for this piece: dots doubled, line ends CRLF."""
        is_line_start = self._ends.at_line_start
        piece = self._ends.write(piece)
        if b"\r\n." in piece:  # RFC 5321 §4.5.2
            piece = piece.replace(b"\r\n.", b"\r\n..")
        if is_line_start and piece.startswith(b"."):
            piece = b"." + piece
        if b"\0" in piece or self._after_nuls:
            piece = self._doubled_behind_nuls(piece, is_line_start=is_line_start)
        return piece

    def _doubled_behind_nuls(self, piece: bytes, *, is_line_start: bool) -> bytes:
        """Double a dot that would begin its line for a reader who drops NULs.

        NUL is obsolete in messages (RFC 5322 §4.1), so some do. To them CRLF NUL "."
        CRLF would be the end of data.
        """
        before = b"\r\n" if is_line_start else b""
        if self._after_nuls:
            before = b"\r\n\0"
        seen = _NUL_DOT.sub(rb"\1..", before + piece)
        self._after_nuls = bool(_NULS_LAST.search(seen))
        return seen[len(before) :]

    def end(self) -> bytes:
        """Return what ends the content, with the last line's CRLF if it lacked one."""
        return self._ends.end() + b".\r\n"


class LineEnds:
    """Makes canonical content of pieces.

    Attributes:
        at_line_start: whether what is written next begins a line.
    """

    __slots__ = ("_held", "at_line_start")

    def __init__(self) -> None:
        self.at_line_start = True
        self._held = b""  # a CR whose LF may come with the next piece

    def write(self, piece: bytes) -> bytes:
        """Return the piece with every line ended by CRLF."""
        if self._held:
            piece = self._held + piece
            self._held = b""
        if piece.endswith(b"\r"):
            self._held = b"\r"
            piece = piece[:-1]
        if not piece:
            return b""
        if not _is_canonical(piece):
            piece = _BARE.sub(b"\r\n", piece)
        self.at_line_start = piece.endswith(b"\r\n")
        return piece

    def end(self) -> bytes:
        """Return the CRLF of the last line if it lacked one."""
        return b"\r\n" if self._held or not self.at_line_start else b""
