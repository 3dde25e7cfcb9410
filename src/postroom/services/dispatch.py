"""The delivery loop of one worker: claims what is due, tries it, settles the result.

It joins four parts and decides nothing itself: the scheduler says what may start, the
spool leases it, an agent tries it, and what came of it goes back to spool, scheduler,
log and, if it failed for good, to the sender. An attempt that ends in an exception is
deferred and logged; a result that the spool cannot take is offered again until it can.
Whatever happens, each lease is given back to the spool and each start to the schedule.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import NamedTuple

import msgspec

from postroom.agents.smtp_words import told
from postroom.limits.grades import grade_of
from postroom.mail.deliver_by import EXPIRED, has_expired
from postroom.mail.ids import QueueId
from postroom.mail.now import MINUTE_US, SECOND_US, Now
from postroom.mail.outcome import Attempt, Deferred, Outcome
from postroom.mail.route import Route
from postroom.observe.events import MessageShunted
from postroom.schedule.destination import PutOff
from postroom.schedule.scheduler import (
    EXPANSION_HOP,
    LOCAL_HOPS,
    Claim,
    Scheduler,
)
from postroom.services.attempts import Observers, Span, Tried, events_of
from postroom.services.expand import Expander, HopLane
from postroom.services.gather import Gatherer, Kept
from postroom.services.listeners import Listeners
from postroom.services.pace import STEP_S, Pace
from postroom.services.settings import DeliverSettings
from postroom.services.settle import Settler, done
from postroom.services.workshop import Workshop
from postroom.spool.spool import (
    Fenced,
    Lease,
    NewMessage,
    RecipientState,
    Rest,
    Settle,
    SpoolError,
)

HOPS_PER_SCAN_MAX = 2_000
_SCAN_PAUSE_US_MIN = SECOND_US
_SCAN_SHARE = 10
"""At most one part in so many of the time is spent on searching."""
_ELDERS_EVERY_US = 5 * MINUTE_US
"""How often mail of resting hops is searched for what is to be warned of or given up:
so much later than it should that happens at the most."""
_ELDERS_PAUSE_S = 0.02
_STEP_US = int(STEP_S * SECOND_US)
_SETTLE_PAUSE_S = 1.0
_FAULT = Deferred("4.3.0", "internal error")


class Parts(NamedTuple):
    """What the dispatcher joins."""

    shop: Workshop
    scheduler: Scheduler
    expander: Expander
    settler: Settler
    listeners: Listeners
    observers: Observers


class Dispatcher:
    """Runs the attempts of one worker."""

    def __init__(self, parts: Parts, settings: DeliverSettings) -> None:
        self._parts = parts
        self._settings = settings
        self._running: set[asyncio.Task[None]] = set()
        self._trying: dict[asyncio.Task[object], int] = {}
        self._stirred = asyncio.Event()
        self._wake_mono_us: int | None = None
        self._wake_handle: asyncio.TimerHandle | None = None
        self._draining = False
        self._gatherer = Gatherer(int(settings.reports.gather))
        self._elders_mono_us = 0
        self._pace = Pace(parts.shop.spool)
        self._loop = asyncio.get_running_loop()

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
        if self._draining:  # their commit was under way: the next holder tries them
            return self._parts.listeners.remove(leases[0].queue_id)
        if len(leases) > 1:
            first = leases[0]
            self._parts.scheduler.started(_hop_of(first), first.lane, len(leases) - 1)
        for lease in leases:
            self._spawn(lease)

    def due(self, hop: str, lane: int) -> None:
        """Hint: something that came just now is due there."""
        self._parts.scheduler.due(hop, lane, self._parts.shop.clock(), is_fresh=True)
        self._pump()

    def look_again(self) -> None:
        """Hint: search the spool for due mail now."""
        self._stirred.set()

    def retry_now(self, hops: Sequence[str] | None = None) -> None:
        """An operator wants mail tried: let these hops not rest, and look for it.

        None stands for all of them.
        """
        if hops is None:
            self._parts.scheduler.end_rests()
        for hop in hops or ():
            self._parts.scheduler.end_rests(hop)
        self._run(self._end_rests(hops))

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
        self._gatherer.hurry()
        if self._wake_handle:
            self._wake_handle.cancel()
        until = self._loop.time() + seconds
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)
        left = list(self._running)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._parts.observers.drain(until - self._loop.time())

    async def _scan(self) -> int:
        now = self._parts.shop.clock()
        self._cancel_overdue(now)
        self._look_for_elders(now)
        interval = int(self._settings.scan_interval)
        try:
            hops = await self._parts.shop.spool.due_hops(now, HOPS_PER_SCAN_MAX)
            for hop in hops:
                self._parts.scheduler.due(hop.hop, hop.lane, now)
            self._pump()
            # What was found is hinted at: only else is it of interest what comes next.
            next_us = None if hops else await self._parts.shop.spool.next_due_us()
        except SpoolError as error:
            self._parts.shop.tell_spool(error)
            return interval
        except Exception as error:  # a bug: the next search may do better
            self._parts.shop.tell(f"search for due mail: {error!r}", level="error")
            return interval
        took_us = self._parts.shop.clock().mono_us - now.mono_us
        pause_us = max(_SCAN_PAUSE_US_MIN, took_us * _SCAN_SHARE)
        if hops:
            return min(interval, pause_us)
        if next_us is None:
            return interval
        return min(interval, max(next_us - now.utc_us, pause_us))

    def _cancel_overdue(self, now: Now) -> None:
        """Cut agents off that take too long; what has a result is left to settle it."""
        oldest = now.mono_us - self._settings.attempt_timeout
        for task in [task for task, began in self._trying.items() if began < oldest]:
            del self._trying[task]
            task.cancel()

    def _pump(self) -> None:
        scheduler = self._parts.scheduler
        if self._draining or not (scheduler.has_turns or self._wake_mono_us):
            return
        if self._parts.shop.log.overfull:
            return  # the next search goes on
        now = self._parts.shop.clock()
        most = self._pace.claims()
        for claim in scheduler.next(now, most):
            self._run(self._claim(claim))
        wake_us = scheduler.wake_at(now)
        if wake_us is not None and most is not None:
            wake_us = max(wake_us, now.mono_us + _STEP_US)
        self._arm(wake_us, now)

    def _arm(self, mono_us: int | None, now: Now) -> None:
        armed_us = self._wake_mono_us
        if mono_us == armed_us:
            return
        if mono_us and armed_us and now.mono_us <= armed_us <= mono_us:
            return  # it comes soon enough
        if self._wake_handle:
            self._wake_handle.cancel()
        self._wake_mono_us = mono_us
        self._wake_handle = None
        if mono_us is not None:
            seconds = max(mono_us - now.mono_us, 0) / SECOND_US
            self._wake_handle = self._loop.call_later(seconds, self._wake)

    def _wake(self) -> None:
        self._wake_mono_us = self._wake_handle = None
        self._pump()

    async def _claim(self, claim: Claim) -> None:
        spool, scheduler, clock = (
            self._parts.shop.spool,
            self._parts.scheduler,
            self._parts.shop.clock,
        )
        if claim.put_off is not None:
            await self._rest(claim, claim.put_off)
            return
        leases: Sequence[Lease] = ()
        try:
            leases = await spool.claim(claim.hop, claim.lane, claim.count, clock())
        except SpoolError as error:
            self._parts.shop.tell_spool(error)
        finally:
            got = len(leases)
            scheduler.claimed(claim.hop, claim.lane, claim.count, got, clock())
        self._pace.brought(leases, clock().utc_us)
        if 0 < got < claim.count:
            # It may have been cut short by a bound on octets, not by the lane's end:
            # only an empty answer says that nothing is left.
            scheduler.due(claim.hop, claim.lane, clock())
        for lease in leases:
            if self._draining:  # it began before, and came too late
                await self._settle(lease, (), ())
                scheduler.done(claim.hop, claim.lane, (), clock())
            else:
                self._spawn(lease)
        self._pump()

    async def _rest(self, claim: Claim, put_off: PutOff) -> None:
        """Note in the spool that a hop rests: what waits there is left as it is."""
        shop, scheduler = self._parts.shop, self._parts.scheduler
        failure = put_off.outcome
        rest = Rest(put_off.due_us, failure.status, failure.text)
        try:
            await shop.spool.rest(claim.hop, rest)
            self._look_for_elders(shop.clock())
            # Who follows a message is told of the delay at once, not after the rest.
            if followed := self._parts.listeners.queue_ids:
                leases = await shop.spool.claim_messages(followed, shop.clock())
                await asyncio.gather(*(self._put_off(lease) for lease in leases))
        except SpoolError as error:
            shop.tell_spool(error)
        finally:
            scheduler.claimed(claim.hop, claim.lane, claim.count, 0, shop.clock())
            self._pump()

    def _look_for_elders(self, now: Now) -> None:
        if self._parts.shop.spool.has_rests and now.mono_us >= self._elders_mono_us:
            self._elders_mono_us = now.mono_us + _ELDERS_EVERY_US
            self._run(self._see_to_elders())

    async def _end_rests(self, hops: Sequence[str] | None) -> None:
        """Let the mail of hops be found, though their rests may not be over."""
        try:
            await self._parts.shop.spool.end_rests(hops)
        except SpoolError as error:
            self._parts.shop.tell_spool(error)
        self.look_again()

    async def _see_to_elders(self) -> None:
        """Warn of, or give up, what is too old to wait until its hop's rest is over."""
        shop = self._parts.shop
        patience = self._parts.settler.patience
        try:
            while not self._draining:
                elders = await shop.spool.claim_elders(patience, shop.clock())
                if elders is None:
                    return
                put_off = (self._put_off(lease, is_elder=True) for lease in elders)
                await asyncio.gather(*put_off)
                await asyncio.sleep(_ELDERS_PAUSE_S)
        except SpoolError as error:
            shop.tell_spool(error)

    async def _put_off(self, lease: Lease, *, is_elder: bool = False) -> None:
        """Settle a message without a try: its hop rests."""
        rest = self._parts.shop.spool.rest_of(_hop_of(lease))
        if rest is None:  # it answers again meanwhile
            await self._settle(lease, (), ())
            self.due(_hop_of(lease), lease.lane)
            return
        now = self._parts.shop.clock()
        outcome = Deferred(rest.status, rest.text, hop_failed=True)
        outcomes = [outcome] * len(lease.numbers)
        settled, new = await self._judge(lease, outcomes, now, rest.until_us)
        if is_elder:  # warned of, or not to be: it is not looked at again for that
            settled = [msgspec.structs.replace(each, warned=True) for each in settled]
        await self._settle(lease, settled, new)
        agent = lease.route.agent if lease.route else ""
        ended = [i for i, each in enumerate(settled) if each.due_us is None]
        tried = Tried(lease, agent, outcomes, settled, Span(now, now))
        self._tell(tried, ended)
        self._parts.listeners.tried(lease.queue_id, len(lease.numbers))
        self._look_for(new)
        if ended:
            await self._observed(tried, ended)

    def _spawn(self, lease: Lease) -> None:
        self._run(self._attempt(lease))

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._parts.shop.tell(f"delivery task failed: {error!r}", level="error")

    async def _attempt(self, lease: Lease) -> None:
        outcomes: Sequence[Outcome] = ()
        parts = self._parts
        in_hand = parts.shop.spool.in_hand
        in_hand.begin(lease.queue_id)
        try:
            if lease.route is None:
                await self._expand(lease)
            else:
                outcomes = await self._deliver(lease, lease.route)
        finally:
            in_hand.done(lease.queue_id)
            parts.scheduler.done(_hop_of(lease), lease.lane, (), parts.shop.clock())
            self._hear_of(_hop_of(lease), outcomes)
            self._pump()

    def _hear_of(self, hop: str, outcomes: Sequence[Outcome]) -> None:
        """End a rest that the spool knows of once the hop answers."""
        if not outcomes or self._draining:
            return
        if self._parts.shop.spool.rest_of(hop) and not any(
            isinstance(outcome, Deferred) and outcome.hop_failed for outcome in outcomes
        ):
            self._run(self._end_rests((hop,)))

    async def _expand(self, lease: Lease) -> None:
        parts = self._parts
        try:
            await parts.expander.expand(lease, self._look_at)
        except Fenced:
            self._tell_fenced(lease)
        except Exception as error:  # not done: it goes on at its cursor later
            if isinstance(error, SpoolError):
                parts.shop.tell_spool(error)
            else:
                what = f"{lease.queue_id}: expansion failed: {error!r}"
                parts.shop.tell(what, level="error")
            await self._put_back(lease)

    async def _put_back(self, lease: Lease) -> None:
        """Let an alias that could not be expanded wait, like all that is deferred."""
        now, count = self._parts.shop.clock(), len(lease.numbers)
        outcomes = [_FAULT] * count
        settled, new = await self._judge(lease, outcomes, now)
        await self._settle(lease, settled, new)
        tried = Tried(lease, "alias", outcomes, settled, Span(now, now))
        self._tell(tried)
        if (say := self._parts.listeners.say_of(lease.queue_id)) is not None:
            say(f"{lease.envelope.recipients[0].address}... {told(_FAULT)}")
        self._parts.listeners.tried(lease.queue_id, count)
        self._look_for(new)
        await self._observed(tried)

    def _look_at(self, places: Iterable[HopLane]) -> None:
        now = self._parts.shop.clock()
        for hop, lane in places:
            self._parts.scheduler.due(hop, lane, now)
        self._pump()

    async def _deliver(self, lease: Lease, route: Route) -> Sequence[Outcome]:
        parts = self._parts
        began = parts.shop.clock()
        outcomes, was_asked = await self._try(lease, route, began)
        heard = outcomes if was_asked else ()
        ended = parts.shop.clock()
        rest = parts.scheduler.learn(route.hop, heard, ended)
        settled: Sequence[Settle] = done(lease, outcomes)
        new: Sequence[NewMessage] = ()
        due_us = rest.due_us if rest else None
        kept = None if settled else self._kept(lease, outcomes, ended, due_us)
        if kept is not None:
            settled = kept.settled
            if self._gatherer.add(kept):
                # In hand until its report is written: that may kill the worker, too.
                parts.shop.spool.in_hand.begin(lease.queue_id)
                self._run(self._report_together(lease.queue_id))
        elif settled:
            await self._settle(lease, settled, new)
        else:
            settled, new = await self._judge(lease, outcomes, ended, due_us)
            await self._settle(lease, settled, new)
        count = len(lease.numbers)
        tried = Tried(lease, route.agent, outcomes, settled, Span(began, ended))
        self._tell(tried)
        parts.listeners.tried(lease.queue_id, count)
        self._look_for(new)
        if parts.shop.generation().chain.has("outcome"):
            await self._observed(tried)
        return heard

    def _kept(
        self,
        lease: Lease,
        outcomes: Sequence[Outcome],
        now: Now,
        due_us: int | None = None,
    ) -> Kept | None:
        """Return what may wait for other failures of its message, else None."""
        weigh = self._parts.settler.weigh
        try:
            settled, happened = weigh(lease, outcomes, now, due_us=due_us)
        except Exception:  # _judge tells of it
            return None
        if self._gatherer.takes(outcomes, happened):
            return Kept(lease, settled, happened)
        return None

    async def _report_together(self, queue_id: QueueId) -> None:
        """Write one report about all of a message that was kept; settle it then.

        The report goes with the first lease, so it is there before any is gone.
        """
        kept, happened = await self._gatherer.wait(queue_id)
        now = self._parts.shop.clock()
        try:
            new = await self._parts.settler.report(kept[0].lease, happened, now)
        except Exception as error:  # a bug: they stay, and are tried again
            what = f"{queue_id}: cannot be reported: {error!r}"
            self._parts.shop.tell(what, level="error")
            for each in kept:
                outcomes = [_FAULT] * len(each.lease.numbers)
                await self._settle(
                    each.lease, self._at_fault(each.lease, outcomes, now), ()
                )
        else:
            for each in kept:
                if await self._settle(each.lease, each.settled, new):
                    self._look_for(new)
                    new = ()
        finally:
            self._parts.shop.spool.in_hand.done(queue_id)
            self._pump()

    async def _judge(
        self,
        lease: Lease,
        outcomes: Sequence[Outcome],
        now: Now,
        due_us: int | None = None,
    ) -> tuple[Sequence[Settle], Sequence[NewMessage]]:
        """Ask the settler; if it fails, what was delivered goes, the rest waits."""
        in_hand = self._parts.shop.spool.in_hand
        in_hand.begin(lease.queue_id)
        try:
            return await self._parts.settler.judge(lease, outcomes, now, due_us=due_us)
        except Exception as error:  # a bug must not lose, block or repeat mail
            what = f"{lease.queue_id}: cannot be judged: {error!r}"
            self._parts.shop.tell(what, level="error")
        finally:
            in_hand.done(lease.queue_id)
        return self._at_fault(lease, outcomes, now), ()

    def _at_fault(
        self, lease: Lease, outcomes: Sequence[Outcome], now: Now
    ) -> Sequence[Settle]:
        settled = self._parts.settler.at_fault(lease, outcomes, now)
        aside = [one for one in settled if one.state is RecipientState.SHUNTED]
        if aside:
            why = aside[0].status_text
            self._parts.shop.emit(MessageShunted(now.utc_us, lease.queue_id, why))
        return settled

    def _tell(self, tried: Tried, which: Sequence[int] | None = None) -> None:
        for event in events_of(tried, which):
            self._parts.shop.emit(event)

    async def _observed(self, tried: Tried, which: Sequence[int] | None = None) -> None:
        envelope = tried.lease.envelope
        await self._parts.observers.tell(envelope, lambda: events_of(tried, which))

    async def _try(
        self, lease: Lease, route: Route, now: Now
    ) -> tuple[Sequence[Outcome], bool]:
        """Make an attempt; also returns whether it says something of its hop."""
        generation = self._parts.shop.generation()  # in use until the attempt ends
        agent = generation.agents.get(route.agent)
        count = len(lease.numbers)
        if lease.envelope.deliver_by and has_expired(lease.envelope, now.utc_us):
            return [EXPIRED] * count, False
        task = asyncio.current_task(self._loop)
        if agent is None or task is None:
            text = f"no delivery agent is called {route.agent}"
            return [Deferred("4.3.5", text)] * count, False
        attempt = Attempt(
            queue_id=lease.queue_id,
            envelope=lease.envelope,
            numbers=lease.numbers,
            message=lease.message,
            route=route,
            now=now,
            say=self._parts.listeners.say_of(lease.queue_id),
            again=any(lease.tries),
            grade=grade_of(lease.lane),
        )
        self._trying[task] = now.mono_us
        try:
            outcomes = await agent.deliver(attempt)
            if len(outcomes) != count:
                raise ValueError(f"{len(outcomes)} outcomes of {count}")
        except asyncio.CancelledError:
            if self._draining:
                raise
            task.uncancel()
            # A host that keeps us so long is none to send more to; a disk is.
            is_away = route.hop not in LOCAL_HOPS
            text = "attempt took too long"
            return [Deferred("4.4.7", text, hop_failed=is_away)] * count, is_away
        except Exception as error:  # a bug must not lose or block mail
            self._parts.shop.tell(
                f"agent {route.agent} failed: {error!r}", level="error"
            )
            return [_FAULT] * count, False
        finally:
            self._trying.pop(task, None)
        return outcomes, True

    async def _settle(
        self, lease: Lease, settled: Sequence[Settle], new: Sequence[NewMessage]
    ) -> bool:
        """Offer the result until the spool takes it; False: the lease was stale."""
        failures = 0
        while True:
            try:
                await self._parts.shop.spool.settle(lease, settled, new)
                return True
            except Fenced:
                self._tell_fenced(lease)
                return False
            except SpoolError as error:
                failures += 1
                # Hundreds may wait for days for a disk: not a line of each a second.
                if failures.bit_count() == 1:
                    self._parts.shop.tell_spool(error)
                await asyncio.sleep(_SETTLE_PAUSE_S)

    def _tell_fenced(self, lease: Lease) -> None:
        what = f"{lease.queue_id}: another worker has taken over"
        self._parts.shop.tell(what, level="warning")

    def _look_for(self, new: Sequence[NewMessage]) -> None:
        if not new:
            return
        now = self._parts.shop.clock()
        for message in new:
            for recipient in message.recipients:
                hop = recipient.route.hop if recipient.route else ""
                self._parts.scheduler.due(hop, recipient.lane, now)


def _hop_of(lease: Lease) -> str:
    return lease.route.hop if lease.route else EXPANSION_HOP
