"""The way to a hop: which destination it is, and which addresses to try, in order.

SMTP hops are found by MX. LMTP hops are a socket of this machine (``unix:/run/lmtp``)
or a host, found by its addresses only (RFC 2033 knows no MX). What name servers say is
turned into the outcome that every recipient of the hop gets when there is no way.
"""

from typing import NamedTuple

from postroom.agents.settings import SmtpAgentSettings
from postroom.agents.smtp_words import Peer
from postroom.dns.answer import DnsFailed, NameService
from postroom.dns.exchangers import find_exchangers
from postroom.dns.hop import Hop
from postroom.dns.mx import Hosts, LoopsBack, NoMail, NullMx
from postroom.dns.own import OwnNames
from postroom.mail.outcome import Deferred, Failed
from postroom.net.clock import read_mono_us

Reason = Deferred | Failed
"""Why there is no way, or no connection."""

SMTP_PORT = 25
LMTP_PORT = 24
UNIX = "unix:"
"""What hops that are sockets of this machine begin with."""
KNOWN_MAX = 10_000
"""Hops whose way is remembered."""


class _Known(NamedTuple):
    destination: str
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
        self._known: dict[str, _Known] = {}

    def known(self, hop: str) -> str | None:
        """Return the destination of a hop if it was looked for a moment ago."""
        known = self._known.get(hop)
        if known is None or known.until_us < read_mono_us():
            return None
        return known.destination

    async def look(self, hop: str) -> str | Reason:
        """Return the name of the destination: its hosts and port."""
        peers = await self._all_peers(hop)
        if not isinstance(peers, list):
            return peers
        names = ",".join(sorted({peer.name for peer in peers}))
        destination = f"{names}:{peers[0].port}"
        if len(self._known) >= KNOWN_MAX:
            del self._known[next(iter(self._known))]
        until_us = read_mono_us() + self._settings.found_kept
        self._known[hop] = _Known(destination, until_us)
        return destination

    async def peers(self, hop: str) -> list[Peer] | Reason:
        """Return the addresses to try, best first, equal ones in a new order."""
        peers = await self._all_peers(hop)
        if isinstance(peers, list):
            del peers[self._settings.hosts_tried_max :]
        return peers

    async def _all_peers(self, hop: str) -> list[Peer] | Reason:
        if self._lmtp and hop.startswith(UNIX):
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
            for address in host.addresses
        ]


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
