"""The agent that hands mail to other hosts by SMTP.

It finds the hosts of a hop by DNS, tries them in order until one welcomes it, and keeps
connections for what follows. A fault of the destination (no host, no connection, no
welcome, 421) defers all recipients with ``hop_failed``; what a host says of single
recipients is theirs alone. Nothing a host or a name server does raises.

``lmtp`` makes this agent speak LMTP to a mail store.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from postroom.agents.caller import Caller
from postroom.agents.job import Job
from postroom.agents.logins import Logins
from postroom.agents.opening import Kit, Reason
from postroom.agents.pool import Pool
from postroom.agents.protection import Protection, may_go_without, protection_of
from postroom.agents.session import Session
from postroom.agents.settings import SmtpAgentSettings
from postroom.agents.smtp_words import is_too_many_outcome, told
from postroom.agents.way import Place, Ways, without_way
from postroom.dns.answer import NameService
from postroom.dns.own import OwnNames
from postroom.limits.places import Places
from postroom.limits.shared import SharedCounters
from postroom.mail.envelope import Recipient
from postroom.mail.outcome import Attempt, Outcome, Say
from postroom.net.tls_client import ClientTls
from postroom.observe.events import AnyEvent
from postroom.smtp.settings import ClientSettings

_Put = Callable[[Sequence[Recipient]], "asyncio.Future[list[Outcome]]"]


class _Order(NamedTuple):
    """What is to be done for one attempt, apart from its recipients."""

    pool: Pool
    attempt: Attempt
    window: int
    requiretls: bool


class Links(NamedTuple):
    """What ties the agent to the rest of the system; all of it may be left out.

    ``window`` tells how many connections a hop bears now (the scheduler's), ``bind``
    is told which destination a hop turned out to have, ``counters`` are those of all
    workers, ``client`` are the bounds on what peers say, ``seed`` shuffles equal MX,
    ``emit`` takes events for the log.
    """

    window: Callable[[str], int] | None = None
    bind: Callable[[str, str], None] | None = None
    counters: SharedCounters | None = None
    client: ClientSettings = ClientSettings()
    seed: int = 0
    emit: Callable[[AnyEvent], None] | None = None


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
        self._links = links or Links()
        self._counters = self._links.counters or SharedCounters.private(256)
        self._ways = Ways(settings, resolver, own, self._links.seed, lmtp=lmtp)
        kit = Kit(
            ClientTls(), Logins(settings.logins_file), self._links.emit or _unheard
        )
        bounds = self._links.client
        self._caller = Caller(settings, self._ways, kit, bounds, hostname, lmtp=lmtp)
        self._pools: dict[str, Pool] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def deliver(self, attempt: Attempt) -> Sequence[Outcome]:
        """Hand one message to the hop of its route."""
        if attempt.say is not None:
            return await self._deliver_aloud(attempt, attempt.say)
        hop = attempt.route.hop
        place = self._ways.known(hop)
        if place is None:
            found = await self._ways.look(hop)
            if not isinstance(found, Place):
                return without_way(found, hop, attempt.envelope.recipients)
            place = found
        if self._links.bind is not None:
            self._links.bind(hop, place.pool)
        if place.is_strict or attempt.envelope.requiretls:
            return await self._deliver_protected(attempt, place)
        pool = self._pools.get(place.pool) or self._new_pool(place.pool, place)
        return await self._deliver_over(pool, attempt)

    async def _deliver_protected(
        self, attempt: Attempt, place: Place
    ) -> Sequence[Outcome]:
        """Deliver where the message, or its header, has a say in its protection."""
        protection = protection_of(attempt, place)
        name = place.pool
        if protection is not Protection.USUAL:
            # such mail is rare: connections for each hop, whoever shares its hosts
            name = f"{name}{protection.value};{attempt.route.hop}"
        pool = self._pools.get(name) or self._new_pool(name, place, protection)
        demands = protection is Protection.DEMANDED
        outcomes = await self._deliver_over(pool, attempt, requiretls=demands)
        if demands and may_go_without(attempt, outcomes):
            # RFC 8689 §5: a bounce is not to be lost for want of REQUIRETLS.
            pool = self._pools.get(place.pool) or self._new_pool(place.pool, place)
            outcomes = await self._deliver_over(pool, attempt)
        return outcomes

    async def _deliver_over(
        self, pool: Pool, attempt: Attempt, *, requiretls: bool = False
    ) -> Sequence[Outcome]:
        window = self._settings.connections_max
        if self._links.window is not None:
            window = min(window, self._links.window(attempt.route.hop))
        order = _Order(pool, attempt, window, requiretls)
        recipients = attempt.envelope.recipients
        if len(recipients) <= self._settings.recipients_max:
            outcomes = await self._put(order, recipients)
        else:
            outcomes = await self._put_in_parts(order, recipients)
        if len(outcomes) > 1 and any(map(is_too_many_outcome, outcomes)):
            put = partial(self._put, order)
            outcomes = await self._again(put, recipients, outcomes)
        return outcomes

    async def aclose(self) -> None:
        """Finish what is in hand, then say goodbye to every host."""
        seconds = self._settings.quit_timeout.seconds
        pools = list(self._pools.values())
        await asyncio.gather(*(pool.aclose(seconds) for pool in pools))

    # -- jobs --------------------------------------------------------------------

    def _put(
        self, order: _Order, recipients: Sequence[Recipient]
    ) -> "asyncio.Future[list[Outcome]]":
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        pool, attempt, window, requiretls = order
        job = Job(attempt, recipients, loop.create_future(), requiretls=requiretls)
        pool.put(job, window)
        return job.done

    async def _put_in_parts(
        self, order: _Order, recipients: Sequence[Recipient]
    ) -> list[Outcome]:
        size = self._settings.recipients_max
        parts = [recipients[i : i + size] for i in range(0, len(recipients), size)]
        done = await asyncio.gather(*(self._put(order, part) for part in parts))
        return [outcome for outcomes in done for outcome in outcomes]

    async def _again(
        self, put: _Put, recipients: Sequence[Recipient], outcomes: list[Outcome]
    ) -> list[Outcome]:
        """Try those again that were only too many (RFC 5321 §4.5.3.1.10).

        As long as each round gets some of them accepted.
        """
        outcomes = list(outcomes)
        left = [i for i, o in enumerate(outcomes) if is_too_many_outcome(o)]
        before = len(outcomes)
        while left and len(left) < before:
            before = len(left)
            part = [recipients[i] for i in left]
            for i, outcome in zip(left, await put(part), strict=True):
                outcomes[i] = outcome
            left = [i for i in left if is_too_many_outcome(outcomes[i])]
        return outcomes

    # -- connections ---------------------------------------------------------------

    def _new_pool(
        self, name: str, place: Place, protection: Protection = Protection.USUAL
    ) -> Pool:
        settings = self._settings
        places = Places(self._counters, place.destination, settings.connections_max)
        opener = partial(self._open, protection)
        wait_us = settings.slot_wait_max
        pool = Pool(name, opener, places, wait_us, self._forget_pool)
        self._pools[name] = pool
        return pool

    def _forget_pool(self, name: str) -> None:
        self._pools.pop(name, None)

    async def _open(self, protection: Protection, job: Job) -> Session | Reason:
        return await self._caller.call(job.hop, protection)

    # -- sendmail -v ---------------------------------------------------------------

    async def _deliver_aloud(self, attempt: Attempt, say: Say) -> list[Outcome]:
        """Deliver over a connection of its own, so that all that is told belongs."""
        recipients = attempt.envelope.recipients
        names = ",".join(recipient.address.to_text() for recipient in recipients)
        place = await self._ways.look(attempt.route.hop)
        if not isinstance(place, Place):
            outcomes = without_way(place, attempt.route.hop, recipients)
            _tell(recipients, outcomes, say)
            return outcomes
        protection = protection_of(attempt, place)
        made = await self._caller.call(attempt.route.hop, protection, names, say)
        if isinstance(made, Session):
            outcomes = await self._talk(made, attempt, protection, say)
        else:
            outcomes = [made] * len(recipients)
            _tell(recipients, outcomes, say)
        return outcomes

    async def _talk(
        self, session: Session, attempt: Attempt, protection: Protection, say: Say
    ) -> list[Outcome]:
        loop = asyncio.get_running_loop()
        demands = protection is Protection.DEMANDED

        def put(part: Sequence[Recipient]) -> "asyncio.Future[list[Outcome]]":
            job = Job(attempt, part, loop.create_future(), requiretls=demands)
            session.start(job)
            return job.done

        serving = asyncio.create_task(session.serve())
        recipients = attempt.envelope.recipients
        size = self._settings.recipients_max
        outcomes: list[Outcome] = []
        try:
            for i in range(0, len(recipients), size):
                part = recipients[i : i + size]
                told_now = await self._again(put, part, await put(part))
                outcomes += told_now
                _tell(part, told_now, say)
            say(f"Closing connection to {session.peer.label}")
            session.leave()
            await asyncio.wait({serving}, timeout=self._settings.quit_timeout.seconds)
        finally:
            if not serving.done():
                session.abort()
                await asyncio.wait({serving})
        return outcomes


def _unheard(event: AnyEvent) -> None:
    return None


def _tell(recipients: Sequence[Recipient], outcomes: list[Outcome], say: Say) -> None:
    for recipient, outcome in zip(recipients, outcomes, strict=True):
        say(f"{recipient.address.to_text()}... {told(outcome)}")
