"""One delivery line of a worker for tests: real queue, router and policy, no network.

Agents do what they are told per recipient, the clock stands still until it is moved,
and the spool can be made to fail. All that is told is in ``events``.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import msgspec

from postroom.dns.own import OwnNames
from postroom.limits.shared import SharedCounters
from postroom.mail.address import Address
from postroom.mail.ids import QueueIds
from postroom.mail.now import SECOND_US, Now
from postroom.mail.outcome import Attempt, Delivered, Outcome
from postroom.mail.units import Duration
from postroom.observe.events import AnyEvent
from postroom.policy.builtin import Guards
from postroom.policy.chain import Chain
from postroom.policy.hooks import MARK, Function
from postroom.policy.settings import PolicySettings
from postroom.route.facts import RouteFacts, Sources
from postroom.route.questions import ALIASES, ROUTES, SENDERS
from postroom.route.router import Router
from postroom.route.settings import RouteSettings
from postroom.schedule.scheduler import Scheduler
from postroom.schedule.senders import Senders
from postroom.schedule.settings import ScheduleSettings
from postroom.services.accept import Acceptor
from postroom.services.budget import Budget
from postroom.services.dispatch import Dispatcher
from postroom.services.face import Face
from postroom.services.generation import Generation
from postroom.services.line import Line, start_line
from postroom.services.reception import Tools
from postroom.services.report_settings import ReportSettings
from postroom.services.settings import (
    DeliverSettings,
    ReceiveSettings,
    SubmissionSettings,
)
from postroom.services.user_rules import user_rules
from postroom.services.workshop import Workshop
from postroom.smtp.settings import ServerSettings
from postroom.spool.engine import Shard
from postroom.spool.files import Seam
from postroom.spool.settings import SpoolSettings
from postroom.spool.spool import Entry, NewMessage, NewRecipient, QueueFilter, Spool
from postroom.testing.spool import QUICK, SYSTEM, Letters, temporary_shard

NOON_US = 1_795_348_800_000_000
"""2026-11-22T12:00:00Z."""
HOST = "gonzo.test"
DELIVERED = Delivered("2.0.0", "ok")
AT_ONCE = DeliverSettings(reports=ReportSettings(gather=Duration(0)))
"""Settings that keep no failed recipient back for others of its message."""
_WAITS_MAX = 1_000

T = TypeVar("T")


class JumpingClock:
    """A clock that moves only when told, and may go back."""

    def __init__(self) -> None:
        self.utc_us = NOON_US
        self.mono_us = 1_000 * SECOND_US

    def __call__(self) -> Now:
        """Return the moment."""
        return Now(self.utc_us, self.mono_us)

    def jump(self, seconds: float) -> None:
        """Let time pass; backwards only the clock on the wall goes."""
        us = int(seconds * SECOND_US)
        self.utc_us += us
        self.mono_us += max(us, 0)


class ScriptedAgent:
    """Gives each recipient the outcomes written for it, the last one for ever.

    An exception in a script is raised. While ``gate`` is clear every attempt waits.
    """

    def __init__(self, script: Mapping[str, Sequence[Outcome | Exception]]) -> None:
        self.script = {key: deque(said) for key, said in script.items()}
        self.attempts: list[Attempt] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_closed = False

    async def deliver(self, attempt: Attempt) -> Sequence[Outcome]:
        """Note the attempt and say what the script says."""
        self.attempts.append(attempt)
        await self.gate.wait()
        return [self._said(r.address.to_text()) for r in attempt.envelope.recipients]

    async def aclose(self) -> None:
        """Note it."""
        self.is_closed = True

    @property
    def tried(self) -> list[str]:
        """All recipients of all attempts so far, in order."""
        return [
            recipient.address.to_text()
            for attempt in self.attempts
            for recipient in attempt.envelope.recipients
        ]

    def _said(self, recipient: str) -> Outcome:
        said = self.script.get(recipient)
        if not said:
            return DELIVERED
        outcome = said.popleft() if len(said) > 1 else said[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class FaultySpool:
    """A shard whose calls fail as often as ``faults`` says, by the method's name.

    ``calls`` are the names of those that have begun, ``ended`` of those that are over.
    """

    def __init__(self, shard: Shard) -> None:
        self.faults: dict[str, list[Exception]] = {}
        self.calls: list[str] = []
        self.ended: list[str] = []
        self._shard = shard

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._shard, name)
        if name not in ("accept", "claim", "settle", "expand", "due_hops"):
            return found

        async def call(*given: Any, **named: Any) -> Any:
            self.calls.append(name)
            try:
                if faults := self.faults.get(name):
                    raise faults.pop(0)
                return await found(*given, **named)
            finally:
                self.ended.append(name)

        return call


class Aliases:
    """An aliases table; with a ``fault`` it cannot be read."""

    def __init__(self, aliases: Mapping[str, Iterable[str]]) -> None:
        self.fault = ""
        self.aliases = {name: tuple(targets) for name, targets in aliases.items()}

    def get(self, key: str) -> tuple[str, ...] | None:
        """Return the targets of an alias."""
        return self.aliases.get(key)


class FreeLog:
    """A log that is full when a test says so."""

    def __init__(self) -> None:
        self.room = asyncio.Event()
        self.room.set()
        self.overfull = False

    @property
    def full(self) -> bool:
        """Whether too much waits to be written."""
        return not self.room.is_set()

    async def drained(self) -> None:
        """Wait until there is room again."""
        await self.room.wait()


class Bench:
    """A line at work, with what a test wants to see and to turn. Made by ``bench``."""

    def __init__(self, shard: Shard, plan: "Plan", clock: JumpingClock) -> None:
        self.clock = clock
        self.events: list[AnyEvent] = []
        self.shard = shard
        self.spool = FaultySpool(shard)
        self.log = FreeLog()
        self.aliases = Aliases(plan.aliases)
        self.senders = Aliases({key: [text] for key, text in plan.senders.items()})
        self.routes = Aliases({key: [text] for key, text in plan.routes.items()})
        self.agents = {
            name: ScriptedAgent(plan.script) for name in ("mailbox", "smtp", "discard")
        }
        self.counters = SharedCounters.private()
        self.generation = _generation(self, plan)
        self.shop = Workshop(
            spool=cast("Spool", self.spool),
            ids=QueueIds(shard.shard, shard.last_number),
            generation=lambda: self.generation,
            emit=self.events.append,
            log=self.log,
            clock=clock,
            zone_offset_s=lambda _: 0,
            lanes=plan.deliver.lanes,
            senders=Senders(plan.schedule.grades),
        )
        self.line: Line = start_line(
            self.shop, plan.deliver, plan.schedule, 1, self.counters
        )
        self.acceptor = Acceptor(self.shop, self.line.dispatcher)
        self.budget = Budget(plan.memory_octets)
        self.tools = Tools(self.shop, self.acceptor, self.budget, self.counters)

    @property
    def dispatcher(self) -> Dispatcher:
        """The line's."""
        return self.line.dispatcher

    @property
    def scheduler(self) -> Scheduler:
        """The line's."""
        return self.line.scheduler

    def letter(
        self, *recipients: str | NewRecipient, sender: str = "betty@gonzo.test"
    ) -> NewMessage:
        """Return a message to be queued, as ``Letters.letter`` does."""
        letter = Letters(None, self.clock).letter(*recipients, sender=sender)
        queue_id = self.shop.ids.next(self.clock.utc_us)
        return msgspec.structs.replace(letter, queue_id=queue_id)

    def told(self, kind: type[T]) -> list[T]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    async def queue(self) -> list[Entry]:
        """Return what is queued."""
        pages = self.shard.entries(QueueFilter())
        return [entry async for page in pages for entry in page]

    async def waiting(self) -> list[str]:
        """Return the recipients in the queue, sorted."""
        return sorted(r.address for e in await self.queue() for r in e.recipients)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Let the loop run until something is so."""
        for _ in range(_WAITS_MAX):
            if holds():
                return
            await asyncio.sleep(0.001)
        raise AssertionError("it did not come to that")

    async def idle(self) -> None:
        """Let the loop run until nothing is in hand, nor asked of the spool."""
        await asyncio.sleep(0)
        await self.until(lambda: not self.dispatcher.active)

    async def rescan(self, seconds: float = 0) -> None:
        """Let time pass, have the queue searched, and wait for what comes of it."""
        before = self.spool.calls.count("due_hops")
        self.clock.jump(seconds)
        self.dispatcher.look_again()
        await self.until(lambda: self.spool.ended.count("due_hops") > before)
        await self.idle()

    def is_balanced(self) -> bool:
        """Whether every hop's window and every lease was given back."""
        scheduler = self.scheduler
        hops = scheduler._hops.values()
        return (
            scheduler.active == 0
            and all(hop.active == 0 and not hop.asking for hop in hops)
            and all(d.active == 0 for d in scheduler._destinations.values())
            and not self.shard._book.places()
            and not self.shard.in_hand.left_behind()
        )


