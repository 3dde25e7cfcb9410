"""Multi-line responses: byte-stuffing (RFC 1939 §3) and the cut that TOP makes.

Everything works on whole buffers, and gives the same however the content is cut into
pieces.
"""

_HEADER_END = b"\r\n\r\n"


class Stuffing:
    """Doubles each full stop that begins a line, over the pieces of one message."""

    def __init__(self) -> None:
        self._last = b"\r\n"  # as if a line had just ended

    def feed(self, data: bytes) -> bytes:
        """Return a piece ready to be sent."""
        if not data:
            return data
        before, self._last = self._last, (self._last + data[-2:])[-2:]
        if b"\r\n." in data:
            data = data.replace(b"\r\n.", b"\r\n..")
        # RFC 1939 §3: also where the line end lies in the piece before.
        if data[:1] == b"." and before == b"\r\n":
            return b"." + data
        if data[:2] == b"\n." and before[-1:] == b"\r":
            return b"\n." + data[1:]
        return data

    def end(self) -> bytes:
        """Return what ends the response, and the last line if it was left open."""
        return b".\r\n" if self._last == b"\r\n" else b"\r\n.\r\n"


class TopCut:
    """Lets through the header, the empty line, and so many lines of the body."""

    def __init__(self, lines: int) -> None:
        self._left = lines
        self._in_header = True
        self._last = b"\r\n"
        self.is_done = False

    def feed(self, data: bytes) -> bytes:
        """Return as much of a piece as belongs to the top."""
        if self.is_done:
            return b""
        if not self._in_header:
            return self._body(data)
        seen = self._last + data
        at = seen.find(_HEADER_END)
        if at < 0:
            self._last = seen[-3:]
            return data
        self._in_header = False
        end = at + len(_HEADER_END) - len(self._last)
        return data[:end] + self._body(data[end:])

    def _body(self, data: bytes) -> bytes:
        lines = data.count(b"\n")
        if lines < self._left:
            self._left -= lines
            return data
        end = 0
        for _ in range(self._left):
            end = data.index(b"\n", end) + 1
        self._left = 0
        self.is_done = True
        return data[:end]
