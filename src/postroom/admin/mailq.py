"""The queue as ``mailq`` prints it, to the column, since scripts read it.

Pure apart from what it is given. Control characters from a peer are shown as question
marks. After the id stands ``*`` for a message being delivered; one that is held for
an operator has a ``QUARANTINE`` line.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from postroom.spool.spool import Entry, EntryRecipient

ZoneOffset = Callable[[int], int]
"""Gives the seconds east of UTC at a moment in microseconds."""

STATUS_CHARACTERS_MAX = 60
"""Longer reasons are cut, except in the verbose form."""
# How sendmail orders its queue: by size, recipients and tries (its shipped factors).
_RECIPIENT_FACTOR = 30_000
_RETRY_FACTOR = 90_000

_HEAD = (
    "-----Q-ID----- --Size-- -----Q-Time----- ------------Sender/Recipient-----------"
)
_HEAD_VERBOSE = (
    "-----Q-ID----- --Size-- -Priority- ---Q-Time--- --------Sender/Recipient--------"
)


def mailq_head(total: int, spool_directory: str, *, verbose: bool) -> list[str]:
    """Return what stands above the entries."""
    if not total:
        return [f"{spool_directory} is empty"]
    requests = "request" if total == 1 else "requests"
    return [
        f"\t\t{spool_directory} ({total} {requests})",
        _HEAD_VERBOSE if verbose else _HEAD,
    ]


def mailq_foot(total: int) -> str:
    """Return the last line."""
    return f"\t\tTotal requests: {total}"


def mailq_entry(
    entry: Entry, *, verbose: bool, zone_offset_s: ZoneOffset
) -> Iterator[str]:
    """Yield the lines of one message."""
    flag = "*" if any(one.active for one in entry.recipients) else " "
    sender = _shown(entry.sender) or "<>"
    middle = f"{entry.queue_id:<14}{flag}{entry.size_octets:8}"
    when = _ctime(entry.arrival_us, zone_offset_s)
    if verbose:
        yield f"{middle} {_priority(entry):10} {when[4:]} {sender}"
    else:
        yield f"{middle} {when} {sender}"
    yield from _status(entry, verbose)
    indent = "\t\t\t\t\t\t" if verbose else "\t\t\t\t\t "
    for recipient in entry.recipients:
        yield f"{indent}{_shown(recipient.address)}"
    if (more := entry.recipients_count - len(entry.recipients)) > 0:
        yield f"{indent}[{more} more]"


def _status(entry: Entry, verbose: bool) -> Iterator[str]:
    held = next((one for one in entry.recipients if one.state == "held"), None)
    if held is not None:
        yield f"     QUARANTINE: {_shown(held.status_text) or 'by operator'}"
    body = "" if entry.body == "7BIT" else entry.body
    status = _reason(entry.recipients)
    if not verbose:
        status = status[:STATUS_CHARACTERS_MAX]
    if status or body:
        yield f"    {body:>10.10}" + (f"   ({status})" if status else "")


def _reason(recipients: Sequence[EntryRecipient]) -> str:
    """The reason why the message waits: the one given last."""
    tried = [one for one in recipients if one.status_text and one.state != "held"]
    if not tried:
        return ""
    return _shown(max(tried, key=lambda one: one.last_us).status_text)


def _priority(entry: Entry) -> int:
    tries = max((one.tries for one in entry.recipients), default=0)
    recipients = max(entry.recipients_count, len(entry.recipients))
    return (
        entry.size_octets
        + recipients * _RECIPIENT_FACTOR
        + max(tries - 1, 0) * _RETRY_FACTOR
    )


def _ctime(utc_us: int, zone_offset_s: ZoneOffset) -> str:
    local_s = utc_us // 1_000_000 + zone_offset_s(utc_us)
    at = datetime.fromtimestamp(local_s, UTC)
    return f"{_DAYS[at.weekday()]} {_MONTHS[at.month - 1]} {at.day:2} {at:%H:%M}"


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = [
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
]


def _shown(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "?" for c in text)
