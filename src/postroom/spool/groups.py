"""Applies a group of changes in one transaction, with few statements.

Raises what SQLite raises; the writer then rolls back. ``BadChange`` and errors of one
row leave the other changes to be tried without it.
"""

# ruff: noqa: S608 (statements are made of constants only; values are bound)
from collections.abc import Sequence

import apsw
import msgspec

from postroom.spool import statements
from postroom.spool.changes import (
    COUNTED,
    STATE_COUNTED,
    BadChange,
    Change,
    Group,
)
from postroom.spool.rows import MessageRows, Row

_COUNT = f"UPDATE counters SET {', '.join(f'{name} = ?' for name in COUNTED)}"
# Asked for in one packed row: RETURNING would be a step, and a fight for the
# interpreter lock, for each message.
_FINISHED = """
SELECT CAST(json_group_array(json_array(id, body, size, (
    SELECT file FROM bodies WHERE id = messages.body))) AS BLOB)
FROM messages WHERE id IN carray(?) AND NOT EXISTS(
    SELECT 1 FROM recipients WHERE message = messages.id)
"""
_REMOVE_MESSAGES = "DELETE FROM messages WHERE id IN carray(?)"
_REMOVE_BODIES = (
    "DELETE FROM bodies WHERE id IN carray(?)"
    " AND NOT EXISTS(SELECT 1 FROM messages WHERE id = bodies.id)"
    " AND NOT EXISTS(SELECT 1 FROM messages WHERE body = bodies.id AND body <> id)"
)
_FINISHED_LIST = msgspec.json.Decoder(list[tuple[int, int, int, str | None]])


def apply(
    connection: apsw.Connection, changes: Sequence[Change], counts: dict[str, int]
) -> Group:
    """Apply changes; the caller commits or rolls back.

    Returns:
        The group, with the counts as they are once it is committed.
    """
    group = Group(connection, counts)
    _add(group, [rows for change in changes for rows in change.new])
    _settle(group, changes)
    for change in changes:
        if change.act is not None:
            change.result = change.act(group)
    remove_finished(group)
    connection.execute(_COUNT, [group.counts[name] for name in COUNTED])
    return group


def remove_finished(group: Group) -> None:
    """Remove touched messages without recipients, and bodies that nothing names."""
    if not group.touched:
        return
    connection, counts = group.connection, group.counts
    touched = statements.numbers(sorted(group.touched))
    group.touched.clear()
    packed = connection.execute(_FINISHED, (touched,)).get
    gone = _FINISHED_LIST.decode(packed)
    if not gone:
        return
    numbers = statements.numbers([row[0] for row in gone])
    connection.execute(_REMOVE_MESSAGES, (numbers,))
    bodies = statements.numbers([row[1] for row in gone])
    connection.execute(_REMOVE_BODIES, (bodies,))
    counts["messages"] -= len(gone)
    counts["octets"] -= sum([row[2] for row in gone])
    for _, body, _, file in gone:
        if file is not None and not _has_body(connection, body):
            group.files.append(file)


def _has_body(connection: apsw.Connection, number: int) -> bool:
    query = "SELECT 1 FROM bodies WHERE id = ?"
    return connection.execute(query, (number,)).get is not None


def _add(group: Group, new: Sequence[MessageRows]) -> None:
    if not new:
        return
    connection, counts = group.connection, group.counts
    recipients: list[Row] = []
    for rows in new:
        recipients += rows.recipients
    messages = [_shared(group, rows) if rows.body_of else rows.message for rows in new]
    bodies = [rows.body for rows in new if rows.body is not None]
    statements.insert(connection, "messages", messages)
    statements.insert(connection, "bodies", bodies)
    statements.insert(connection, "recipients", recipients)
    counts["messages"] += len(messages)
    counts["recipients"] += len(recipients)
    for message in messages:
        counts["octets"] += message[2]  # type: ignore[operator]
        counts["last_number"] = max(counts["last_number"], message[0])  # type: ignore[type-var, assignment]
    for row in recipients:
        counts[STATE_COUNTED[row[2]]] += 1  # type: ignore[index]
    group.touched.update(rows.message[0] for rows in new if not rows.recipients)  # type: ignore[misc]


def _shared(group: Group, rows: MessageRows) -> Row:
    """Let a second envelope name the body, and have the size, of the first."""
    query = "SELECT body, size FROM messages WHERE id = ?"
    found = group.connection.execute(query, (rows.body_of,)).get
    if found is None:
        raise BadChange("the message whose body was to be shared is gone")
    return (rows.message[0], *found, *rows.message[3:])


def _settle(group: Group, changes: Sequence[Change]) -> None:
    connection, counts = group.connection, group.counts
    gone: list[tuple[int, int]] = []
    later: list[Row] = []
    warned, survived = [], []
    for change in changes:
        if change.gone:
            gone += change.gone
            group.touched.add(change.message)
            counts["recipients"] -= len(change.gone)
            counts[STATE_COUNTED[change.gone_state]] -= len(change.gone)
        if change.later:
            later += change.later
            for before, after in change.moved:
                counts[STATE_COUNTED[before]] -= 1
                counts[STATE_COUNTED[after]] += 1
        if change.warned:
            warned.append(change.message)
        if change.survived:
            survived.append(change.message)
    statements.delete_recipients(connection, gone)
    statements.update_recipients(connection, later)
    if warned:
        sql = "UPDATE messages SET warned = 1 WHERE id IN carray(?)"
        connection.execute(sql, (statements.numbers(warned),))
    if survived:
        sql = "UPDATE messages SET crashes = 0 WHERE id IN carray(?)"
        connection.execute(sql, (statements.numbers(survived),))