class Plan:
    """What a bench is made of; every part has a value that does for most tests.

    Args:
        script: outcomes by recipient, for all agents.
        hooks: a site's hooks, marked by ``@hook.…``.
    """

    def __init__(
        self,
        *,
        script: Mapping[str, Sequence[Outcome | Exception]] | None = None,
        hooks: Sequence[Function] = (),
        aliases: Mapping[str, Iterable[str]] | None = None,
        users: Iterable[str] = ("betty", "joe", "postmaster"),
        **settings: Any,
    ) -> None:
        self.script = script or {}
        self.hooks = [one for function in hooks for one in getattr(function, MARK)]
        self.aliases = aliases or {}
        self.users = frozenset(users)
        self.memory_octets: int = settings.pop("memory_octets", 1 << 24)
        self.deliver: DeliverSettings = settings.pop("deliver", AT_ONCE)
        self.schedule: ScheduleSettings = settings.pop("schedule", ScheduleSettings())
        self.server: ServerSettings = settings.pop("server", ServerSettings())
        self.receive: ReceiveSettings = settings.pop("receive", ReceiveSettings())
        self.spool: SpoolSettings = settings.pop("spool", QUICK)
        self.faces: Mapping[str, Face] = settings.pop("faces", {})
        self.senders: Mapping[str, str] = settings.pop("senders", {})
        self.routes: Mapping[str, str] = settings.pop("routes", {})
        self.submission = settings.pop("submission", SubmissionSettings())
        assert not settings, f"no such setting: {settings}"


