"""Content in chunks: what a client sends in place of DATA (BDAT, RFC 3030).

Each chunk is announced by its length, so that no octet of it can be taken for a
command or for an end. Text is made canonical first (RFC 3030 §2); binary content is
sent as it is. The sizes of chunks keep the count of replies small, so that they can all
wait for us while we send.
"""

from typing import Final

from postroom.smtp.data import LineEnds

CHUNK_OCTETS: Final = 256 * 1024
"""What is gathered for a chunk, at least."""
CHUNKS_MAX: Final = 200
"""About so many chunks of a message, however large it is."""


class ChunkWriter:
    """Makes the octets that are sent for the content of one message.

    Args:
        size_octets: about the size of the content, 0 if unknown.
        binary: do not touch line ends.
    """

    __slots__ = ("_gathered", "_lines", "_octets", "_octets_max")

    def __init__(self, size_octets: int, *, binary: bool) -> None:
        self._lines = None if binary else LineEnds()
        self._gathered: list[bytes] = []
        self._octets = 0
        self._octets_max = max(CHUNK_OCTETS, size_octets // CHUNKS_MAX)

    def write(self, piece: bytes) -> bytes:
        """Take a piece; return a whole chunk with its command, or nothing yet."""
        if self._lines is not None:
            piece = self._lines.write(piece)
        self._gathered.append(piece)
        self._octets += len(piece)
        if self._octets < self._octets_max:
            return b""
        return self._chunk("")

    def end(self) -> bytes:
        """Return the last chunk, which may be empty."""
        if self._lines is not None:
            rest = self._lines.end()
            self._gathered.append(rest)
            self._octets += len(rest)
        return self._chunk(" LAST")

    def _chunk(self, mark: str) -> bytes:
        command = f"BDAT {self._octets}{mark}\r\n".encode("ascii")
        chunk = b"".join((command, *self._gathered))
        self._gathered.clear()
        self._octets = 0
        return chunk
