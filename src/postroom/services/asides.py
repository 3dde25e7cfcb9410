"""Commands beside a transaction: NOOP, VRFY, EXPN, HELP, VERB, ETRN.

VRFY, EXPN, VERB and ETRN are answered where the settings say so. What cannot be looked
up now is 4yz; nothing is told of users or lists to those who may not know.
"""

from postroom.mail.address import Address, AddressError
from postroom.mail.reply import Reply
from postroom.policy.session import in_networks
from postroom.route.drive import drive
from postroom.route.routing import (
    LocalAlias,
    LocalUser,
    Relay,
    Routing,
    RoutingFailed,
)
from postroom.services.guide import guide
from postroom.services.talk import Talk
from postroom.smtp import commands, replies
from postroom.spool.selection import QueueFilter
from postroom.spool.spool import SpoolError

MEMBERS_MAX = 200
"""How many members of a list EXPN tells; of a longer one it says so and tells these."""

_NO_MAILBOX = Reply.of(501, "5.1.3", "That is no mailbox")
_NOT_HERE = Reply.of(252, "2.5.2", "Not a user here; try RCPT to attempt delivery")
# RFC 6531 §3.7.4.2: a name in UTF-8 is told to those only who said SMTPUTF8
_NOT_IN_ASCII = Reply.of(252, "2.6.8", "The name needs SMTPUTF8 to be told")
_NOT_FOR_YOU = Reply.of(550, "5.7.1", "You may not ask for the members of a list")
_NO_LIST = Reply.of(550, "5.1.1", "There is no such list")
_LATER = Reply.of(451, "4.3.0", "Cannot be looked up now, try again later")
_NO_MEMBERS = Reply.of(550, "5.2.4", "The list has no members")


def on_noop(talk: Talk, event: commands.Noop) -> None:
    """Do nothing (RFC 5321 §4.1.1.9)."""
    talk.core.reply(replies.NOOP_OK)


def on_help(talk: Talk, event: commands.Help) -> None:
    """Say what there is, or explain one command (RFC 5321 §4.1.1.8)."""
    talk.core.reply(guide(event.topic, talk.face.server, lmtp=talk.face.is_lmtp))


def on_verbose(talk: Talk, event: commands.Verbose) -> None:
    """From now on tell what is done with each message, before the reply to it."""
    talk.is_verbose = True
    talk.core.reply(replies.VERBOSE)


# VRFY and EXPN


async def on_vrfy(talk: Talk, event: commands.Vrfy) -> None:
    """Say whether there is such a user, if the settings allow (RFC 5321 §3.5)."""
    if not talk.face.server.vrfy:  # RFC 5321 §7.3: giving nothing away
        return talk.core.reply(replies.VRFY_UNTOLD)
    talk.core.reply(await _verified(talk, event.argument, utf8=event.utf8))


async def _verified(talk: Talk, argument: str, *, utf8: bool) -> Reply:
    address = _asked(argument, talk.generation.hostname)
    if address is None:
        return _NO_MAILBOX
    if not (utf8 or address.is_ascii):
        return _NOT_IN_ASCII
    match await _routing(talk, address):
        case LocalUser() | LocalAlias():
            return Reply(250, "2.1.5", (f"<{address}>",))
        case Relay():
            return _NOT_HERE
        case unknown:
            return unknown.to_reply() or replies.VRFY_UNTOLD


async def on_expn(talk: Talk, event: commands.Expn) -> None:
    """Tell the members of a list to those who may know them (RFC 5321 §3.5)."""
    settings = talk.face.server
    if not settings.expn:
        return talk.core.reply(replies.EXPN_REFUSED)
    if not _is_in(talk, settings.expn_networks):
        talk.rejected("EXPN", event.argument, _NOT_FOR_YOU, "expn_networks")
        return talk.core.reply(_NOT_FOR_YOU)
    talk.core.reply(await _expanded(talk, event.argument, utf8=event.utf8))


async def _expanded(talk: Talk, argument: str, *, utf8: bool) -> Reply:
    address = _asked(argument, talk.generation.hostname)
    if address is None:
        return _NO_MAILBOX
    routing = await _routing(talk, address)
    if isinstance(routing, LocalUser):
        members: tuple[Address, ...] = (address,)
        is_whole = True
    elif isinstance(routing, LocalAlias):
        walk = talk.generation.router.walk(address)
        found = await drive(walk.chunk(MEMBERS_MAX), talk.generation.facts)
        if isinstance(found, RoutingFailed):
            return _LATER
        members = tuple(child.address for child in found.children)
        is_whole = found.cursor is None
    else:
        refusal = routing.to_reply()
        return refusal if refusal and refusal.is_transient else _NO_LIST
    if not members:
        return _NO_MEMBERS
    if not utf8 and not all(member.is_ascii for member in members):
        return _NOT_IN_ASCII
    lines = tuple(f"<{member}>" for member in members)
    more = () if is_whole else ("and more, which are not told",)
    return Reply(250, "2.1.5", (*lines, *more))


def _asked(argument: str, hostname: str) -> Address | None:
    """Read what was asked for: a mailbox, perhaps in brackets, or a bare name."""
    text = argument
    if text.endswith(">") and "<" in text:  # also: Full Name <mailbox>
        text = text[text.rindex("<") + 1 : -1]
    try:
        address = Address.from_text(text)
    except AddressError:
        return None
    if address.is_null:
        return None
    return address if address.domain else Address(address.local, hostname)


async def _routing(talk: Talk, address: Address) -> Routing:
    generation = talk.generation
    return await drive(generation.router.classify(address), generation.facts)


def _is_in(talk: Talk, networks: tuple[str, ...]) -> bool:
    ip = talk.origin.client_ip
    return not ip or in_networks(ip, networks)  # without one: a user of this machine


# ETRN


async def on_etrn(talk: Talk, event: commands.Etrn) -> None:
    """Have what waits for a domain tried now (RFC 1985 §5)."""
    talk.core.reply(await _started(talk, event))


async def _started(talk: Talk, event: commands.Etrn) -> Reply:
    node = f"{event.option}{event.node}"
    if not _is_in(talk, talk.face.server.etrn_networks):
        refusal = Reply(459, "4.7.1", (f"Node {node} not allowed: it is not yours",))
        talk.rejected("ETRN", node, refusal, "etrn_networks")
        return refusal
    flush = talk.tools.flush
    if flush is None or "*" in event.node or (event.option == "@" and _is_top(event)):
        return Reply(458, "4.5.0", (f"Unable to queue messages for node {node}",))
    if event.option == "#":
        wanted = QueueFilter(hops=(event.node,))
    elif event.option == "@":
        wanted = QueueFilter(domains=(event.node, f"*.{event.node}"))
    else:
        wanted = QueueFilter(domains=(event.node,))
    try:
        messages = await flush(wanted)
    except SpoolError as error:
        talk.tools.shop.tell_spool(error)
        return Reply(458, "4.3.0", (f"Unable to queue messages for node {node}",))
    if not messages:
        return Reply(251, "2.0.0", (f"OK, no messages waiting for node {node}",))
    return Reply(253, "2.0.0", (f"OK, {messages} pending messages for node {node}",))


def _is_top(event: commands.Etrn) -> bool:
    return "." not in event.node  # RFC 1985 §8: @com would release half the world
