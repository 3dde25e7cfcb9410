"""The way to a hop: which destination it is, and which addresses to try, in order.

SMTP hops are found by MX. LMTP hops are a socket of this machine (``unix:/run/lmtp``)
or a host, found by its addresses only (RFC 2033 knows no MX). What name servers say is
turned into the outcome that every recipient of the hop gets when there is no way.
"""

from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from itertools import chain, groupby, zip_longest
from typing import NamedTuple

from postroom.agents.settings import SmtpAgentSettings
from postroom.agents.smtp_words import Peer
from postroom.agents.terms import Terms, TermsBook
from postroom.dns.answer import DnsFailed, NameService
from postroom.dns.exchangers import find_exchangers
from postroom.dns.hop import Hop, is_hop_of
from postroom.dns.hop_options import UNIX, hop_name
from postroom.dns.mx import Hosts, LoopsBack, NoMail, NullMx
from postroom.dns.own import OwnNames
from postroom.mail.envelope import Recipient
from postroom.mail.outcome import Deferred, Failed, Outcome
from postroom.net.clock import read_mono_us

Reason = Deferred | Failed
"""Why there is no way, or no connection."""

SMTP_PORT = 25
LMTP_PORT = 24
KNOWN_MAX = 10_000
"""Hops whose way is remembered."""


class Place(NamedTuple):
    """Where mail for a hop goes, and on which terms.

    Attributes:
        destination: the names of its hosts and their port.
        pool: the name of its connections, and of what the schedule knows of them:
            no others have the same terms.
        terms: those of the hop.
        by_host: whether single hosts may have terms of their own.
        is_strict: whether mail waits at some host rather than go in the clear.
        is_here: whether it is on this machine, so that no network is crossed.
        until_us: when to look again (monotonic).
    """

    destination: str
    pool: str
    terms: Terms
    by_host: bool
    is_strict: bool
    is_here: bool
    until_us: int


class Ways:
    """Finds ways, and remembers for a while which destination a hop is."""

    def __init__(
        self,
        settings: SmtpAgentSettings,
        resolver: NameService,
        own: OwnNames,
        seed: int,
        *,
        lmtp: bool,
    ) -> None:
        self._settings = settings
        self._resolver = resolver
        self._own = own
        self._seed = seed
        self._lmtp = lmtp
        self._port = LMTP_PORT if lmtp else settings.port
        self._known: dict[str, Place] = {}
        self._book = TermsBook(settings)

    def known(self, hop: str) -> Place | None:
        """Return the place of a hop if it was looked for a moment ago."""
        known = self._known.get(hop)
        if known is None or known.until_us < read_mono_us():
            return None
        return known

    def terms(self, hop: str, peer: Peer) -> Terms:
        """Return the terms on which a host of a hop is spoken to."""
        terms, by_host = self._book.of_hop(hop)
        return self._book.of_host(hop, peer.name) if by_host else terms

    def _terms_of(self, hop: str, peers: list[Peer]) -> set[Terms]:
        return {self.terms(hop, peer) for peer in peers}

    async def look(self, hop: str) -> Place | Reason:
        """Return the place of a hop: its hosts and port, and the terms there."""
        try:
            terms, by_host = self._book.of_hop(hop)
        except ValueError as error:  # of an older configuration
            return Deferred("4.3.5", f"no such hop: {error}", hop_failed=True)
        peers = await self._all_peers(hop_name(hop))
        if not isinstance(peers, list):
            return peers
        names = ",".join(sorted({peer.name for peer in peers}))
        destination = f"{names}:{peers[0].port}"
        is_strict = any(one.is_strict for one in self._terms_of(hop, peers))
        if len(self._known) >= KNOWN_MAX:
            del self._known[next(iter(self._known))]
        until_us = read_mono_us() + self._settings.found_kept
        is_here = self._lmtp and all(_is_here(peer) for peer in peers)
        key = terms.key
        pool = f"{destination};{key}" if key else destination
        keys = {peer.name: self.terms(hop, peer).key for peer in peers}
        if any(one != key for one in keys.values()):
            # Another hop may have these hosts, and heed nothing that is said of them.
            pool += "".join(f";{name}({one})" for name, one in sorted(keys.items()))
        # A certificate of one domain says nothing of another that has the same hosts.
        if any("domain" in one.tls_names for one in self._terms_of(hop, peers)):
            pool = f"{pool};{hop_name(hop)}"
        place = Place(destination, pool, terms, by_host, is_strict, is_here, until_us)
        self._known[hop] = place
        return place

    async def peers(self, hop: str) -> list[Peer] | Reason:
        """Return the addresses to try, best first, equal ones in a new order.

        What has vanished since ``look`` saw it is not given up here: ``look`` will
        say what that means to each recipient.
        """
        peers = await self._all_peers(hop_name(hop))
        if isinstance(peers, Failed):
            self._known.pop(hop, None)
            return Deferred("4.4.4", peers.text)
        if isinstance(peers, list):
            del peers[self._settings.hosts_tried_max :]
        return peers

    async def _all_peers(self, hop: str) -> list[Peer] | Reason:
        if self._lmtp and hop.startswith((UNIX, "/")):
            path = hop.removeprefix(UNIX)
            return [Peer(path, "", 0, path, is_final=True)]
        self._seed += 1
        found = await find_exchangers(
            self._resolver,
            _without_mx(hop) if self._lmtp else hop,
            self._own,
            self._seed,
            order=self._settings.addresses,
            port=self._port,
        )
        if not isinstance(found, Hosts):
            return _reason(found, hop)
        port = Hop.from_text(hop).port or self._port
        return [
            Peer(host.name, address, port, is_final=self._lmtp)
            for host in found.hosts
            for address in _alternating(host.addresses)
        ]


def without_way(
    reason: Reason, hop: str, recipients: Sequence[Recipient]
) -> list[Outcome]:
    """Say what it means to each recipient that there is no way to a hop.

    Who wrote to a domain that does not exist is told so. But where the site has named
    the hop (a smart host, a route, a store), nobody else is to blame: a slip of the
    pen, or a name server that has lost its zone, must not make all mail bounce.
    """
    if not isinstance(reason, Failed):
        return [reason] * len(recipients)
    name = hop_name(hop)
    text = f"mail goes by {name} here: {reason.text}"
    misrouted = Deferred("4.3.5", text, hop_failed=True)
    return [
        reason if is_hop_of(one.address.domain_key, name) else misrouted
        for one in recipients
    ]


def _alternating(addresses: tuple[str, ...]) -> Iterator[str]:
    """Let the families take turns, the better one first (RFC 8305 §4).

    Else a host with many addresses of a family that does not work here would use up
    all tries.
    """
    halves = [list(half) for _, half in groupby(addresses, lambda ip: ":" in ip)]
    return (ip for ip in chain(*zip_longest(*halves)) if ip is not None)


def _is_here(peer: Peer) -> bool:
    return bool(peer.path) or ip_address(peer.ip).is_loopback


def _without_mx(hop: str) -> str:
    if hop.startswith("["):
        return hop
    host, colon, port = hop.partition(":")
    return f"[{host}]{colon}{port}"


def _reason(found: NullMx | NoMail | LoopsBack | DnsFailed, hop: str) -> Reason:
    match found:
        case DnsFailed(reason):
            text = f"Name server: {hop}: host name lookup failure ({reason})"
            return Deferred("4.4.3", text, hop_failed=True)
        case _:
            return Failed(found.status, found.reason)
