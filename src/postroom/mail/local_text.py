"""Text as local programs write it, made canonical: every line ends with CRLF.

On standard input LF is the line end; CRLF means the same, and a CR by itself ends a
line too. Unless the caller said otherwise (``-i``), a line with nothing but a dot
ends the text. Text comes in pieces, cut anywhere; nothing but line ends changes.
"""

_LONE_DOT = b"\r\n.\r\n"


class LocalText:
    """Turns pieces of local text into pieces of canonical text.

    Args:
        dot_ends: whether a lone dot ends the text.
    """

    def __init__(self, *, dot_ends: bool) -> None:
        self._dot_ends = dot_ends
        self._held_cr = False
        self._held_dot = False
        self._at_line_start = True
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether the lone dot has come; what is fed after it is ignored."""
        return self._ended

    def feed(self, data: bytes) -> bytes:
        """Take a piece; return what is sure to be text now."""
        if self._ended or not data:
            return b""
        if self._held_cr:
            data, self._held_cr = b"\r" + data, False
        if b"\r" in data:
            if data.endswith(b"\r"):  # an LF may follow in the next piece
                data, self._held_cr = data[:-1], True
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return self._emit(data.replace(b"\n", b"\r\n"))

    def finish(self) -> bytes:
        """Return what is left at the end of input; the last line is completed."""
        if self._ended:
            return b""
        rest = self._emit(b"\r\n") if self._held_cr else b""
        self._held_cr = False
        if self._held_dot:  # nothing came behind it: it ends no line, and no text
            rest, self._held_dot, self._at_line_start = rest + b".", False, False
        if not self._at_line_start:
            rest, self._at_line_start = rest + b"\r\n", True
        return rest

    def _emit(self, text: bytes) -> bytes:
        if self._dot_ends:
            text = self._until_dot(text)
        if text:
            self._at_line_start = text.endswith(b"\r\n")
        return text

    def _until_dot(self, text: bytes) -> bytes:
        if self._held_dot:
            text, self._held_dot = b"." + text, False
        if self._at_line_start and text.startswith(b".\r\n"):
            self._ended = True
            return b""
        at = text.find(_LONE_DOT)
        if at >= 0:
            self._ended = True
            return text[: at + 2]
        if text.endswith(b"\r\n.") or (self._at_line_start and text == b"."):
            self._held_dot = True
            return text[:-1]
        return text
