"""Recognises mail that no person wrote to us, and that no program should answer.

By RFC 3834 §2 and what else is in use. Such mail still gets the reports that its
sender may expect (failures, and what was asked for); what is sent unasked, such as a
warning of a delay, it does not get. Pure.
"""

import re
from enum import StrEnum

from postroom.mail.address import Address
from postroom.mail.headers import fields, find_all

_BULK = frozenset({"bulk", "junk", "list"})
_LIST_FIELDS = frozenset(
    f"list-{word}"
    for word in ("id", "help", "subscribe", "unsubscribe", "post", "owner", "archive")
)
# What the program's word ends at: parameters, comments, blanks (RFC 3834 §5).
_WORD = re.compile(rb"[ \t]*(?:\([^()]*\)[ \t]*)*([A-Za-z0-9\-]+)")
# The ones that forbid answers of a mail system: all of them, or reports of delivery.
_SUPPRESSED = frozenset({"all", "dr", "ndr", "autoreply"})


class Automatic(StrEnum):
    """By what a message shows that it was not written by hand to its recipient."""

    NULL_SENDER = "null sender"
    AUTO_SUBMITTED = "Auto-Submitted"
    PRECEDENCE = "Precedence"
    LIST = "List-*"
    SUPPRESS = "X-Auto-Response-Suppress"


def automatic(header: bytes, sender: Address) -> Automatic | None:
    """Return why a message counts as automatic; None: it seems to be from a person.

    Args:
        header: its header block.
        sender: the envelope's sender.
    """
    if sender.is_null:  # RFC 3834 §2, RFC 5321 §4.5.5
        return Automatic.NULL_SENDER
    if any(word != "no" for word in _words(header, "Auto-Submitted")):
        return Automatic.AUTO_SUBMITTED  # RFC 3834 §2, §5
    if bulk := is_bulk(header):
        return bulk
    for value in find_all(header, "X-Auto-Response-Suppress"):
        words = {word.strip().lower() for word in value.decode("latin-1").split(",")}
        if words & _SUPPRESSED:
            return Automatic.SUPPRESS
    return None


def is_bulk(header: bytes) -> Automatic | None:
    """Return by what a message shows that many others get it too; None: it does not."""
    if any(word in _BULK for word in _words(header, "Precedence")):
        return Automatic.PRECEDENCE  # RFC 3834 §2
    if any(field.key in _LIST_FIELDS for field in fields(header)):
        return Automatic.LIST  # RFC 3834 §2, RFC 2369, RFC 2919
    return None


def _words(header: bytes, name: str) -> list[str]:
    """Return the first word of each field of this name, in lower case."""
    found = [_WORD.match(value) for value in find_all(header, name)]
    return [match[1].decode("ascii").lower() if match else "" for match in found]
