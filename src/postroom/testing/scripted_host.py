"""An SMTP or LMTP host that says just what a test wants it to say.

For tests of what sends mail: it welcomes, refuses, hangs, hangs up or talks nonsense at
any step, over real connections on loopback, and notes all that it was sent. It knows
TLS and logins where a test gives it a context and a judge.
"""

import asyncio
import ssl
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

Answer = bytes | Sequence[bytes | None] | None
"""A reply; several for the first, second, ... time, of which the last stays."""

Judge = Callable[[str, list[bytes]], bytes]
"""Answers a login: the mechanism and all responses so far, to a reply."""

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
        tls: begins TLS after a 220 to STARTTLS; what it says within is by then looked
            for as ``EHLO/TLS`` first.
        implicit: TLS from the first octet.
        judge: answers AUTH and each response to it, given the mechanism and all
            responses so far, decoded; None leaves it to ``answers``.

    Attributes:
        connections: how many were made.
        lines: the commands that came.
        reads: what came, as it came.
        messages: the contents, dots as sent.
        port: where it listens, once it runs.
        handshakes: TLS versions of those that succeeded.
        resumed: how many of them took up an earlier session.
        names: the names that clients asked for by SNI.
        callers: the addresses that clients came from.
        hanging: set when it hangs.
        released: to be set to let it go on.
    """

    def __init__(
        self,
        answers: Mapping[str, Answer] | None = None,
        *,
        lmtp: bool = False,
        tls: ssl.SSLContext | None = None,
        implicit: bool = False,
        judge: Judge | None = None,
    ) -> None:
        self.answers: dict[str, Answer] = {**WILLING, **(answers or {})}
        self.lmtp = lmtp
        self.connections = 0
        self.lines: list[str] = []
        self.reads: list[bytes] = []
        self.messages: list[bytes] = []
        self.port = 0
        self.tls = tls
        self.implicit = implicit
        self.judge = judge
        self.handshakes: list[str] = []
        self.resumed = 0
        self.names: list[str] = []
        self.callers: list[str] = []
        if tls is not None:
            tls.sni_callback = self._note_name
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
        peername = writer.get_extra_info("peername")
        self.callers.append(peername[0] if isinstance(peername, tuple) else "")
        session = _Session(self, reader, writer)
        try:
            if self.implicit:
                await session.begin_tls()
            await session.run()
        except (ConnectionError, ssl.SSLError):
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

    def _note_name(self, tls: object, name: str | None, context: object) -> None:
        self.names.append(name or "")

    def drop_all(self) -> None:
        """Break all connections off."""
        for writer in self._writers:
            if not writer.is_closing():
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
        self._is_tls = False
        self._auth = ""
        self._responses: list[bytes] = []

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
            if self._auth:
                verb, reply = "AUTH", self._judged(line)
                continue
            verb = line.split(b" ")[0].decode("ascii", "replace").upper()
            if verb == "AUTH" and self._host.judge:
                self._auth = line.split(b" ")[1].decode("ascii", "replace")
                initial = line.split(b" ")[2:]
                self._responses = []
                reply = self._judged(initial[0]) if initial else self._judged(None)
                continue
            reply = self._reply(verb)

    async def begin_tls(self) -> None:
        """Go over to TLS."""
        host = self._host
        assert host.tls is not None
        before = self._writer.transport
        try:
            await self._writer.start_tls(host.tls, ssl_handshake_timeout=60)
        finally:
            if self._writer.transport is None:
                # uvloop has none where the client left in the end; the writer of
                # Python 3.13 asks for it when it is thrown away.
                self._writer._transport = before
        self._is_tls = True
        session: ssl.SSLObject = self._writer.get_extra_info("ssl_object")
        host.handshakes.append(session.version() or "")
        host.resumed += bool(session.session_reused)

    def _judged(self, response: bytes | None) -> bytes:
        """Let the judge answer to what was said so far."""
        assert self._host.judge is not None
        if response is not None:
            try:
                plain = b"" if response == b"=" else b64decode(response, validate=True)
            except Base64Error:
                self._auth = ""
                return b"501 5.5.2 cancelled\r\n"
            self._responses.append(plain)
        reply = self._host.judge(self._auth, self._responses)
        if not reply.startswith(b"334"):
            self._auth = ""
        return reply

    async def _say(self, verb: str, reply: bytes) -> bool:
        if not reply:
            self._host.hanging.set()
            await self._host.released.wait()
            reply = self._host.answer(verb) or b""
        self._writer.write(reply)
        if verb == "STARTTLS" and reply.startswith(b"220") and self._host.tls:
            self._buffer = b""
            await self.begin_tls()
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
        within = f"{verb}/TLS"
        known = self._is_tls and within in self._host.answers
        reply = self._host.answer(within if known else verb)
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
