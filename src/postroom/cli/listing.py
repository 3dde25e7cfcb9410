"""``postroom queue list``: what waits, as a table, as JSON lines, or as mailq's."""

import heapq
from collections.abc import AsyncIterator, Callable
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from postroom.admin.listing import MailqForm, mailq_lines
from postroom.admin.whole import WholeQueue
from postroom.cli.options import (
    Choice,
    choice_options,
    config_option,
    json_option,
    load_or_fail,
)
from postroom.cli.whole import entries_of, on_queue, tell_drop
from postroom.cli.words import console, plain, rough
from postroom.net.clock import read_now, zone_offset_s
from postroom.observe.render import json_line
from postroom.spool.spool import Entry

TABLE_ROWS = 500
SORTED_MAX = 10_000
"""How many entries are held to be sorted."""


def _next_us(entry: Entry) -> int:
    return min((r.due_us for r in entry.recipients if r.state == "ready"), default=0)


_KEYS: dict[str, Callable[[Entry], Any]] = {
    "age": lambda entry: (entry.arrival_us, entry.queue_id),
    "size": lambda entry: -entry.size_octets,
    "tries": lambda entry: -max((r.tries for r in entry.recipients), default=0),
    "next": _next_us,
    "recipients": lambda entry: -entry.recipients_count,
    "sender": lambda entry: entry.sender.lower(),
    "domain": lambda entry: min((r.hop for r in entry.recipients), default=""),
}


@click.command("list")
@choice_options
@json_option
@click.option("--mailq", "as_mailq", is_flag=True, help="As mailq prints it.")
@click.option("-v", "--verbose", is_flag=True, help="With --mailq: as mailq -v.")
@click.option("--limit", default=-1, help="Entries at most; 0 for all. [tables: 500]")
@click.option(
    "--sort",
    type=click.Choice(list(_KEYS)),
    default="age",
    help="What comes first: oldest, largest, most often tried, next due...",
)
@click.option("--reverse", is_flag=True, help="The other way round.")
@config_option
def list_queue(
    path: str,
    choice: Choice,
    as_json: bool,
    as_mailq: bool,
    verbose: bool,
    limit: int,
    **order: Any,
) -> None:
    """List messages, oldest first.

    A PATTERN is a part of the text, without regard to case; with * or ? it stands for
    the whole; with ! in front it must not match. An option that is given twice means
    one or the other; different options must all match.
    """
    config = load_or_fail(path)

    async def work(whole: WholeQueue) -> None:
        most = limit if limit >= 0 else 0 if as_json else TABLE_ROWS
        if as_mailq:
            await _print_mailq(whole, choice, config.spool.directory, verbose)
        elif as_json:
            await _print_json(_ordered(whole, choice, most, **order), most)
        else:
            await _print_table(whole, _ordered(whole, choice, most, **order), most)
        tell_drop(config, whole)

    on_queue(config, work)


async def _print_mailq(
    whole: WholeQueue, choice: Choice, directory: str, verbose: bool
) -> None:
    for wanted in choice.filters:
        form = MailqForm(verbose, None, directory, zone_offset_s, wanted)
        async for line in mailq_lines(whole, form):
            click.echo(line)


async def _ordered(
    whole: WholeQueue, choice: Choice, most: int, *, sort: str, reverse: bool
) -> AsyncIterator[Entry]:
    """Yield entries in order. Only oldest first can be told without holding them."""
    entries = entries_of(whole, choice.filters)
    if sort == "age" and not reverse:
        async for entry in entries:
            yield entry
        return
    # One more than is shown, to know whether there are more.
    room = min(most + 1, SORTED_MAX) if most else SORTED_MAX
    choose = heapq.nlargest if reverse else heapq.nsmallest
    held: list[Entry] = []
    async for entry in entries:
        held.append(entry)
        if len(held) >= 2 * room:
            held = choose(room, held, key=_KEYS[sort])
    for entry in choose(room, held, key=_KEYS[sort]):
        yield entry


async def _print_json(entries: AsyncIterator[Entry], most: int) -> None:
    shown = 0
    async for entry in entries:
        if most and shown == most:
            return
        click.echo(json_line(entry))
        shown += 1


async def _print_table(
    whole: WholeQueue, entries: AsyncIterator[Entry], most: int
) -> None:
    """Print entries as they come."""
    out = console()
    table, shown = _new_table(), 0
    async for entry in entries:
        if most and shown == most:
            out.print(table)
            click.echo(f"more than {most}: see --limit, --json", err=True)
            return
        if shown and shown % TABLE_ROWS == 0:
            out.print(table)
            table = _new_table()
        table.add_row(*_row(entry))
        shown += 1
    if shown:
        out.print(table)
    elif not whole.problems:
        click.echo("no messages")


def _new_table() -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("ID", "Age", "Size", "From", "To", "Tries", "Next", "Why"):
        is_number = name in ("Age", "Size", "Tries", "Next")
        table.add_column(
            name,
            justify="right" if is_number else "left",
            overflow="fold",
            no_wrap=is_number or name == "ID",
        )
    return table


def _row(entry: Entry) -> list[Text]:
    now_us = read_now().utc_us
    first = entry.recipients[0] if entry.recipients else None
    count = max(entry.recipients_count, len(entry.recipients))
    to = first.address if first else ""
    if count > 1:
        to += f" and {count - 1} more"
    waiting = [r for r in entry.recipients if r.state == "ready"]
    due_us = _next_us(entry)
    after = ("now" if due_us <= now_us else rough(due_us - now_us)) if waiting else ""
    tries = max((one.tries for one in entry.recipients), default=0)
    cells = (
        entry.queue_id,
        rough(now_us - entry.arrival_us),
        f"{entry.size_octets:,}",
        entry.sender or "<>",
        to,
        str(tries),
        after,
        why(entry),
    )
    return [plain(cell) for cell in cells]


def why(entry: Entry) -> str:
    """Say in a few words why a message waits."""
    first = entry.recipients[0] if entry.recipients else None
    if first is None:
        return entry.origin  # damaged: it says how
    told = next((one for one in entry.recipients if one.status_text), first)
    state = "" if told.state == "ready" else told.state
    if any(one.active for one in entry.recipients):
        state = "delivering"
    elif told.is_quarantined:
        state = "quarantined"
    elif told.state == "held":
        state = ""  # the reason begins with the word
    return ": ".join(part for part in (state, told.status_text) if part)
