"""MAIL, RCPT, DATA and the content: the handlers of a message on its way in.

250 for a message is given only after ``Acceptor.accept`` returned. When the spool
cannot keep it the client is told 452 or 451 and the message is not ours.
"""

from collections.abc import Awaitable

import msgspec

from postroom.mail.address import Address
from postroom.mail.envelope import Recipient
from postroom.mail.reply import Reply
from postroom.mail.verdict import Discard, Verdict
from postroom.policy.inspection import Inspection
from postroom.policy.session import Mail, Rcpt
from postroom.route.drive import drive
from postroom.route.router import Routing
from postroom.services import chunks, login, tempo, user_mail, wishes
from postroom.services.face import Kind
from postroom.services.talk import Talk, Transaction
from postroom.smtp import commands, replies, server

_LOCAL = Kind.LOCAL  # bound once: it is looked at for each recipient
_NO_SPACE = Reply.of(452, "4.3.1", "Insufficient system storage, try again later")


def on_mail(talk: Talk, event: commands.Mail) -> Awaitable[None] | None:
    """Begin a transaction, if policy and the disk allow."""
    inspection = talk.inspection
    if inspection is not None and inspection.is_due and not talk.origin.login:
        return _meet_first(talk, inspection, event)
    if user_mail.owes_login(talk):
        refusal = user_mail.login_first(talk, "MAIL")
        talk.core.reply(tempo.refused(talk, "MAIL", refusal))
        return None
    if talk.face.kind is Kind.LOCAL:
        event = msgspec.structs.replace(event, address=_whole(talk, event.address))
    elif talk.origin.login:
        return _on_users_mail(talk, event)
    return _judge_mail(talk, event)


async def _meet_first(talk: Talk, inspection: Inspection, event: commands.Mail) -> None:
    await talk.meet(inspection)
    waiting = on_mail(talk, event)
    if waiting is not None:
        await waiting


async def _on_users_mail(talk: Talk, event: commands.Mail) -> None:
    refusal = await user_mail.sender_refusal(talk, event.address)
    if refusal is not None:
        talk.rejected("MAIL", event.address, *refusal)
        return talk.core.reply(tempo.refused(talk, "MAIL", refusal[0]))
    waiting = _judge_mail(talk, event)
    if waiting is not None:
        await waiting


def _whole(talk: Talk, address: Address) -> Address:
    """Give a bare name of a caller of ``sendmail -bs`` our domain."""
    if address.domain or address.is_null:
        return address
    return Address(address.local, talk.generation.hostname)


def _judge_mail(talk: Talk, event: commands.Mail) -> Awaitable[None] | None:
    params = event.params
    subject = Mail(event.address, params.size, params.body.value, params.given)
    return talk.ask("mail", subject, _answer_mail, event)


def _answer_mail(talk: Talk, event: commands.Mail, verdict: Verdict) -> None:
    refusal = talk.refusal(verdict, "MAIL", event.address)
    size = event.params.size
    if refusal is None and not talk.tools.shop.spool.check_space(size):
        refusal = _NO_SPACE  # RFC 1870 §6.1
        talk.rejected("MAIL", event.address, refusal, "spool reserve")
    if refusal is None and event.params.has_wishes:
        refusal = wishes.hold_refusal(talk, event.params)
    if refusal:
        return talk.core.reply(tempo.refused(talk, "MAIL", refusal))
    talk.transaction = Transaction(
        login.believed(talk, event),
        verdict.reason if isinstance(verdict, Discard) else None,
    )
    if event.params.prdr or talk.face.is_lmtp:
        talk.transaction.answered = []
    talk.expect(1)
    if event.params.priority:
        return talk.core.reply(wishes.prioritise(talk, event.params.priority))
    talk.core.reply(replies.SENDER_OK)


def on_rcpt(talk: Talk, event: commands.Rcpt) -> Awaitable[None] | None:
    """Say whether mail for an address is taken."""
    if talk.face.kind is _LOCAL:
        event = msgspec.structs.replace(event, address=_whole(talk, event.address))
    elif talk.origin.login:
        refusal = user_mail.recipient_refusal(talk)
        if refusal is not None:
            talk.rejected("RCPT", event.address, *refusal)
            talk.core.reply(refusal[0])
            return None
    assert talk.transaction is not None
    routing = talk.transaction.way_to(event.address.domain)
    if routing is None:
        generation = talk.generation
        routing = generation.router.recall(event.address, generation.facts)
        if routing is None:
            return _look_up(talk, event)
    return _judge_rcpt(talk, event, routing)


