"""What the ``message`` phase may change, in words: arguments of ``accept``.

Each returns a value; nothing happens to the message until the chain is through. A
field that would be malformed raises ``ValueError``, which defers the message like any
error in a hook. What was made in another way is judged by ``flaw``.
"""

import re

from postroom.mail.address import Address, AddressError
from postroom.mail.completion import encoded_words
from postroom.mail.message import Add, Prepend, Remove, Replace
from postroom.mail.reply import Reply
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
# One whole field: its name, its folded value, its CRLF.
_FIELD = re.compile(rb"[!-9;-~]{1,77}:[^\r\n\0]*\r\n(?:[ \t][^\r\n\0]*\r\n)*")
# Fields whose values have a grammar, in which encoded words have few places.
_STRUCTURED = frozenset(
    (
        *("from", "to", "cc", "bcc", "sender", "reply-to", "date", "message-id"),
        *("in-reply-to", "references", "received", "return-path", "delivered-to"),
        *("mime-version", "authentication-results", "dkim-signature"),
    )
)
_STRUCTURED_KINDS = ("resent-", "content-", "list-", "arc-")
_LINE_END = re.compile(r"\r\n|\r|\n")


def add_header(name: str, value: str) -> Add:
    """Add a field after all others.

    Letters beyond ASCII in free text (``Subject``, ``X-...``) become encoded words
    (RFC 2047), in ``To`` and its like they stay: write those as the field wants them.

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


def add_recipient(address: str | Address, *, silent: bool = False) -> AddRecipient:
    """Deliver to this address as well.

    An address of ours that nobody has is left out, and the log says so.

    Args:
        address: where to.
        silent: the sender never hears of this recipient: no report if it fails or is
            late (RFC 3461 §4.1: NOTIFY=NEVER). For archives.

    Raises:
        AddressError: the text is no address with a domain.
    """
    return AddRecipient(_address(address), "NEVER" if silent else "")


def remove_recipient(address: str | Address) -> RemoveRecipient:
    """Do not deliver to this recipient. The case of the letters does not matter.

    Raises:
        AddressError: the text is no address with a domain.
    """
    return RemoveRecipient(_address(address))


def refuse_recipient(
    address: str | Address, verdict: Reject | Defer
) -> RefuseRecipient:
    """Do not deliver to this recipient, and tell the client so.

    Only where ``message.answers_each`` says so it can be told for this one alone;
    elsewhere the message is refused for all.

    Raises:
        AddressError: the text is no address with a domain.
    """
    return RefuseRecipient(_address(address), verdict.reply)


def quarantine(reason: str) -> Quarantine:
    """Accept and keep the message until an operator releases it.

    Raises:
        ValueError: the reason, which the operator is to read, is empty.
    """
    if not reason.strip():
        raise ValueError("a quarantine needs a reason, for the operator")
    return Quarantine(reason)


def flaw(change: object) -> str:
    """Return what is wrong with a change, however it was made; empty if nothing is."""
    match change:
        case Add(field) | Prepend(field):
            return _flaw_of_field(field)
        case Replace(name, field):
            return _flaw_of_name(name) or _flaw_of_field(field)
        case Remove(name):
            return _flaw_of_name(name)
        case ReplaceBody(body):
            return "" if isinstance(body, bytes) else "the new body is not bytes"
        case AddRecipient(address, notify):
            is_known = notify in ("", "NEVER")
            return _flaw_of_address(address) if is_known else "notify is NEVER or empty"
        case RemoveRecipient(address):
            return _flaw_of_address(address)
        case RefuseRecipient(address, reply):
            wrong = not isinstance(reply, Reply) or not 400 <= reply.code < 600
            return "no refusal of a recipient" if wrong else _flaw_of_address(address)
        case Quarantine(reason):
            is_told = isinstance(reason, str) and reason.strip()
            return "" if is_told else "a quarantine needs a reason"
        case _:
            return "only changes go into accept(), one by one: accept(add_header(...))"


def _address(address: str | Address) -> Address:
    if isinstance(address, Address):
        return address  # of an envelope: perhaps a bare name
    found = Address.from_text(address)
    if not found.domain:
        raise AddressError(f'"{address}" has no domain: write "joe@example.org"')
    return found


def _flaw_of_address(address: object) -> str:
    is_one = isinstance(address, Address) and not address.is_null
    return "" if is_one else "a recipient is no address"


def _flaw_of_name(name: object) -> str:
    is_one = isinstance(name, str) and _FIELD_NAME.fullmatch(name)
    return "" if is_one else "that is no header name"


def _flaw_of_field(field: object) -> str:
    is_one = isinstance(field, bytes) and len(field) <= FIELD_OCTETS_MAX
    if is_one and isinstance(field, bytes) and _FIELD.fullmatch(field):
        return ""
    return "a field is malformed: make it by add_header(name, value)"


def _checked_name(name: str) -> str:
    if not _FIELD_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no header name (RFC 5322 §2.2)")
    return name


def _field(name: str, value: str) -> bytes:
    """Join name and value; a value of several lines is folded (RFC 5322 §2.2.3)."""
    _checked_name(name)
    lines = (line.strip() for line in _LINE_END.split(value.strip()))
    if not value.isascii() and _is_free_text(name):
        lines = (_in_ascii(line) for line in lines)
    folded = "\r\n\t".join(line for line in lines if line)
    if "\0" in folded:
        raise ValueError(f"the value of {name} has a NUL")
    field = f"{name}: {folded}\r\n".encode()
    if len(field) > FIELD_OCTETS_MAX:
        raise ValueError(f"{name} is longer than {FIELD_OCTETS_MAX} octets")
    return field


def _is_free_text(name: str) -> bool:
    """Whether encoded words may stand anywhere in a field (RFC 2047 §5)."""
    key = name.lower()
    return key not in _STRUCTURED and not key.startswith(_STRUCTURED_KINDS)


def _in_ascii(line: str) -> str:
    """Encode the words of a line that are not ASCII, and what stands between them."""
    words = line.split(" ")
    places = [i for i, word in enumerate(words) if not word.isascii()]
    if not places:
        return line
    first, end = places[0], places[-1] + 1
    text = " ".join(words[first:end])
    # RFC 2047 §6.2: a blank between two encoded words is not shown.
    if first and words[first - 1].endswith("?="):
        text = f" {text}"
    if end < len(words) and words[end].startswith("=?"):
        text = f"{text} "
    encoded = "\r\n\t".join(encoded_words(text))
    return " ".join((*words[:first], encoded, *words[end:]))
