"""What operators ask: pages of entries that match a condition.

Each page looks at a bounded number of messages, so that a rare match in a long queue
holds nobody up; an empty page is no end.
"""

# ruff: noqa: S608 (statements are made of constants only; values are bound)
from collections.abc import Sequence
from typing import Any

import apsw
import msgspec

from postroom.mail.ids import from_number
from postroom.spool import statements
from postroom.spool.conditions import Condition, reason_of
from postroom.spool.spool import Entry, EntryRecipient, RecipientState

MESSAGES_LOOKED_AT_MAX = 5_000
RECIPIENTS_SHOWN_MAX = 1_000
FIRST = -1
"""The place before the first message."""


class Page(msgspec.Struct, frozen=True):
    """One page: what matched, and where to go on; None at the end of the queue."""

    numbers: Sequence[int]
    entries: Sequence[Entry]
    next_after: int | None


class _EntryRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    number: int
    sender: str
    size: int
    arrival: int
    protocol: str
    client_ip: str
    client_name: str
    login: str
    message_id: str
    body_type: str
    recipients_count: int
    recipients: list["_RecipientRow"]


class _RecipientRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    number: int
    address: str
    state: int
    hop: str
    rule: str
    tries: int
    due: int
    last: int
    status_text: str
    agent: str
    parent: int


_ENTRIES = msgspec.json.Decoder(list[_EntryRow])
_RECIPIENTS = msgspec.json.Decoder(list[_RecipientRow])
_NUMBERS = msgspec.json.Decoder(list[int])
_ENTRY_FIELDS = ", ".join(_EntryRow.__struct_fields__[1:10])
# What is ready at a hop that rests waits for the end of the rest, and because of it.
_SHOWN_AS = {
    "due": "CASE state WHEN 0 THEN max(due, ifnull("
    "(SELECT until FROM rests WHERE hop = recipients.hop), 0)) ELSE due END",
    "status_text": reason_of("recipients"),
}
_SHOWN_FIELDS = ", ".join(
    _SHOWN_AS.get(name, name) for name in _RecipientRow.__struct_fields__
)


def numbers_page(
    connection: apsw.Connection, wanted: Condition, after: int, limit: int
) -> Page:
    """Return the numbers of matching messages after one, oldest first. Blocks."""
    window, bound, last = _window(connection, wanted, after)
    if last is None:
        return Page((), (), None)
    where, values = _where(wanted)
    sql = (
        "SELECT CAST(json_group_array(id) AS BLOB) FROM"
        f" (SELECT id FROM messages AS m WHERE {window}{where}"
        " ORDER BY m.id LIMIT ?)"
    )
    # What only Python can judge is judged over the whole window.
    most = MESSAGES_LOOKED_AT_MAX if wanted.id_parts else limit
    packed = connection.execute(sql, (*bound, *values, most)).get
    numbers = _NUMBERS.decode(packed)
    if wanted.id_parts:
        numbers = [n for n in numbers if wanted.means(str(from_number(n)))][:limit]
    return Page(numbers, (), numbers[-1] if len(numbers) == limit else last)


def _window(
    connection: apsw.Connection, wanted: Condition, after: int
) -> tuple[str, tuple[Any, ...], int | None]:
    """Return which messages are to be looked at, and the last; None: there is none."""
    if wanted.numbers is None:
        last = _last_looked_at(connection, after)
        return "m.id > ? AND m.id <= ?", (after, last), last
    named = [number for number in wanted.numbers if number > after]
    if not named:
        return "", (), None
    return "m.id IN carray(?)", (statements.numbers(named),), named[-1]


