"""One file of the drop directory, read as the call of ``sendmail`` that it keeps."""

import asyncio
import os

import msgspec

from postroom.services.frames import FrameError, FrameReader, decode_arguments
from postroom.services.submission import Invocation, Mode, UsageError, parse_argv

_PIECE_OCTETS = 256 * 1024
_END_OCTETS = 1 + 4 + 8
_LINES_MAX = 100


def whole_octets(fd: int, size_octets: int) -> int | None:
    """Return how much of a file lies before its end record, None without one."""
    start = size_octets - _END_OCTETS
    if start < 0:
        return None
    proof = b"Z" + (8).to_bytes(4, "big") + start.to_bytes(8, "big")
    return start if os.pread(fd, _END_OCTETS, start) == proof else None


class DroppedLetter:
    """A letter from a file; nobody watches, so what is said is collected.

    Attributes:
        lines: what would have been printed.
    """

    def __init__(self, fd: int, octets: int) -> None:
        self._fd = fd
        self._octets = octets
        self.lines: list[str] = []
        self.rewind()

    def rewind(self) -> None:
        """Go back to the start."""
        self._offset = 0
        self._frames = FrameReader(self._read)

    async def invocation(self) -> Invocation:
        """Read what the program was called with, and for.

        Raises:
            FrameError: this is no such file.
            UsageError: the arguments make no sense, or hand in no letter.
        """
        invocation = parse_argv(await self.arguments())
        if invocation.mode is not Mode.DELIVER:
            raise UsageError("Only letters can be left in the drop directory")
        return msgspec.structs.replace(invocation, verbose=False, quiet=False)

    async def arguments(self) -> list[str]:
        """Read what the program was called with; the input is behind it.

        Raises:
            FrameError: this is no such file.
        """
        await self._frames.greeting()
        frame = await self._frames.next()
        if frame is None or frame.kind != b"A":
            raise FrameError("no arguments")
        return decode_arguments(frame.payload)

    async def read(self) -> bytes:
        """Return the next piece of input, ``b""`` at its end.

        Raises:
            FrameError: the file is not in order.
        """
        while frame := await self._frames.next():
            if frame.kind == b"E":
                return b""
            if frame.kind != b"I":
                raise FrameError("input was expected")
            if frame.payload:
                return frame.payload
        raise FrameError("the input has no end")

    def out(self, *lines: str) -> None:
        """Note some lines."""
        for line in lines[: _LINES_MAX - len(self.lines)]:
            self.lines.append(line if line.isprintable() else ascii(line))

    async def drain(self) -> None:
        """Nobody is slow here."""

    async def gone(self) -> None:
        """Nobody watches here."""

    async def _read(self) -> bytes:
        octets = min(_PIECE_OCTETS, self._octets - self._offset)
        data = await asyncio.to_thread(os.pread, self._fd, octets, self._offset)
        self._offset += len(data)
        return data
