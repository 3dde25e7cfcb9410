"""The delivery loop of one worker: claims what is due, tries it, settles the result.

It joins four parts and decides nothing itself: the scheduler says what may start, the
spool leases it, an agent tries it, and what came of it goes back to spool, scheduler,
log and, if it failed for good, to the sender. An attempt that ends in an exception is
deferred and logged; a result that the spool cannot take is offered again until it can.
"""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from postroom.mail.now import SECOND_US, Now
from postroom.mail.outcome import Attempt, Deferred, Outcome
from postroom.mail.route import Route
from postroom.observe.events import AttemptDone
from postroom.policy.session import OutcomeSubject, Session
from postroom.schedule.destination import PutOff
from postroom.schedule.scheduler import EXPANSION_HOP, Claim, Scheduler
from postroom.services.expand import Expander
from postroom.services.listeners import Listeners
from postroom.services.settings import DeliverSettings
from postroom.services.settle import Settler
from postroom.services.workshop import Workshop
from postroom.spool.spool import Fenced, Lease, NewMessage, Settle, SpoolError

HOPS_PER_SCAN_MAX = 10_000
_SCAN_PAUSE_US_MIN = SECOND_US
_SETTLE_PAUSE_S = 1.0


class Parts(NamedTuple):
    """What the dispatcher joins."""

    shop: Workshop
    scheduler: Scheduler
    expander: Expander
    settler: Settler
    listeners: Listeners


