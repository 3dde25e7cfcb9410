r"""Line ends: CRLF in protocols, LF in files.

Content in canonical form (every CR and LF is part of a CRLF) survives the way to LF
and back byte for byte. Read back, a CRLF in a file (foreign programs store such) stays
one, and a bare LF becomes one. All work is done on whole buffers.
"""


def crlf_octets(stored: bytes) -> int:
    """Return how long stored text is in CRLF form."""
    bare = stored.count(b"\n")
    if b"\r" in stored:
        bare -= stored.count(b"\r\n")
    return len(stored) + bare


def to_crlf(stored: bytes) -> bytes:
    """Return stored text in CRLF form."""
    if b"\r" in stored:
        stored = stored.replace(b"\r\n", b"\n")
    return stored.replace(b"\n", b"\r\n")


class ToLf:
    """Turns CRLF into LF piece by piece, and ends the last line if it was open."""

    def __init__(self) -> None:
        self._held = b""
        self._last = b"\n"

    def feed(self, data: bytes) -> bytes:
        """Return what can be said so far."""
        data = self._held + data
        kept = data.rstrip(b"\r") if data.endswith(b"\r") else data
        self._held = data[len(kept) :]
        if kept:
            self._last = kept[-1:]
        return kept.replace(b"\r\n", b"\n")

    def end(self) -> bytes:
        """Return the rest."""
        rest, self._held = self._held, b""
        is_open = bool(rest) or self._last != b"\n"
        return rest + b"\n" if is_open else rest


class ToCrlf:
    """Turns stored text into CRLF form piece by piece; ends the last line."""

    def __init__(self) -> None:
        self._held = b""
        self._last = b"\n"

    def feed(self, stored: bytes) -> bytes:
        """Return what can be said so far."""
        stored = self._held + stored
        self._held = b"\r" if stored.endswith(b"\r") else b""
        if self._held:
            stored = stored[:-1]
        if stored:
            self._last = stored[-1:]
        return to_crlf(stored)

    def end(self) -> bytes:
        """Return the rest."""
        rest, self._held = self._held, b""
        is_open = bool(rest) or self._last != b"\n"
        return rest + b"\r\n" if is_open else rest
