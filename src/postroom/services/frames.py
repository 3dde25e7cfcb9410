"""Frames: how the ``sendmail`` command and the server talk.

The caller sends ``POSTROOM 1`` and a line end, then frames: a type octet, a length of
four octets, most significant first, and the payload. The same octets make a file of
the drop directory. A caller that breaks these rules is cut off (``FrameError``).

From the caller: ``A`` its arguments, parted by NUL; ``I`` a piece of standard input;
``E`` the end of input; ``Z`` (files only) the number of octets before it, as a proof
that the file is whole. To the caller: ``G`` send your input; ``O`` and ``R`` text for
standard output and error; ``X`` the exit code, after which nothing comes.
"""

import struct
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from postroom.net.demand import Demand
from postroom.net.stream import Stream, StreamInterrupted, StreamLost, Taker
from postroom.services.local_lines import LocalLines

GREETING = b"POSTROOM 1\n"
INPUT_OCTETS_MAX = 1 << 20
"""Longest frame of input."""
ARGUMENTS_OCTETS_MAX = 4 << 20
"""Longest frame of arguments; Linux allows a program 2 MiB by default."""
_HEAD = struct.Struct(">cI")
_PIECE_OCTETS = 32 * 1024


class FrameError(Exception):
    """What came is not a caller's; the text says why."""


class Frame(NamedTuple):
    """One frame of a caller."""

    kind: bytes
    payload: bytes


class FrameReader:
    """Reads the frames of one caller.

    Args:
        read: returns the next octets, ``b""`` at the end.
    """

    def __init__(self, read: Callable[[], Awaitable[bytes]]) -> None:
        self._read = read
        self._buffer = b""
        self.octets = 0

    async def greeting(self) -> None:
        """Read the greeting.

        Raises:
            FrameError: it is another.
        """
        if await self._exactly(len(GREETING)) != GREETING:
            raise FrameError("the caller does not speak this version of the protocol")

    async def next(self) -> Frame | None:
        """Return the next frame, None if the caller has gone.

        Raises:
            FrameError: it is no frame, or too long.
        """
        if not self._buffer:
            self._buffer = await self._read()
            if not self._buffer:
                return None
        head = await self._exactly(_HEAD.size)
        if head is None:
            return None
        kind, octets = _HEAD.unpack(head)
        if kind not in (b"A", b"I", b"E", b"Z"):
            raise FrameError("unknown frame")
        if octets > (ARGUMENTS_OCTETS_MAX if kind == b"A" else INPUT_OCTETS_MAX):
            raise FrameError("frame is too long")
        payload = await self._exactly(octets)
        return None if payload is None else Frame(kind, payload)

    async def _exactly(self, octets: int) -> bytes | None:
        if len(self._buffer) < octets:
            parts, have = [self._buffer], len(self._buffer)
            while have < octets:
                data = await self._read()
                if not data:
                    self._buffer = b""
                    return None
                parts.append(data)
                have += len(data)
            self._buffer = b"".join(parts)
        taken, self._buffer = self._buffer[:octets], self._buffer[octets:]
        self.octets += octets
        return taken


class Caller:
    """One ``sendmail`` at the other end of the submission socket."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._frames = FrameReader(self._read_on)
        self._ended = False
        self._asked = False
        self._lines: LocalLines | None = None

    def speak_smtp(self) -> None:
        """Take the input for an SMTP session from now on, whatever its line ends."""
        self._lines = LocalLines()

    async def arguments(self) -> list[str]:
        """Read what the program was called with, its name first.

        Raises:
            FrameError: something else came.
            StreamLost: the caller has gone.
        """
        await self._frames.greeting()
        frame = await self._frames.next()
        if frame is None:
            raise StreamLost("the caller has gone")
        if frame.kind != b"A":
            raise FrameError("no arguments")
        return decode_arguments(frame.payload)

    async def read(self) -> bytes:
        """Return the next piece of input, ``b""`` at its end.

        Raises:
            FrameError: something else came.
            StreamLost: the caller has gone before the end.
        """
        self._ask()
        while not self._ended:
            frame = await self._frames.next()
            if frame is None:
                raise StreamLost("the caller has gone")
            if frame.kind == b"E":
                self._ended = True
                break
            if frame.kind != b"I":
                raise FrameError("input was expected")
            piece = frame.payload
            if self._lines is not None:
                piece = self._lines.feed(piece)
            if piece:
                return piece
        return b""

    async def feed(self, taker: Taker) -> None:
        """Give the taker each piece of input until it says False; see ``read``."""
        while taker(await self.read()):
            pass

    def write(self, data: bytes) -> None:
        """Write to the caller's standard output."""
        for at in range(0, len(data), _PIECE_OCTETS):
            self._send(b"O", data[at : at + _PIECE_OCTETS])

    def out(self, *lines: str) -> None:
        """Write lines to the caller's standard output."""
        self.write(b"".join(map(_line, lines)))

    def err(self, line: str) -> None:
        """Write a line to the caller's standard error."""
        self._send(b"R", _line(line))

    def exit(self, code: int) -> None:
        """Let the caller end with this code."""
        self._send(b"X", bytes([code]))

    @property
    def is_congested(self) -> bool:
        """Whether ``drain`` has to be awaited before more is written."""
        return self._stream.is_congested

    async def drain(self) -> None:
        """Wait until the caller has taken most of what was written."""
        await self._stream.drain()

    def allow(self, wait_us: int) -> None:
        """Say how long the caller may keep us waiting from now on."""
        self._stream.allow(wait_us)

    async def pause(self, wait_us: int, *, until_octets: bool = False) -> bool:
        """Let the caller wait; one of this machine is never watched meanwhile."""
        await self._stream.pause(wait_us)
        return False

    def end_at(self, mono_us: int) -> None:
        """Set when the call is over, whatever the caller does until then."""
        self._stream.end_at(mono_us)

    def demand(self, demand: Demand | None) -> None:
        """Set how fast the caller has to send."""
        self._stream.demand(demand)

    async def gone(self) -> None:
        """Return when the caller has gone, for those who only watch.

        Raises:
            StreamError: the connection broke, or the server is asked to end.
        """
        while await self._stream.read():
            pass  # nothing is owed to us behind the end of input

    async def aclose(self) -> None:
        """End an SMTP session over the caller; the exit code is still to be told."""

    async def _read_on(self) -> bytes:
        while True:
            try:
                return await self._stream.read()
            except StreamInterrupted:
                pass  # a letter begun is taken to its end, as long as there is time

    def _ask(self) -> None:
        if not self._asked:
            self._asked = True
            self._send(b"G", b"")

    def _send(self, kind: bytes, payload: bytes) -> None:
        self._stream.write(_HEAD.pack(kind, len(payload)) + payload)


def decode_arguments(payload: bytes) -> list[str]:
    """Part the payload of an ``A`` frame into arguments."""
    return payload.decode("utf-8", "surrogateescape").split("\0")


def _line(text: str) -> bytes:
    """Encode one line; what could steer a terminal becomes question marks."""
    safe = text if text.isprintable() else "".join(map(_printable, text))
    return safe.encode("utf-8", "replace") + b"\n"


def _printable(char: str) -> str:
    return char if char.isprintable() or char == "\t" else "?"
