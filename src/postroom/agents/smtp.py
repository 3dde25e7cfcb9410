"""The agent that hands mail to other hosts by SMTP.

It finds the hosts of a hop by DNS, tries them in order until one welcomes it, and keeps
connections for what follows. A fault of the destination (no host, no connection, no
welcome, 421) defers all recipients with ``hop_failed``; what a host says of single
recipients is theirs alone. Nothing a host or a name server does raises.

``lmtp`` makes this agent speak LMTP to a mail store.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from postroom.agents.job import Job
from postroom.agents.pool import Pool
from postroom.agents.session import Session
from postroom.agents.settings import SmtpAgentSettings
from postroom.agents.smtp_words import (
    Peer,
    is_too_many_outcome,
    timed_out,
    told,
    unreachable,
)
from postroom.agents.way import SMTP_PORT, Reason, Ways
from postroom.dns.answer import NameService
from postroom.dns.own import OwnNames
from postroom.limits.places import Places
from postroom.limits.shared import SharedCounters
from postroom.mail.envelope import Recipient
from postroom.mail.outcome import Attempt, Deferred, Failed, Outcome, Say
from postroom.net.stream import Stream, StreamError, connect, connect_unix
from postroom.smtp.client import ClientConnection
from postroom.smtp.settings import ClientSettings

_CLOSED_521 = 521


class Links(NamedTuple):
    """What ties the agent to the rest of the system; all of it may be left out.

    ``window`` tells how many connections a hop bears now (the scheduler's), ``bind``
    is told which destination a hop turned out to have, ``counters`` are those of all
    workers, ``client`` are the bounds on what peers say, ``seed`` shuffles equal MX.
    """

    window: Callable[[str], int] | None = None
    bind: Callable[[str, str], None] | None = None
    counters: SharedCounters | None = None
    client: ClientSettings = ClientSettings()
    seed: int = 0


class SmtpAgent:
    """Delivers to other hosts.

    Args:
        settings: ports, time-outs and caps.
        resolver: who is asked for MX and addresses.
        hostname: our name in EHLO, unless the settings give another.
        own: our names and addresses, so that loops are seen.
        links: the scheduler and the shared counters.
        lmtp: speak LMTP (RFC 2033); see ``lmtp``.
    """

    def __init__(
        self,
        settings: SmtpAgentSettings,
        resolver: NameService,
        hostname: str,
        own: OwnNames,
        links: Links | None = None,
        *,
        lmtp: bool = False,
    ) -> None:
        self._settings = settings
        self._hostname = settings.helo_name or hostname
        self._links = links or Links()
        self._counters = self._links.counters or SharedCounters.private(256)
        self._lmtp = lmtp
        self._ways = Ways(settings, resolver, own, self._links.seed, lmtp=lmtp)
        self._pools: dict[str, Pool] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def deliver(self, attempt: Attempt) -> Sequence[Outcome]:
        """Hand one message to the hop of its route."""
        if attempt.say is not None:
            return await self._deliver_aloud(attempt, attempt.say)
        hop = attempt.route.hop
        destination = self._ways.known(hop)
        if destination is None:
            found = await self._ways.look(hop)
            if not isinstance(found, str):
                return [found] * len(attempt.envelope.recipients)
            destination = found
        links = self._links
        if links.bind is not None:
            links.bind(hop, destination)
        window = self._settings.connections_max
        if links.window is not None:
            window = min(window, links.window(hop))
        pool = self._pools.get(destination) or self._new_pool(destination)
        recipients = attempt.envelope.recipients
        if len(recipients) <= self._settings.recipients_max:
            outcomes = await self._put(pool, attempt, recipients, window)
        else:
            outcomes = await self._put_in_parts(pool, attempt, recipients, window)
        if len(outcomes) > 1 and any(map(is_too_many_outcome, outcomes)):
            outcomes = await self._again(pool, attempt, outcomes, window)
        return outcomes

    async def aclose(self) -> None:
        """Finish what is in hand, then say goodbye to every host."""
        seconds = self._settings.quit_timeout.seconds
        pools = list(self._pools.values())
        await asyncio.gather(*(pool.aclose(seconds) for pool in pools))

    # -- jobs --------------------------------------------------------------------

    def _put(
        self,
        pool: Pool,
        attempt: Attempt,
        recipients: Sequence[Recipient],
        window: int,
    ) -> "asyncio.Future[list[Outcome]]":
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        job = Job(attempt, recipients, loop.create_future())
        pool.put(job, window)
        return job.done

    async def _put_in_parts(
        self,
        pool: Pool,
        attempt: Attempt,
        recipients: Sequence[Recipient],
        window: int,
    ) -> list[Outcome]:
        size = self._settings.recipients_max
        parts = [recipients[i : i + size] for i in range(0, len(recipients), size)]
        done = await asyncio.gather(
            *(self._put(pool, attempt, part, window) for part in parts)
        )
        return [outcome for outcomes in done for outcome in outcomes]

    async def _again(
        self, pool: Pool, attempt: Attempt, outcomes: list[Outcome], window: int
    ) -> list[Outcome]:
        """Try those again that were only too many (RFC 5321 §4.5.3.1.10).

        As long as each round gets some of them accepted.
        """
        outcomes = list(outcomes)
        recipients = attempt.envelope.recipients
        left = [i for i, o in enumerate(outcomes) if is_too_many_outcome(o)]
        before = len(outcomes)
        while left and len(left) < before:
            before = len(left)
            part = [recipients[i] for i in left]
            for i, outcome in zip(
                left, await self._put(pool, attempt, part, window), strict=True
            ):
                outcomes[i] = outcome
            left = [i for i in left if is_too_many_outcome(outcomes[i])]
        return outcomes

    # -- connections ---------------------------------------------------------------

    def _new_pool(self, name: str) -> Pool:
        settings = self._settings
        places = Places(self._counters, name, settings.connections_max)
        wait_us = settings.slot_wait_max
        pool = Pool(name, self._open, places, wait_us, self._forget_pool)
        self._pools[name] = pool
        return pool

    def _forget_pool(self, name: str) -> None:
        self._pools.pop(name, None)

    async def _open(self, job: Job) -> Session | Reason:
        return await self._connect(job.hop, "", None)

    async def _connect(self, hop: str, names: str, say: Say | None) -> Session | Reason:
        """Go through the hosts until one welcomes us."""
        peers = await self._ways.peers(hop)
        if not isinstance(peers, list):
            return peers
        reasons: list[Deferred] = []
        for peer in peers:
            if say is not None:
                say(f"{names}... {self._connecting(peer)}")
            made = await self._connect_to(peer, say)
            if isinstance(made, Session):
                return made
            reasons.append(made)
        last = reasons[-1]
        if all(reason.code == _CLOSED_521 for reason in reasons):
            # RFC 7504 §4: these hosts never take mail
            return Failed("5.3.2", last.text, last.peer, last.code)
        return last

    async def _connect_to(self, peer: Peer, say: Say | None) -> Session | Deferred:
        try:
            stream = await self._stream(peer)
        except StreamError:
            return timed_out(peer)
        except OSError as error:
            return unreachable(error, peer)
        client = ClientConnection(
            self._hostname,
            lmtp=self._lmtp,
            narrate=say is not None,
            settings=self._links.client,
        )
        session = Session(stream, client, peer, self._settings, say)
        try:
            reason = await session.greet()
        except BaseException:
            stream.abort()
            raise
        if reason is None:
            return session
        stream.close()
        return reason

    async def _stream(self, peer: Peer) -> Stream:
        settings = self._settings
        if peer.path:
            return await connect_unix(peer.path, timeout=settings.connect_timeout)
        source = settings.source_ipv6 if ":" in peer.ip else settings.source_ipv4
        return await connect(
            peer.ip,
            peer.port,
            timeout=settings.connect_timeout,
            source_ip=source or None,
        )

    # -- sendmail -v ---------------------------------------------------------------

    def _connecting(self, peer: Peer) -> str:
        port = "" if peer.port in (0, SMTP_PORT) else f" port {peer.port}"
        protocol = "lmtp" if self._lmtp else "esmtp"
        return f"Connecting to {peer.label}{port} via {protocol}..."

    async def _deliver_aloud(self, attempt: Attempt, say: Say) -> list[Outcome]:
        """Deliver over a connection of its own, so that all that is told belongs."""
        recipients = attempt.envelope.recipients
        names = ",".join(recipient.address.to_text() for recipient in recipients)
        made = await self._connect(attempt.route.hop, names, say)
        if isinstance(made, Session):
            outcomes = await self._talk(made, attempt, say)
        else:
            outcomes = [made] * len(recipients)
            _tell(recipients, outcomes, say)
        return outcomes

    async def _talk(
        self, session: Session, attempt: Attempt, say: Say
    ) -> list[Outcome]:
        loop = asyncio.get_running_loop()
        serving = asyncio.create_task(session.serve())
        recipients = attempt.envelope.recipients
        size = self._settings.recipients_max
        outcomes: list[Outcome] = []
        try:
            for i in range(0, len(recipients), size):
                part = recipients[i : i + size]
                job = Job(attempt, part, loop.create_future())
                session.start(job)
                outcomes += (told_now := await job.done)
                _tell(part, told_now, say)
            say(f"Closing connection to {session.peer.label}")
            session.leave()
            await asyncio.wait({serving}, timeout=self._settings.quit_timeout.seconds)
        finally:
            if not serving.done():
                session.abort()
                await asyncio.wait({serving})
        return outcomes


def _tell(recipients: Sequence[Recipient], outcomes: list[Outcome], say: Say) -> None:
    for recipient, outcome in zip(recipients, outcomes, strict=True):
        say(f"{recipient.address.to_text()}... {told(outcome)}")
