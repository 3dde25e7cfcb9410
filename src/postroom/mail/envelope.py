"""The envelope: who sends, to whom, and what was said about it in MAIL and RCPT."""

import re
from enum import StrEnum

import msgspec

from postroom.mail.address import NULL_SENDER, Address

_NOT_XCHAR = re.compile(r"[^!-*,-<>-~]")
_HEXCHAR = re.compile(r"\+([0-9A-F]{2})")
_ADDED_CHARS_MAX = 490
"""An ORCPT that we add has at most 500 characters (RFC 3461 §5.4)."""


class BodyType(StrEnum):
    """What the client declared of the content (RFC 6152, RFC 3030)."""

    SEVEN_BIT = "7BIT"
    EIGHT_BIT = "8BITMIME"
    BINARY = "BINARYMIME"


class Recipient(msgspec.Struct, frozen=True, gc=False):
    """One recipient and its DSN wishes (RFC 3461 §4.1, §4.2).

    ``notify`` is as received (``"NEVER"``, ``"SUCCESS,FAILURE"``), empty if not given.
    ``orcpt`` is the original recipient in xtext, ``"rfc822;joe+2Bx@here.test"``. If
    none was given it is empty, or, once an alias led elsewhere, that alias's address
    behind an empty type, ``";list@here.test"``: next hops may be told of it (RFC 3461
    §5.2.1), but it is no Original-Recipient (RFC 3461 §6.3).
    """

    address: Address
    notify: str = ""
    orcpt: str = ""


def said_orcpt(recipient: Recipient) -> str:
    """Return the ORCPT to tell a next hop: the one given, or the address we had."""
    orcpt = recipient.orcpt
    if orcpt:
        return orcpt if orcpt[0] != ";" else f"rfc822{orcpt}"
    # RFC 3461 §5.2.1: it may be added where there was none; who asks for reports can
    # then tell whom they are about.
    return f"rfc822{added}" if (added := _added(recipient)) else ""


def came_for(recipient: Recipient) -> str:
    """Return the stored ORCPT of a recipient that an alias puts in another's place."""
    return recipient.orcpt or _added(recipient)


def _added(recipient: Recipient) -> str:
    address = recipient.address
    if not address.is_ascii:
        return ""  # the type utf-8 needs SMTPUTF8 (RFC 6533 §4)
    xtext = to_xtext(address.to_text())
    return f";{xtext}" if len(xtext) <= _ADDED_CHARS_MAX else ""


def to_xtext(text: str) -> str:
    """Encode printable ASCII as xtext (RFC 3461 §4)."""
    if _NOT_XCHAR.search(text) is None:
        return text
    return _NOT_XCHAR.sub(lambda match: f"+{ord(match[0]):02X}", text)


def from_xtext(text: str) -> str:
    """Decode xtext (RFC 3461 §4)."""
    return _HEXCHAR.sub(lambda match: chr(int(match[1], 16)), text)


class Origin(msgspec.Struct, frozen=True):
    """Where a message came from.

    ``protocol`` is the word of the Received field (``SMTP``, ``ESMTP``, ``ESMTPA``,
    ``local``); ``client_ip`` is empty for local submissions, whose ``login`` is the
    user that called. ``client_name`` is the verified reverse name, empty if none.
    """

    protocol: str = "local"
    client_ip: str = ""
    client_port: int = 0
    client_name: str = ""
    helo: str = ""
    login: str = ""
    listener: str = ""


class Envelope(msgspec.Struct, frozen=True):
    """Everything known of a message apart from its content.

    ``size`` is what MAIL declared (RFC 1870), 0 if nothing; ``ret``, ``envid`` and
    ``auth`` are as received; ``deliver_by`` is the BY value (RFC 2852);
    ``hold_until_us`` is FUTURERELEASE made absolute (RFC 4865), 0 for at once;
    ``priority`` is MT-PRIORITY, -9 to 9 (RFC 6710).
    """

    sender: Address = NULL_SENDER
    recipients: tuple[Recipient, ...] = ()
    origin: Origin = Origin()
    body: BodyType = BodyType.SEVEN_BIT
    size: int = 0
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""
    auth: str = ""
    requiretls: bool = False
    deliver_by: str = ""
    hold_until_us: int = 0
    priority: int = 0
    arrival_us: int = 0
