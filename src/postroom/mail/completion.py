"""Makes the header of a locally submitted letter whole, as sendmail does.

Missing From, Date and Message-Id are put in front (their Resent- kin too when the
letter is resent), bare names get a domain, blind copies and fields that are not the
sender's to set go. Fields that are there keep their order and their bytes; one that
cannot be understood is left as it is.
"""

import re
from base64 import b64encode

import msgspec

from postroom.mail.address import Address
from postroom.mail.address_list import AddressList, Mailbox, parse_address_list
from postroom.mail.headers import Field, fields, find, find_all

# RFC 5322 §3.2.3: what a display name may hold without quotes.
_PHRASE = re.compile(r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~ ]+")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]+")
# RFC 2047 §2: an encoded-word has at most 75 characters; 39 octets make 52.
_ENCODED_OCTETS_MAX = 39
_NAME_CHARS_MAX = 256

_ORIGINATORS = frozenset(
    name
    for plain in ("from", "sender", "reply-to")
    for name in (plain, f"resent-{plain}")
)
_QUALIFIED = _ORIGINATORS | {"to", "cc", "resent-to", "resent-cc"}
# Not the sender's to set, or not for the recipients' eyes.
_DROPPED = frozenset(
    ("bcc", "resent-bcc", "return-path", "full-name", "content-length")
)


class Author(msgspec.Struct, frozen=True):
    """Who submits the letter, and what is needed to say so.

    ``address`` is the envelope sender. ``full_name`` was given for this letter;
    ``account_name`` is known of the user, and counts least; both may be empty.
    ``warning`` is the text of an ``X-Authentication-Warning``, empty for none.
    """

    address: Address
    full_name: str
    domain: str
    warning: str = ""
    account_name: str = ""


def complete_header(
    header: bytes, author: Author, *, date: str, message_id: str
) -> bytes:
    """Return a whole header block for a letter.

    Args:
        header: the block as the letter had it.
        author: who submits it.
        date: the value of Date, if it is missing.
        message_id: the value of Message-Id with its angle brackets, if missing.
    """
    given = list(fields(header))
    keys = {field.key for field in given}
    field_name = _text(find(header, "Full-Name") or b"")
    name = author.full_name or field_name or author.account_name
    is_resent = any(key.startswith("resent-") for key in keys)
    made = [
        ("Date", date),
        ("From", from_value(author, name)),
        ("Message-Id", message_id),
    ]
    front = [
        f"{prefix}{missing}: {value}\r\n"
        for missing, value in made
        for prefix in (("Resent-", "") if is_resent else ("",))
        if f"{prefix}{missing}".lower() not in keys
    ]
    if author.warning:
        front.insert(0, f"X-Authentication-Warning: {_clean(author.warning)}\r\n")
    kept = [_repaired(field, author.domain) for field in given if _is_kept(field)]
    if "bcc" in keys and not keys & {"to", "cc"}:
        kept.append(b"Bcc:\r\n")  # RFC 5322 §3.6.3: some destination, even if empty
    return "".join(front).encode("utf-8", "replace") + b"".join(kept)


def header_recipients(header: bytes) -> AddressList:
    """Return whom a letter's header names as recipients (``sendmail -t``).

    The Resent- fields count, and only they, when the letter is resent.
    """
    is_resent = any(field.key.startswith("resent-") for field in fields(header))
    prefix = "Resent-" if is_resent else ""
    found: list[Mailbox] = []
    for name in ("To", "Cc", "Bcc"):
        for value in find_all(header, prefix + name):
            parsed = parse_address_list(_text(value))
            found.extend(parsed.mailboxes)
            if parsed.problem:
                return AddressList(tuple(found), f"{name}: {parsed.problem}")
    return AddressList(tuple(found))


def from_value(author: Author, full_name: str) -> str:
    """Return the value of a From field: ``"Betty Q. Boop" <betty@gonzo.test>``."""
    address = author.address
    if address.is_null:
        return f"Mail Delivery Subsystem <MAILER-DAEMON@{author.domain}>"
    phrase = display_name(full_name)
    text = _clean(address.to_text())
    return f"{phrase} <{text}>" if phrase else text


def display_name(name: str) -> str:
    """Write a person's name so that no part of it can be taken for an address."""
    name = _clean(name)[:_NAME_CHARS_MAX].strip()
    if not name or _PHRASE.fullmatch(name):
        return name
    if name.isascii():
        escaped = name.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return " ".join(encoded_words(name))


def encoded_words(name: str) -> list[str]:
    """Write a text as words that any mail program reads (RFC 2047 §2, §4.1)."""
    words, part = [], b""
    for char in name:
        octets = char.encode("utf-8", "replace")
        if len(part) + len(octets) > _ENCODED_OCTETS_MAX:  # never within a character
            words.append(part)
            part = b""
        part += octets
    return [f"=?UTF-8?B?{b64encode(word).decode()}?=" for word in (*words, part)]


def _is_kept(field: Field) -> bool:
    return field.key not in _DROPPED


def _repaired(field: Field, domain: str) -> bytes:
    """Give bare names of an address field a domain, and lost commas back."""
    if field.key not in _QUALIFIED:
        return field.raw
    name, colon, value = field.raw.partition(b":")
    text = _text(value)
    parsed = parse_address_list(text)
    lost_commas = any(mailbox.needs_comma for mailbox in parsed.mailboxes)
    if parsed.problem or (lost_commas and field.key in _ORIGINATORS):
        return field.raw
    parts, at = [], 0
    for mailbox in parsed.mailboxes:
        if mailbox.needs_comma:
            before = text[at : mailbox.start]
            parts.append(f"{before.rstrip()},{before[len(before.rstrip()) :]}")
            at = mailbox.start
        if mailbox.is_bare and mailbox.text:
            parts.append(f"{text[at : mailbox.end]}@{domain}")
            at = mailbox.end
    whole = "".join((*parts, text[at:]))
    return name + colon + whole.encode("utf-8", "surrogateescape")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _clean(text: str) -> str:
    safe = text.encode("utf-8", "replace").decode("utf-8", "replace")
    return _CONTROLS.sub(" ", safe)
