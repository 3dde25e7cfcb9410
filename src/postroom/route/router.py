"""Says where an address leads: whether it is ours, whose it is, how it is reached.

Pure: what must be looked up is asked for (see ``questions``). Spellings that try to
relay through us (``x%elsewhere@here``, ``elsewhere!x@here``, ``"x@elsewhere"@here``)
have no meaning of their own: they are names like any other, which nobody has. Domains
and local names are compared without regard to case.
"""

import unicodedata
from collections.abc import Iterator
from functools import lru_cache

from postroom.dns.hop import Hop
from postroom.dns.hop_options import read_hop
from postroom.dns.names import to_ascii
from postroom.dns.own import OwnNames
from postroom.mail.address import Address, AddressError
from postroom.mail.route import LOCAL_HOP, Route
from postroom.route.drive import Asking, Facts, Waiting, answer_now
from postroom.route.expansion import Expansion
from postroom.route.questions import (
    ALIASES,
    ROUTES,
    Failed,
    Found,
    Lookup,
    NotFound,
    UserExists,
)
from postroom.route.routing import (
    LocalAlias,
    LocalUser,
    Relay,
    Routing,
    RoutingFailed,
    Unknown,
    Unroutable,
)
from postroom.route.settings import RouteSettings
from postroom.route.walk import Walk
from postroom.route.ways import CATCH_ALL, AsLocal, Way, read_way

POSTMASTER = "postmaster"
REPORTER = "mailer-daemon"
"""Whom reports are from: who answers one reaches a person (RFC 3464 §2)."""
WAYS_KEPT_MAX = 10_000

__all__ = [
    "Expansion",
    "LocalAlias",
    "LocalUser",
    "Relay",
    "Router",
    "Routing",
    "RoutingFailed",
    "Unknown",
    "Unroutable",
]


