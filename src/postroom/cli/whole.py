"""Running a command on the whole queue, and saying what could not be reached.

What could not be reached is told on standard error and makes the exit status 75, so
that a list is never taken for complete when it is not.
"""

import asyncio
import os
import pwd
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import click

from postroom.admin.whole import OnSite, WholeQueue
from postroom.cli.options import EX_TEMPFAIL
from postroom.cli.words import messages
from postroom.config.settings import Config
from postroom.net.clock import read_now
from postroom.observe.history import HistoryWriter
from postroom.services.settings import DROP_REFUSED
from postroom.spool.spool import Entry, QueueFilter

if TYPE_CHECKING:  # it brings the engine, and is needed with the server down only
    from postroom.admin.offline import Farewells

T = TypeVar("T")


def on_queue(
    config: Config,
    work: Callable[[WholeQueue], Awaitable[T]],
    farewells: "Farewells | None" = None,
) -> T:
    """Do some work on the queue; ends the command if not all could be reached."""

    async def within() -> tuple[T, list[str]]:
        with HistoryWriter(config.history_directory, config.history) as history:
            site = OnSite(config.spool, history.write, farewells)
            async with WholeQueue(config.run_directory, site, read_now) as whole:
                return await work(whole), whole.problems

    result, problems = asyncio.run(within())
    for problem in dict.fromkeys(problems):
        click.echo(f"postroom: {problem}", err=True)
    if problems:
        sys.exit(EX_TEMPFAIL)
    return result


async def entries_of(
    whole: WholeQueue, filters: tuple[QueueFilter, ...]
) -> AsyncIterator[Entry]:
    """Yield what matches any of some filters, one filter after the other."""
    for wanted in filters:
        async for entry in whole.entries(wanted):
            yield entry


def tell_drop(config: Config, whole: WholeQueue) -> None:
    """Say how many letters wait in the drop directory, where no server takes them in.

    They are not in the queue, and who asks for what waits has to know of them.
    """
    if whole.live:
        return
    try:
        names = os.listdir(config.drop_directory)
    except OSError:  # there is none, or it is not for this user to see
        return
    kept = [n for n in names if not n.endswith(DROP_REFUSED) and not n.startswith(".")]
    if kept:
        where = config.drop_directory
        told = f"{messages(len(kept))} in {where} until a server runs"
        click.echo(f"postroom: {told}", err=True)


def user_name() -> str:
    """Return the name of who runs the command."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid{os.geteuid()}"
