"""Takes letters of local programs: the same verdicts, routes and queue as by SMTP."""

import msgspec

from postroom.mail.address import Address
from postroom.mail.envelope import Envelope, Recipient
from postroom.mail.ids import QueueId
from postroom.mail.outcome import Say
from postroom.mail.reply import Reply
from postroom.mail.verdict import Accept, Defer, Discard, Reject, Verdict
from postroom.policy.session import Mail, Rcpt, Session
from postroom.route.drive import drive
from postroom.route.router import Routing
from postroom.services.accept import one_copy
from postroom.services.content import Content
from postroom.services.generation import Generation
from postroom.services.reception import Tools
from postroom.services.submitter import Refused, Submitted
from postroom.smtp import replies


class LocalSubmitter:
    """The ``Submitter`` of one worker."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def begin(self, envelope: Envelope) -> "LocalDraft | Refused":
        """Judge the sender; ``envelope.recipients`` is still empty."""
        generation = self._tools.shop.generation()
        session = Session(origin=envelope.origin, opened_us=envelope.arrival_us)
        mail = Mail(envelope.sender, envelope.size, envelope.body.value)
        verdict = await generation.chain.decide("mail", session, mail)
        if refused := _refused(verdict):
            return refused
        thrown_away = verdict.reason if isinstance(verdict, Discard) else None
        return LocalDraft(self._tools, generation, session, envelope, thrown_away)


class LocalDraft:
    """One letter on its way in."""

    def __init__(
        self,
        tools: Tools,
        generation: Generation,
        session: Session,
        envelope: Envelope,
        thrown_away: str | None,
    ) -> None:
        self._tools = tools
        self._generation = generation
        self._session = session
        self._envelope = envelope
        self._thrown_away = thrown_away
        self._named: set[object] = set()
        self._discarded: list[tuple[Address, str]] = []
        self._recipients: list[Recipient] = []
        self._routings: list[Routing] = []
        self._content: Content | None = None
        self._octets = 0

    async def add_recipient(self, recipient: Recipient) -> Refused | None:
        """Judge a recipient; None: it is taken."""
        generation, address = self._generation, recipient.address
        routing = await drive(generation.router.classify(address), generation.facts)
        subject = Rcpt(
            address=address,
            routing=routing.kind,
            reason=routing.reason,
            recipients_so_far=len(self._recipients),
            sender=self._envelope.sender,
            reply=routing.to_reply(),
        )
        verdict = await generation.chain.decide("rcpt", self._session, subject)
        refused = _refused(verdict)
        if isinstance(verdict, Discard):
            self._discarded.append((address, verdict.reason))
        elif refused is None and self._is_new(address, routing):
            self._recipients.append(recipient)
            self._routings.append(routing)
        return refused

    def _is_new(self, address: Address, routing: Routing) -> bool:
        key = one_copy(address, routing)
        is_new = key not in self._named
        self._named.add(key)
        return is_new

    async def open(self) -> QueueId:
        """Wait until there is room for the content; return the id it will have."""
        self._content = await Content.begin(self._tools, self._generation)
        return self._content.queue_id

    async def add(self, data: bytes) -> None:
        """Take a piece of the content, in canonical form."""
        assert self._content is not None
        self._octets += len(data)
        if self._is_too_large():
            return
        waiting = self._content.add(data)
        if waiting is not None:
            await waiting

    async def finish(self, say: Say | None) -> Submitted | Refused:
        """Judge and keep the whole; returns after the commit."""
        content = self._content
        assert content is not None
        content.thrown_away, content.discarded = self._thrown_away, self._discarded
        recipients = () if self._thrown_away is not None else tuple(self._recipients)
        envelope = msgspec.structs.replace(
            self._envelope,
            recipients=recipients,
            arrival_us=self._tools.shop.now_us(),
        )
        reply = await content.finish(
            self._session,
            envelope,
            self._routings,
            refusal=replies.TOO_LARGE if self._is_too_large() else None,
            say=say,
        )
        if not reply.is_positive:
            return _of_reply(reply)
        return Submitted(content.queue_id, content.finished)

    async def abandon(self) -> None:
        """Give back what is held. After ``finish`` the letter itself stays."""
        content, self._content = self._content, None
        if content is not None:
            await content.abandon()

    def _is_too_large(self) -> bool:
        limit = self._generation.server.message_octets_max
        return bool(limit) and self._octets > limit


def _refused(verdict: Verdict) -> Refused | None:
    match verdict:
        case Reject(reply=reply) | Defer(reply=reply):
            return _of_reply(reply)
        case Accept() | Discard():
            return None


def _of_reply(reply: Reply) -> Refused:
    status = reply.status or ("4.0.0" if reply.is_transient else "5.0.0")
    return Refused(status, reply.text)