def _generation(bench: Bench, plan: Plan) -> Generation:
    policy = PolicySettings(relay_networks=("127.0.0.0/8",))
    guards = Guards(policy, plan.server.message_octets_max)
    hooks = (*guards.hooks(), *plan.hooks)
    sources = Sources(
        tables={
            ALIASES: bench.aliases,
            SENDERS: bench.senders,
            ROUTES: bench.routes,
        },
        user_exists=plan.users.__contains__,
    )
    return Generation(
        number=1,
        hostname=HOST,
        server=plan.server,
        receive=plan.receive,
        chain=Chain(hooks, policy, bench.events.append, bench.clock, lambda: 0),
        router=Router(
            RouteSettings(routes="routes" if plan.routes else ""),
            HOST,
            OwnNames.of([HOST]),
        ),
        facts=RouteFacts(sources),
        agents=bench.agents,
        faces=plan.faces,
        user_rules=user_rules(plan.submission),
    )


@asynccontextmanager
async def bench(
    plan: Plan | None = None,
    *,
    directory: str | None = None,
    seam: Seam = SYSTEM,
) -> AsyncIterator[Bench]:
    """Lend a line at work, by default on a new queue in memory."""
    plan, clock = plan or Plan(), JumpingClock()
    async with temporary_shard(
        directory=directory, settings=plan.spool, clock=clock, seam=seam
    ) as shard:
        made = Bench(shard, plan, clock)
        try:
            yield made
        finally:
            for agent in made.agents.values():
                agent.gate.set()
            await made.dispatcher.drain(1)
            await made.line.aclose()


def addresses(*texts: str) -> tuple[Address, ...]:
    """Return addresses."""
    return tuple(Address.from_text(text) for text in texts)
