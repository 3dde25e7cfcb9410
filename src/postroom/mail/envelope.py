"""The envelope: who sends, to whom, and what was said about it in MAIL and RCPT."""

import re
from enum import StrEnum

import msgspec

from postroom.mail.address import NULL_SENDER, Address
from postroom.mail.tls import TlsFacts

_NOT_XCHAR = re.compile(r"[^!-*,-<>-~]")
# QCHAR = %x21-2a / %x2c-3c / %x3e-5b / %x5d-7e (RFC 6533 §3)
_NOT_QCHAR = re.compile(r"[^!-*,-<>-\[\]-~]")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_HEXCHAR = re.compile(r"\+([0-9A-F]{2})")
_ORCPT_CHARS_MAX = 500  # RFC 3461 §5.4


class BodyType(StrEnum):
    """What the client declared of the content (RFC 6152, RFC 3030)."""

    SEVEN_BIT = "7BIT"
    EIGHT_BIT = "8BITMIME"
    BINARY = "BINARYMIME"


class Recipient(msgspec.Struct, frozen=True, gc=False):
    """One recipient and its DSN wishes (RFC 3461 §4.1, §4.2).

    ``notify`` is as received (``"NEVER"``, ``"SUCCESS,FAILURE"``), empty if not given.
    ``orcpt`` is the original recipient as given, ``"rfc822;joe+2Bx@here.test"``, empty
    if not given. Where an alias led elsewhere, the address that was accepted follows
    it behind a blank: see ``given_orcpt`` and ``accepted_as``.
    """

    address: Address
    notify: str = ""
    orcpt: str = ""


def given_orcpt(recipient: Recipient) -> str:
    """Return the ORCPT that was given with a recipient, empty if none was."""
    return recipient.orcpt.partition(" ")[0]


def accepted_as(recipient: Recipient) -> str:
    """Return the address under which a recipient was accepted: perhaps an alias."""
    return recipient.orcpt.partition(" ")[2] or recipient.address.to_text()


def orcpt_behind_alias(recipient: Recipient) -> str:
    """Return the ``orcpt`` of those that the alias ``recipient`` stands for."""
    return f"{given_orcpt(recipient)} {accepted_as(recipient)}"


def said_orcpt(recipient: Recipient) -> str:
    """Return the ORCPT to tell a next hop: the one given, or else our own.

    RFC 3461 §5.2.1: it may be added where there was none, and is then the address
    that we accepted; empty if that cannot be said.
    """
    given = given_orcpt(recipient)
    if given:
        # RFC 6533 §3: so it may be said to hosts without SMTPUTF8, too
        return given if given.isascii() else _NOT_ASCII.sub(_embedded, given)
    address = accepted_as(recipient)
    if address.isascii():
        added = f"rfc822;{to_xtext(address)}"
    else:
        added = f"utf-8;{_NOT_QCHAR.sub(_embedded, address)}"
    return added if len(added) <= _ORCPT_CHARS_MAX else ""


def _embedded(match: re.Match[str]) -> str:
    return f"\\x{{{ord(match[0]):02X}}}"


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
    ``tls`` is what is known of an encrypted session; it is not kept in the queue.
    """

    protocol: str = "local"
    client_ip: str = ""
    client_port: int = 0
    client_name: str = ""
    helo: str = ""
    login: str = ""
    listener: str = ""
    tls: TlsFacts | None = None


def protocol_word(origin: Origin) -> str:
    """Return what a session's protocol is called by now (RFC 3848 §1).

    ``S`` stands for TLS, ``A`` for a login; there are no such words for HELO.
    """
    word = origin.protocol.rstrip("SA")
    if word not in ("ESMTP", "LMTP"):
        return origin.protocol
    return f"{word}{'S' if origin.tls else ''}{'A' if origin.login else ''}"


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


def released_us(envelope: Envelope) -> int:
    """Return from when on a message is delivered, and its waiting counts.

    That is its arrival, or the time until which its sender had it held (RFC 4865).
    """
    return max(envelope.arrival_us, envelope.hold_until_us)
