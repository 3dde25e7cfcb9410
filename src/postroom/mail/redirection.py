"""What becomes of the wishes for reports where an address leads elsewhere. Pure.

RFC 3461 §5.2.7 knows three cases: an alias for one other address, an alias for several,
and a list, whose members' copies have another sender (its owner).
"""

from enum import Enum, auto
from typing import NamedTuple

import msgspec

from postroom.mail.address import Address
from postroom.mail.envelope import Envelope, Recipient, orcpt_behind_alias
from postroom.mail.message import Message, Prepend
from postroom.mail.reported import ReportKind
from postroom.mail.trace import delivered_to_field


class Redirection(Enum):
    """What an address is that leads elsewhere."""

    ALIAS = auto()
    """An alias for one other address (RFC 3461 §5.2.7.2)."""
    ALIASES = auto()
    """An alias for several (RFC 3461 §5.2.7.3)."""
    LIST = auto()
    """A list with an owner (RFC 3461 §5.2.7.1)."""


class Wishes(NamedTuple):
    """``notify`` and ``orcpt`` of a recipient to be queued; see ``Recipient``."""

    notify: str = ""
    orcpt: str = ""


def wishes_behind(parent: Recipient, redirection: Redirection) -> Wishes:
    """Return the wishes of those that ``parent`` stands for."""
    match redirection:
        case Redirection.ALIAS:  # RFC 3461 §5.2.7.2: all is passed on
            return Wishes(parent.notify, orcpt_behind_alias(parent))
        case Redirection.ALIASES:  # RFC 3461 §5.2.7.3 (c): all but SUCCESS
            notify = _without_success(parent.notify)
            return Wishes(notify, orcpt_behind_alias(parent))
        case Redirection.LIST:  # RFC 3461 §5.2.7.1 (b): nothing
            return Wishes()


def report_on(redirection: Redirection) -> ReportKind | None:
    """Return how to report success to who asked for it; None: not here."""
    match redirection:
        case Redirection.ALIAS:
            return None
        case Redirection.ALIASES:
            return ReportKind.EXPANDED
        case Redirection.LIST:  # RFC 3464 §2.3.3: never expanded
            return ReportKind.DELIVERED


def list_envelope(envelope: Envelope, owner: Address) -> Envelope:
    """Return the envelope of a list's copies (RFC 3461 §5.2.7.1).

    A null sender stays: or else a list that is its own owner would never come to rest.
    """
    if envelope.sender.is_null:  # RFC 5321 §4.5.5
        owner = envelope.sender
    return msgspec.structs.replace(envelope, sender=owner, ret="", envid="")


def list_message(message: Message, address: Address) -> Message:
    """Return a list's copy, marked so that it is known if it comes back."""
    mark = Prepend(delivered_to_field(address))
    return msgspec.structs.replace(message, edits=(*message.edits, mark))


def _without_success(notify: str) -> str:
    if not notify:
        return ""
    words = [word for word in notify.upper().split(",") if word not in ("", "SUCCESS")]
    # Who asked for success alone asked not to hear of failures.
    return ",".join(words) or "NEVER"
