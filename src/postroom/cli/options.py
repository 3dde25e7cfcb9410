"""What the queue commands have in common: the configuration, and which messages.

What cannot be meant ends the command with status 2, a wrong configuration with 78.
"""

import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, NamedTuple, TypeVar

import click
import msgspec

from postroom.config.load import default_path, load
from postroom.config.problems import ConfigError
from postroom.config.settings import Config
from postroom.mail.ids import QueueId, parse_queue_id
from postroom.mail.units import Duration, Size
from postroom.spool.selection import STATES, QueueFilter

EX_OK = 0
EX_NOT_FOUND = 1
EX_NOUSER = 67
EX_TEMPFAIL = 75
EX_CONFIG = 78
IDS_A_FILTER = 1_000
ALL = QueueFilter()

F = TypeVar("F", bound=Callable[..., Any])

_TEXTS = {
    "id_parts": ("--id", "Part of the queue id."),
    "senders": ("--sender", "The envelope sender, or a part of it; <> for none."),
    "recipients": ("--recipient", "A recipient's address, or a part of it."),
    "domains": ("--domain", "A recipient's whole domain."),
    "hops": ("--hop", "Where it goes next: a domain, a host, local."),
    "errors": ("--error", "Part of the reason it waits."),
}
_AMOUNTS = {
    "older_us": ("--older", Duration, "Arrived at least so long ago: 2h, 5d."),
    "younger_us": ("--younger", Duration, "Arrived less than so long ago."),
    "larger_octets": ("--larger", Size, "Has more octets: 1MiB."),
    "smaller_octets": ("--smaller", Size, "Has fewer octets."),
}


class Choice(NamedTuple):
    """Which messages are meant: by filters, one after the other.

    ``ids`` are those that were named one by one, none if a filter chose.
    """

    filters: tuple[QueueFilter, ...]
    ids: tuple[QueueId, ...] = ()

    @property
    def is_all(self) -> bool:
        """Whether nothing was said."""
        return self.filters == (ALL,)


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


def json_option(function: F) -> F:
    """Add ``--json``."""
    return click.option(
        "--json", "as_json", is_flag=True, help="JSON, one object a line."
    )(function)


def choice_options(function: F) -> F:
    """Add ids and the options of a filter; they come as one ``choice``."""

    @wraps(function)
    def chosen(**values: Any) -> Any:
        choice = _choice(values)
        return function(choice=choice, **values)

    wrapped: Any = chosen
    for name, (flag, kind, text) in reversed(_AMOUNTS.items()):
        option = click.option(flag, name, default="", callback=_unit(kind), help=text)
        wrapped = option(wrapped)
    wrapped = click.option(
        "--state",
        "states",
        multiple=True,
        type=click.Choice(STATES),
        help="Where a recipient stands.",
    )(wrapped)
    for name, (flag, text) in reversed(_TEXTS.items()):
        wrapped = click.option(flag, name, multiple=True, metavar="PATTERN", help=text)(
            wrapped
        )
    wrapped = click.argument("ids", nargs=-1, metavar="[ID]...")(wrapped)
    return wrapped  # type: ignore[no-any-return]


def load_or_fail(path: str) -> Config:
    """Load the configuration, or end with what is wrong with it and status 78."""
    try:
        return load(path)
    except ConfigError as error:
        click.echo(f"postroom: {error}", err=True)
        sys.exit(EX_CONFIG)


def read_id(text: str) -> QueueId:
    """Read one queue id."""
    try:
        return parse_queue_id(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def duration_option(flag: str, name: str, text: str) -> Callable[[F], F]:
    """Return an option that takes a duration and gives microseconds, 0 if not given."""
    return click.option(flag, name, default="", callback=_unit(Duration), help=text)


def _unit(kind: type[Duration] | type[Size]) -> Callable[..., int]:
    """Read an option's value as a duration (``2h``) or a size (``1MiB``)."""

    def read(context: click.Context, option: click.Parameter, text: str) -> int:
        try:
            return int(kind.from_text(text)) if text else 0  # plain: it is sent as JSON
        except ValueError as error:
            raise click.BadParameter(str(error), context, option) from None

    return read


def _choice(values: dict[str, Any]) -> Choice:
    named = [read_id(text) for text in _ids(values.pop("ids"))]
    ids = tuple(dict.fromkeys(named))
    given = {name: values.pop(name) for name in (*_TEXTS, "states", *_AMOUNTS)}
    try:
        base = QueueFilter(**given)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if not ids:
        return Choice((base,))
    pieces = [ids[at : at + IDS_A_FILTER] for at in range(0, len(ids), IDS_A_FILTER)]
    return Choice(
        tuple(msgspec.structs.replace(base, queue_ids=piece) for piece in pieces), ids
    )


def _ids(words: Sequence[str]) -> list[str]:
    """Return the ids; ``-`` stands for those on standard input."""
    ids: list[str] = []
    for word in words:
        if word == "-":
            ids += sys.stdin.read().split()
            if not ids:
                # No id must not come to mean every message.
                raise click.UsageError("there is no id on standard input")
        else:
            ids.append(word)
    return ids
