"""What one SMTP session knows, and how it asks the policy: what all its handlers share.

A handler takes the ``Talk`` and an event of the protocol core, asks the hooks for a
verdict and answers. What it returns, if anything, must be awaited.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar, assert_never

import msgspec

from postroom.auth.mechanisms import Mechanism
from postroom.auth.sasl import Exchange
from postroom.mail.address import Address
from postroom.mail.envelope import Envelope, Origin, Recipient, protocol_word
from postroom.mail.now import Now
from postroom.mail.reply import Reply
from postroom.mail.trace import utf8_protocol
from postroom.mail.verdict import Accept, Defer, Discard, Reject, Verdict
from postroom.observe.events import ClientSuspected, CommandRejected
from postroom.policy.hooks import Phase
from postroom.policy.inspection import Inspection
from postroom.policy.session import Session, Subject, in_networks
from postroom.route.router import Relay, Routing
from postroom.services.accept import one_copy
from postroom.services.content import Content
from postroom.services.face import Face, Kind
from postroom.services.reception import Conversation, Tools
from postroom.smtp import commands, server
from postroom.smtp.dialogue import Verb

_VERDICTS = (Accept, Reject, Defer, Discard)
_Event = TypeVar("_Event")


class Transaction:
    """A message on its way in: what MAIL and RCPT said so far.

    ``routings`` are the recipients' in the same order; ``thrown_away`` is why policy
    takes the message only to throw it away, None if it does not; ``discarded`` are the
    recipients for whom it does, and why. ``answered`` are those who get an
    answer of their own after the content; None: all get the same.
    """

    __slots__ = (
        "answered",
        "discarded",
        "mail",
        "named",
        "priority",
        "recipients",
        "routings",
        "thrown_away",
    )

    def __init__(self, mail: commands.Mail, thrown_away: str | None = None) -> None:
        self.mail = mail
        self.thrown_away = thrown_away
        self.discarded: list[tuple[Address, str]] = []
        self.priority = 0
        self.answered: list[Address] | None = None
        self.recipients: list[Recipient] = []
        self.routings: list[Routing] = []
        self.named: set[object] = set()

    def add(self, recipient: Recipient, routing: Routing) -> None:
        """Take a recipient; one copy is enough."""
        key = one_copy(recipient.address, routing)
        if key not in self.named:
            self.named.add(key)
            self.recipients.append(recipient)
            self.routings.append(routing)

    def way_to(self, domain: str) -> Routing | None:
        """Return how the recipient before is relayed, if it is in the same domain.

        All of a domain that is not ours go the same way, and mail for many is often
        sorted by domain.
        """
        routings = self.routings
        if routings and isinstance(routings[-1], Relay):
            before = self.recipients[-1].address.domain
            return routings[-1] if before == domain else None
        return None

    def envelope(self, origin: Origin, now_us: int) -> Envelope:
        """Return the envelope of the message that has just come."""
        params = self.mail.params
        if params.smtputf8:
            word = utf8_protocol(origin.protocol)
            origin = msgspec.structs.replace(origin, protocol=word)
        return Envelope(
            sender=self.mail.address,
            recipients=() if self.thrown_away is not None else tuple(self.recipients),
            origin=origin,
            body=params.body,
            size=params.size,
            smtputf8=params.smtputf8,
            ret=params.ret,
            envid=params.envid,
            auth=params.auth,
            requiretls=params.requiretls,
            deliver_by=params.deliver_by,
            hold_until_us=params.hold_until(now_us),
            priority=self.priority,
            arrival_us=now_us,
        )


class Attempt:
    """A login in hand (RFC 4954): ``is_lost`` if it has failed and was counted."""

    __slots__ = ("exchange", "is_lost", "mechanism")

    def __init__(self, mechanism: Mechanism, exchange: Exchange) -> None:
        self.mechanism = mechanism
        self.exchange = exchange
        self.is_lost = False


def _is_proxy(face: Face, origin: Origin) -> bool:
    proxies = face.server.xclient_networks
    return bool(proxies) and in_networks(origin.client_ip, proxies)


class Talk:
    """One session with one client.

    Attributes:
        stream: what it is held over.
        tools: what all sessions work with.
        opened: when it began.
        generation: the settings, tables and hooks that it began with.
        face: what its listener shows.
        core: the protocol.
        session: what hooks see of it.
        origin: who the client is, as far as is known by now.
        transaction: the message on its way in.
        content: what has come of its content.
        messages: how many were taken.
        bad_recipients: how many were refused for good.
        pause_us: how long the client has to wait for its next answer.
        idle_commands: how many commands have come that move no mail, since ``messages``
            was ``idle_from``.
        inspection: what is being found out about the client; None: nothing is asked.
        hello: how the client has said hello.
        attempt: the login in hand.
        failed_logins: how many have failed so far.
        is_verbose: whether the client wants to hear what is done (VERB).
        leaving: how the session ends; empty: it goes on.
    """

    def __init__(
        self,
        stream: Conversation,
        tools: Tools,
        origin: Origin,
        opened: Now,
        local_ip: str = "",
    ) -> None:
        self.stream = stream
        self.tools = tools
        self.opened = opened
        self.generation = generation = tools.shop.generation()
        self.face: Face = generation.face(origin.listener)
        face, is_tls = self.face, origin.tls is not None
        self.core = server.ServerConnection(
            face.server,
            generation.hostname,
            lmtp=face.is_lmtp,
            submission=face.kind is Kind.SUBMISSION,
            is_proxy=_is_proxy(face, origin),
            opened_us=opened.utc_us,
        )
        self.core.tls = is_tls
        self.origin = origin
        self.session = Session(
            origin=origin, tls=is_tls, opened_us=opened.utc_us, local_ip=local_ip
        )
        self.transaction: Transaction | None = None
        self.content: Content | None = None
        self.messages = 0
        self.bad_recipients = 0
        self.pause_us = 0
        self.idle_commands = 0
        self.idle_from = 0
        self.inspection: Inspection | None = None
        self.hello = Verb.EHLO
        self.attempt: Attempt | None = None
        self.failed_logins = 0
        self.is_verbose = False
        self.leaving = ""
        self._expected = 0

    def ask(
        self,
        phase: Phase,
        subject: Subject,
        answer: "Callable[[Talk, _Event, Verdict], None]",
        event: _Event,
    ) -> Awaitable[None] | None:
        """Ask the hooks and answer: at once, unless one of them must be waited for."""
        verdict = self.generation.chain.decide_now(phase, self.session, subject)
        if isinstance(verdict, _VERDICTS):
            answer(self, event, verdict)
            return None
        return self._answer_later(verdict, answer, event)

    async def _answer_later(
        self,
        verdict: Awaitable[Verdict],
        answer: "Callable[[Talk, _Event, Verdict], None]",
        event: _Event,
    ) -> None:
        answer(self, event, await verdict)

    def refusal(self, verdict: Verdict, verb: str, argument: object) -> Reply | None:
        """Return the reply of a verdict that refuses, and tell of it."""
        match verdict:
            case Accept() | Discard():
                return None
            case Reject(reply, rule) | Defer(reply, rule):
                self.rejected(verb, argument, reply, rule or "policy")
                return reply
            case _:
                assert_never(verdict)

    def rejected(self, verb: str, argument: object, reply: Reply, rule: str) -> None:
        """Tell of a refused command; addresses in brackets, as log tools want them."""
        self.tools.shop.emit(
            CommandRejected(
                utc_us=self.tools.shop.clock().utc_us,
                origin=self.origin,
                verb=verb,
                argument=argument if isinstance(argument, str) else f"<{argument}>",
                reply=str(reply),
                rule=rule,
            )
        )

    @property
    def protocol(self) -> str:
        """The word of the Received field for this session as it is now (RFC 3848)."""
        match self.face.kind:
            case Kind.LOCAL:
                return "local"
            case Kind.LMTP:
                word = "LMTP"
            case _:
                is_plain = self.hello is Verb.HELO
                is_plain = is_plain and not (self.core.tls or self.core.authenticated)
                word = "SMTP" if is_plain else "ESMTP"
        secured = "S" if self.core.tls else ""
        return word + secured + ("A" if self.core.authenticated else "")

    def is_now(self, origin: Origin) -> None:
        """The client is known better, or otherwise, than before."""
        word = protocol_word(origin)
        if word != origin.protocol:
            origin = msgspec.structs.replace(origin, protocol=word)
        is_other = origin.client_ip != self.origin.client_ip
        self.origin = origin
        self.session = msgspec.structs.replace(
            self.session, origin=origin, tls=origin.tls is not None
        )
        if is_other:  # what was found out was about another
            self.session = msgspec.structs.replace(
                self.session, score=0, lists=(), objection=None
            )
            self.inspect()

    def inspect(self) -> None:
        """Begin to find out about the client, as the settings say."""
        if self.inspection is not None:
            self.inspection.close()
            self.inspection = None
        inspector = self.generation.inspector
        if inspector is not None and self.face.kind is Kind.SMTP:
            self.inspection = inspector.begin(self.origin.client_ip)

    async def meet(self, inspection: Inspection) -> None:
        """Wait for what was found out about the client, and know it from now on."""
        findings = await inspection.conclude()
        name = findings.client_name or self.origin.client_name
        self.origin = msgspec.structs.replace(self.origin, client_name=name)
        self.session = msgspec.structs.replace(
            self.session,
            origin=self.origin,
            score=findings.score,
            lists=findings.lists,
            objection=findings.objection,
        )
        for one in findings.against:
            self.tools.shop.emit(
                ClientSuspected(
                    utc_us=self.tools.shop.clock().utc_us,
                    origin=self.origin,
                    check=one.check,
                    detail=one.detail,
                    action=one.action,
                )
            )

    def expect(self, messages: int) -> None:
        """Tell the queue whether a message is on its way here."""
        if messages != self._expected:
            self.tools.shop.spool.expect(messages - self._expected)
            self._expected = messages

    def reset(self) -> None:
        """Forget the transaction."""
        self.expect(0)
        self.transaction = None
