"""``postroom queue show``: one message, why it waits, and what was tried."""

import sys
from collections.abc import AsyncIterator, Sequence
from email.errors import MessageError
from email.header import decode_header, make_header

import click
import msgspec
from rich.table import Table

from postroom.admin.requests import HopNow, Letter, LetterPart, Letters, Piece
from postroom.admin.whole import WholeQueue
from postroom.cli.options import (
    EX_NOT_FOUND,
    config_option,
    json_option,
    load_or_fail,
    read_id,
)
from postroom.cli.trace import ask_history
from postroom.cli.trace_text import story_lines
from postroom.cli.whole import on_queue
from postroom.cli.words import (
    console,
    messages,
    moment,
    octets,
    plain,
    printable,
    rough,
)
from postroom.config.settings import Config
from postroom.mail.headers import find, find_all
from postroom.mail.units import Duration
from postroom.net.clock import read_now
from postroom.observe.events import AnyEvent
from postroom.observe.render import json_line
from postroom.observe.traces import Search, Traces
from postroom.spool.spool import Entry, EntryRecipient, QueueFilter

ROWS_A_TABLE = 500
HOPS_ASKED_MAX = 20
_FIELDS = ("From", "To", "Cc", "Subject", "Date")
_FIELD_CHARACTERS_MAX = 400
_FIELD_OCTETS_MAX = 4_000


class Shown(msgspec.Struct, frozen=True):
    """What ``--json`` prints: the entry with all that else is known.

    ``header`` are the fields of the summary, ``history`` the events about it, oldest
    first, ``hops`` how each worker gets on with its destinations.
    """

    entry: Entry
    header: dict[str, str]
    history: Sequence[AnyEvent]
    hops: Sequence[HopNow]
    problem: str = ""


@click.command()
@click.argument("queue_id", metavar="ID")
@click.option("--content", is_flag=True, help="The whole message, too.")
@json_option
@config_option
def show(path: str, queue_id: str, content: bool, as_json: bool) -> None:
    """Show a message: envelope, recipients, why it waits, what was tried when.

    An ID that is not in the queue ends with status 1; postroom trace may know it.
    """
    config = load_or_fail(path)
    wanted = QueueFilter(queue_ids=(read_id(queue_id),))

    async def work(whole: WholeQueue) -> bool:
        entry = await anext(whole.entries(wanted), None)
        if entry is None:
            return False
        shown = await _gather(config, whole, entry)
        if as_json:
            click.echo(json_line(await _complete(whole, shown)))
        else:
            await _print(whole, shown)
        if content:
            await _print_content(whole.letters(Letters(wanted)))
        return True

    if not on_queue(config, work):
        click.echo(f"postroom: there is no message {queue_id} in the queue", err=True)
        sys.exit(EX_NOT_FOUND)


async def _gather(config: Config, whole: WholeQueue, entry: Entry) -> Shown:
    wanted = QueueFilter(queue_ids=(entry.queue_id,))
    header, problem = {}, ""
    async for part in whole.letters(Letters(wanted, head_only=True)):
        if isinstance(part, Letter):
            header, problem = _summary(part.head), part.problem
    hops = dict.fromkeys(r.hop for r in entry.recipients if r.state == "ready")
    asked = [await whole.hop_now(hop) for hop in list(hops)[:HOPS_ASKED_MAX]]
    history = await _history(config, entry.queue_id)
    return Shown(entry, header, history, [h for each in asked for h in each], problem)


async def _history(config: Config, queue_id: str) -> Sequence[AnyEvent]:
    """Read it, or have a worker read it for who may not."""
    history = Traces(config.history_directory).of_message(queue_id)
    if not history:
        found = await ask_history(config, Search(queue_ids=(queue_id,)))
        for story in found.stories if found else ():
            if story.queue_id == queue_id:
                return story.events
    return history


async def _complete(whole: WholeQueue, shown: Shown) -> Shown:
    """Add the recipients that an entry leaves out."""
    entry = shown.entry
    if entry.recipients_count <= len(entry.recipients):
        return shown
    rest = whole.recipients(entry.queue_id, entry.recipients[-1].number)
    recipients = (*entry.recipients, *[each async for each in rest])
    entry = msgspec.structs.replace(entry, recipients=recipients)
    return msgspec.structs.replace(shown, entry=entry)


