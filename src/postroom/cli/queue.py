"""``postroom queue``: lists and changes what waits, across workers, or without them.

What could not be reached is told on standard error and makes the exit status 75, so
that a list is never taken for complete when it is not.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from postroom.admin.whole import WholeQueue, mailq_lines
from postroom.config.load import default_path, load
from postroom.config.problems import ConfigError
from postroom.config.settings import Config
from postroom.mail.ids import parse_queue_id
from postroom.mail.units import Duration, Size
from postroom.net.clock import read_now, zone_offset_s
from postroom.spool.spool import Entry, EntryRecipient, QueueFilter

EX_TEMPFAIL = 75
EX_CONFIG = 78
TABLE_ROWS = 500
WIDTH_OFF_TERMINAL = 160
ALL = QueueFilter()

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def _unit(kind: type[Duration] | type[Size]) -> Callable[..., int]:
    """Read an option's value as a duration (``2h``) or a size (``1MiB``)."""

    def read(context: click.Context, option: click.Parameter, text: str) -> int:
        try:
            return int(kind.from_text(text)) if text else 0  # plain: it is sent as JSON
        except ValueError as error:
            raise click.BadParameter(str(error), context, option) from None

    return read


def config_option(function: F) -> F:
    """Add ``--config FILE``."""
    return click.option(
        "--config",
        "path",
        metavar="FILE",
        default=default_path,
        show_default="/etc/postroom/postroom.toml",
        help="The configuration file.",
    )(function)


def _filter_options(function: F) -> F:
    for option in reversed(
        (
            click.argument("ids", nargs=-1, metavar="[ID]..."),
            click.option("--sender", default="", help="Part of the sender."),
            click.option("--recipient", default="", help="Part of a recipient."),
            click.option("--domain", default="", help="A recipient's domain."),
            click.option(
                "--state",
                default="",
                type=click.Choice(["", "ready", "expanding", "held", "shunted"]),
                help="Where a recipient stands.",
            ),
            click.option("--error", default="", help="Part of the reason it waits."),
            click.option(
                "--older", default="", callback=_unit(Duration), help="Age, as 2h."
            ),
            click.option(
                "--larger", default="", callback=_unit(Size), help="Size, as 1MiB."
            ),
        )
    ):
        function = option(function)
    return function


@click.group()
def queue() -> None:
    """List, look at, retry and remove what waits in the queue."""


@queue.command("list")
@_filter_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--mailq", "as_mailq", is_flag=True, help="As mailq prints it.")
@click.option("-v", "--verbose", is_flag=True, help="With --mailq: as mailq -v.")
@click.option("--limit", default=TABLE_ROWS, help="Rows at most; 0 for all.")
@config_option
def list_queue(
    path: str,
    as_json: bool,
    as_mailq: bool,
    verbose: bool,
    limit: int,
    **wanted: Any,
) -> None:
    """List messages, oldest first."""
    config, filters = _config(path), _filters(**wanted)

    async def work(whole: WholeQueue) -> None:
        if as_mailq:
            lines = mailq_lines(
                whole,
                verbose=verbose,
                user=None,
                spool_directory=config.spool.directory,
                zone_offset_s=zone_offset_s,
            )
            async for line in lines:
                click.echo(line)
        elif as_json:
            async for entry in _entries(whole, filters):
                click.echo(msgspec.json.encode(entry))
        else:
            found = await _print_table(_entries(whole, filters), limit)
            if not (found or whole.problems):
                click.echo("no messages")

    _run(config, work)


