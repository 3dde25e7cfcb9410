"""Line ends of an SMTP session on standard input, ``sendmail -bs``.

Programs of this machine write lines as files have them, with LF, or as SMTP has them.
The first line tells which. After a CRLF all goes on as it came, and a bare LF is what
it always is in SMTP; after a bare LF each line end is made a CRLF, so that a script is
understood. Nothing can be smuggled so: who speaks is who hands the letter in.
"""

from postroom.mailbox.line_ends import ToCrlf


class LocalLines:
    """Judges the first line of a session, then converts or does not."""

    def __init__(self) -> None:
        self._last = b""
        self._is_known = False
        self._to_crlf: ToCrlf | None = None

    def feed(self, data: bytes) -> bytes:
        """Return what comes as SMTP has it; perhaps nothing yet."""
        if not self._is_known:
            self._look_at(data)
        return self._to_crlf.feed(data) if self._to_crlf is not None else data

    def _look_at(self, data: bytes) -> None:
        end = data.find(b"\n")
        if end >= 0:
            self._is_known = True
            if (data[end - 1 : end] or self._last) != b"\r":
                self._to_crlf = ToCrlf()
        self._last = data[-1:]
