"""What a client may wish for its message beside delivery, and how far it gets it.

A priority (RFC 6710), to be held for a time (RFC 4865), to hear what is done (VERB),
an answer for each recipient (PRDR, LMTP).
"""

import asyncio
from collections.abc import Mapping

from postroom.mail.address import Address
from postroom.mail.now import SECOND_US
from postroom.mail.reply import Reply
from postroom.policy.session import in_networks
from postroom.services.content import Content
from postroom.services.talk import Talk, Transaction
from postroom.smtp import replies
from postroom.smtp.parameters import MailParams

VERBOSE_WAIT_S = 30.0
"""How long the reply to a message waits for its first attempts, after VERB."""


def prioritise(talk: Talk, wanted: int) -> Reply:
    """Give the message a priority; returns the reply to MAIL.

    RFC 6710 §4.1: only clients that are trusted may raise it above 0.
    """
    assert talk.transaction is not None
    settings = talk.face.server
    given = min(max(wanted, settings.mt_priority_min), settings.mt_priority_max)
    if given > 0 and not _may_raise(talk):
        given = 0
    talk.transaction.priority = given
    if given == wanted:
        return replies.SENDER_OK
    return Reply(250, "2.3.6", (f"{given} is the priority given",))


def _may_raise(talk: Talk) -> bool:
    origin = talk.origin
    if origin.login or not origin.client_ip:
        return True
    return in_networks(origin.client_ip, talk.face.server.mt_priority_networks)


def hold_refusal(talk: Talk, params: MailParams) -> Reply | None:
    """Return the refusal of a message that would be held longer than it is of use.

    RFC 4865 §5.2.2: the time of release lies before the deliver-by time.
    """
    if not (params.is_held and params.deliver_by):
        return None
    now_us = talk.tools.shop.now_us()
    within_us = int(params.deliver_by.partition(";")[0]) * SECOND_US
    if params.hold_until(now_us) < now_us + within_us:
        return None
    refusal = Reply(501, "5.5.4", ("Message would be held longer than BY allows",))
    talk.rejected("MAIL", "", refusal, "syntax")
    return refusal


def verdicts(
    talk: Talk,
    transaction: Transaction,
    refused: Mapping[Address, Reply],
    reply: Reply,
) -> list[Reply]:
    """Return an answer for each recipient: the refusal of some, else what all get."""
    answered = transaction.answered or ()
    taken = replies.RECEIVED if reply.is_positive else reply
    if talk.face.is_lmtp:  # RFC 2033 §4.2
        return [refused.get(address, reply) for address in answered]
    each = [refused.get(address, taken) for address in answered]
    return [replies.VERDICTS_FOLLOW, *each, reply]  # draft-hall-prdr-00 §4.5


async def told(content: Content) -> None:
    """Wait until the first attempts were made and told of, but not for ever."""
    if content.finished is not None:
        await asyncio.wait((content.finished,), timeout=VERBOSE_WAIT_S)
