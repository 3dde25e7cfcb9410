"""What needs all stages but no running server: explanations, and giving mail up."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from postroom.admin.offline import Farewells
from postroom.app.assembly import Built, Ground, build
from postroom.app.errands import explain_address
from postroom.auth.users import Users
from postroom.config.settings import Config
from postroom.limits.shared import SharedCounters
from postroom.mail.address import Address
from postroom.mail.ids import QueueIds
from postroom.mailbox.stores import open_store
from postroom.net.clock import read_now, zone_offset_s
from postroom.observe.events import AnyEvent, TableRefused
from postroom.observe.history import HistoryWriter
from postroom.schedule.senders import Senders
from postroom.services.answer import Answer
from postroom.services.farewell import Undertaker
from postroom.services.ration import Ration
from postroom.services.report import Reporter
from postroom.services.submission import EX_NOUSER, EX_TEMPFAIL
from postroom.services.workshop import Workshop
from postroom.spool.engine import Shard
from postroom.spool.orders import Farewell


async def explain_offline(config: Config, address: Address) -> Answer:
    """Tell where mail for an address would go, and by which rule.

    Raises:
        ValueError: the configuration cannot be put in force.
    """
    lines: list[str] = []

    def note(event: AnyEvent) -> None:
        if isinstance(event, TableRefused):
            lines.append(f"problem: {event.path}:{event.line}: {event.error}")

    async with _built(config, note, lines.append) as built:
        answer = await explain_address(built, address)
    # A user that is not in a file that cannot be read may well be there.
    unsure = bool(lines) and answer.exit_code == EX_NOUSER
    exit_code = EX_TEMPFAIL if unsure else answer.exit_code
    return Answer((*lines, *answer.lines), exit_code)


def offline_farewells(config: Config) -> Farewells:
    """Return what writes reports about mail that is given up with the server down.

    What it lends raises ``ValueError`` if the configuration cannot be put in force.
    """

    @asynccontextmanager
    async def lend(shard: Shard, reason: str, by: str) -> AsyncIterator[Farewell]:
        writer = HistoryWriter(config.history_directory, config.history)
        async with _built(config, writer.write, lambda _: None) as built:
            with writer:
                shop = Workshop(
                    spool=shard,
                    ids=QueueIds(shard.shard, shard.last_number),
                    generation=lambda: built.generation,
                    emit=writer.write,
                    log=_NoLog(),
                    clock=read_now,
                    zone_offset_s=zone_offset_s,
                    lanes=config.deliver.lanes,
                    senders=Senders(config.schedule.grades),
                )
                reports = config.deliver.reports
                ration = Ration(reports, SharedCounters.private())
                retry = config.schedule.retry
                reporter = Reporter(shop, retry, reports, ration)
                yield Undertaker(shop, reporter, reason, by).report

    return lend


@asynccontextmanager
async def _built(
    config: Config,
    emit: Callable[[AnyEvent], None],
    say: Callable[[str], None],
) -> AsyncIterator[Built]:
    """Lend a generation that nobody delivers with."""
    domains = (config.hostname, *config.route.local_domains)
    users = Users(config.users_file, config.auth, [name.lower() for name in domains])
    if problem := users.refresh():
        say(f"problem: {problem}")
    with ThreadPoolExecutor(1) as pool:
        ground = Ground(
            store=open_store(config.mailbox, config.hostname),
            pool=pool,
            users=users,
            counters=SharedCounters.private(),
            emit=emit,
            clock=read_now,
            window=lambda _: 1,
            bind=lambda *_: None,
        )
        built = await asyncio.to_thread(build, 0, config, ground, None)
        try:
            yield built
        finally:
            await built.aclose()


class _NoLog:
    """Nothing waits to be written here."""

    full = overfull = False

    async def drained(self) -> None:
        """There is room."""
