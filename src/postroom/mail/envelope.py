"""The envelope: who sends, to whom, and what was said about it in MAIL and RCPT."""

from enum import StrEnum

import msgspec

from postroom.mail.address import NULL_SENDER, Address


class BodyType(StrEnum):
    """What the client declared of the content (RFC 6152, RFC 3030)."""

    SEVEN_BIT = "7BIT"
    EIGHT_BIT = "8BITMIME"
    BINARY = "BINARYMIME"


class Recipient(msgspec.Struct, frozen=True, gc=False):
    """One recipient and its DSN wishes (RFC 3461 §4.1, §4.2).

    ``notify`` is as received (``"NEVER"``, ``"SUCCESS,FAILURE"``), empty if not given.
    ``orcpt`` is the original recipient in xtext, empty if not given.
    """

    address: Address
    notify: str = ""
    orcpt: str = ""


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
