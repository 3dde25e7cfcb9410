"""The content of a message that comes in chunks (BDAT, RFC 3030).

Where it ends is said beforehand, so nothing in it can end it, and no dot is doubled.
Its line ends are judged as after 354, by the same code. BODY=BINARYMIME lifts that for
the body; the header is text in any case.
"""

from postroom.smtp.commands import Bdat, Refused
from postroom.smtp.data import ContentReader, Problem

_SEPARATOR = b"\r\n\r\n"


class ChunkReader:
    """Reads the content of one message from its chunks.

    ``read`` and ``end`` return what can be told already, canonical apart from a binary
    body, which is left as it is.
    """

    __slots__ = ("_fresh", "_held", "_in_body", "_is_binary", "_last", "_text")

    def __init__(
        self, octets_max: int, line_octets_max: int, *, fix: bool, binary: bool
    ) -> None:
        self._text = ContentReader(octets_max, line_octets_max, fix=fix, dots=False)
        self._is_binary = binary
        self._in_body = False  # of a binary message: anything goes
        self._fresh = True
        self._held = b""  # what could begin a CRLF or the empty line
        self._last = b"\n"  # the last octet that came; lines begin here

    @property
    def size_octets(self) -> int:
        """How much has come, in canonical form, also of what was refused."""
        return self._text.size_octets

    @property
    def problem(self) -> Problem | None:
        """Why the content cannot be accepted; None: it can, as far as it has come."""
        return self._text.problem

    def read(self, data: bytes) -> bytes:
        """Take octets of a chunk, which may be any part of it."""
        if self._in_body:
            return self._text.count(data)
        self._last = data[-1:] or self._last
        if self._held:
            data = self._held + data
            self._held = b""
        if self._is_binary:
            return self._read_header(data)
        if data.endswith(b"\r"):
            self._held = b"\r"
            data = data[:-1]
        return self._text.judge(data) if data else b""

    def end(self) -> bytes:
        """Return what is left, once the last chunk is here."""
        if self._in_body:
            return b""
        held, self._held = self._held, b""
        if self._last in b"\r\n":  # or was mended to such an end
            return self._text.judge(held) if held else b""
        # a text whose last line has no end gets one, as it must have on its way on
        self._last = b"\n"  # once is enough
        return self._text.judge(b"\r\n")

    def _read_header(self, data: bytes) -> bytes:
        if self._fresh:
            if len(data) < 2 and b"\r\n".startswith(data):
                self._held = data
                return b""
            self._fresh = False
            if data.startswith(b"\r\n"):  # no header at all
                self._in_body = True
                return self._text.count(data)
        end = data.find(_SEPARATOR)
        if end >= 0:
            self._in_body = True
            header = self._text.judge(data[: end + 4])
            return header + self._text.count(data[end + 4 :])
        keep = next((n for n in (3, 2, 1) if data.endswith(_SEPARATOR[:n])), 0)
        if keep:
            self._held = data[-keep:]
            data = data[:-keep]
        return self._text.judge(data) if data else b""


class Arriving:
    """A chunk whose octets are arriving; with a refusal they are thrown away."""

    __slots__ = ("command", "left_octets", "refusal")

    def __init__(self, command: Bdat, refusal: Refused | None) -> None:
        self.command = command
        self.left_octets = command.size_octets
        self.refusal = refusal