async def _look_up(talk: Talk, event: commands.Rcpt) -> None:
    router, facts = talk.generation.router, talk.generation.facts
    routing = await drive(router.classify(event.address), facts)
    waiting = _judge_rcpt(talk, event, routing)
    if waiting is not None:
        await waiting


def _judge_rcpt(
    talk: Talk, event: commands.Rcpt, routing: Routing
) -> Awaitable[None] | None:
    transaction = talk.transaction
    assert transaction is not None
    subject = Rcpt(
        event.address,
        routing.kind,
        routing.reason,
        len(transaction.recipients),
        transaction.mail.address,
        routing.to_reply(),
    )
    return talk.ask("rcpt", subject, _answer_rcpt, (event, routing))


def _answer_rcpt(
    talk: Talk, asked: tuple[commands.Rcpt, Routing], verdict: Verdict
) -> None:
    event, routing = asked
    refusal = talk.refusal(verdict, "RCPT", event.address)
    if refusal:
        return talk.core.reply(tempo.recipient_refused(talk, refusal))
    assert talk.transaction is not None
    if talk.transaction.answered is not None:
        talk.transaction.answered.append(event.address)
    if isinstance(verdict, Discard):
        talk.transaction.discarded.append((event.address, verdict.reason))
    else:
        params = event.params
        recipient = Recipient(event.address, params.notify, params.orcpt)
        talk.transaction.add(recipient, routing)
    talk.core.reply(replies.RECIPIENT_OK)


def on_data(talk: Talk, event: commands.DataStart) -> Awaitable[None] | None:
    """Ask for the content, once there is room for it in memory."""
    waiting = chunks.begin_content(talk)
    if waiting is not None:
        return _ask_later(talk, waiting)
    talk.core.reply(replies.START_CONTENT)
    return None


async def _ask_later(talk: Talk, waiting: Awaitable[None]) -> None:
    await waiting
    talk.core.reply(replies.START_CONTENT)


def on_chunk(talk: Talk, event: server.Chunk) -> Awaitable[None] | None:
    """Take a piece of the content."""
    assert talk.content is not None
    return talk.content.add(event.data)


async def on_end_of_data(talk: Talk, event: server.EndOfData) -> None:
    """Judge and queue the whole message; then answer for it."""
    content, talk.content = talk.content, None
    transaction = talk.transaction
    assert transaction is not None
    talk.expect(0)
    if content is None:  # chunks that were refused before
        assert event.refusal is not None
        talk.core.reply(*(event.refusal,) * talk.core.owed)
        return talk.reset()
    envelope = transaction.envelope(talk.origin, talk.tools.shop.clock().utc_us)
    content.answers_each = transaction.answered is not None
    content.thrown_away, content.discarded = (
        transaction.thrown_away,
        transaction.discarded,
    )
    try:
        reply = await content.finish(
            talk.session,
            envelope,
            transaction.routings,
            refusal=event.refusal,
            say=talk.core.remark if talk.is_verbose else None,
        )
        if talk.is_verbose:
            await wishes.told(content)
    finally:
        await content.abandon()  # what was accepted is not touched
    if reply.is_positive:
        talk.messages += 1
    else:
        talk.rejected("DATA", "", reply, content.rule or "content")
    if content.refused:
        talk.core.reply(*wishes.verdicts(talk, transaction, content.refused, reply))
    else:
        # RFC 2033 §4.2: one for each recipient; the fate of all is the same.
        talk.core.reply(*(reply,) * talk.core.owed)
    talk.reset()


def on_reset(talk: Talk, event: commands.Reset) -> Awaitable[None] | None:
    """Forget the transaction (RFC 5321 §4.1.1.5)."""
    talk.reset()
    talk.core.reply(replies.RESET_OK)
    return chunks.drop(talk)
