"""One SMTP session: joins the protocol core, policy, the router and the queue.

The core says what the client wants; each handler here asks the chain for a verdict and
answers. 250 for a message is given only after ``Acceptor.accept`` returned. When the
spool cannot keep it the client is told 452 or 451 and the message is not ours.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, assert_never

import msgspec

from postroom.mail.address import NULL_SENDER, Address
from postroom.mail.envelope import Envelope, Origin, Recipient
from postroom.mail.reply import Reply
from postroom.mail.verdict import Accept, Defer, Discard, Reject, Verdict
from postroom.net.stream import StreamError, StreamInterrupted, StreamTimeout
from postroom.observe.events import CommandRejected
from postroom.policy.hooks import Phase
from postroom.policy.session import Connect, Hello, Mail, Rcpt, Session, Subject
from postroom.route.drive import drive
from postroom.route.router import Routing
from postroom.services.content import Content
from postroom.services.reception import Conversation, Tools
from postroom.smtp import commands, replies, server
from postroom.smtp.dialogue import Verb

_NO_SPACE = Reply.of(452, "4.3.1", "Insufficient system storage, try again later")
_TIMEOUT = Reply.of(421, "4.4.2", "Timeout waiting for the client")
_SHUTDOWN = Reply.of(421, "4.3.2", "Service shutting down, try again later")
_ERROR = Reply.of(421, "4.3.0", "Internal error, closing connection")


_VERDICTS = (Accept, Reject, Defer, Discard)
_Event = TypeVar("_Event")


class SmtpSession:
    """Serves one client."""

    def __init__(
        self,
        stream: Conversation,
        tools: Tools,
        origin: Origin,
    ) -> None:
        self._stream = stream
        self._generation = generation = tools.shop.generation()
        self._tools = tools
        self._core = server.ServerConnection(generation.server, generation.hostname)
        self._session = Session(origin=origin, opened_us=tools.shop.clock().utc_us)
        self.origin = origin
        self.messages = 0
        self._sender: Address | None = None
        self._mail: commands.Mail | None = None
        self._recipients: list[Recipient] = []
        self._named: set[Address] = set()
        self._routings: list[Routing] = []
        self._routing: Routing | None = None  # of the recipient being judged
        self._content: Content | None = None
        self._leaving = ""
        self._is_ending = False
        self._thrown_away = False
        self._expected = 0

    async def run(self) -> str:
        """Serve until the client or we end it; returns how it ended."""
        if not await self._greet():
            return "refused"
        try:
            return await self._loop()
        except StreamTimeout:
            self._stream.write(_TIMEOUT.to_wire())
            return "timeout"
        except StreamError:
            return "lost"

    def say_sorry(self) -> None:
        """Tell the client that we failed; nothing more can be done."""
        self._stream.write(_ERROR.to_wire())

    async def aclose(self) -> None:
        """Give back what the session holds and throw away a half-taken message."""
        self._expect(0)
        if self._content is not None:
            content, self._content = self._content, None
            await content.abandon()

    async def _greet(self) -> bool:
        verdict = await self._generation.chain.decide(
            "connect",
            self._session,
            Connect(self.origin.client_ip, self.origin.listener),
        )
        refusal = self._refusal(verdict, "connect", "")
        generation = self._generation
        greeting = refusal or Reply.of(
            220, "", f"{generation.hostname} {generation.receive.banner}"
        )
        self._stream.write(self._core.greet(greeting))
        return refusal is None

    async def _loop(self) -> str:
        connection, stream = self._core, self._stream
        receive = self._generation.receive
        while True:
            event = connection.next_event()
            if event is not None:
                waiting = _HANDLERS[type(event)](self, event)
                if waiting is not None:
                    await waiting
                continue
            out = connection.data_to_send()
            if out:
                stream.write(out)
                if stream.is_congested:
                    await stream.drain()
            if self._leaving:
                return self._leaving
            if self._is_ending and self._sender is None:
                connection.farewell(_SHUTDOWN)
                self._leaving = "shutdown"
                continue
            wait = receive.data_timeout if self._content else receive.command_timeout
            stream.allow(wait)
            try:
                connection.receive(await stream.read())
            except StreamInterrupted:
                self._is_ending = True  # once the transaction in hand is finished

    # Asking and answering

    def _ask(
        self,
        phase: Phase,
        subject: Subject,
        answer: Callable[[_Event, Verdict], None],
        event: _Event,
    ) -> Awaitable[None] | None:
        """Ask the hooks and answer: at once, unless one of them must be waited for."""
        verdict = self._generation.chain.decide_now(phase, self._session, subject)
        if isinstance(verdict, _VERDICTS):
            answer(event, verdict)
            return None
        return self._answer_later(verdict, answer, event)

    async def _answer_later(
        self,
        verdict: Awaitable[Verdict],
        answer: Callable[[_Event, Verdict], None],
        event: _Event,
    ) -> None:
        answer(event, await verdict)

    def _refusal(self, verdict: Verdict, verb: str, argument: object) -> Reply | None:
        match verdict:
            case Accept() | Discard():
                return None
            case Reject(reply, rule) | Defer(reply, rule):
                self._rejected(verb, str(argument), reply, rule or "policy")
                return reply
            case _:
                assert_never(verdict)

    def _rejected(self, verb: str, argument: str, reply: Reply, rule: str) -> None:
        self._tools.shop.emit(
            CommandRejected(
                utc_us=self._tools.shop.clock().utc_us,
                origin=self.origin,
                verb=verb,
                argument=argument,
                reply=str(reply),
                rule=rule,
            )
        )

    # One handler per event of the core

    def _on_hello(self, event: commands.Hello) -> Awaitable[None] | None:
        subject = Hello(event.verb, event.domain)
        return self._ask("hello", subject, self._answer_hello, event)

    def _answer_hello(self, event: commands.Hello, verdict: Verdict) -> None:
        refusal = self._refusal(verdict, event.verb, event.domain)
        if refusal:
            return self._core.reply(refusal)
        protocol = "SMTP" if event.verb is Verb.HELO else "ESMTP"
        if self.origin.protocol == "local":
            protocol = "local"
        self.origin = msgspec.structs.replace(
            self.origin, helo=event.domain, protocol=protocol
        )
        self._session = msgspec.structs.replace(self._session, origin=self.origin)
        self._reset()
        self._core.reply(self._core.hello_reply(event.verb))

    def _on_mail(self, event: commands.Mail) -> Awaitable[None] | None:
        params = event.params
        subject = Mail(event.address, params.size, params.body.value)
        return self._ask("mail", subject, self._answer_mail, event)

    def _answer_mail(self, event: commands.Mail, verdict: Verdict) -> None:
        refusal = self._refusal(verdict, "MAIL", event.address)
        size = event.params.size
        if refusal is None and not self._tools.shop.spool.check_space(size):
            refusal = _NO_SPACE  # RFC 1870 §6.1
            self._rejected("MAIL", str(event.address), refusal, "spool reserve")
        if refusal:
            return self._core.reply(refusal)
        self._sender, self._mail = event.address, event
        self._expect(1)
        self._thrown_away = isinstance(verdict, Discard)
        self._core.reply(replies.SENDER_OK)

    def _on_rcpt(self, event: commands.Rcpt) -> Awaitable[None] | None:
        generation = self._generation
        routing = generation.router.recall(event.address, generation.facts)
        if routing is None:
            return self._look_up(event)
        return self._judge_rcpt(event, routing)

    async def _look_up(self, event: commands.Rcpt) -> None:
        router, facts = self._generation.router, self._generation.facts
        routing = await drive(router.classify(event.address), facts)
        waiting = self._judge_rcpt(event, routing)
        if waiting is not None:
            await waiting

    def _judge_rcpt(
        self, event: commands.Rcpt, routing: Routing
    ) -> Awaitable[None] | None:
        self._routing = routing
        subject = Rcpt(
            event.address,
            routing.kind,
            routing.reason,
            len(self._recipients),
            self._sender or NULL_SENDER,
            routing.to_reply(),
        )
        return self._ask("rcpt", subject, self._answer_rcpt, event)

    def _answer_rcpt(self, event: commands.Rcpt, verdict: Verdict) -> None:
        refusal = self._refusal(verdict, "RCPT", event.address)
        if refusal:
            return self._core.reply(refusal)
        if not isinstance(verdict, Discard) and event.address not in self._named:
            self._named.add(event.address)  # one copy is enough
            notify, orcpt = event.params.notify, event.params.orcpt
            self._recipients.append(Recipient(event.address, notify, orcpt))
            assert self._routing is not None
            self._routings.append(self._routing)
        self._core.reply(replies.RECIPIENT_OK)

    def _on_data(self, event: commands.DataStart) -> Awaitable[None] | None:
        content = Content.begin_now(self._tools, self._generation)
        if content is None:
            return self._start_later()
        self._start(content)
        return None

    async def _start_later(self) -> None:
        self._start(await Content.begin(self._tools, self._generation))

    def _start(self, content: Content) -> None:
        self._content = content
        self._core.reply(replies.START_CONTENT)

    def _on_chunk(self, event: server.Chunk) -> Awaitable[None] | None:
        assert self._content is not None
        return self._content.add(event.data)

    async def _on_end_of_data(self, event: server.EndOfData) -> None:
        content, self._content = self._content, None
        assert content is not None
        self._expect(0)
        try:
            reply = await content.finish(
                self._session,
                self._envelope(),
                self._routings,
                refusal=event.refusal,
            )
        finally:
            await content.abandon()  # what was accepted is not touched
        if reply.is_positive:
            self.messages += 1
        else:
            self._rejected("DATA", "", reply, "content")
        self._core.reply(reply)
        self._reset()

    def _envelope(self) -> Envelope:
        mail = self._mail
        assert mail is not None
        params = mail.params
        return Envelope(
            sender=mail.address,
            recipients=() if self._thrown_away else tuple(self._recipients),
            origin=self.origin,
            body=params.body,
            size=params.size,
            ret=params.ret,
            envid=params.envid,
            auth=params.auth,
            arrival_us=self._tools.shop.clock().utc_us,
        )

    def _on_reset(self, event: commands.Reset) -> None:
        self._reset()
        self._core.reply(replies.RESET_OK)

    def _expect(self, messages: int) -> None:
        """Tell the queue whether a message is on its way here."""
        if messages != self._expected:
            self._tools.shop.spool.expect(messages - self._expected)
            self._expected = messages

    def _reset(self) -> None:
        self._expect(0)
        self._sender = self._mail = None
        self._recipients = []
        self._named.clear()
        self._routings = []

    def _on_noop(self, event: commands.Noop) -> None:
        self._core.reply(replies.NOOP_OK)

    def _on_vrfy(self, event: commands.Vrfy) -> None:
        self._core.reply(replies.VRFY_UNTOLD)  # RFC 5321 §7.3: giving nothing away

    def _on_expn(self, event: commands.Expn) -> None:
        self._core.reply(replies.EXPN_REFUSED)

    def _on_help(self, event: commands.Help) -> None:
        self._core.reply(replies.HELP)

    def _on_quit(self, event: commands.Quit) -> None:
        self._core.reply(replies.goodbye(self._generation.hostname))
        self._leaving = "quit"

    def _on_refused(self, event: commands.Refused) -> None:
        self._rejected(event.verb, event.argument, event.reply, event.rule)

    def _on_too_many_errors(self, event: server.TooManyErrors) -> None:
        self._leaving = "errors"

    def _on_closed(self, event: server.Closed) -> None:
        self._leaving = self._leaving or "lost"


_HANDLERS: dict[type, Callable[[SmtpSession, Any], Awaitable[None] | None]] = {
    commands.Hello: SmtpSession._on_hello,
    commands.Mail: SmtpSession._on_mail,
    commands.Rcpt: SmtpSession._on_rcpt,
    commands.DataStart: SmtpSession._on_data,
    server.Chunk: SmtpSession._on_chunk,
    server.EndOfData: SmtpSession._on_end_of_data,
    commands.Reset: SmtpSession._on_reset,
    commands.Noop: SmtpSession._on_noop,
    commands.Vrfy: SmtpSession._on_vrfy,
    commands.Expn: SmtpSession._on_expn,
    commands.Help: SmtpSession._on_help,
    commands.Quit: SmtpSession._on_quit,
    commands.Refused: SmtpSession._on_refused,
    server.TooManyErrors: SmtpSession._on_too_many_errors,
    server.Closed: SmtpSession._on_closed,
}
