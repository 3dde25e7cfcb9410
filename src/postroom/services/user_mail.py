"""Mail from users: what a submission server asks and adds (RFC 6409).

By SMTP it insists on a login where the listener does, on a sender that is the user's,
and on the user's rates. Their headers are made whole, as for the ``sendmail`` command.
A look-up that fails is a deferral; nothing is taken on trust.
"""

from collections.abc import Callable
from functools import partial

from postroom.limits.gcra import Rate
from postroom.mail.address import Address, AddressError
from postroom.mail.address_list import parse_address_list
from postroom.mail.completion import Author, complete_header
from postroom.mail.headers import find_all
from postroom.mail.ids import QueueId
from postroom.mail.now import Now
from postroom.mail.reply import Reply
from postroom.mail.trace import date_text
from postroom.route.drive import drive
from postroom.route.routing import RoutingFailed
from postroom.route.senders import owns
from postroom.services.content import Finishing
from postroom.services.face import Kind, Login
from postroom.services.talk import Talk

Refusal = tuple[Reply, str]
"""A reply, and the rule behind it for the log."""

_LOGIN_FIRST = Reply.of(530, "5.7.0", "Authentication required")
_TOO_MANY_MESSAGES = Reply.of(450, "4.7.1", "You sent too many messages, try later")
_TOO_MANY_RECIPIENTS = Reply.of(
    450, "4.7.1", "You wrote to too many recipients, try later"
)
_CANNOT_SAY = Reply.of(451, "4.3.0", "Sender cannot be looked up now, try again later")


def owes_login(talk: Talk) -> bool:
    """Whether the client has to log in before anything else (RFC 4954 §6)."""
    return talk.face.login is Login.REQUIRED and not talk.origin.login


def login_first(talk: Talk, verb: str) -> Reply:
    """Return what such a client is told, and tell of it."""
    talk.rejected(verb, "", _LOGIN_FIRST, "login required")
    return _LOGIN_FIRST


def is_users(talk: Talk) -> bool:
    """Whether mail of this session comes from a user, not from another host."""
    kind = talk.face.kind
    return kind in (Kind.SUBMISSION, Kind.LOCAL) or bool(talk.origin.login)


async def sender_refusal(talk: Talk, sender: Address) -> Refusal | None:
    """Say why a user may not send from an address, or not now; None: they may."""
    login, rules = talk.origin.login, talk.generation.user_rules
    if not login or talk.face.kind is Kind.LOCAL:
        return None  # a caller of sendmail may name any sender, as ever
    if rules.own_senders:
        found = await _owned(talk, sender)
        if isinstance(found, RoutingFailed):
            return _CANNOT_SAY, f"sender of {login}: {found.reason}"
        if not found:
            text = f"<{sender}>... Sender address is not yours"
            return Reply.of(553, "5.7.1", text), f"not a sender of {login}"
    if _is_over(talk, "message", rules.message_rate):
        return _TOO_MANY_MESSAGES, f"message_rate of {login}"
    return None


async def _owned(talk: Talk, address: Address) -> bool | RoutingFailed:
    generation = talk.generation
    asking = owns(generation.router, talk.origin.login, address)
    return await drive(asking, generation.facts)


async def from_refusal(talk: Talk, header: bytes) -> Reply | None:
    """Say why a user may not write what stands in From and Sender; None: they may.

    A field that cannot be understood is nobody's. One that is missing is added later
    and names the envelope's sender.
    """
    for name in ("From", "Sender", "Resent-From", "Resent-Sender"):
        for value in find_all(header, name):
            found = parse_address_list(value.decode("utf-8", "surrogateescape"))
            texts = [mailbox.text for mailbox in found.mailboxes]
            if found.problem or not texts:
                return _not_yours(talk, name, "it cannot be understood")
            for text in texts:
                refusal = await _judge_author(talk, name, text)
                if refusal is not None:
                    return refusal
    return None


async def _judge_author(talk: Talk, name: str, text: str) -> Reply | None:
    try:
        address = Address.from_text(text)
    except AddressError:
        return _not_yours(talk, name, text)
    owned = await _owned(talk, address)
    if isinstance(owned, RoutingFailed):
        return _CANNOT_SAY
    return None if owned else _not_yours(talk, name, text)


def _not_yours(talk: Talk, name: str, text: str) -> Reply:
    reply = Reply.of(550, "5.7.1", f"{name} names an address that is not yours")
    talk.rejected(name, text, reply, f"own_from of {talk.origin.login}")
    return reply


def recipient_refusal(talk: Talk) -> Refusal | None:
    """Say why a user may not name another recipient now; None: they may."""
    login = talk.origin.login
    if not login or talk.face.kind is Kind.LOCAL:
        return None
    if _is_over(talk, "recipient", talk.generation.user_rules.recipient_rate):
        return _TOO_MANY_RECIPIENTS, f"recipient_rate of {login}"
    return None


def _is_over(talk: Talk, what: str, rate: Rate | None) -> bool:
    if rate is None:
        return False
    key = f"user-{what}/{talk.origin.login}"
    return bool(talk.tools.counters.hit(key, rate, talk.tools.shop.clock().mono_us))


def finishing(talk: Talk, sender: Address) -> Finishing | None:
    """Return what is done to a message from a user; None: it is from another host."""
    if not is_users(talk):
        return None
    generation, shop = talk.generation, talk.tools.shop
    author = Author(sender, "", generation.hostname)
    complete = partial(_completed, author, shop.clock, shop.zone_offset_s)
    rules = generation.user_rules
    is_remote = talk.face.kind is not Kind.LOCAL
    is_judged = rules.own_from and is_remote and talk.origin.login
    judge = partial(from_refusal, talk) if is_judged else None
    return Finishing(complete, rules.hide_client and is_remote, judge)


def _completed(
    author: Author,
    clock: Callable[[], Now],
    zone_offset_s: Callable[[int], int],
    header: bytes,
    queue_id: QueueId,
) -> bytes:
    now = clock()
    stamp = now.utc().strftime("%Y%m%d%H%M")
    return complete_header(
        header,
        author,
        date=date_text(now.utc_us, zone_offset_s(now.utc_us)),
        message_id=f"<{stamp}.{queue_id}@{author.domain}>",
    )
