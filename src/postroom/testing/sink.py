"""A next hop for crash tests: it takes all mail, slowly, and remembers each copy.

It takes a moment between having the content and saying so, which is where a kill makes
a second copy; and now and then it says "not now", so that mail waits and is retried.
"""

import asyncio
import re
from collections.abc import Mapping
from random import Random  # noqa: TID251 - seeded
from typing import NamedTuple

from postroom.testing.ledger import id_of, is_whole

THINK_S_MAX = 0.05
REFUSED_SHARE = 0.02
_HEAD_OCTETS = 2_000
_QUEUE_ID = re.compile(rb"^Received:[^;]*?\sid (\w+)", re.MULTILINE)

_REPLIES: Mapping[str, bytes] = {
    "EHLO": b"250-sink.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n",
    "MAIL": b"250 2.1.0 Ok\r\n",
    "RCPT": b"250 2.1.5 Ok\r\n",
    "DATA": b"354 go\r\n",
    "RSET": b"250 2.0.0 Ok\r\n",
    "QUIT": b"221 2.0.0 Bye\r\n",
}


class Copy(NamedTuple):
    """A content that arrived.

    ``message_id`` is its ledger id, ``queue_id`` what it was called at the last hop,
    ``head`` its beginning.
    """

    message_id: str
    queue_id: str
    is_whole: bool
    head: bytes


def copy_of(content: bytes) -> Copy:
    """Return what a content tells of itself."""
    found = _QUEUE_ID.search(content)
    queue_id = found[1].decode() if found else ""
    return Copy(id_of(content), queue_id, is_whole(content), content[:_HEAD_OCTETS])


class Sink:
    """Such a host, on the running loop.

    Args:
        ip: where it listens.
        port: its port.
        seed: decides how long it takes and what it refuses.

    Attributes:
        copies: what it had in full, told so or not.
    """

    def __init__(self, ip: str, port: int, seed: int) -> None:
        self._ip, self._port = ip, port
        self._random = Random(seed)  # noqa: S311 - no secret
        self._server: asyncio.Server | None = None
        self.copies: list[Copy] = []

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address is taken.
        """
        self._server = await asyncio.start_server(self._serve, self._ip, self._port)

    def close(self) -> None:
        """Take no more connections."""
        if self._server is not None:
            self._server.close()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            writer.write(b"220 sink.example ESMTP\r\n")
            while line := await reader.readline():
                verb = line[:4].decode("ascii", "replace").upper()
                writer.write(_REPLIES.get(verb, b"500 5.5.1 what?\r\n"))
                if verb == "DATA":
                    writer.write(await self._take(reader))
                elif verb == "QUIT":
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # its peer was killed
        finally:
            writer.close()

    async def _take(self, reader: asyncio.StreamReader) -> bytes:
        lines = []
        while (line := await reader.readuntil(b"\n")) != b".\r\n":
            lines.append(line[1:] if line.startswith(b".") else line)
        if self._random.random() < REFUSED_SHARE:
            return b"451 4.2.0 not now\r\n"
        self.copies.append(copy_of(b"".join(lines)))
        await asyncio.sleep(self._random.uniform(0, THINK_S_MAX))
        return b"250 2.0.0 Ok\r\n"
