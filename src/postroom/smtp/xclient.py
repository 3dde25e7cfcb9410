"""What a trusted proxy says of its client with XCLIENT (Postfix's XCLIENT_README).

``XCLIENT NAME=mail.example ADDR=192.0.2.1``: pairs of attribute and value in xtext;
``[UNAVAILABLE]`` and ``[TEMPUNAVAIL]`` stand for what could not be had.
"""

import re
from collections.abc import Callable
from ipaddress import ip_address

import msgspec

from postroom.mail.address import DOMAIN
from postroom.mail.envelope import from_xtext
from postroom.smtp.grammar import XTEXT, syntax

ATTRIBUTES = "NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"
"""What may be said, as the hello names it."""

_NONE = frozenset({"[UNAVAILABLE]", "[TEMPUNAVAIL]"})
_PORT = re.compile(r"[0-9]{1,5}")
_VALUE_CHARS_MAX = 255


class Claims(msgspec.Struct, frozen=True):
    """What was said; None: nothing was, empty or 0: it could not be had.

    ``addr`` and ``destaddr`` are addresses as Python writes them; ``proto`` is
    ``SMTP`` or ``ESMTP``.
    """

    name: str | None = None
    addr: str | None = None
    port: int | None = None
    proto: str | None = None
    helo: str | None = None
    login: str | None = None
    destaddr: str | None = None
    destport: int | None = None


def read_claims(text: str) -> Claims:
    """Read the arguments of XCLIENT.

    Raises:
        Fault: they are malformed; nothing of them counts then.
    """
    found: dict[str, str | int] = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        field = name.lower()
        read = _READERS.get(field)
        if read is None or not equals:
            raise syntax("XCLIENT needs attributes that the hello names")
        if field in found:
            raise syntax(f"Attribute {field.upper()} is given twice")
        if value.upper() in _NONE:
            found[field] = 0 if field.endswith("port") else ""
            continue
        if not XTEXT.fullmatch(value):
            raise syntax(f"Attribute {field.upper()} is no xtext")
        decoded = from_xtext(value)
        if not decoded.isascii() or not decoded.isprintable():
            raise syntax(f"Attribute {field.upper()} holds no printable text")
        found[field] = read(decoded)
    if not found:
        raise syntax("XCLIENT needs attributes that the hello names")
    return msgspec.convert(found, Claims)


def _address(text: str) -> str:
    if text[:5].upper() == "IPV6:":
        text = text[5:]
    try:
        # one spelling for each, as connections have it; a zone means nothing to us
        address = ip_address(text.partition("%")[0])
    except ValueError:
        raise syntax("XCLIENT needs an IP address") from None
    return str(getattr(address, "ipv4_mapped", None) or address)


def _port(text: str) -> int:
    if not _PORT.fullmatch(text) or int(text) > 65535:
        raise syntax("XCLIENT needs a port up to 65535")
    return int(text)


def _protocol(text: str) -> str:
    if text.upper() not in ("SMTP", "ESMTP"):
        raise syntax("XCLIENT knows the protocols SMTP and ESMTP")
    return text.upper()


def _name(text: str) -> str:
    if len(text) > _VALUE_CHARS_MAX or not DOMAIN.fullmatch(text.rstrip(".")):
        raise syntax("XCLIENT needs a host name")
    return text.rstrip(".")


def _plain(text: str) -> str:
    if len(text) > _VALUE_CHARS_MAX:
        raise syntax("Attribute is too long")
    return text


_READERS: dict[str, Callable[[str], str | int]] = {
    "name": _name,
    "addr": _address,
    "port": _port,
    "proto": _protocol,
    "helo": _plain,
    "login": _plain,
    "destaddr": _address,
    "destport": _port,
}
