"""One SMTP session: joins the protocol core with those who answer what it tells.

The core says what the client wants; ``_HANDLERS`` names who answers each of its
events. Handlers are kept by noun in modules of their own and share a ``Talk``.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from postroom.mail.envelope import Origin
from postroom.mail.now import Now
from postroom.mail.reply import Reply
from postroom.mail.verdict import Verdict
from postroom.net.stream import StreamError, StreamInterrupted, StreamTimeout
from postroom.policy.session import Connect, Hello
from postroom.services import (
    asides,
    chunks,
    handshake,
    login,
    tempo,
    transaction,
    xclient,
)
from postroom.services.face import Tls
from postroom.services.reception import Conversation, Tools
from postroom.services.talk import Talk
from postroom.smtp import commands, replies, server

_SHUTDOWN = Reply.of(421, "4.3.2", "Service shutting down, try again later")
_ERROR = Reply.of(421, "4.3.0", "Internal error, closing connection")


class SmtpSession:
    """Serves one client, as the generation says of its listener."""

    def __init__(
        self,
        stream: Conversation,
        tools: Tools,
        origin: Origin,
        opened: Now,
        local_ip: str = "",
    ) -> None:
        self._talk = talk = Talk(stream, tools, origin, opened, local_ip)
        is_strict = talk.face.tls is Tls.REQUIRED
        self._handlers = _ENCRYPTED_HANDLERS if is_strict else _HANDLERS
        self._waiting: Awaitable[None] | None = None  # what the answer depends on
        self._is_fresh = True  # something has happened since the client was awaited
        self._is_ending = self._has_left = False

    @property
    def origin(self) -> Origin:
        """Who the client is, as far as is known by now."""
        return self._talk.origin

    @property
    def messages(self) -> int:
        """How many messages were taken."""
        return self._talk.messages

    async def run(self) -> str:
        """Serve until the client or we end it; returns how it ended."""
        try:
            tempo.begin(self._talk)
            if self._talk.generation.inspector is not None:
                self._talk.inspect()
            if not await self._greet():
                return "refused"
            return await self._loop()
        except StreamTimeout as error:
            reply, how = tempo.overdue(error)
            self._talk.stream.write(reply.to_wire())
            return how
        except StreamError:
            return "lost"

    def say_sorry(self) -> None:
        """Tell the client that we failed; nothing more can be done."""
        self._talk.stream.write(_ERROR.to_wire())

    async def aclose(self) -> None:
        """Give back what the session holds and throw away a half-taken message."""
        talk = self._talk
        talk.stream.demand(None)  # it knows the session
        if talk.inspection is not None:
            talk.inspection.close()
        talk.expect(0)
        if talk.content is not None:
            content, talk.content = talk.content, None
            await content.abandon()

    async def _greet(self) -> bool:
        talk, generation = self._talk, self._talk.generation
        refusal = None
        if generation.chain.has("connect"):
            subject = Connect(talk.origin.client_ip, talk.origin.listener)
            verdict = await generation.chain.decide("connect", talk.session, subject)
            refusal = talk.refusal(verdict, "connect", "")
        if generation.receive.greet_pause and refusal is None:
            refusal = await tempo.greet_pause(talk)
        greeting = refusal or Reply.of(
            220, "", f"{generation.hostname} {generation.receive.banner}"
        )
        talk.stream.write(talk.core.greet(greeting))
        return refusal is None

    async def _loop(self) -> str:
        """Wait for what ``_advance`` cannot go on without, until all is said."""
        talk, stream = self._talk, self._talk.stream
        while not self._has_left:
            if self._advance():
                try:
                    await stream.feed(self._take)
                except StreamInterrupted:
                    self._is_ending = True  # once the transaction in hand is finished
            if self._waiting is not None:
                waiting, self._waiting = self._waiting, None
                await waiting
            if talk.pause_us:
                await tempo.pause(talk)
            if stream.is_congested:
                await stream.drain()
        return talk.leaving

    def _take(self, data: bytes) -> bool:
        """Answer what came, in the turn in which it came; whether more is awaited."""
        talk = self._talk
        if talk.content is not None and talk.core.takes_content:
            self._is_fresh = True  # a piece of content, even if nothing comes of it
        talk.core.receive(data)
        return self._advance()

    def _advance(self) -> bool:
        """Go on as far as can be without waiting; whether the client is awaited."""
        talk, handlers, stream = self._talk, self._handlers, self._talk.stream
        connection = talk.core
        while (event := connection.next_event()) is not None:
            self._is_fresh = True
            self._waiting = handlers[type(event)](talk, event)
            if self._waiting is not None or talk.pause_us:
                return False
        if self._is_ending and talk.transaction is None and not talk.leaving:
            connection.farewell(_SHUTDOWN)
            talk.leaving = "shutdown"
        out = connection.data_to_send()
        if out:
            stream.write(out)
        if talk.leaving:
            self._has_left = True
            return False
        if self._is_fresh:  # a command that comes in drops gets no more time for each
            self._is_fresh = False
            receive, in_data = talk.generation.receive, talk.content is not None
            stream.allow(receive.data_timeout if in_data else receive.command_timeout)
        return not stream.is_congested


def _on_hello(talk: Talk, event: commands.Hello) -> Awaitable[None] | None:
    refusal = tempo.ahead(talk, event.verb)
    if refusal is not None:
        talk.core.reply(refusal)
        return None
    subject = Hello(event.verb, event.domain)
    waiting = talk.ask("hello", subject, _answer_hello, event)
    if talk.content is None:
        return waiting
    return chunks.drop_if_forgotten(talk, waiting)


def _answer_hello(talk: Talk, event: commands.Hello, verdict: Verdict) -> None:
    refusal = talk.refusal(verdict, event.verb, event.domain)
    if refusal:
        return talk.core.reply(refusal)
    talk.hello = event.verb
    talk.is_now(
        msgspec.structs.replace(talk.origin, helo=event.domain, protocol=talk.protocol)
    )
    talk.reset()
    if talk.inspection is not None:
        talk.inspection.hello(event.domain)
    login.offer(talk)
    talk.core.reply(talk.core.hello_reply(event.verb))


def _on_quit(talk: Talk, event: commands.Quit) -> None:
    talk.core.reply(replies.goodbye(talk.generation.hostname))
    talk.leaving = "quit"


def _on_refused(talk: Talk, event: commands.Refused) -> None:
    talk.rejected(event.verb, event.argument, event.reply, event.rule)
    if event.rule in _NO_ERRORS:
        tempo.refused_by_core(talk, event.verb)


def _on_too_many_errors(talk: Talk, event: server.TooManyErrors) -> None:
    talk.rejected(event.verb, event.argument, event.reply, event.rule)
    talk.leaving = _ENDINGS.get(event.rule.partition("-")[0], "errors")


_NO_ERRORS = frozenset({"size", "no-recipients", "auth-cancelled"})
"""Rules of the core that do not count as errors and can be broken for ever."""

_ENDINGS = {"foreign": "foreign", "messages": "messages_max"}
"""How a session ends that is sent off, by the rule; else by ``errors``."""


def _on_closed(talk: Talk, event: server.Closed) -> None:
    talk.leaving = talk.leaving or "lost"


_HANDLERS: dict[type, Callable[[Talk, Any], Awaitable[None] | None]] = {
    commands.Hello: tempo.counted(_on_hello),
    commands.Mail: transaction.on_mail,
    commands.Rcpt: transaction.on_rcpt,
    commands.DataStart: transaction.on_data,
    server.Chunk: transaction.on_chunk,
    server.BdatStart: chunks.on_bdat_start,
    server.EndOfChunk: chunks.on_end_of_chunk,
    server.EndOfData: transaction.on_end_of_data,
    commands.Reset: tempo.counted(transaction.on_reset),
    commands.StartTls: handshake.on_starttls,
    commands.Auth: login.on_auth,
    commands.AuthResponse: login.on_response,
    commands.Noop: tempo.counted(asides.on_noop),
    commands.Vrfy: tempo.counted(asides.on_vrfy),
    commands.Expn: tempo.counted(asides.on_expn),
    commands.Help: tempo.counted(asides.on_help),
    commands.Etrn: tempo.counted(asides.on_etrn),
    commands.Verbose: asides.on_verbose,
    commands.Xclient: xclient.on_xclient,
    commands.Quit: _on_quit,
    commands.Refused: _on_refused,
    server.TooManyErrors: _on_too_many_errors,
    server.Closed: _on_closed,
}

_ENCRYPTED_HANDLERS = _HANDLERS | {
    kind: handshake.after_tls(_HANDLERS[kind])
    for kind in (
        commands.Mail,
        commands.Auth,
        commands.Reset,
        commands.Vrfy,
        commands.Expn,
        commands.Help,
        commands.Etrn,
    )
}
"""Of listeners that insist on TLS (RFC 3207 §4): RCPT and DATA come after MAIL."""
