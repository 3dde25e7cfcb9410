"""Settings of the agents that speak SMTP or LMTP to other systems."""

from typing import Literal

import msgspec

from postroom.dns.hop import Hop
from postroom.dns.hop_options import UNIX, ImplicitTls, TlsLevel
from postroom.dns.names import is_ip_address, to_ascii
from postroom.dns.settings import AddressOrder
from postroom.mail.units import Duration

MECHANISMS = (
    "SCRAM-SHA-256-PLUS",
    "SCRAM-SHA-256",
    "CRAM-MD5",
    "EXTERNAL",
    "OAUTHBEARER",
    "XOAUTH2",
    "PLAIN",
    "LOGIN",
)
"""The SASL mechanisms we can log in by."""
USUAL_MECHANISMS = tuple(name for name in MECHANISMS if name != "CRAM-MD5")
"""Those that are used unless the settings say otherwise."""


class Destination(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """How mail is handed to some destinations: ``[[outbound.destination]]``.

    What is left out is as in ``[outbound]``. Of the entries whose pattern fits the one
    with the most specific pattern counts.
    """

    match: tuple[str, ...]
    """Domains or host names (``"partner.test"``, ``".partner.test"`` for all beneath
    it), hops as routes name them (``"[relay.test]:587"``, ``"[relay.test]"`` for any
    port, ``"[192.0.2.1]"``, ``"unix:/run/lmtp"``), or ``"*"``."""

    tls: TlsLevel | None = None
    """As in ``[outbound]``."""

    implicit_tls: ImplicitTls | None = None
    """As in ``[outbound]``."""

    tls_names: tuple[str, ...] | None = None
    """As in ``[outbound]``."""

    ca_file: str | None = None
    """As in ``[outbound]``."""

    certificate: str | None = None
    """As in ``[outbound]``."""

    certificate_key: str | None = None
    """As in ``[outbound]``."""

    login: str | None = None
    """The login of ``logins_file`` to use there; without one of its mechanisms, or if
    it is refused, mail waits."""

    auth_mechanisms: tuple[str, ...] | None = None
    """As in ``[outbound]``."""

    auth_in_clear: bool | None = None
    """As in ``[outbound]``."""

    source_ipv4: str | None = None
    """As in ``[outbound]``."""

    source_ipv6: str | None = None
    """As in ``[outbound]``."""

    helo_name: str | None = None
    """As in ``[outbound]``."""

    heed_tls_required: bool | None = None
    """As in ``[outbound]``."""

    def __post_init__(self) -> None:
        """Check what the types do not."""
        if not self.match:
            raise ValueError("match is empty: name domains or hosts")
        for pattern in self.match:
            pattern_key(pattern)
        _check_mechanisms(self.auth_mechanisms or ())
        _check_tls_names(self.tls_names)
        _check_sources(self.source_ipv4 or "", self.source_ipv6 or "")
        _check_helo(self.helo_name or "")


def pattern_key(text: str) -> str:
    """Return a pattern of ``match`` in the form in which it is looked for.

    Raises:
        ValueError: it can match nothing.
    """
    if text == "*" or text.startswith(UNIX):
        return text
    name = to_ascii(text.removeprefix("."))
    if name is not None and not is_ip_address(name):
        return f".{name}" if text.startswith(".") else name
    try:
        return Hop.from_text(text).to_text()
    except ValueError:
        raise ValueError(
            f'match: "{text}" is no pattern: write "partner.test", ".partner.test", '
            '"[relay.test]:587", "[192.0.2.1]" or "*"'
        ) from None


def _check_mechanisms(names: tuple[str, ...]) -> None:
    for name in names:
        if name not in MECHANISMS:
            known = ", ".join(MECHANISMS)
            raise ValueError(f'auth_mechanisms: "{name}" is none of {known}')


def _check_tls_names(names: tuple[str, ...] | None) -> None:
    if names == ():
        raise ValueError('tls_names is empty: write "host", "domain" or names')
    for name in names or ():
        if to_ascii(name.removeprefix(".")) is None and not is_ip_address(name):
            raise ValueError(f'tls_names: "{name}" is no name of a host')


def _check_sources(ipv4: str, ipv6: str) -> None:
    for name, text, colon in (("ipv4", ipv4, False), ("ipv6", ipv6, True)):
        if text and not (is_ip_address(text) and (":" in text) == colon):
            raise ValueError(f'source_{name}: "{text}" is no such address')


def _check_helo(name: str) -> None:
    if name and to_ascii(name) is None and not name.startswith("["):
        raise ValueError(f'helo_name: "{name}" is no host name')


def _check_ignored(keywords: tuple[str, ...]) -> None:
    for keyword in keywords:
        if keyword.upper() in ("STARTTLS", "AUTH"):
            name = "tls" if keyword.upper() == "STARTTLS" else "login"
            raise ValueError(f'ignored_extensions: set "{name}" rather than {keyword}')


class SmtpAgentSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """How mail is handed to other hosts."""

    port: int = 25
    """The port that is connected to where a hop names none; LMTP has always 24."""
    helo_name: str = ""
    """What EHLO says; empty for the host's own name."""
    source_ipv4: str = ""
    """The address IPv4 connections come from; empty lets the system choose."""
    source_ipv6: str = ""
    """The same for IPv6."""
    addresses: AddressOrder = "ipv6-first"
    """Which addresses of a host are used, and in which order."""
    tls: TlsLevel = "opportunistic"
    """``off``: never; ``opportunistic``: where it is offered and works, else in the
    clear; ``required``: encrypted, whatever the certificate says; ``verified``: with a
    certificate that is trusted and bears one of ``tls_names``. Under the last two mail
    waits rather than go in the clear (4.7.4, 4.7.5)."""
    implicit_tls: ImplicitTls = "auto"
    """Whether TLS begins at once, without STARTTLS: ``auto`` on port 465 (RFC 8314
    §3.3), ``always`` or ``never``."""
    tls_names: tuple[str, ...] = ("host",)
    """Whom a verified certificate may name: ``host`` the host that is connected to
    (an MX record, which DNS could forge), ``domain`` the domain of the hop, others are
    names (``"mx.partner.test"``, ``".partner.test"`` for any beneath it)."""
    ca_file: str = ""
    """Who is trusted to certify: a PEM file or a directory of hashed ones; empty: whom
    the system trusts."""
    certificate: str = ""
    """Our own certificate as a client, a PEM file with its chain; empty: none."""
    certificate_key: str = ""
    """The key of that certificate; empty: it is in the same file."""
    logins_file: str = ""
    """The file with logins at other hosts, mode 0600; see ``outbound.md``."""
    login: str = ""
    """The login to use at every destination that names no other; empty: none. It is
    seldom right here: name it in ``[[outbound.destination]]`` or in a route."""
    auth_mechanisms: tuple[str, ...] = USUAL_MECHANISMS
    """How we may log in, best first; ``CRAM-MD5`` only if it is named."""
    auth_in_clear: bool = False
    """Send passwords and tokens (PLAIN, LOGIN, OAUTHBEARER, XOAUTH2) without TLS."""
    heed_tls_required: bool = True
    """Send a message that says ``TLS-Required: No`` in the clear rather than not at
    all, also under ``required`` and ``verified`` (RFC 8689 §4.2.2), unless we log in
    there."""
    requiretls_mx: Literal["verified", "validated"] = "verified"
    """For messages with REQUIRETLS: ``verified`` believes the MX records, and wants a
    certificate of the host they name; ``validated`` wants one of the domain itself, or
    of a name in ``tls_names`` (RFC 8689 §4.2.1)."""
    tls_failure_kept: Duration = Duration.from_text("30m")
    """How long an address whose handshake failed is spoken to in the clear, under
    ``opportunistic``."""
    tls_timeout: Duration = Duration.from_text("1m")
    """Until the TLS handshake is done."""
    auth_timeout: Duration = Duration.from_text("3m")
    """Until each step of a login is answered."""
    connect_stagger: Duration = Duration.from_text("300ms")
    """How long one address of a host may take before the next one of the same host is
    tried beside it; the first that stands is used (RFC 8305 §5). 0: only one after
    another."""
    destination: tuple[Destination, ...] = ()
    """What differs for some destinations."""
    hosts_tried_max: int = 6
    """Addresses tried for one connection, over all hosts (RFC 5321 §5.1: at least
    two)."""
    connections_max: int = 20
    """Connections to one destination, over all workers."""
    recipients_max: int = 100
    """Recipients of one transaction; more go in several (RFC 5321 §4.5.3.1.8)."""
    eight_bit: Literal["convert", "pass"] = "convert"
    """What becomes of octets outside ASCII where a host takes 7 bits only: ``convert``
    the parts that hold some (RFC 6152 §3), or ``pass`` them, hoping that they get
    through, so that signatures stay whole. Binary content is converted in any case."""
    long_lines: Literal["pass", "convert"] = "pass"
    """What becomes of lines over 998 octets (RFC 5321 §4.5.3.1.6) where a host takes 8
    bits: ``pass`` them as they came, so that signatures stay whole, or ``convert`` the
    part to quoted-printable. For hosts that take only 7 bits it is converted."""
    ignored_extensions: tuple[str, ...] = ()
    """Extensions that are not used though a host offers them, such as ``"CHUNKING"``:
    against hosts that do them wrong. STARTTLS and AUTH have settings of their own."""
    messages_per_connection_max: int = 1_000
    """After so many messages a connection is closed and a fresh one made."""
    connection_age_max: Duration = Duration.from_text("5m")
    """After so long a connection takes no further message."""
    idle_max: Duration = Duration.from_text("2s")
    """How long a connection without work is kept."""
    found_kept: Duration = Duration.from_text("30s")
    """How long the way to a hop is remembered before DNS is asked again."""
    slot_wait_max: Duration = Duration.from_text("1m")
    """How long mail waits for a connection when other workers use all."""
    connect_timeout: Duration = Duration.from_text("30s")
    """Until a connection stands."""
    greeting_timeout: Duration = Duration.from_text("5m")
    """Until the greeting has come (RFC 5321 §4.5.3.2.1)."""
    hello_timeout: Duration = Duration.from_text("5m")
    """Until EHLO or HELO is answered."""
    command_timeout: Duration = Duration.from_text("5m")
    """Until MAIL, each RCPT, DATA is answered (RFC 5321 §4.5.3.2.2 to §4.5.3.2.4)."""
    block_timeout: Duration = Duration.from_text("3m")
    """Until a piece of a large message is taken (RFC 5321 §4.5.3.2.5)."""
    content_timeout: Duration = Duration.from_text("10m")
    """Until the content is answered (RFC 5321 §4.5.3.2.6): too short a wait makes
    duplicates."""
    quit_timeout: Duration = Duration.from_text("5s")
    """Until QUIT is answered; nothing depends on it."""

    def __post_init__(self) -> None:
        """Check what the types do not."""
        if not 0 < self.port < 65536:
            raise ValueError(f"port is {self.port}, but has to be 1 to 65535")
        _check_mechanisms(self.auth_mechanisms)
        _check_tls_names(self.tls_names)
        _check_sources(self.source_ipv4, self.source_ipv6)
        _check_helo(self.helo_name)
        _check_ignored(self.ignored_extensions)
        said: set[str] = set()
        for pattern in (one for entry in self.destination for one in entry.match):
            if pattern_key(pattern) in said:
                raise ValueError(f'destination: "{pattern}" is there twice')
            said.add(pattern_key(pattern))
        if self.needs_logins and not self.logins_file:
            raise ValueError("a login is named, but no logins_file")

    @property
    def needs_logins(self) -> bool:
        """Whether some destination is to be logged in to."""
        return bool(self.login) or any(entry.login for entry in self.destination)
