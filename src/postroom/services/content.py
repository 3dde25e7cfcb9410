"""The content of one message as it arrives: in memory while small, then on disk.

At the end it is parted into header and body, shown to the ``message`` phase, stamped
with our Received field and queued. The reply that is owed comes back as a value; when
it is not positive nothing was kept.
"""

from asyncio import Future
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, assert_never

from postroom.mail.address import Address
from postroom.mail.envelope import Envelope
from postroom.mail.headers import split_message
from postroom.mail.ids import QueueId
from postroom.mail.message import MemoryBody, Message, Prepend
from postroom.mail.outcome import Say
from postroom.mail.reply import Reply
from postroom.mail.route import Route
from postroom.mail.trace import received_field
from postroom.mail.verdict import Accept, Defer, Discard, Reject
from postroom.observe.events import MessageDiscarded, RecipientDiscarded
from postroom.policy.session import MessageSubject, RouteSubject, Session
from postroom.route.router import Routing
from postroom.services.accept import Routed
from postroom.services.changes import Changed, apply_changes
from postroom.services.generation import Generation
from postroom.services.reception import Tools
from postroom.smtp import replies
from postroom.spool.spool import BodyWriter, SpoolError, SpoolFull

_NO_SPACE = Reply.of(452, "4.3.1", "Insufficient system storage, try again later")
_SPOOL_ERROR = Reply.of(451, "4.3.0", "Cannot store the message, try again later")
_NOBODY_LEFT = "policy discarded every recipient"
_HEADER_TOO_LARGE = Reply.of(552, "5.3.4", "Header block is too large")


_VERDICTS = (Accept, Reject, Defer, Discard)


class Finishing(NamedTuple):
    """What is done to a user's message before it is queued (RFC 6409 §8).

    ``complete`` makes its header whole; ``is_client_hidden`` leaves the client out of
    our Received field; ``judge``, if any, may refuse the header as it came.
    """

    complete: Callable[[bytes, QueueId], bytes]
    is_client_hidden: bool
    judge: Callable[[bytes], Awaitable[Reply | None]] | None = None