def _summary(head: bytes) -> dict[str, str]:
    found = {}
    for name in _FIELDS:
        value = find(head, name)
        if value is not None:
            found[name] = _decoded(value[:_FIELD_OCTETS_MAX])[:_FIELD_CHARACTERS_MAX]
    found["Received"] = messages(len(find_all(head, "Received"))).replace(
        "message", "field"
    )
    return found


def _decoded(value: bytes) -> str:
    text = value.decode("utf-8", "replace")
    try:
        decoded = str(make_header(decode_header(text)))
    except (MessageError, LookupError, ValueError):
        return text  # not as RFC 2047 wants it: as it stands
    # A charset may stand for what is no character: half a surrogate pair.
    return decoded.encode("utf-8", "replace").decode("utf-8")


async def _print(whole: WholeQueue, shown: Shown) -> None:
    entry, now_us = shown.entry, read_now().utc_us
    table = Table(show_header=False, box=None, pad_edge=False)
    age = Duration((now_us - entry.arrival_us) // 1_000_000 * 1_000_000).to_text()
    for name, value in (
        ("ID", entry.queue_id),
        ("Envelope from", entry.sender or "<>"),
        ("Size", f"{octets(entry.size_octets)} ({entry.size_octets:,})"),
        ("Arrived", f"{moment(entry.arrival_us)}, {age} ago"),
        ("By", entry.origin),
        ("Message-Id", entry.message_id),
        ("Body", entry.body),
        ("Shard", str(entry.shard)),
        *shown.header.items(),
        *([("Problem", shown.problem)] if shown.problem else []),
    ):
        table.add_row(name, plain(value))
    out = console()
    out.print(table)
    out.print()
    rests = {hop.hop: hop for hop in shown.hops}
    page: list[EntryRecipient] = []
    async for recipient in _recipients(whole, entry):
        page.append(recipient)
        if len(page) == ROWS_A_TABLE:
            _print_recipients(page, rests, live=bool(whole.live))
            page = []
    _print_recipients(page, rests, live=bool(whole.live))
    if shown.history:
        out.print()
        click.echo("What happened:")
        for line in story_lines(shown.history):
            click.echo(f"  {line}")


async def _recipients(whole: WholeQueue, entry: Entry) -> AsyncIterator[EntryRecipient]:
    for recipient in entry.recipients:
        yield recipient
    if entry.recipients_count > len(entry.recipients):
        last = entry.recipients[-1].number
        async for recipient in whole.recipients(entry.queue_id, last):
            yield recipient


def _print_recipients(
    page: Sequence[EntryRecipient], rests: dict[str, HopNow], *, live: bool
) -> None:
    if not page:
        return
    table = Table(box=None, pad_edge=False)
    for name in ("Recipient", "To", "By", "Tries", "Why it waits"):
        table.add_column(name, overflow="fold")
    for one in page:
        to = one.hop if one.agent in ("", "smtp") else f"{one.hop} ({one.agent})"
        cells = (one.address, to, one.rule, str(one.tries), waits(one, rests, live))
        table.add_row(*(plain(cell) for cell in cells))
    console().print(table)


def waits(one: EntryRecipient, rests: dict[str, HopNow], live: bool) -> str:
    """Say why a recipient waits, and until when."""
    now_us = read_now().utc_us
    because = f": {one.status_text}" if one.status_text else ""
    if one.active:
        return "is being delivered"
    if one.state == "held":
        return f"quarantined{because}" if one.is_quarantined else one.status_text
    if one.state == "shunted":
        return f"put aside{because}"
    if one.due_us > now_us:
        wait = rough(one.due_us - now_us)
        return f"next at {moment(one.due_us)} (in {wait}){because}"
    if not live:
        return f"due; no server runs{because}"
    if one.state == "expanding":
        return f"due: it is still to be expanded and routed{because}"
    hop = rests.get(one.hop)
    if hop and hop.rests_us > 0:
        wait = rough(hop.rests_us)
        return f"due; {one.hop} is left alone for another {wait}{because}"
    return f"due: waits for its turn{because}"


async def _print_content(parts: AsyncIterator[LetterPart]) -> None:
    """Print a message; what could harm a terminal is made harmless there only."""
    click.echo()
    async for part in parts:
        data = part.data if isinstance(part, Piece) else part.head
        if sys.stdout.isatty():
            text = data.decode("utf-8", "replace").replace("\r\n", "\n")
            for line in text.splitlines(keepends=True):
                click.echo(printable(line.rstrip("\n")), nl=line.endswith("\n"))
        else:
            click.echo(data, nl=False)
