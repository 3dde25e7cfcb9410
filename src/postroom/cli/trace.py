"""``postroom trace``: what happened to a message, also after it has left.

The history is read from its files; who may not read them asks a worker. Status 1 says
that nothing was found, 75 that the queue could not be asked altogether.
"""

import asyncio
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import click

from postroom.admin.client import RequestRefused, WorkerGone, ask, find_workers
from postroom.admin.whole import WholeQueue
from postroom.cli.options import (
    EX_NOT_FOUND,
    EX_TEMPFAIL,
    config_option,
    duration_option,
    json_option,
    load_or_fail,
    read_id,
)
from postroom.cli.trace_text import story_lines
from postroom.cli.whole import on_queue
from postroom.cli.words import moment, printable
from postroom.config.settings import Config
from postroom.net.clock import read_now
from postroom.observe.render import json_line
from postroom.observe.traces import MESSAGES_MAX, Found, Search, Story, Traces
from postroom.spool.selection import QueueFilter
from postroom.spool.spool import Entry

IDS_ASKED_MAX = 1_000
_WRITTEN_LATER = "what happens is written down a moment later: try again"
_NOT_KEPT = "history.enabled is false: only what waits is known"


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--sender", "senders", multiple=True, help="Part of the sender.")
@click.option("--recipient", "recipients", multiple=True, help="Part of a recipient.")
@click.option(
    "--message-id", "message_ids", multiple=True, help="Part of the Message-Id."
)
@duration_option("--since", "since", "Only what happened in the last 2h, 3d.")
@duration_option("--until", "until", "Only what happened more than 2h ago.")
@click.option(
    "--limit", default=MESSAGES_MAX, show_default=True, help="The newest messages."
)
@json_option
@config_option
def trace(
    path: str,
    ids: tuple[str, ...],
    since: int,
    until: int,
    as_json: bool,
    **wanted: Any,
) -> None:
    """Tell what happened to a message: accepted, expanded, tried, left, removed.

    Reports and second envelopes that came of it are told with it; so are commands
    that were refused for a --recipient. Texts are parts; with * or ? they stand for
    the whole. The history is kept for [history] keep.
    """
    now_us = read_now().utc_us
    try:
        search = Search(
            queue_ids=tuple(read_id(text) for text in ids),
            since_us=now_us - since if since else 0,
            until_us=now_us - until if until else 0,
            messages_max=wanted.pop("limit"),
            **wanted,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if not (ids or since or any(wanted.values())):
        raise click.UsageError("name messages by id or by an option, say --since 1h")
    config = load_or_fail(path)
    found = find(config, search)
    waiting = _waiting(config, found, search)
    if as_json:
        _print_json(found)
    else:
        _print(found, waiting)
    known = {*waiting, *(story.queue_id for story in found.stories)}
    missing = [queue_id for queue_id in ids if queue_id not in known]
    for queue_id in missing:
        click.echo(f"postroom: nothing is known of {queue_id}", err=True)
    if missing or not (found.stories or found.refusals or waiting):
        if not missing:
            is_kept = config.history.enabled
            why = _WRITTEN_LATER if is_kept else _NOT_KEPT
            click.echo(f"postroom: nothing was found; {why}", err=True)
        sys.exit(EX_NOT_FOUND)


def find(config: Config, search: Search) -> Found:
    """Search the files, or have a worker search them."""
    if not config.history.enabled:
        click.echo("postroom: no history is kept ([history] enabled)", err=True)
    directory = config.history_directory
    try:
        return Traces(directory).find(search)
    except PermissionError as error:
        found = asyncio.run(ask_history(config, search))
        if found is None:
            click.echo(f"postroom: {directory}: {error.strerror}", err=True)
            sys.exit(EX_TEMPFAIL)
        return found


async def ask_history(config: Config, search: Search) -> Found | None:
    """Have a worker search its files; None: none does."""
    with suppress(RequestRefused):
        for path in find_workers(config.run_directory).values():
            with suppress(WorkerGone, RequestRefused, ValueError):
                (found,) = await ask(path, "history.find", search, Found)
                return found
    return None


def _waiting(config: Config, found: Found, search: Search) -> dict[str, Entry]:
    """Return what is still in the queue, by id."""
    ids = dict.fromkeys([*search.queue_ids, *(s.queue_id for s in found.stories)])
    wanted = QueueFilter(queue_ids=tuple(ids)[-IDS_ASKED_MAX:])
    if not ids:
        return {}

    async def work(whole: WholeQueue) -> dict[str, Entry]:
        found = {entry.queue_id: entry async for entry in whole.entries(wanted)}
        # The history is told even where the queue cannot be asked.
        for problem in whole.problems:
            click.echo(f"postroom: {problem}", err=True)
        whole.problems.clear()
        return found

    return on_queue(config, work)


def _print_json(found: Found) -> None:
    for story in found.stories:
        click.echo(json_line(story))
    for refusal in found.refusals:
        click.echo(json_line(refusal))


def _print(found: Found, waiting: dict[str, Entry]) -> None:
    if found.more:
        click.echo("only the newest are shown: see --limit", err=True)
    for story in found.stories:
        _print_story(story)
        if story.queue_id in waiting:
            _print_waiting(waiting[story.queue_id])
    told = {story.queue_id for story in found.stories}
    for queue_id, entry in waiting.items():
        if queue_id not in told:
            click.echo(queue_id)
            _print_waiting(entry)
    if found.refusals:
        click.echo("Refused:")
        _print_lines(story_lines(found.refusals))


def _print_story(story: Story) -> None:
    kin = f"  ({story.relation} of {story.of})" if story.relation else ""
    click.echo(f"{story.queue_id}{kin}")
    _print_lines(story_lines(story.events))


def _print_lines(lines: Any) -> None:
    for line in lines:
        click.echo(f"  {line}")


def _print_waiting(entry: Entry) -> None:
    shown: Sequence[str] = [r.address for r in entry.recipients[:10]]
    more = entry.recipients_count - len(shown)
    names = printable(", ".join(shown)) + (f" and {more:,} more" if more > 0 else "")
    click.echo(f"  {moment(read_now().utc_us)}  still in the queue for {names}")
