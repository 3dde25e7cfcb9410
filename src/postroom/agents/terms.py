"""On which terms a destination is spoken to: protection, login, whom we come from.

What a route says comes first, then the entry of ``[[outbound.destination]]`` that fits
best, then ``[outbound]``. It is decided once per hop, not per message; what a single
message demands (REQUIRETLS, ``TLS-Required: No``) makes other terms of them, so that
its connections are others, too. Pure.
"""

from typing import TypeVar

import msgspec

from postroom.agents.settings import (
    USUAL_MECHANISMS,
    Destination,
    SmtpAgentSettings,
    pattern_key,
)
from postroom.dns.hop import Hop
from postroom.dns.hop_options import (
    NO_OPTIONS,
    UNIX,
    HopOptions,
    ImplicitTls,
    TlsLevel,
    part_hop,
)

SUBMISSIONS_PORT = 465
"""RFC 8314 §3.3: TLS begins at once there."""
_ANY = "*"

T = TypeVar("T")


class Terms(msgspec.Struct, frozen=True):
    """How connections to one destination are made; the settings tell what each means.

    ``requiretls`` says that the message demands it (RFC 8689 §4.2.1).
    """

    tls: TlsLevel = "opportunistic"
    implicit_tls: ImplicitTls = "auto"
    tls_names: tuple[str, ...] = ("host",)
    ca_file: str = ""
    certificate: str = ""
    certificate_key: str = ""
    login: str = ""
    auth_mechanisms: tuple[str, ...] = USUAL_MECHANISMS
    auth_in_clear: bool = False
    source_ipv4: str = ""
    source_ipv6: str = ""
    helo_name: str = ""
    heed_tls_required: bool = True
    requiretls_mx: str = "verified"
    requiretls: bool = False

    @property
    def is_strict(self) -> bool:
        """Whether mail that cannot be encrypted has to wait."""
        return self.tls in ("required", "verified")

    def is_implicit(self, port: int) -> bool:
        """Whether TLS begins at once on connections to a port."""
        if self.implicit_tls == "auto":
            return port == SUBMISSIONS_PORT and self.tls != "off"
        return self.implicit_tls == "always"

    @property
    def key(self) -> str:
        """A text that differs where the terms do; empty for the usual ones."""
        usual = _USUAL
        return ";".join(
            f"{name}={','.join(value) if isinstance(value, tuple) else value}"
            for name in self.__struct_fields__
            if (value := getattr(self, name)) != getattr(usual, name)
        )

    def told(self) -> str:
        """Say them in a few words, for people."""
        words = [f"TLS {self.tls}"]
        if self.tls == "verified":
            words.append(f"certificate for {' or '.join(self.tls_names)}")
        if self.login:
            words.append(f"login {self.login}")
        words += [f"from {ip}" for ip in (self.source_ipv4, self.source_ipv6) if ip]
        if self.helo_name:
            words.append(f"HELO {self.helo_name}")
        return ", ".join(words)


_USUAL = Terms()


class TermsBook:
    """Finds the terms of a destination.

    Args:
        settings: those of ``[outbound]``.
    """

    def __init__(self, settings: SmtpAgentSettings) -> None:
        self._settings = settings
        self._entries: dict[str, Destination] = {}
        for entry in settings.destination:
            for pattern in entry.match:
                self._entries.setdefault(pattern_key(pattern), entry)
        self._hosts_matter = any(not p.startswith(("[", UNIX)) for p in self._entries)
        self._made: dict[tuple[int, HopOptions], Terms] = {}
        self.usual = self._terms(self._entries.get(_ANY), NO_OPTIONS)

    def of_hop(self, hop: str) -> tuple[Terms, bool]:
        """Return the terms of a hop, and whether its hosts may have others.

        Raises:
            ValueError: the hop is none.
        """
        name, options = part_hop(hop)
        entry = self._first(_hop_keys(name))
        open_to_hosts = entry is None and self._hosts_matter
        return self._terms(entry or self._entries.get(_ANY), options), open_to_hosts

    def of_host(self, hop: str, host: str) -> Terms:
        """Return the terms of a host that MX has named for a hop."""
        entry = self._first(_host_keys(host)) or self._entries.get(_ANY)
        return self._terms(entry, part_hop(hop)[1])

    def of_entry(self, entry: Destination) -> Terms:
        """Return the terms that an entry of the settings makes."""
        return self._terms(entry, NO_OPTIONS)

    def _first(self, keys: list[str]) -> Destination | None:
        for key in keys if self._entries else ():
            if key in self._entries:
                return self._entries[key]
        return None

    def _terms(self, entry: Destination | None, options: HopOptions) -> Terms:
        key = (id(entry), options)
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = self._make(entry, options)
        return found

    def _make(self, entry: Destination | None, options: HopOptions) -> Terms:
        values: dict[str, object] = {}
        for name in Terms.__struct_fields__:
            for source in (options, entry, self._settings):
                value = getattr(source, name, None)
                if value is not None:
                    values[name] = value
                    break
        return msgspec.convert(values, Terms)


def _hop_keys(name: str) -> list[str]:
    """Return the patterns that mean a hop, most specific first."""
    if name.startswith((UNIX, "/")):
        return [f"{UNIX}{name.removeprefix(UNIX)}"]
    hop = Hop.from_text(name)
    exact = [hop.to_text()] if hop.port else []
    literal = [] if hop.wants_mx else [hop.host_text]
    return [*exact, *literal, *([] if hop.is_address else _host_keys(hop.name))]


def _host_keys(host: str) -> list[str]:
    keys = [host]
    _, _, parent = host.partition(".")
    while parent and not host.startswith("["):
        keys.append(f".{parent}")
        _, _, parent = parent.partition(".")
    return keys
