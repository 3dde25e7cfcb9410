"""A next hop that takes everything, takes its time, and counts.

It notes how many connections there are at a time, how many messages went over each,
and when each message came: what the fairness of a schedule is measured by.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from postroom.testing.ledger import id_of

_REPLIES = {
    b"EHLO": b"250-peer.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n",
    b"MAIL": b"250 2.1.0 Ok\r\n",
    b"RCPT": b"250 2.1.5 Ok\r\n",
    b"DATA": b"354 go\r\n",
    b"RSET": b"250 2.0.0 Ok\r\n",
    b"QUIT": b"221 2.0.0 Bye\r\n",
}


class Arrival(NamedTuple):
    """A message that came.

    ``message_id`` is its ledger id, ``at_s`` the time of its 250 on the monotonic
    clock.
    """

    message_id: str
    recipients: int
    at_s: float


class CountingPeer:
    """One such host.

    Args:
        service_s: how long it takes over a message before it says 250.

    Attributes:
        arrivals: the messages, in the order of their 250s.
        connections: how many there are now.
        connections_max: the most there were at a time.
        served: messages that went over each connection that has ended.
    """

    def __init__(self, service_s: float = 0.0) -> None:
        self.service_s = service_s
        self.arrivals: list[Arrival] = []
        self.connections = 0
        self.connections_max = 0
        self.served: list[int] = []
        self._server: asyncio.Server | None = None

    async def start(self, ip: str, port: int) -> None:
        """Listen.

        Raises:
            OSError: the address is taken.
        """
        self._server = await asyncio.start_server(self._serve, ip, port, limit=1 << 20)

    async def aclose(self) -> None:
        """Take no more connections."""
        if self._server is not None:
            self._server.close()

    @property
    def recipients(self) -> int:
        """How many recipients have got their copy."""
        return sum(arrival.recipients for arrival in self.arrivals)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        self.connections_max = max(self.connections_max, self.connections)
        served = 0

        def count() -> None:
            nonlocal served
            served += 1

        try:
            writer.write(b"220 peer.example ESMTP\r\n")
            await self._talk(reader, writer.write, count)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.connections -= 1
            self.served.append(served)
            writer.close()

    async def _talk(
        self,
        reader: asyncio.StreamReader,
        say: Callable[[bytes], None],
        count: Callable[[], None],
    ) -> None:
        recipients = 0
        while line := await reader.readline():
            verb = line[:4].upper()
            say(_REPLIES.get(verb, b"502 5.5.1 what?\r\n"))
            if verb == b"QUIT":
                return
            recipients = 0 if verb == b"MAIL" else recipients + (verb == b"RCPT")
            if verb == b"DATA":
                content = await reader.readuntil(b"\r\n.\r\n")
                await self._think()
                arrival = Arrival(id_of(content), recipients, time.monotonic())
                self.arrivals.append(arrival)
                count()
                say(b"250 2.0.0 Ok\r\n")

    def _think(self) -> Awaitable[None]:
        return asyncio.sleep(self.service_s)
