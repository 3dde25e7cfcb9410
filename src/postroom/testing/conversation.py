"""A client as a list of octets: what an SMTP session reads, and what it wrote.

Each piece is what one ``read`` returns; an exception among them is raised, and a
function is called before the next. After the last piece the client has gone.
"""

from collections import deque
from collections.abc import Awaitable, Callable

from postroom.net.demand import Demand
from postroom.net.stream import Taker

Piece = bytes | str | Exception | Callable[[], Awaitable[None] | None]


class ListConversation:
    """A ``Conversation`` from a list. Texts get the line ends of SMTP."""

    def __init__(self, *pieces: Piece) -> None:
        self._pieces = deque(pieces)
        self.written = b""
        self.waits: list[int] = []
        self.pauses: list[int] = []
        self.talks_early = False
        self.ends_us: int | None = None
        self.demanded: Demand | None = None
        self.is_closed = False
        self.peer_ip = "127.0.0.1"
        self.local_ip = ""
        self.peer_port = 4242

    async def read(self) -> bytes:
        """Return the next piece."""
        while self._pieces:
            piece = self._pieces.popleft()
            match piece:
                case bytes():
                    return piece
                case str():
                    return piece.replace("\n", "\r\n").encode()
                case Exception():
                    raise piece
            waiting = piece()
            if waiting is not None:
                await waiting
        return b""

    async def feed(self, taker: Taker) -> None:
        """Give the taker each piece until it has enough."""
        while taker(await self.read()):
            pass

    def write(self, data: bytes) -> None:
        """Keep what was written."""
        self.written += data

    is_congested = False

    async def drain(self) -> None:
        """Take it at once."""

    def allow(self, wait_us: int) -> None:
        """Note it."""
        self.waits.append(wait_us)

    async def pause(self, wait_us: int, *, until_octets: bool = False) -> bool:
        """Note it; with ``talks_early`` the client does not wait for us."""
        self.pauses.append(wait_us)
        return self.talks_early

    def end_at(self, mono_us: int) -> None:
        """Note it."""
        self.ends_us = mono_us

    def demand(self, demand: Demand | None) -> None:
        """Note it."""
        self.demanded = demand

    async def aclose(self) -> None:
        """Note it."""
        self.is_closed = True

    @property
    def replies(self) -> list[str]:
        """The lines that were written."""
        return self.written.decode().splitlines()

    @property
    def codes(self) -> list[str]:
        """The first word and, if there is one, the status of each last reply line."""
        last = [line for line in self.replies if line[3:4] != "-"]
        return [" ".join(_code_and_status(line)) for line in last]


def _code_and_status(line: str) -> list[str]:
    words = line.split()
    return words[: 2 if len(words) > 1 and words[1].count(".") == 2 else 1]
