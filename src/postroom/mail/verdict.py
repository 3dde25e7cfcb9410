"""Verdicts: what a hook, or the chain of them, decides about a subject."""

import msgspec

from postroom.mail.address import Address
from postroom.mail.message import Edit
from postroom.mail.reply import Reply


class AddRecipient(msgspec.Struct, frozen=True):
    """Deliver to this address as well; ``notify`` is as in ``Recipient``."""

    address: Address
    notify: str = ""


class RemoveRecipient(msgspec.Struct, frozen=True):
    """Do not deliver to this recipient."""

    address: Address


class RefuseRecipient(msgspec.Struct, frozen=True):
    """Do not deliver to this recipient, and tell the client so with this reply.

    Where the client takes one answer for all (neither PRDR nor LMTP), the reply refuses
    the message for all of them.
    """

    address: Address
    reply: Reply


class ReplaceBody(msgspec.Struct, frozen=True):
    """Use this body, in CRLF form, in place of the one received."""

    body: bytes


class Quarantine(msgspec.Struct, frozen=True):
    """Accept and keep, but do not deliver until an operator releases it."""

    reason: str


Change = (
    Edit | AddRecipient | RemoveRecipient | RefuseRecipient | ReplaceBody | Quarantine
)


class Accept(msgspec.Struct, frozen=True):
    """No objection. ``changes`` may be given in the ``message`` phase only."""

    changes: tuple[Change, ...] = ()


class Reject(msgspec.Struct, frozen=True):
    """Refuse for good, with this 5yz reply; ``rule`` names the hook that said so."""

    reply: Reply
    rule: str = ""


class Defer(msgspec.Struct, frozen=True):
    """Refuse for now, with this 4yz reply; ``rule`` names the hook that said so."""

    reply: Reply
    rule: str = ""


class Discard(msgspec.Struct, frozen=True):
    """Say yes and throw away; ``reason`` is logged."""

    reason: str


Verdict = Accept | Reject | Defer | Discard