class Dispatcher:
    """Runs the attempts of one worker."""

    def __init__(self, parts: Parts, settings: DeliverSettings) -> None:
        self._parts = parts
        self._settings = settings
        self._running: dict[asyncio.Task[None], int] = {}
        self._stirred = asyncio.Event()
        self._wake_mono_us: int | None = None
        self._wake_handle: asyncio.TimerHandle | None = None
        self._draining = False

    @property
    def active(self) -> int:
        """How many attempts and claims are under way."""
        return len(self._running)

    @property
    def listeners(self) -> Listeners:
        """Who follows messages live."""
        return self._parts.listeners

    def admit(self, hop: str, lane: int, now: Now) -> bool:
        """Whether a message that is just being accepted may be tried at once."""
        if self._draining or len(self._running) >= self._settings.attempts_max:
            return False
        return self._parts.scheduler.admit(hop, lane, now)

    def withdraw(self, hop: str, lane: int) -> None:
        """Take back an admission: the message was not kept after all."""
        self._parts.scheduler.done(hop, lane, (), self._parts.shop.clock())

    def start(self, leases: Sequence[Lease]) -> None:
        """Try messages that were admitted and leased as they were accepted."""
        if len(leases) > 1:
            self._parts.scheduler.started(_hop_of(leases[0]), len(leases) - 1)
        for lease in leases:
            self._spawn(lease)

    def due(self, hop: str, lane: int) -> None:
        """Hint: something is due there."""
        self._parts.scheduler.due(hop, lane, self._parts.shop.clock())
        self._pump()

    def look_again(self) -> None:
        """Hint: search the spool for due mail now."""
        self._stirred.set()

    def retry_now(self) -> None:
        """An operator wants mail tried: let no destination rest, and look for it."""
        self._parts.scheduler.end_rests()
        self.look_again()

    async def run(self) -> None:
        """Search the spool for due mail for ever; hints make it quick, this sure."""
        while not self._draining:
            self._stirred.clear()
            pause_us = await self._scan()
            try:
                async with asyncio.timeout(pause_us / SECOND_US):
                    await self._stirred.wait()
            except TimeoutError:
                pass

    async def drain(self, seconds: float) -> None:
        """Start nothing more; wait for what is in hand, at most so long."""
        self._draining = True
        self._stirred.set()
        if self._wake_handle:
            self._wake_handle.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)
        for task in list(self._running):
            task.cancel()

    async def _scan(self) -> int:
        now = self._parts.shop.clock()
        self._cancel_overdue(now)
        interval = int(self._settings.scan_interval)
        try:
            hops = await self._parts.shop.spool.due_hops(now, HOPS_PER_SCAN_MAX)
            for hop in hops:
                self._parts.scheduler.due(hop.hop, hop.lane, now)
            self._pump()
            next_us = await self._parts.shop.spool.next_due_us()
        except SpoolError as error:
            self._parts.shop.tell_spool(error)
            return interval
        if next_us is None:
            return interval
        return min(interval, max(next_us - now.utc_us, _SCAN_PAUSE_US_MIN))

    def _cancel_overdue(self, now: Now) -> None:
        oldest = now.mono_us - self._settings.attempt_timeout
        for task, started in self._running.items():
            if started < oldest:
                task.cancel()

    def _pump(self) -> None:
        if self._draining:
            return
        scheduler = self._parts.scheduler
        now = self._parts.shop.clock()
        for claim in scheduler.next(now):
            task = asyncio.create_task(self._claim(claim))
            self._running[task] = now.mono_us
            task.add_done_callback(self._forget)
        self._arm(scheduler.wake_at(now), now)

    def _arm(self, mono_us: int | None, now: Now) -> None:
        if mono_us == self._wake_mono_us:
            return
        if self._wake_handle:
            self._wake_handle.cancel()
        self._wake_mono_us = mono_us
        self._wake_handle = None
        if mono_us is not None:
            seconds = max(mono_us - now.mono_us, 0) / SECOND_US
            self._wake_handle = asyncio.get_running_loop().call_later(
                seconds, self._wake
            )

    def _wake(self) -> None:
        self._wake_mono_us = self._wake_handle = None
        self._pump()

    async def _claim(self, claim: Claim) -> None:
        spool, scheduler, clock = (
            self._parts.shop.spool,
            self._parts.scheduler,
            self._parts.shop.clock,
        )
        leases: Sequence[Lease] = ()
        try:
            leases = await spool.claim(claim.hop, claim.lane, claim.count, clock())
        except SpoolError as error:
            self._parts.shop.tell_spool(error)
        scheduler.claimed(claim.hop, claim.lane, claim.count, len(leases), clock())
        if claim.put_off is not None:
            await self._put_off(leases, claim.put_off)
        else:
            for lease in leases:
                self._spawn(lease)
        self._pump()

    async def _put_off(self, leases: Sequence[Lease], put_off: PutOff) -> None:
        now = self._parts.shop.clock()
        for lease in leases:
            outcomes = [put_off.outcome] * len(lease.numbers)
            settled, new = await self._parts.settler.judge(
                lease, outcomes, now, due_us=put_off.due_us
            )
            await self._settle(lease, settled, new)
            self._parts.listeners.tried(lease.queue_id, len(lease.numbers))
            self._look_for(new)

    def _spawn(self, lease: Lease) -> None:
        task = asyncio.create_task(self._attempt(lease))
        self._running[task] = self._parts.shop.clock().mono_us
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        if not task.cancelled() and (error := task.exception()):
            self._parts.shop.tell(f"delivery task failed: {error!r}", level="error")

    async def _attempt(self, lease: Lease) -> None:
        outcomes: Sequence[Outcome] = ()
        parts = self._parts
        in_hand = parts.shop.spool.in_hand
        in_hand.begin(lease.queue_id)
        try:
            if lease.route is None:
                expanded = await parts.expander.expand(lease)
                for hop, lane in expanded:
                    parts.scheduler.due(hop, lane, parts.shop.clock())
            else:
                outcomes = await self._deliver(lease, lease.route)
        finally:
            parts.scheduler.done(
                _hop_of(lease), lease.lane, outcomes, parts.shop.clock()
            )
            self._pump()

    async def _deliver(self, lease: Lease, route: Route) -> Sequence[Outcome]:
        parts = self._parts
        began = parts.shop.clock()
        outcomes = await self._try(lease, route, began)
        ended = parts.shop.clock()
        settled, new = await parts.settler.judge(lease, outcomes, ended)
        await self._settle(lease, settled, new)
        count = len(lease.numbers)
        for i, outcome in enumerate(outcomes):
            parts.shop.emit(
                AttemptDone(
                    utc_us=ended.utc_us,
                    queue_id=lease.queue_id,
                    recipient=lease.envelope.recipients[i].address,
                    outcome=outcome,
                    agent=route.agent,
                    tries=lease.tries[i] + 1,
                    delay_us=max(ended.utc_us - lease.envelope.arrival_us, 0),
                    transfer_us=ended.mono_us - began.mono_us,
                    next_us=settled[i].due_us or 0,
                )
            )
        parts.listeners.tried(lease.queue_id, count)
        self._look_for(new)
        if parts.shop.generation().chain.has("outcome"):
            await self._observe(lease, route, outcomes, ended)
        return outcomes

    async def _observe(
        self, lease: Lease, route: Route, outcomes: Sequence[Outcome], now: Now
    ) -> None:
        chain = self._parts.shop.generation().chain
        envelope = lease.envelope
        session = Session(origin=envelope.origin, opened_us=envelope.arrival_us)
        for i, outcome in enumerate(outcomes):
            subject = OutcomeSubject(
                queue_id=lease.queue_id,
                recipient=envelope.recipients[i].address,
                outcome=outcome,
                sender=envelope.sender,
                agent=route.agent,
                tries=lease.tries[i] + 1,
                delay_us=max(now.utc_us - envelope.arrival_us, 0),
            )
            await chain.observe(session, subject)

    async def _try(self, lease: Lease, route: Route, now: Now) -> Sequence[Outcome]:
        agent = self._parts.shop.generation().agents.get(route.agent)
        count = len(lease.numbers)
        if agent is None:
            text = f"no delivery agent is called {route.agent}"
            return [Deferred("4.3.5", text)] * count
        attempt = Attempt(
            queue_id=lease.queue_id,
            envelope=lease.envelope,
            numbers=lease.numbers,
            message=lease.message,
            route=route,
            now=now,
            say=self._parts.listeners.say_of(lease.queue_id),
            again=any(lease.tries),
        )
        try:
            outcomes = await agent.deliver(attempt)
        except asyncio.CancelledError:
            if self._draining:
                raise
            return [Deferred("4.4.7", "attempt took too long")] * count
        except Exception as error:  # a bug must not lose or block mail
            self._parts.shop.tell(
                f"agent {route.agent} failed: {error!r}", level="error"
            )
            return [Deferred("4.3.0", "internal error")] * count
        assert len(outcomes) == count
        return outcomes

    async def _settle(
        self, lease: Lease, settled: Sequence[Settle], new: Sequence[NewMessage]
    ) -> None:
        while True:
            try:
                return await self._parts.shop.spool.settle(lease, settled, new)
            except Fenced:
                return self._parts.shop.tell(
                    f"{lease.queue_id}: another worker has taken over", level="warning"
                )
            except SpoolError as error:
                self._parts.shop.tell_spool(error)
                await asyncio.sleep(_SETTLE_PAUSE_S)

    def _look_for(self, new: Sequence[NewMessage]) -> None:
        now = self._parts.shop.clock()
        for message in new:
            for recipient in message.recipients:
                hop = recipient.route.hop if recipient.route else ""
                self._parts.scheduler.due(hop, recipient.lane, now)


def _hop_of(lease: Lease) -> str:
    return lease.route.hop if lease.route else EXPANSION_HOP
