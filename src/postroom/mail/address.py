"""Mail addresses as in SMTP envelopes: ``local-part@domain``.

Parsing accepts what RFC 5321 §4.1.2 allows (with UTF-8 as RFC 6531 §3.3 extends it)
and raises ``AddressError`` for all else; the text of the error is fit for a person.
"""

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address

import msgspec

LOCAL_PART_OCTETS_MAX = 64  # RFC 5321 §4.5.3.1.1
DOMAIN_OCTETS_MAX = 255  # RFC 5321 §4.5.3.1.2
ADDRESS_OCTETS_MAX = 254  # RFC 5321 §4.5.3.1.3: a path is 256 with its brackets

# UTF8-non-ascii (RFC 6531 §3.3) without C1 controls, line and paragraph separators
# and surrogates, which could end a line where text is written out, or not be written.
_UTF8 = r"\u00a0-\u2027\u202a-\ud7ff\ue000-\U0010ffff"
# RFC 5322 §3.2.3: atext; RFC 6531 §3.3 adds UTF8-non-ascii.
_ATEXT = rf"[A-Za-z0-9!#$%&'*+\-/=?^_`{{|}}~{_UTF8}]"
# Dot-string = Atom *("." Atom)
DOT_STRING = re.compile(rf"{_ATEXT}+(?:\.{_ATEXT}+)*")
# QcontentSMTP = qtextSMTP / quoted-pairSMTP
QUOTED_STRING = re.compile(
    rf'"((?:[\x20\x21\x23-\x5b\x5d-\x7e{_UTF8}]|\\[\x20-\x7e])*)"'
)
# sub-domain = Let-dig [Ldh-str]; the underscore is not in the RFC but in use. One class
# of characters, looked at from both ends: a class with all of UTF-8 takes a millisecond
# to compile, in each process and command.
_LABEL = rf"(?!-)[A-Za-z0-9_\-{_UTF8}]{{1,63}}(?<!-)"
DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
# address-literal = "[" ( IPv4-address-literal / IPv6-address-literal / ... ) "]"
ADDRESS_LITERAL = re.compile(r"\[(?:IPv6:)?[0-9A-Fa-f:.]+\]", re.IGNORECASE)


class AddressError(ValueError):
    """The text is no mail address; the message says why."""


class Address(msgspec.Struct, frozen=True, gc=False):
    """One mail address.

    ``local`` is the local part without quotes and backslashes; ``domain`` is as it
    was written, possibly a literal such as ``[127.0.0.1]``. Both are empty for the
    null sender ``<>``; only ``domain`` is empty for bare names such as
    ``postmaster``.
    """

    local: str
    domain: str

    @classmethod
    def from_text(cls, text: str) -> "Address":
        """Read ``local@domain`` or a bare ``local``; the empty text is the null sender.

        Raises:
            AddressError: the text is no address.
        """
        return _parse(text)

    def to_text(self) -> str:
        """Write it for an envelope, quoting the local part only where needed."""
        local = self.local
        if not DOT_STRING.fullmatch(local) and (local or self.domain):
            escaped = local.replace("\\", "\\\\").replace('"', '\\"')
            local = f'"{escaped}"'
        return f"{local}@{self.domain}" if self.domain else local

    @property
    def domain_key(self) -> str:
        """The domain for comparison: lower case, no trailing dot (RFC 5321 §2.4)."""
        return self.domain.lower().rstrip(".")

    @property
    def is_null(self) -> bool:
        """Whether this is the null sender ``<>`` (RFC 5321 §4.5.5)."""
        return not self.local and not self.domain

    @property
    def is_ascii(self) -> bool:
        """Whether a peer without SMTPUTF8 can be told this address."""
        return self.local.isascii() and self.domain.isascii()

    def __str__(self) -> str:
        return self.to_text()


NULL_SENDER = Address("", "")


@lru_cache(maxsize=4096)
def _parse(text: str) -> Address:
    if not text:
        return NULL_SENDER
    if text[0] == "@":
        text = _without_route(text)
    if len(text.encode("utf-8", "surrogatepass")) > ADDRESS_OCTETS_MAX:
        raise AddressError(f"address is longer than {ADDRESS_OCTETS_MAX} octets")
    local, rest = _split_local(text)
    if len(local.encode("utf-8", "surrogatepass")) > LOCAL_PART_OCTETS_MAX:
        raise AddressError(f"local part is longer than {LOCAL_PART_OCTETS_MAX} octets")
    if not rest:
        return Address(local, "")
    if rest[0] != "@":
        raise AddressError("local part has characters that need quotes")
    return Address(local, _domain(rest[1:]))


def _without_route(text: str) -> str:
    """Strip a source route, as RFC 5321 §4.1.1.3 says, and use the rest."""
    # A-d-l = At-domain *( "," At-domain ), and a colon behind it
    route, colon, rest = text.partition(":")
    hops = route.split(",")
    is_route = all(hop[:1] == "@" and DOMAIN.fullmatch(hop, 1) for hop in hops)
    return rest if colon and is_route else text


def _split_local(text: str) -> tuple[str, str]:
    if text.startswith('"'):
        quoted = QUOTED_STRING.match(text)
        if not quoted or len(quoted[0]) == 2:
            raise AddressError("quoted local part is empty or not closed")
        return re.sub(r"\\(.)", r"\1", quoted[1]), text[quoted.end() :]
    plain = DOT_STRING.match(text)
    if not plain:
        raise AddressError("local part is missing or has forbidden characters")
    return plain[0], text[plain.end() :]


def _domain(text: str) -> str:
    if text.startswith("["):
        return _literal(text)
    name = text[:-1] if text.endswith(".") else text
    if not DOMAIN.fullmatch(name):
        raise AddressError("domain is missing or has forbidden characters")
    if len(name.encode("utf-8", "surrogatepass")) > DOMAIN_OCTETS_MAX:
        raise AddressError(f"domain is longer than {DOMAIN_OCTETS_MAX} octets")
    return name


def _literal(text: str) -> str:
    if not ADDRESS_LITERAL.fullmatch(text):
        raise AddressError("address literal is malformed")
    inner = text[1:-1]
    try:
        if inner[:5].lower() == "ipv6:":
            return f"[IPv6:{IPv6Address(inner[5:])}]"
        return f"[{IPv4Address(inner)}]"
    except AddressValueError as error:
        raise AddressError(f"address literal is malformed: {error}") from None