@queue.command()
@click.argument("queue_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="As a JSON object.")
@config_option
def show(path: str, queue_id: str, as_json: bool) -> None:
    """Show one message and each of its recipients."""
    config = _config(path)
    (wanted,) = _filters((queue_id,))

    async def work(whole: WholeQueue) -> Entry | None:
        return await anext(whole.entries(wanted), None)

    def tell(entry: Entry | None) -> None:
        if entry is None:
            raise click.ClickException(f"there is no message {queue_id} in the queue")
        if as_json:
            click.echo(msgspec.json.encode(entry))
        else:
            _print_entry(entry)

    _run(config, work, tell)


@queue.command()
@_filter_options
@click.option("--all", "everything", is_flag=True, help="All messages.")
@config_option
def retry(path: str, everything: bool, **wanted: Any) -> None:
    """Try matching messages now, whatever their waiting time.

    What is held or was put aside is tried only with --state held or shunted.
    """
    config, filters = _config(path), _chosen(everything, **wanted)

    async def work(whole: WholeQueue) -> int:
        return sum([await whole.retry(one, read_now()) for one in filters])

    _run(config, work, lambda count: click.echo(f"{_messages(count)} made due"))


@queue.command()
@_filter_options
@click.option("--all", "everything", is_flag=True, help="All messages.")
@config_option
def remove(path: str, everything: bool, **wanted: Any) -> None:
    """Remove matching messages for good; nobody is told.

    Messages that are being delivered stay.
    """
    config, filters = _config(path), _chosen(everything, **wanted)

    async def work(whole: WholeQueue) -> list[str]:
        return [gone for one in filters for gone in await whole.remove(one)]

    def tell(removed: list[str]) -> None:
        for queue_id in removed:
            click.echo(queue_id)
        click.echo(f"{_messages(len(removed))} removed", err=True)

    _run(config, work, tell)


@queue.command()
@click.option("--json", "as_json", is_flag=True, help="As a JSON object.")
@config_option
def stat(path: str, as_json: bool) -> None:
    """Count what is in the queue."""

    async def work(whole: WholeQueue) -> dict[str, int]:
        return (await whole.counts()).counts

    def tell(counts: dict[str, int]) -> None:
        if as_json:
            click.echo(msgspec.json.encode(counts))
            return
        table = Table(show_header=False)
        table.add_column()
        table.add_column(justify="right")
        for name, number in counts.items():
            table.add_row(name, f"{number:,}")
        _console().print(table)

    _run(_config(path), work, tell)


def load_or_fail(path: str) -> Config:
    """Load the configuration, or end with what is wrong with it and status 78."""
    try:
        return load(path)
    except ConfigError as error:
        click.echo(f"postroom: {error}", err=True)
        sys.exit(EX_CONFIG)


_config = load_or_fail


def _nothing(_: object) -> None:
    pass


def _run(
    config: Config,
    work: Callable[[WholeQueue], Awaitable[T]],
    tell: Callable[[T], None] = _nothing,
) -> None:
    """Do the work, tell its result, then what could not be reached."""

    async def within() -> tuple[T, list[str]]:
        async with WholeQueue(config.run_directory, config.spool, read_now) as whole:
            return await work(whole), whole.problems

    result, problems = asyncio.run(within())
    tell(result)
    for problem in problems:
        click.echo(f"postroom: {problem}", err=True)
    if problems:
        sys.exit(EX_TEMPFAIL)


def _filters(ids: Sequence[str] = (), **wanted: Any) -> list[QueueFilter]:
    """One filter per id, or one for all; unknown ids cannot be typed."""
    base = QueueFilter(
        senders=_texts(wanted, "sender"),
        recipients=_texts(wanted, "recipient"),
        domains=_texts(wanted, "domain"),
        states=_texts(wanted, "state"),
        errors=_texts(wanted, "error"),
        older_us=wanted.get("older", 0),
        larger_octets=wanted.get("larger", 0),
    )
    try:
        named = [parse_queue_id(text) for text in ids]
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return [msgspec.structs.replace(base, queue_ids=(each,)) for each in named] or [
        base
    ]


def _texts(wanted: dict[str, Any], name: str) -> tuple[str, ...]:
    return (wanted[name],) if wanted.get(name) else ()


def _chosen(everything: bool, **wanted: Any) -> list[QueueFilter]:
    filters = _filters(**wanted)
    if everything == (filters != [ALL]):
        raise click.UsageError("name messages by id or by an option, or say --all")
    return filters


async def _entries(
    whole: WholeQueue, filters: Sequence[QueueFilter]
) -> AsyncIterator[Entry]:
    for wanted in filters:
        async for entry in whole.entries(wanted):
            yield entry


async def _print_table(entries: AsyncIterator[Entry], limit: int) -> bool:
    """Print entries as they come; returns whether there was any."""
    console = _console()
    table, shown = _new_table(), 0
    async for entry in entries:
        if limit and shown == limit:
            console.print(table)
            click.echo(f"more than {limit}: see --limit, --json", err=True)
            return True
        if shown and shown % TABLE_ROWS == 0:
            console.print(table)
            table = _new_table()
        table.add_row(*_row(entry))
        shown += 1
    if shown:
        console.print(table)
    return bool(shown)


def _new_table() -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("ID", "Age", "Size", "From", "To", "Tries", "Why"):
        justify: Any = "right" if name in ("Age", "Size", "Tries") else "left"
        table.add_column(name, justify=justify, overflow="fold", no_wrap=name == "ID")
    return table


def _row(entry: Entry) -> list[Text]:
    first = entry.recipients[0] if entry.recipients else None
    count = max(entry.recipients_count, len(entry.recipients))
    to = first.address if first else ""
    if count > 1:
        to += f" and {count - 1} more"
    why = next((one.status_text for one in entry.recipients if one.status_text), "")
    state = "delivering" if any(one.active for one in entry.recipients) else ""
    if first and first.state != "ready":
        state = first.state
    tries = max((one.tries for one in entry.recipients), default=0)
    return [
        _plain(entry.queue_id),
        _plain(_age(entry.arrival_us)),
        _plain(f"{entry.size_octets:,}"),
        _plain(entry.sender or "<>"),
        _plain(to),
        _plain(str(tries)),
        _plain(": ".join(part for part in (state, why) if part)),
    ]


def _print_entry(entry: Entry) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    arrived = read_now().utc_us - entry.arrival_us
    for name, value in (
        ("ID", entry.queue_id),
        ("From", entry.sender or "<>"),
        ("Size", f"{entry.size_octets:,} octets"),
        ("Arrived", f"{_in_seconds(arrived)} ago"),
        ("By", entry.origin),
        ("Message-Id", entry.message_id),
        ("Body", entry.body),
        ("Shard", str(entry.shard)),
    ):
        table.add_row(name, _plain(value))
    console = _console()
    console.print(table)
    console.print()
    recipients = Table(box=None, pad_edge=False)
    for name in ("Recipient", "State", "To", "By", "Tries", "Next", "Why"):
        recipients.add_column(name, overflow="fold")
    for one in entry.recipients:
        recipients.add_row(*(_plain(cell) for cell in _recipient_cells(one)))
    console.print(recipients)


def _recipient_cells(one: EntryRecipient) -> tuple[str, ...]:
    wait_us = one.due_us - read_now().utc_us
    due = "now" if wait_us <= 0 else f"in {_rough(wait_us)}"
    state = "delivering" if one.active else one.state
    return (
        *(one.address, state, one.hop, one.rule),
        *(str(one.tries), due if one.state == "ready" else "", one.status_text),
    )


def _in_seconds(duration_us: int) -> str:
    return Duration(max(duration_us, 0) // 1_000_000 * 1_000_000).to_text()


def _age(arrival_us: int) -> str:
    return _rough(max(read_now().utc_us - arrival_us, 0))


def _rough(duration_us: int) -> str:
    """A duration with its largest unit only."""
    for unit, octave_us in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if duration_us >= octave_us * 1_000_000:
            return f"{duration_us // (octave_us * 1_000_000)}{unit}"
    return f"{duration_us // 1_000_000}s"


def _messages(number: int) -> str:
    return f"{number} message" if number == 1 else f"{number} messages"


def _plain(text: str) -> Text:
    """No markup, and no control characters from a peer on the operator's terminal."""
    return Text("".join(c if c.isprintable() else "?" for c in text))


def _console() -> Console:
    is_terminal = sys.stdout.isatty()
    return Console(width=None if is_terminal else WIDTH_OFF_TERMINAL)
