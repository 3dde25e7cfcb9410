"""Answers that need all stages but no running server."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from postroom.app.assembly import Ground, build
from postroom.app.errands import explain_address
from postroom.auth.users import Users
from postroom.config.settings import Config
from postroom.limits.shared import SharedCounters
from postroom.mail.address import Address
from postroom.mailbox.stores import open_store
from postroom.net.clock import read_now
from postroom.observe.events import AnyEvent, TableRefused


async def explain_offline(config: Config, address: Address) -> list[str]:
    """Return lines that tell where mail for an address would go, and by which rule.

    Raises:
        ValueError: the configuration cannot be put in force.
    """
    domains = (config.hostname, *config.route.local_domains)
    users = Users(config.users_file, config.auth, [name.lower() for name in domains])
    lines = []
    if problem := users.refresh():
        lines.append(f"problem: {problem}")

    def note(event: AnyEvent) -> None:
        if isinstance(event, TableRefused):
            lines.append(f"problem: {event.path}:{event.line}: {event.error}")

    with ThreadPoolExecutor(1) as pool:
        ground = Ground(
            store=open_store(config.mailbox, config.hostname),
            pool=pool,
            users=users,
            counters=SharedCounters.private(),
            emit=note,
            clock=read_now,
            window=lambda _: 1,
            bind=lambda *_: None,
        )
        built = await asyncio.to_thread(build, 0, config, ground, None)
        lines += await explain_address(built, address)
        await built.aclose()
    return lines
