"""Calls the hosts of a hop, best first, until one welcomes us on the terms demanded.

A host that lacks what is demanded of it is left for the next one; nothing of a message
is said before. Under opportunistic TLS a handshake that fails costs a second
connection, in the clear, and is remembered for a while.
"""

from collections.abc import Sequence
from contextlib import aclosing
from functools import partial

from postroom.agents.dialer import Dialled, dial
from postroom.agents.opening import Kit, Opening, Reason
from postroom.agents.protection import Protection, Troubled
from postroom.agents.session import Session
from postroom.agents.settings import SmtpAgentSettings
from postroom.agents.smtp_words import Peer
from postroom.agents.terms import Terms
from postroom.agents.way import SMTP_PORT, Ways
from postroom.mail.outcome import Deferred, Failed, Say
from postroom.net.connect import connect, connect_unix
from postroom.net.stream import Stream
from postroom.smtp.client import ClientConnection
from postroom.smtp.settings import ClientSettings

_CLOSED_521 = 521


class Caller:
    """Makes the connections of one agent.

    Args:
        settings: time-outs and caps.
        ways: finds the hosts of a hop, and their terms.
        kit: contexts, logins, the log.
        bounds: what is borne from hosts.
        hostname: our name in EHLO, unless the terms give another.
        lmtp: speak LMTP.
    """

    def __init__(
        self,
        settings: SmtpAgentSettings,
        ways: Ways,
        kit: Kit,
        bounds: ClientSettings,
        hostname: str,
        *,
        lmtp: bool,
    ) -> None:
        self._settings = settings
        self._ways = ways
        self._kit = kit
        self._bounds = bounds
        self._hostname = hostname
        self._lmtp = lmtp
        self._troubled = Troubled(settings.tls_failure_kept)

    async def call(
        self, hop: str, protection: Protection, names: str = "", say: Say | None = None
    ) -> Session | Reason:
        """Go through the hosts until one welcomes us.

        Args:
            hop: the routed name.
            protection: what the message demands.
            names: the recipients, for whoever listens.
            say: narrates the dialogue, if someone listens.
        """
        peers = await self._ways.peers(hop)
        if not isinstance(peers, list):
            return peers
        reasons: list[Reason] = []

        def tell(peer: Peer) -> None:
            if say is not None:
                say(f"{names}... {self._connecting(peer)}")

        connector = partial(self._stream, hop)
        stagger_s = self._settings.connect_stagger.seconds
        async with aclosing(dial(peers, connector, stagger_s, tell)) as dialling:
            async for dialled in dialling:
                made = await self._open(dialled, hop, protection, say)
                if isinstance(made, Session):
                    return made
                reasons.append(made)
        return _verdict(reasons)

    async def _open(
        self, dialled: Dialled, hop: str, protection: Protection, say: Say | None
    ) -> Session | Reason:
        """Open a session on a connection; again in the clear if its TLS breaks."""
        peer, stream = dialled
        if isinstance(stream, Deferred):
            return stream
        terms = protection.applied(self._ways.terms(hop, peer))
        is_optional = terms.tls == "opportunistic" and not terms.is_implicit(peer.port)
        in_clear = is_optional and self._troubled.is_known(peer)
        opening = self._opening(stream, peer, terms, narrate=say is not None)
        reason = await _run(opening, stream, hop, say, in_clear=in_clear)
        if opening.tls_broke and is_optional:
            self._troubled.note(peer)
            again = await self._stream_again(hop, peer)
            if isinstance(again, Deferred):
                return again
            stream = again
            opening = self._opening(stream, peer, terms, narrate=say is not None)
            reason = await _run(opening, stream, hop, say, in_clear=True)
        if reason is not None:
            return reason
        return Session(stream, opening.client, opening.peer, self._settings, say)

    def _opening(
        self, stream: Stream, peer: Peer, terms: Terms, *, narrate: bool
    ) -> Opening:
        client = ClientConnection(
            terms.helo_name or self._hostname,
            lmtp=self._lmtp,
            narrate=narrate,
            settings=self._bounds,
        )
        return Opening(stream, client, peer, terms, self._settings, self._kit)

    async def _stream(self, hop: str, peer: Peer) -> Stream:
        patience = self._settings.connect_timeout
        if peer.path:
            return await connect_unix(peer.path, timeout=patience)
        terms = self._ways.terms(hop, peer)
        source = terms.source_ipv6 if ":" in peer.ip else terms.source_ipv4
        return await connect(
            peer.ip, peer.port, timeout=patience, source_ip=source or None
        )

    async def _stream_again(self, hop: str, peer: Peer) -> Stream | Deferred:
        async with aclosing(dial([peer], partial(self._stream, hop), 0)) as dialling:
            return (await anext(dialling)).stream

    def _connecting(self, peer: Peer) -> str:
        port = "" if peer.port in (0, SMTP_PORT) else f" port {peer.port}"
        protocol = "lmtp" if self._lmtp else "esmtp"
        return f"Connecting to {peer.label}{port} via {protocol}..."


async def _run(
    opening: Opening, stream: Stream, hop: str, say: Say | None, *, in_clear: bool
) -> Reason | None:
    try:
        reason = await opening.run(hop, say, in_clear=in_clear)
    except BaseException:
        stream.abort()
        raise
    if reason is not None:
        opening.leave()
    return reason


def _verdict(reasons: Sequence[Reason]) -> Reason:
    """Return what became of all hosts: to wait, if one of them may do later."""
    last = reasons[-1]
    if all(reason.code == _CLOSED_521 for reason in reasons):
        # RFC 7504 §4: these hosts never take mail
        return Failed("5.3.2", last.text, last.peer, last.code)
    waiting = [reason for reason in reasons if isinstance(reason, Deferred)]
    return waiting[-1] if waiting else last
