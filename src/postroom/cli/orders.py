"""``postroom queue hold``, ``release``, ``retry``, ``requeue``, ``remove``, ``bounce``.

A filter that means more than one message has to be confirmed where somebody sits at a
terminal; ``--dry-run`` counts and changes nothing. Status 1 says that a message that
was named is not there or not in a state to do it with, 75 that something was left
alone because it is being delivered.
"""

import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, NamedTuple

import click
import msgspec
from rich.console import Console
from rich.progress import Progress

from postroom.admin.requests import Counted, GivenUp, Ordered
from postroom.admin.whole import WholeQueue
from postroom.cli.options import (
    EX_NOT_FOUND,
    EX_TEMPFAIL,
    Choice,
    F,
    choice_options,
    config_option,
    json_option,
    load_or_fail,
)
from postroom.cli.whole import on_queue, user_name
from postroom.cli.words import messages, octets
from postroom.config.settings import Config
from postroom.spool.selection import QueueFilter
from postroom.spool.spool import (
    Handled,
    Hold,
    Order,
    Release,
    Requeue,
    Retry,
    TakeOut,
)

Apply = Callable[[WholeQueue, QueueFilter], AsyncIterator[Handled]]


class Deed(NamedTuple):
    """What a command does: its name, what was done then, and how."""

    act: str
    done: str
    apply: Apply


class Manner(NamedTuple):
    """How a command is to go about it."""

    everything: bool
    dry_run: bool
    yes: bool
    verbose: bool
    as_json: bool


class Result(msgspec.Struct, frozen=True):
    """One line of ``--json``: what came of one message.

    ``result`` is what was done (``held``, ``released``, ``made due``, ``requeued``,
    ``removed``, ``returned``), ``being delivered``, ``unreadable``, ``unchanged`` (not
    in a state to do it with) or ``unknown``.
    """

    queue_id: str
    result: str


class Estimate(msgspec.Struct, frozen=True):
    """What ``--dry-run --json`` prints."""

    act: str
    messages: int
    recipients: int
    octets: int
    dry_run: bool = True


def _order_options(function: F) -> F:
    for option in (
        config_option,
        json_option,
        click.option("-v", "--verbose", is_flag=True, help="Name each message."),
        click.option("-y", "--yes", is_flag=True, help="Do not ask."),
        click.option("-n", "--dry-run", is_flag=True, help="Count, change nothing."),
        click.option("--all", "everything", is_flag=True, help="All messages."),
        choice_options,
    ):
        function = option(function)
    return function


@click.command()
@click.option("--reason", default="", help="Kept with it and shown.")
@_order_options
def hold(path: str, choice: Choice, reason: str, **manner: Any) -> None:
    """Keep matching recipients from being tried, until they are released."""
    _order(path, choice, Hold(reason), ("hold", "held"), Manner(**manner))


@click.command()
@_order_options
def release(path: str, choice: Choice, **manner: Any) -> None:
    """Let go what is held, quarantined or put aside; it is tried at once."""
    _order(path, choice, Release(), ("release", "released"), Manner(**manner))


@click.command()
@_order_options
def retry(path: str, choice: Choice, **manner: Any) -> None:
    """Try matching messages now, whatever their waiting time.

    Their destinations rest no longer. What is held or was put aside is tried only if
    --state says that it is meant.
    """
    _order(path, choice, Retry(), ("retry", "made due"), Manner(**manner))


@click.command()
@_order_options
def requeue(path: str, choice: Choice, **manner: Any) -> None:
    """Expand and route matching recipients anew, after a changed configuration.

    Aliases and routes are decided again from the address in the queue. What is held
    or was put aside is meant only if --state says so.
    """
    _order(path, choice, Requeue(), ("requeue", "requeued"), Manner(**manner))


@click.command()
@_order_options
def remove(path: str, choice: Choice, **manner: Any) -> None:
    """Remove matching messages for good; nobody is told.

    Messages that are being delivered stay.
    """
    _order(path, choice, TakeOut(), ("remove", "removed"), Manner(**manner))


@click.command()
@click.option("--reason", default="", help="Told to the sender.")
@_order_options
def bounce(path: str, choice: Choice, reason: str, **manner: Any) -> None:
    """Return matching recipients to the sender now, with a report."""
    from postroom.app.offline import offline_farewells  # all stages: slow to import

    config = load_or_fail(path)

    def apply(whole: WholeQueue, wanted: QueueFilter) -> AsyncIterator[Handled]:
        return whole.give_up(_given_up(wanted, reason))

    deed = Deed("bounce", "returned", apply)
    command = _Command(config, choice, deed, Manner(**manner))
    command.run(offline_farewells(config))


def _given_up(wanted: QueueFilter, reason: str) -> GivenUp:
    try:
        return GivenUp(wanted, reason, user_name())
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _order(
    path: str, choice: Choice, order: Order, words: tuple[str, str], manner: Manner
) -> None:
    try:
        Ordered(order, QueueFilter())
    except ValueError as error:
        raise click.UsageError(str(error)) from None

    def apply(whole: WholeQueue, wanted: QueueFilter) -> AsyncIterator[Handled]:
        return whole.carry_out(Ordered(order, wanted, user_name()))

    _Command(load_or_fail(path), choice, Deed(*words, apply), manner).run()