class Content:
    """Collects one message.

    ``finishing`` is what is done to it, if it comes from a user. With ``answers_each``
    the client hears of each recipient; ``refused`` are then those who do not get it.
    ``thrown_away`` is why policy wants none of it; ``discarded`` are those who do not
    get it in silence, and why. ``rule`` names the hook that refused it.

    Made by ``begin`` or ``begin_now``, ended by ``release`` or ``abandon``.
    """

    def __init__(self, tools: Tools, generation: Generation) -> None:
        self._tools = tools
        self._generation = generation
        self.queue_id: QueueId = tools.acceptor.next_id(tools.shop.clock())
        self._held_octets = tools.shop.spool.body_memory_octets_max
        self._chunks: list[bytes] = []
        self._octets = 0
        self._memory_max = self._held_octets
        self._header = b""
        self._has_separator = False
        self._writer: BodyWriter | None = None
        self._failure: Reply | None = None
        self._say: Say | None = None
        self.finished: Future[None] | None = None
        self.finishing: Finishing | None = None
        self.answers_each = False
        self.refused: dict[Address, Reply] = {}
        self.thrown_away: str | None = None
        self.discarded: list[tuple[Address, str]] = []
        self.rule = ""

    @classmethod
    def begin_now(cls, tools: Tools, generation: Generation) -> "Content | None":
        """Begin a message, unless that has to wait for memory or for the log."""
        shop = tools.shop
        held = shop.spool.body_memory_octets_max
        if shop.log.full or not tools.budget.try_take(held):
            return None
        return cls(tools, generation)

    @classmethod
    async def begin(cls, tools: Tools, generation: Generation) -> "Content":
        """Wait until there is memory for another message, then begin it."""
        log = tools.shop.log
        if log.full:  # what happens to mail must be written down
            await log.drained()
        await tools.budget.take(tools.shop.spool.body_memory_octets_max)
        return cls(tools, generation)

    async def abandon(self) -> None:
        """Throw away what is not the queue's by now, and give back the memory."""
        try:
            if self._writer is not None:
                await self._drop()
        finally:
            self.release()

    def release(self) -> None:
        """Give back the memory."""
        if self._held_octets:
            self._tools.budget.give_back(self._held_octets)
            self._held_octets = 0

    @property
    def failure(self) -> Reply | None:
        """Why what has come so far cannot be kept; None: it can."""
        return self._failure

    def add(self, data: bytes) -> Awaitable[None] | None:
        """Take the next piece; what is returned, if anything, must be awaited."""
        if self._failure is not None:
            return None  # it is refused at the end; nothing is kept until then
        if self._writer is not None:
            return self._write(data)
        self._chunks.append(data)
        self._octets += len(data)
        if self._octets > self._memory_max:
            return self._move_to_disk()
        return None

    async def finish(
        self,
        session: Session,
        envelope: Envelope,
        routings: Sequence[Routing],
        *,
        refusal: Reply | None = None,
        say: Say | None = None,
    ) -> Reply:
        """Judge and queue the whole message; returns the reply that is owed.

        ``refusal`` is what the protocol already holds against it. ``say`` is told of
        the first attempts; ``finished`` is then done when all were made.
        """
        refusal = refusal or self._failure
        self._say = say
        if refusal is not None:
            await self._drop()
            return refusal
        if not envelope.recipients:
            return await self._discard(envelope, self.thrown_away or _NOBODY_LEFT)
        try:
            return await self._finish(session, envelope, routings)
        except SpoolError as error:
            return self._spool_failed(error)

    async def _finish(
        self, session: Session, envelope: Envelope, routings: Sequence[Routing]
    ) -> Reply:
        writer = self._writer
        message = self._held() if writer is None else await self._stored(writer)
        if len(message.header) > self._generation.receive.header_octets_max:
            await self._drop()
            return _HEADER_TOO_LARGE
        if self.finishing is not None:
            judge = self.finishing.judge
            refusal = await judge(message.header) if judge else None
            if refusal is not None:
                await self._drop()
                return refusal
            message = self._completed(message, self.finishing)
        subject = MessageSubject(envelope, message, message.size, self.answers_each)
        verdict = self._generation.chain.decide_now("message", session, subject)
        if not isinstance(verdict, _VERDICTS):
            verdict = await verdict
        match verdict:
            case Accept(changes):
                pass
            case Reject(reply, rule) | Defer(reply, rule):
                self.rule = rule
                await self._drop()
                return reply
            case Discard(reason):
                return await self._discard(envelope, reason)
            case _:
                assert_never(verdict)
        begun = [
            Routed(recipient, routing.to_route())
            for recipient, routing in zip(envelope.recipients, routings, strict=True)
        ]
        changed = Changed(message, begun)
        if changes:
            generation = self._generation
            changed = await apply_changes(
                changed, changes, generation.router, generation.facts
            )
            for address in changed.unknown:
                what = f"{self.queue_id}: policy added <{address}>, whom nobody knows"
                self._tools.shop.tell(what, level="warning")
            self.discarded += ((a, "removed by policy") for a in changed.removed)
        if changed.message.body is not message.body:
            await self._drop()  # its file is nobody's
        if changed.refused:
            self.refused = dict(changed.refused)
            if not (self.answers_each and (changed.routed or self.discarded)):
                return await self._refuse_all()
        if not changed.routed:
            return await self._discard(envelope, "policy removed every recipient")
        routed = changed.routed
        if self._generation.chain.has("route"):
            chosen = await self._choose_routes(session, envelope, routed)
            if isinstance(chosen, Reply):
                await self._drop()
                return chosen
            routed = chosen
            if not routed and self.refused and not self.discarded:
                return await self._refuse_all()
            if not routed:
                return await self._discard(envelope, _NOBODY_LEFT)
        return await self._keep(changed, envelope, routed)

    async def _keep(
        self, changed: Changed, envelope: Envelope, routed: Sequence[Routed]
    ) -> Reply:
        # From here on the body may be the queue's: an attempt to keep it whose end
        # nobody saw must not take it away. What is not kept is an orphan, swept later.
        writer, self._writer = self._writer, None
        try:
            self.finished = await self._tools.acceptor.accept(
                self.queue_id,
                envelope,
                self._stamped(changed.message, envelope),
                routed,
                held=changed.held,
                say=self._say,
            )
        except SpoolError:
            self._writer = writer
            await self._drop()
            raise
        self._tell_discarded()
        return replies.queued(self.queue_id)

    async def _refuse_all(self) -> Reply:
        await self._drop()
        refused = self.refused
        if not self.answers_each:
            self.refused = {}
        return next(iter(refused.values()))

    def _completed(self, message: Message, finishing: Finishing) -> Message:
        header = finishing.complete(message.header, self.queue_id)
        return Message(header, message.body, message.edits)

    def _held(self) -> Message:
        chunks = self._chunks
        content = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        header, rest, has_separator = _parted(content)
        return Message(header, MemoryBody(rest), has_separator=has_separator)

    async def _stored(self, writer: BodyWriter) -> Message:
        body = await writer.finish()
        return Message(self._header, body, has_separator=self._has_separator)

    async def _choose_routes(
        self, session: Session, envelope: Envelope, routed: Sequence[Routed]
    ) -> Sequence[Routed] | Reply:
        chain = self._generation.chain
        chosen = []
        for recipient, route in routed:
            if route is None:  # an alias; its members have routes of their own
                chosen.append(Routed(recipient, None))
                continue
            subject = RouteSubject(
                recipient.address, route, envelope.sender, self.queue_id
            )
            choice = await chain.choose(session, subject)
            match choice:
                case Route():
                    chosen.append(Routed(recipient, choice))
                case Reject(reply, rule) | Defer(reply, rule):
                    if not self.answers_each:
                        self.rule = rule
                        return reply
                    self.refused[recipient.address] = reply
                case Discard(reason):
                    self.discarded.append((recipient.address, reason))
                case _:
                    assert_never(choice)
        return chosen

    def _stamped(self, message: Message, envelope: Envelope) -> Message:
        arrival_us = envelope.arrival_us
        field = received_field(
            envelope,
            self.queue_id,
            self._generation.hostname,
            arrival_us,
            self._tools.shop.zone_offset_s(arrival_us),
            is_client_hidden=self.finishing is not None
            and self.finishing.is_client_hidden,
        )
        edits = (*message.edits, Prepend(field))
        return Message(
            message.header, message.body, edits, has_separator=message.has_separator
        )

    async def _discard(self, envelope: Envelope, reason: str) -> Reply:
        await self._drop()
        shop = self._tools.shop
        now_us = shop.now_us()
        shop.emit(
            MessageDiscarded(
                utc_us=now_us,
                queue_id=self.queue_id,
                reason=reason,
                sender=envelope.sender,
                origin=envelope.origin,
            )
        )
        self._tell_discarded()
        return replies.queued(self.queue_id)

    def _tell_discarded(self) -> None:
        """Tell who does not get it, of those that were told 250."""
        shop = self._tools.shop
        for address, reason in self.discarded:
            shop.emit(
                RecipientDiscarded(
                    utc_us=shop.now_us(),
                    queue_id=self.queue_id,
                    recipient=address,
                    reason=reason,
                )
            )

    async def _move_to_disk(self) -> None:
        content = b"".join(self._chunks)
        header, rest, has_separator = _parted(content)
        if not (has_separator or b"\n" in rest):  # the header may go on
            self._wait_for_header(content)
            return
        self._chunks = []
        self._header, self._has_separator = header, has_separator
        self._writer = self._tools.shop.spool.body_writer(self.queue_id)
        await self._write(rest)

    def _wait_for_header(self, content: bytes) -> None:
        limit = int(self._generation.receive.header_octets_max)
        if self._octets > limit:
            self._chunks = []
            self._failure = _HEADER_TOO_LARGE
        else:
            self._chunks = [content]
            self._memory_max = min(2 * self._octets, limit)

    async def _write(self, data: bytes) -> None:
        assert self._writer is not None
        try:
            await self._writer.write(data)
        except SpoolError as error:
            self._failure = self._spool_failed(error)
            await self._drop()

    async def _drop(self) -> None:
        self._chunks = []
        if self._writer is not None:
            writer, self._writer = self._writer, None
            await writer.abandon()

    def _spool_failed(self, error: SpoolError) -> Reply:
        self._tools.shop.tell_spool(error)
        return _NO_SPACE if isinstance(error, SpoolFull) else _SPOOL_ERROR


def _parted(content: bytes) -> tuple[bytes, bytes, bool]:
    """Part header and body; the body never goes on with a field of ours.

    A content that begins with a blank would continue the field that is put in front of
    it (RFC 5322 §2.2.3), and its next lines would be a header that no hook has seen.
    """
    header, rest, has_separator = split_message(content)
    return header, rest, has_separator or content.startswith((b" ", b"\t"))
