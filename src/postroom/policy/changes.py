"""What the ``message`` phase may change, in words: arguments of ``accept``.

Each returns a value; nothing happens to the message until the chain is through. A
field that would be malformed raises ``ValueError``, which defers the message like any
error in a hook.
"""

import re

from postroom.mail.address import Address
from postroom.mail.message import Add, Prepend, Remove, Replace
from postroom.mail.verdict import (
    AddRecipient,
    Defer,
    Quarantine,
    RefuseRecipient,
    Reject,
    RemoveRecipient,
    ReplaceBody,
)

FIELD_OCTETS_MAX = 64 * 1024
"""How long one added header field may be."""

# RFC 5322 §2.2: ftext, printable US-ASCII without the colon.
_FIELD_NAME = re.compile(r"[!-9;-~]{1,77}")
_LINE_END = re.compile(r"\r\n|\r|\n")


def add_header(name: str, value: str) -> Add:
    """Add a field after all others.

    Raises:
        ValueError: the name or the value cannot stand in a header.
    """
    return Add(_field(name, value))


def prepend_header(name: str, value: str) -> Prepend:
    """Add a field before all others.

    Raises:
        ValueError: the name or the value cannot stand in a header.
    """
    return Prepend(_field(name, value))


def replace_header(name: str, value: str) -> Replace:
    """Take away every field of this name and put one where the first stood.

    Raises:
        ValueError: the name or the value cannot stand in a header.
    """
    return Replace(name, _field(name, value))


def remove_header(name: str) -> Remove:
    """Take away every field of this name, in any case.

    Raises:
        ValueError: the name cannot stand in a header.
    """
    return Remove(_checked_name(name))


def replace_body(text: bytes | str) -> ReplaceBody:
    """Put this in place of the body; any line ends become CRLF (RFC 5321 §2.3.8)."""
    data = text.encode() if isinstance(text, str) else text
    lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return ReplaceBody(lines.replace(b"\n", b"\r\n"))


def add_recipient(address: str | Address) -> AddRecipient:
    """Deliver to this address as well.

    Raises:
        AddressError: the text is no address.
    """
    return AddRecipient(_address(address))


def remove_recipient(address: str | Address) -> RemoveRecipient:
    """Do not deliver to this recipient.

    Raises:
        AddressError: the text is no address.
    """
    return RemoveRecipient(_address(address))


def refuse_recipient(
    address: str | Address, verdict: Reject | Defer
) -> RefuseRecipient:
    """Do not deliver to this recipient, and tell the client so.

    Only where ``message.answers_each`` says so it can be told for this one alone;
    elsewhere the message is refused for all.

    Raises:
        AddressError: the text is no address.
    """
    return RefuseRecipient(_address(address), verdict.reply)


def quarantine(reason: str) -> Quarantine:
    """Accept and keep the message until an operator releases it."""
    return Quarantine(reason)


def _address(address: str | Address) -> Address:
    return Address.from_text(address) if isinstance(address, str) else address


def _checked_name(name: str) -> str:
    if not _FIELD_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no header name (RFC 5322 §2.2)")
    return name


def _field(name: str, value: str) -> bytes:
    """Join name and value; a value of several lines is folded (RFC 5322 §2.2.3)."""
    _checked_name(name)
    lines = _LINE_END.split(value.strip())
    folded = "\r\n\t".join(line.strip() for line in lines if line.strip())
    if "\0" in folded:
        raise ValueError(f"the value of {name} has a NUL")
    field = f"{name}: {folded}\r\n".encode()
    if len(field) > FIELD_OCTETS_MAX:
        raise ValueError(f"{name} is longer than {FIELD_OCTETS_MAX} octets")
    return field
