"""What operators ask: filters turned into SQL, and pages of entries.

Each page looks at a bounded number of messages, so that a rare match in a long queue
holds nobody up; an empty page is no end.
"""

# ruff: noqa: S608 (statements are made of constants only; values are bound)
from collections.abc import Sequence

import apsw
import msgspec

from postroom.mail.ids import QueueId, from_number, to_number
from postroom.spool import statements
from postroom.spool.rows import Value
from postroom.spool.spool import (
    Entry,
    EntryRecipient,
    QueueFilter,
    RecipientState,
)

MESSAGES_LOOKED_AT_MAX = 5_000
RECIPIENTS_SHOWN_MAX = 1_000
FIRST = -1
"""The place before the first message."""


class Page(msgspec.Struct, frozen=True):
    """One page: what matched, and where to go on; None at the end of the queue."""

    numbers: Sequence[int]
    entries: Sequence[Entry]
    next_after: int | None


class Condition(msgspec.Struct, frozen=True):
    """A piece of SQL and its values. ``recipients`` alone concerns recipients ``r``."""

    messages: str
    message_values: tuple[Value, ...]
    recipients: str
    recipient_values: tuple[Value, ...]


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


_ENTRIES = msgspec.json.Decoder(list[_EntryRow])
_NUMBERS = msgspec.json.Decoder(list[int])
_ENTRY_FIELDS = ", ".join(_EntryRow.__struct_fields__[1:10])
_SHOWN_FIELDS = ", ".join(_RecipientRow.__struct_fields__)


def condition(wanted: QueueFilter, now_us: int) -> Condition:
    """Turn a filter into SQL."""
    messages: list[tuple[str, Value]] = []
    recipients: list[tuple[str, Value]] = []
    if wanted.queue_id:
        messages.append(("m.id = ?", to_number(QueueId(wanted.queue_id))))
    if wanted.sender:
        found = ("instr(lower(m.sender), ?) > 0", wanted.sender.lower())
        messages.append(found)
    if wanted.older_us:
        messages.append(("m.arrival <= ?", now_us - wanted.older_us))
    if wanted.larger_octets:
        messages.append(("m.size > ?", wanted.larger_octets))
    if wanted.recipient:
        found = ("instr(lower(r.address), ?) > 0", wanted.recipient.lower())
        recipients.append(found)
    if wanted.domain:
        domain = "@" + wanted.domain.lower().rstrip(".")
        recipients.append((f"substr(lower(r.address), -{len(domain)}) = ?", domain))
    if wanted.state:
        recipients.append(("r.state = ?", RecipientState[wanted.state.upper()]))
    if wanted.error:
        found = ("instr(lower(r.status_text), ?) > 0", wanted.error.lower())
        recipients.append(found)
    return Condition(
        " AND ".join(sql for sql, _ in messages) or "1",
        tuple(value for _, value in messages),
        " AND ".join(sql for sql, _ in recipients),
        tuple(value for _, value in recipients),
    )


def numbers_page(
    connection: apsw.Connection, wanted: Condition, after: int, limit: int
) -> Page:
    """Return the numbers of matching messages after one, oldest first. Blocks."""
    where, values = _where(wanted)
    sql = (
        "SELECT CAST(json_group_array(id) AS BLOB) FROM"
        f" (SELECT id FROM messages AS m WHERE m.id > ? AND m.id <= ?{where}"
        " ORDER BY m.id LIMIT ?)"
    )
    last = _last_looked_at(connection, after)
    if last is None:
        return Page((), (), None)
    packed = connection.execute(sql, (after, last, *values, limit)).get
    numbers = _NUMBERS.decode(packed)
    return Page(numbers, (), numbers[-1] if len(numbers) == limit else last)


def entries_page(
    connection: apsw.Connection, wanted: Condition, after: int, limit: int, shard: int
) -> Page:
    """Return matching entries after a message, oldest first. Blocks."""
    page = numbers_page(connection, wanted, after, limit)
    if not page.numbers:
        return page
    shown = (
        f"SELECT json_group_array(json_array({_SHOWN_FIELDS})) FROM"
        f" (SELECT {_SHOWN_FIELDS} FROM recipients WHERE message = m.id"
        f" ORDER BY number LIMIT {RECIPIENTS_SHOWN_MAX})"
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


def _where(wanted: Condition) -> tuple[str, tuple[Value, ...]]:
    where = f" AND {wanted.messages}"
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
    )
