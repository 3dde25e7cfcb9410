"""Content transfer encodings in pieces: octets in, encoded lines out (RFC 2045 §6).

The work is done by ``binascii`` on whole buffers. What comes out is ASCII, its lines
have at most 76 characters and end with CRLF; decoding gives just what went in.
"""

import re
from binascii import b2a_base64, b2a_qp
from typing import Final, Protocol

_LINE_CHARS_MAX: Final = 76
_GROUP_OCTETS: Final = 57  # make a line of 76 characters
_LINES: Final = re.compile(rb".{1,76}")
_OPEN_LINE_OCTETS_MAX: Final = 16 * 1024
_MASK: Final = bytes(c if c < 128 else ord("?") for c in range(256))


class Encoder(Protocol):
    """Makes the octets that leave for a stretch of a body."""

    def feed(self, data: bytes) -> bytes:
        """Take a piece; return what can be told already."""

    def finish(self) -> bytes:
        """Return the rest."""


class Base64:
    """RFC 2045 §6.8; ``closed`` ends the last line, where nothing follows that does."""

    __slots__ = ("_closed", "_held", "_said")

    def __init__(self, *, closed: bool) -> None:
        self._closed = closed
        self._held = b""
        self._said = False

    def feed(self, data: bytes) -> bytes:
        """Take a piece; whole lines come out."""
        if self._held:
            data = self._held + data
        whole = len(data) - len(data) % _GROUP_OCTETS
        self._held = data[whole:]
        return self._encode(data[:whole])

    def finish(self) -> bytes:
        """Return the last line."""
        rest = self._encode(self._held)
        self._held = b""
        return rest + b"\r\n" if self._closed and self._said else rest

    def _encode(self, data: bytes) -> bytes:
        if not data:
            return b""
        lines = _LINES.findall(b2a_base64(data, newline=False))
        before = b"\r\n" if self._said else b""
        self._said = True
        return before + b"\r\n".join(lines)


class QuotedPrintable:
    """RFC 2045 §6.7, for canonical text; ``closed`` ends the last line, softly."""

    __slots__ = ("_closed", "_held")

    def __init__(self, *, closed: bool) -> None:
        self._closed = closed
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Take a piece; whole lines come out, and what is long of an open one."""
        if self._held:
            data = self._held + data
        cut = data.rfind(b"\r\n") + 2
        if cut > 1:
            self._held = data[cut:]
            return b2a_qp(data[:cut], istext=True)
        if len(data) < _OPEN_LINE_OCTETS_MAX:
            self._held = data
            return b""
        cut = len(data) - data.endswith(b"\r")
        self._held = data[cut:]
        return _softly_ended(_open_line(data[:cut]))

    def finish(self) -> bytes:
        """Return the last line, which had no CRLF."""
        rest, self._held = _open_line(self._held), b""
        return _softly_ended(rest) if self._closed and rest else rest


def _open_line(data: bytes) -> bytes:
    # without a line end to go by, LF alone is what breaks the line softly
    return b2a_qp(data, istext=True).replace(b"\n", b"\r\n")


def _softly_ended(said: bytes) -> bytes:
    """Add a soft line end; the line may be as long as a line may be without it."""
    if len(said) - said.rfind(b"\n") - 1 < _LINE_CHARS_MAX:
        return said + b"=\r\n"
    cut = -3 if said[-3:-2] == b"=" else -1
    return said[:cut] + b"=\r\n" + said[cut:] + b"=\r\n"


class Mask:
    """Puts question marks for octets outside ASCII where no encoding can be told.

    That is before the first part of a multipart and behind its last, which is shown to
    nobody (RFC 2046 §5.1.1).
    """

    __slots__ = ()

    def feed(self, data: bytes) -> bytes:
        """Return the piece in ASCII."""
        return data.translate(_MASK)

    def finish(self) -> bytes:
        """Return nothing: all has been told."""
        return b""
