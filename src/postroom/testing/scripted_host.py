"""An SMTP or LMTP host that says just what a test wants it to say.

For tests of what sends mail: it welcomes, refuses, hangs, hangs up or talks nonsense at
any step, over real connections on loopback, and notes all that it was sent.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

Answer = bytes | Sequence[bytes | None] | None
"""A reply; several for the first, second, ... time, of which the last stays."""

HELLO = b"250-mx\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 5000\r\n"
WILLING: Mapping[str, bytes] = {
    "@": b"220 mx ESMTP\r\n",
    "EHLO": HELLO,
    "LHLO": HELLO,
    "HELO": b"250 mx\r\n",
    "MAIL": b"250 2.1.0 Ok\r\n",
    "RCPT": b"250 2.1.5 Ok\r\n",
    "DATA": b"354 go\r\n",
    ".": b"250 2.0.0 Ok: queued as 7\r\n",
    "RSET": b"250 2.0.0 Ok\r\n",
    "QUIT": b"221 2.0.0 Bye\r\n",
}
"""What a host says that takes everything."""


class ScriptedHost:
    """A host with its own idea of SMTP.

    Args:
        answers: by verb, what differs from ``WILLING``; ``.`` is the end of the content
            and ``@`` the greeting. None hangs up; ``b""`` hangs until ``released``,
            then answers what the verb has by then.
        lmtp: answer the content once for each recipient.

    Attributes:
        connections: how many were made.
        lines: the commands that came.
        reads: what came, as it came.
        messages: the contents, dots as sent.
        port: where it listens, once it runs.
        hanging: set when it hangs.
        released: to be set to let it go on.
    """

    def __init__(
        self, answers: Mapping[str, Answer] | None = None, *, lmtp: bool = False
    ) -> None:
        self.answers: dict[str, Answer] = {**WILLING, **(answers or {})}
        self.lmtp = lmtp
        self.connections = 0
        self.lines: list[str] = []
        self.reads: list[bytes] = []
        self.messages: list[bytes] = []
        self.port = 0
        self.hanging = asyncio.Event()
        self.released = asyncio.Event()
        self._times: dict[str, int] = {}
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Be the host for one connection."""
        self.connections += 1
        self._writers.add(writer)
        session = _Session(self, reader, writer)
        try:
            await session.run()
        except ConnectionError:
            pass
        finally:
            writer.close()

    def answer(self, verb: str) -> bytes | None:
        """Return what is said to a verb this time."""
        found = self.answers.get(verb, b"500 5.5.1 what?\r\n")
        if found is None or isinstance(found, bytes):
            return found
        time = self._times.get(verb, 0)
        self._times[verb] = time + 1
        return found[min(time, len(found) - 1)]

    def drop_all(self) -> None:
        """Break all connections off."""
        for writer in self._writers:
            writer.transport.abort()


class _Session:
    """One connection's state."""

    def __init__(
        self,
        host: ScriptedHost,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._host = host
        self._reader = reader
        self._writer = writer
        self._buffer = b""
        self._has_mail = False
        self._recipients = 0

    async def run(self) -> None:
        """Talk until one side has had enough."""
        verb = "@"
        reply = self._host.answer(verb)
        while reply is not None and await self._say(verb, reply):
            if verb == "DATA" and reply.startswith(b"354"):
                content = await self._until(b"\r\n.\r\n")
                if content is None:
                    return
                self._host.messages.append(content + b"\r\n")
                verb, reply = ".", self._content_reply()
                continue
            line = await self._until(b"\r\n")
            if line is None:
                return
            self._host.lines.append(line.decode("utf-8", "replace"))
            verb = line.split(b" ")[0].decode("ascii", "replace").upper()
            reply = self._reply(verb)

    async def _say(self, verb: str, reply: bytes) -> bool:
        if not reply:
            self._host.hanging.set()
            await self._host.released.wait()
            reply = self._host.answer(verb) or b""
        self._writer.write(reply)
        return verb != "QUIT"

    async def _until(self, end: bytes) -> bytes | None:
        while end not in self._buffer:
            data = await self._reader.read(65536)
            if not data:
                return None
            self._host.reads.append(data)
            self._buffer += data
        found, _, self._buffer = self._buffer.partition(end)
        return found

    def _reply(self, verb: str) -> bytes | None:
        needs_mail = verb == "RCPT" and not self._has_mail
        if needs_mail or (verb == "DATA" and not self._recipients):
            return b"503 5.5.1 Bad sequence\r\n"
        reply = self._host.answer(verb)
        is_accepted = bool(reply) and str(reply)[2] in "23"
        if verb == "MAIL":
            self._has_mail = is_accepted
        elif verb == "RSET":
            self._has_mail, self._recipients = False, 0
        elif verb == "RCPT":
            self._recipients += is_accepted
        return reply

    def _content_reply(self) -> bytes | None:
        times = self._recipients if self._host.lmtp else 1
        self._has_mail, self._recipients = False, 0
        parts = [self._host.answer(".") for _ in range(times)]
        said = [part for part in parts if part is not None]
        return b"".join(said) if len(said) == len(parts) else None


@asynccontextmanager
async def running(*hosts: ScriptedHost) -> AsyncIterator[None]:
    """Run hosts on 127.0.0.2, 127.0.0.3, ... and one port, which they then know."""
    servers = []
    port = 0
    for i, host in enumerate(hosts):
        server = await asyncio.start_server(host.serve, f"127.0.0.{i + 2}", port)
        host.port = port = server.sockets[0].getsockname()[1]
        servers.append(server)
    try:
        yield
    finally:
        for server, host in zip(servers, hosts, strict=True):
            server.close()
            host.drop_all()
            host.released.set()
        await asyncio.sleep(0)