class _Command:
    """One order on its way through the queue."""

    def __init__(
        self, config: Config, choice: Choice, deed: Deed, manner: Manner
    ) -> None:
        if manner.everything != choice.is_all:
            raise click.UsageError("name messages by id or by an option, or say --all")
        self._config = config
        self._choice = choice
        self._deed = deed
        self._manner = manner
        self._done = self._busy = 0
        self._missing = dict.fromkeys(choice.ids)
        self._failed = False

    def run(self, farewells: Any = None) -> None:
        on_queue(self._config, self._work, farewells)
        if self._failed:
            sys.exit(EX_NOT_FOUND)
        if self._busy and self._deed.act != "retry":
            sys.exit(EX_TEMPFAIL)

    async def _work(self, whole: WholeQueue) -> None:
        total: int | None = None
        if self._manner.dry_run or self._must_ask:
            counted = await self._count(whole)
            total = counted.messages
            if self._manner.dry_run:
                return self._tell_estimate(counted)
            if self._must_ask and total > 1:
                self._ask(counted)
        with _progress() as progress:
            bar = progress.add_task(self._deed.act, total=total)
            for wanted in self._choice.filters:
                async for handled in self._deed.apply(whole, wanted):
                    self._take(handled)
                    done = len(handled.queue_ids) + len(handled.busy)
                    progress.advance(bar, done + len(handled.unreadable))
        await self._look_for_missing(whole)
        if not self._manner.as_json:
            click.echo(f"{messages(self._done)} {self._deed.done}")
            if self._busy:
                left = "is being delivered, and was left alone"
                if self._deed.act == "retry":
                    left = "is being delivered just now"
                click.echo(f"{messages(self._busy)}: {left}", err=True)

    @property
    def _must_ask(self) -> bool:
        is_terminal = sys.stdin.isatty() and sys.stderr.isatty()
        return is_terminal and not self._manner.yes and not self._choice.ids

    async def _count(self, whole: WholeQueue) -> Counted:
        total = Counted()
        with _progress() as progress:
            bar = progress.add_task("count", total=None)
            for wanted in self._choice.filters:
                last = Counted()
                async for last in whole.count(wanted):
                    progress.update(bar, completed=total.messages + last.messages)
                total += last
        return total

    def _tell_estimate(self, counted: Counted) -> None:
        act = self._deed.act
        if self._manner.as_json:
            shown = Estimate(act, counted.messages, counted.recipients, counted.octets)
            return click.echo(msgspec.json.encode(shown))
        click.echo(f"{act} would meet {_amount(counted)}; nothing was changed")

    def _ask(self, counted: Counted) -> None:
        question = f"{self._deed.act.capitalize()} {_amount(counted)}?"
        click.confirm(question, abort=True, err=True)

    def _take(self, handled: Handled) -> None:
        self._done += len(handled.queue_ids)
        self._busy += len(handled.busy)
        self._failed = self._failed or bool(handled.unreadable)
        self._tell(handled.queue_ids, self._deed.done)
        self._tell(handled.busy, "being delivered")
        self._tell(handled.unreadable, "unreadable", error="cannot be read")
        for queue_id in (*handled.queue_ids, *handled.busy, *handled.unreadable):
            self._missing.pop(queue_id, None)  # type: ignore[call-overload]

    def _tell(self, ids: Iterable[str], result: str, error: str = "") -> None:
        for queue_id in ids:
            if self._manner.as_json:
                click.echo(msgspec.json.encode(Result(queue_id, result)))
            elif error:
                click.echo(f"postroom: {queue_id} {error}", err=True)
            elif self._manner.verbose:
                click.echo(f"{queue_id} {result}")

    async def _look_for_missing(self, whole: WholeQueue) -> None:
        """Say of each message that was named what became of it."""
        missing: Sequence[str] = tuple(self._missing)
        self._failed = self._failed or bool(missing)
        for at in range(0, len(missing), 1_000):
            some = missing[at : at + 1_000]
            wanted = QueueFilter(queue_ids=tuple(some))
            there = {entry.queue_id async for entry in whole.entries(wanted)}
            why = f"is not in a state to {self._deed.act} it, or does not match"
            self._tell([i for i in some if i in there], "unchanged", error=why)
            unknown = [i for i in some if i not in there]
            self._tell(unknown, "unknown", error="is not in the queue")


def _amount(counted: Counted) -> str:
    to = f"{counted.recipients:,} recipient{'s' * (counted.recipients != 1)}"
    return f"{messages(counted.messages)} to {to}, {octets(counted.octets)}"


def _progress() -> Progress:
    """Return a bar on standard error, drawn only where somebody sees it."""
    out = Console(stderr=True)
    return Progress(console=out, transient=True, disable=not out.is_terminal)
