"""The right side of the routes table: ``agent:host``. Pure.

``smtp:[host]:port``, ``smtp:host`` (by MX), ``smtps:[host]`` (TLS from the beginning),
``lmtp:[host]:port``, ``lmtp:/socket``, each with options behind it
(``smtp:[host]:587 tls=verified login=relay``); ``discard:``, ``mailbox:`` (as if the
domain were local), ``error:5.1.1 text``. A value that is none of these raises
``ValueError`` with a sentence for a person.
"""

import re

import msgspec

from postroom.dns.hop_options import read_hop
from postroom.dns.names import to_ascii
from postroom.mail.address import Address, AddressError
from postroom.mail.route import LOCAL_HOP, Route
from postroom.route.routing import Relay, Unroutable

CATCH_ALL = ("*", ".")
"""The keys for all domains that have no other: ours, and sendmail's."""

_SMTP = {"smtp", "esmtp", "relay"}
_LOCAL = {"mailbox", "local"}
# RFC 3463 §2: class "." subject "." detail; sendmail writes error:D.S.N:code text
_ERROR = re.compile(
    r"(?:([45]\d\d)(?:[ :]+|$))?"
    r"(?:([45]\.\d{1,3}\.\d{1,3})(?::([45]\d\d))?(?:[ :]+|$))?(.*)"
)


class AsLocal(msgspec.Struct, frozen=True, gc=False):
    """The domain's recipients are looked for among our users and aliases."""

    rule: str


Way = Relay | AsLocal | Unroutable


def read_way(domain: str, value: str, rule: str) -> Way:
    """Read what the routes table has for a domain.

    Args:
        domain: the recipient's domain, where ``smtp:`` names no host.
        value: the right side.
        rule: what decided, for people.

    Raises:
        ValueError: the value makes no sense; the message says what is expected.
    """
    agent, colon, rest = value.partition(":")
    agent, rest = agent.strip().lower(), rest.strip()
    if not colon:
        raise _expected(value)
    if agent in _SMTP:
        # "smtp:" and "smtp: tls=required" name no host: the domain's own, by MX
        has_host = rest and "=" not in rest.split()[0]
        hop = read_hop(rest if has_host else f"{domain} {rest}") if rest else domain
        return Relay(Route("smtp", hop, rule))
    if agent == "smtps" and rest:
        return Relay(Route("smtp", read_hop(rest, implicit=True), rule))
    if agent == "lmtp" and rest:
        socket = rest.removeprefix("unix:")
        hop = socket if socket.startswith("/") else read_hop(rest)
        return Relay(Route("lmtp", hop, rule), ours=True)
    if agent == "discard" and not rest:
        return Relay(Route("discard", LOCAL_HOP, rule), ours=True)
    if agent in _LOCAL and not rest:
        return AsLocal(rule)
    if agent == "error" and rest:
        return _read_error(rest, rule)
    raise _expected(value)


def check_way(key: str, value: str) -> None:
    """Check an entry of the routes table when it is read.

    Raises:
        ValueError: the entry makes no sense.
    """
    if not key.isascii():
        raise ValueError(f'"{key}": write it as {to_ascii(key) or "ASCII"}')
    read_way(_some_domain(key), value, "")


def _some_domain(key: str) -> str:
    """Return a domain that a key of the routes table is found for.

    Raises:
        ValueError: there is none, so that the entry would mean nothing.
    """
    if key in CATCH_ALL:
        return "host.test"
    domain = f"host{key}" if key.startswith(".") else key
    try:
        address = Address.from_text(f"postmaster@{domain}")
    except AddressError:
        address = None
    if address is None or address.domain_key != domain:
        raise ValueError(
            f'"{key}" is no domain: write "host.example", ".example" (all beneath it), '
            '"[192.0.2.1]", "[ipv6:2001:db8::1]" or "*"'
        )
    return domain


def _read_error(text: str, rule: str) -> Unroutable:
    match = _ERROR.fullmatch(text)
    assert match is not None  # every part of it may be empty
    code = int(match[1] or match[3] or 0)
    status = match[2] or ("4.0.0" if 400 <= code < 500 else "5.0.0")
    if not code:
        code = 450 if status.startswith("4") else 550
    if str(code)[0] != status[0]:
        raise ValueError(f'"error:{text}": code {code} does not fit status {status}')
    return Unroutable(match[4].strip() or "Access denied", rule, status, code)


def _expected(value: str) -> ValueError:
    return ValueError(
        f'"{value}" is no way for mail: write "smtp:[host]:port", "smtp:host", '
        '"smtps:[host]", '
        '"lmtp:[host]:port", "lmtp:/socket", "discard:", "mailbox:" or '
        '"error:5.1.1 text"'
    )
