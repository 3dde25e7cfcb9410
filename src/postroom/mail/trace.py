"""Trace fields: what every host that touches a message writes in front of it.

``received_field`` says where the message came from, ``return_path_field`` and
``delivered_to_field`` are put on at final delivery, ``hop_count`` counts the hosts
passed so far. Pure. What a client said of itself is made harmless here: control and
special characters become question marks, so that no field can be forged.
"""

import re
from datetime import UTC, datetime
from functools import lru_cache

from postroom.mail.address import Address
from postroom.mail.envelope import Envelope, Origin
from postroom.mail.headers import find_all
from postroom.mail.ids import QueueId
from postroom.mail.now import SECOND_US
from postroom.mail.tls import TlsFacts

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)
# Extended-Domain = Domain / address-literal: what may stand outside a comment.
_NAME_OUTSIDE = re.compile(r"[\x00-,/;-@\\^`{-\x7f]")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NOT_WORD = re.compile(r"[^A-Za-z0-9_\-]")  # ciphers have underscores
_NAME_CHARS_MAX = 255  # RFC 5321 §4.5.3.1.2
# The name may be parted from its colon by blanks (RFC 5322 §4.5).
_RECEIVED = re.compile(rb"\n[Rr][Ee][Cc][Ee][Ii][Vv][Ee][Dd][ \t]*:")
_DELIVERED_TO = re.compile(rb"\n[Dd][Ee][Ll][Ii][Vv][Ee][Rr][Ee][Dd]-[Tt][Oo]")


def date_text(utc_us: int, zone_offset_s: int) -> str:
    """Write a moment as RFC 5322 §3.3 does: ``Sun, 22 Nov 2026 15:35:11 +0100``.

    Args:
        utc_us: the moment, in microseconds since 1970.
        zone_offset_s: the zone's offset east of UTC in seconds; odd seconds are cut.
    """
    return _date_of_second(utc_us // SECOND_US, zone_offset_s)


@lru_cache(maxsize=64)
def _date_of_second(utc_s: int, zone_offset_s: int) -> str:
    minutes = abs(zone_offset_s) // 60
    sign = "-" if zone_offset_s < 0 else "+"
    shift = minutes * 60 if zone_offset_s >= 0 else -minutes * 60
    at = datetime.fromtimestamp(utc_s + shift, UTC)
    return (
        f"{_DAYS[at.weekday()]}, {at.day} {_MONTHS[at.month - 1]} {at.year} "
        f"{at.hour:02}:{at.minute:02}:{at.second:02} "
        f"{sign}{minutes // 60:02}{minutes % 60:02}"
    )


def received_field(
    envelope: Envelope,
    queue_id: QueueId,
    hostname: str,
    utc_us: int,
    zone_offset_s: int,
    *,
    is_client_hidden: bool = False,
) -> bytes:
    """Return the ``Received`` field for a message just taken (RFC 5321 §4.4).

    The ``for`` clause is there only when the message has a single recipient: more
    would tell them of one another (RFC 5321 §7.2, §7.6). Where the client is to be
    hidden there is no ``from`` clause.
    """
    origin = envelope.origin
    date = _date_of_second(utc_us // SECOND_US, zone_offset_s)
    path = _for_clause(envelope)
    if envelope.priority:  # RFC 6710 §4.1
        path = f"{path}\r\n\tPRIORITY {envelope.priority}"
    if origin.client_ip:
        by = f"\r\n\tby {hostname} with {_safe_name(origin.protocol)} id {queue_id}"
    else:
        by = f"\r\n\tby {hostname} id {queue_id}"
    if origin.tls is not None:
        by += _tls_comment(origin.tls)
    sender = by.lstrip() if is_client_hidden else f"{_from_clause(origin)}{by}"
    text = f"Received: {sender}{path};\r\n\t{date}\r\n"
    return text.encode("utf-8", "replace")


def utf8_protocol(word: str) -> str:
    """Return the word of the ``with`` clause for mail with SMTPUTF8 (RFC 6531 §4.3)."""
    base = word.removeprefix("E")
    return f"UTF8{base}" if base.startswith(("SMTP", "LMTP")) else word


def _tls_comment(tls: TlsFacts) -> str:
    """As sendmail writes it. What a certificate says is not for strangers to read."""
    cipher = _NOT_WORD.sub("?", tls.cipher)
    return (
        f"\r\n\t(version={_safe_name(tls.version)} cipher={cipher} bits={tls.bits} "
        f"verify={_safe_name(tls.verify)})"
    )


def _from_clause(origin: Origin) -> str:
    if not origin.client_ip:
        # As sendmail writes it for mail that did not come by SMTP.
        return f"(from {_safe_name(origin.login or 'unknown')}@localhost)"
    helo = _safe_name(origin.helo) or "unknown"
    tag = "IPv6:" if ":" in origin.client_ip else ""  # RFC 5321 §4.1.3
    name = f"{_safe_name(origin.client_name)} " if origin.client_name else ""
    return f"from {helo} ({name}[{tag}{origin.client_ip}])"


def _for_clause(envelope: Envelope) -> str:
    if len(envelope.recipients) != 1:
        return ""
    address = envelope.recipients[0].address
    if not (address.is_ascii or envelope.smtputf8):
        return ""
    return f"\r\n\tfor <{_printable(address.to_text())}>"


def return_path_field(sender: Address) -> bytes:
    """Return the ``Return-Path`` field for final delivery (RFC 5321 §4.4)."""
    text = _printable(sender.to_text())
    return f"Return-Path: <{text}>\r\n".encode("utf-8", "replace")


def delivered_to_field(recipient: Address) -> bytes:
    """Return the ``Delivered-To`` field (RFC 9228 §3), by which loops are seen."""
    text = _printable(recipient.to_text())
    return f"Delivered-To: {text}\r\n".encode("utf-8", "replace")


def has_delivered_to(header: bytes) -> bool:
    """Whether a header may hold ``Delivered-To``; so for little mail, and quick."""
    return _DELIVERED_TO.search(b"\n" + header) is not None


def was_delivered_to(header: bytes, recipient: Address) -> bool:
    """Whether the message was at this address before: it goes round in circles.

    Judged by ``Delivered-To`` (RFC 9228 §4), without regard to case.
    """
    address = _printable(recipient.to_text()).encode("utf-8", "replace").lower()
    return any(v.lower() == address for v in find_all(header, "Delivered-To"))


def hop_count(header: bytes) -> int:
    """Count the ``Received`` fields of a header block (RFC 5321 §6.3)."""
    return len(_RECEIVED.findall(b"\n" + header))


@lru_cache(maxsize=1024)
def _safe_name(name: str) -> str:
    return _NAME_OUTSIDE.sub("?", name[:_NAME_CHARS_MAX])


def _printable(text: str) -> str:
    return text if text.isprintable() else _CONTROLS.sub("?", text)