def entries_page(
    connection: apsw.Connection, wanted: Condition, after: int, limit: int, shard: int
) -> Page:
    """Return matching entries after a message, oldest first. Blocks."""
    page = numbers_page(connection, wanted, after, limit)
    if not page.numbers:
        return page
    shown = (
        f"SELECT json_group_array(json_array({_SHOWN_FIELDS})) FROM"
        " (SELECT * FROM recipients WHERE message = m.id"
        f" ORDER BY number LIMIT {RECIPIENTS_SHOWN_MAX}) AS recipients"
    )
    count = "SELECT count(*) FROM recipients WHERE message = m.id"
    sql = (
        "SELECT CAST(json_group_array(json_array("
        f"id, {_ENTRY_FIELDS}, ({count}), json(({shown})))) AS BLOB) FROM"
        " (SELECT * FROM messages AS m WHERE m.id IN carray(?) ORDER BY id) AS m"
    )
    entries = _entries(connection, sql, page.numbers, shard)
    return Page(page.numbers, entries, page.next_after)


def _entries(
    connection: apsw.Connection, sql: str, numbers: Sequence[int], shard: int
) -> list[Entry]:
    """Read entries together, and if one is damaged, singly: it is shown as far."""
    packed = connection.execute(sql, (statements.numbers(numbers),)).get
    try:
        return [_entry(row, shard) for row in _ENTRIES.decode(packed)]
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        if len(numbers) == 1:
            return [_damaged(numbers[0], shard, str(error))]
    entries: list[Entry] = []
    for number in numbers:
        entries += _entries(connection, sql, [number], shard)
    return entries


def _damaged(number: int, shard: int, reason: str) -> Entry:
    return Entry(
        queue_id=str(from_number(number)),
        shard=shard,
        sender="",
        size_octets=0,
        arrival_us=0,
        origin=f"damaged: {reason}",
        message_id="",
        recipients=(),
    )


def last_number(connection: apsw.Connection) -> int:
    """Return the number of the newest message, ``FIRST`` if there is none. Blocks."""
    found = connection.execute("SELECT max(id) FROM messages").get
    return FIRST if found is None else int(found)


def recipients_page(
    connection: apsw.Connection, number: int, after: int, limit: int
) -> Sequence[EntryRecipient]:
    """Return recipients of one message after one of them, by number. Blocks."""
    sql = (
        f"SELECT CAST(json_group_array(json_array({_SHOWN_FIELDS})) AS BLOB) FROM"
        " (SELECT * FROM recipients WHERE message = ? AND number > ?"
        " ORDER BY number LIMIT ?) AS recipients"
    )
    packed = connection.execute(sql, (number, after, limit)).get
    try:
        return [_recipient(row) for row in _RECIPIENTS.decode(packed)]
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return []  # damaged: as far as it can be told, the entry tells it


def _where(wanted: Condition) -> tuple[str, tuple[Any, ...]]:
    where = f" AND {wanted.messages}" if wanted.messages else ""
    if wanted.recipients:
        where += (
            " AND EXISTS(SELECT 1 FROM recipients AS r"
            f" WHERE r.message = m.id AND {wanted.recipients})"
        )
    return where, (*wanted.message_values, *wanted.recipient_values)


def _last_looked_at(connection: apsw.Connection, after: int) -> int | None:
    sql = (
        "SELECT max(id) FROM (SELECT id FROM messages WHERE id > ? ORDER BY id LIMIT ?)"
    )
    found = connection.execute(sql, (after, MESSAGES_LOOKED_AT_MAX)).get
    return None if found is None else int(found)


def _entry(row: _EntryRow, shard: int) -> Entry:
    client = f"{row.client_name} [{row.client_ip}]".strip() if row.client_ip else ""
    return Entry(
        queue_id=str(from_number(row.number)),
        shard=shard,
        sender=row.sender,
        size_octets=row.size,
        arrival_us=row.arrival,
        origin=" ".join(part for part in (row.protocol, row.login, client) if part),
        message_id=row.message_id,
        recipients=tuple(_recipient(each) for each in row.recipients),
        body=row.body_type,
        recipients_count=row.recipients_count,
    )


def _recipient(row: _RecipientRow) -> EntryRecipient:
    return EntryRecipient(
        number=row.number,
        address=row.address,
        state=RecipientState(row.state).name.lower(),
        hop=row.hop,
        rule=row.rule,
        tries=row.tries,
        due_us=row.due,
        last_us=row.last,
        status_text=row.status_text,
        active=False,
        agent=row.agent,
        parent=row.parent,
    )