class Router:
    """The routing of one generation of settings.

    Args:
        settings: what is local and where the rest goes.
        hostname: our own name; bare names belong to it.
        own: our addresses and further names.

    Raises:
        ValueError: a setting makes no sense; the message names it.
    """

    def __init__(self, settings: RouteSettings, hostname: str, own: OwnNames) -> None:
        self.settings = settings
        self.hostname = hostname
        self._own = own
        self._local = frozenset(_local_domains(settings, hostname))
        self._smart_hop = _smart_hop(settings.smart_host)
        self._ways: dict[str, Relay | Unroutable] = {}
        self._asks_routes = bool(settings.routes)
        _check_postmaster(settings.postmaster)

    def is_local(self, domain: str) -> bool:
        """Whether a domain, in lower case, is one of ours; literals included."""
        if domain in self._local or not domain:
            return True
        if domain.startswith("["):
            return self._is_own_literal(domain)
        return not domain.isascii() and to_ascii(domain) in self._local

    def recall(self, address: Address, facts: Facts) -> Routing | None:
        """Classify at once; None if some fact must be waited for."""
        if not self._asks_routes:  # then a domain that is not ours has one way
            way = self._ways.get(address.domain)
            if way is not None:
                return way
        routing = answer_now(self.classify(address), facts)
        if isinstance(routing, Waiting):
            routing.close()
            return None
        return routing

    def classify(self, address: Address) -> Asking[Routing]:
        """Say what a recipient is, when it is named (RCPT). DNS is not asked."""
        domain = address.domain_key
        if not self.is_local(domain):
            way = yield from self._way(domain)
            if not isinstance(way, AsLocal):
                return way
        return (yield from self._alias_or_user(address.local))

    def classify_user(self, address: Address) -> Asking[Routing]:
        r"""Say what a recipient is without regard to aliases (``\name``)."""
        domain = address.domain_key
        if not self.is_local(domain):
            way = yield from self._way(domain)
            if not isinstance(way, AsLocal):
                return way
        return (yield from self._user_or_nobody(address.local))

    def expand(
        self, address: Address, cursor: int = 0, limit: int = 1000
    ) -> Asking[Expansion | RoutingFailed]:
        """Say whom an alias stands for: one chunk of at most ``limit`` recipients.

        For all chunks of one message use ``walk``, which goes on where it stood.
        """
        return self.walk(address, cursor).chunk(limit)

    def walk(self, address: Address, cursor: int = 0) -> Walk:
        """Begin, or resume at a cursor, the expansion of an alias."""
        return Walk(self, address, cursor)

    def postmaster_problem(self) -> Asking[str]:
        """Say what is wrong with mail for postmaster; empty if it reaches somebody.

        RFC 5321 §4.5.1: postmaster must always be accepted, so somebody must get it.
        """
        walk = self.walk(Address(POSTMASTER, self.hostname))
        expansion = yield from walk.chunk(1)
        if isinstance(expansion, RoutingFailed):
            return f"mail for postmaster cannot be routed: {expansion.reason}"
        if not expansion.children:
            return "mail for postmaster reaches nobody: mend its alias"
        routing = expansion.children[0].routing
        if isinstance(routing, Relay) and routing.route.agent == "discard":
            return "mail for postmaster is thrown away: mend its alias"
        if isinstance(routing, LocalUser):
            user = routing.user
            if isinstance((yield UserExists(user)), NotFound):
                return (
                    "mail for postmaster reaches nobody: add an alias or a user "
                    '"postmaster", or set postmaster'
                )
        return ""

    def _is_own_literal(self, domain: str) -> bool:
        try:
            return self._own.is_address(domain[1:-1].removeprefix("ipv6:"))
        except ValueError:
            return False

    def _alias_or_user(self, local: str) -> Asking[Routing]:
        key = local_key(local)
        names = [key]
        base, delimiter, _ = self._split(key)
        if delimiter:  # sendmail: user+detail, then user+*, then user
            names += [f"{base}{delimiter}*", base]
        for name in names:
            answer = yield Lookup(ALIASES, name)
            if isinstance(answer, Found):
                return LocalAlias(name, answer.values, f"alias {name}")
            if isinstance(answer, Failed):
                return RoutingFailed(answer.reason)
        return (yield from self._user_or_nobody(local))

    def _user_or_nobody(self, local: str) -> Asking[Routing]:
        key = local_key(local)
        base, delimiter, _ = self._split(key)
        for name in (key, base) if delimiter else (key,):
            answer = yield UserExists(name)
            if isinstance(answer, Found):
                detail = "" if name == key else self._split(local)[2]
                return LocalUser(name, detail, self._local_route(f"user {name}"))
            if isinstance(answer, Failed):
                return RoutingFailed(answer.reason)
        # RFC 5321 §4.5.1: mail to postmaster is accepted, whatever happens
        if base == POSTMASTER:
            return self._postmaster(local)
        if key == REPORTER:
            return LocalAlias(REPORTER, (POSTMASTER,), "whom reports are from")
        return Unknown()

    def _postmaster(self, local: str) -> Routing:
        fallback = self.settings.postmaster
        if fallback and local_key(fallback) != POSTMASTER:
            return LocalAlias(POSTMASTER, (fallback,), "setting postmaster")
        route = self._local_route("postmaster, without an alias or a user")
        return LocalUser(POSTMASTER, self._split(local)[2], route)

    def _local_route(self, rule: str) -> Route:
        return Route(self.settings.local_agent, LOCAL_HOP, rule)

    def _split(self, local: str) -> tuple[str, str, str]:
        """Part ``user+detail``; what has no user before the delimiter stays whole."""
        delimiter = self.settings.recipient_delimiter
        if not delimiter or local.find(delimiter) < 1:
            return local, "", ""
        return local.partition(delimiter)

    def _way(self, domain: str) -> Asking[Way | RoutingFailed]:
        """Say how a domain that is not ours is reached."""
        if not domain.isascii():
            domain = to_ascii(domain) or domain
        if self.settings.routes:
            for key in _route_keys(domain):
                answer = yield Lookup(ROUTES, key)
                if isinstance(answer, Found):
                    return _read_way(domain, key, answer.value)
                if isinstance(answer, Failed):
                    return RoutingFailed(answer.reason)
        known = self._ways.get(domain)
        if known is None:
            if len(self._ways) >= WAYS_KEPT_MAX:
                self._ways.clear()
            known = self._ways[domain] = self._usual_way(domain)
        return known

    def _usual_way(self, domain: str) -> Relay | Unroutable:
        try:
            hop = Hop.from_text(domain)
        except ValueError:
            return Unroutable("Host unknown (malformed domain name)", "domain name")
        if hop.is_address:
            return Relay(Route("smtp", hop.to_text(), "address literal"))
        if self._smart_hop:
            return Relay(Route("smtp", self._smart_hop, "smart host"))
        return Relay(Route("smtp", hop.to_text(), f"MX of {hop.name}"))


def local_key(local: str) -> str:
    """Return a local part as local users and aliases are looked up."""
    if local.isascii():
        return local.lower()
    return unicodedata.normalize("NFC", local).lower()  # RFC 6532 §3.1


def _route_keys(domain: str) -> Iterator[str]:
    """Yield what the routes table may have for a domain, most specific first."""
    yield domain
    if not domain.startswith("["):
        _, _, parent = domain.partition(".")
        while parent:
            yield f".{parent}"
            _, _, parent = parent.partition(".")
    yield from CATCH_ALL


@lru_cache(maxsize=4096)
def _read_way(domain: str, key: str, value: str) -> Way | RoutingFailed:
    try:
        return read_way(domain, value, f"table {ROUTES}: {key}")
    except ValueError as error:
        return RoutingFailed(f"table {ROUTES}: {key}: {error}")


def _local_domains(settings: RouteSettings, hostname: str) -> Iterator[str]:
    for domain in ("localhost", hostname, *settings.local_domains):
        name = to_ascii(domain)
        if name is None:
            raise ValueError(f'local_domains: "{domain}" is no domain name')
        yield name


def _smart_hop(text: str) -> str:
    if not text:
        return ""
    try:
        return read_hop(text)
    except ValueError as error:
        raise ValueError(f"smart_host: {error}") from None


def _check_postmaster(text: str) -> None:
    try:
        Address.from_text(text)
    except AddressError as error:
        raise ValueError(f'postmaster: "{text}": {error}') from None
