"""The rare changes: expansion, and what operators do.

Each runs inside a group's transaction; ``BadChange`` fails it alone.
"""

# ruff: noqa: S608 (statements are made of constants only; values are bound)
from typing import Any

import msgspec

from postroom.spool import groups, statements
from postroom.spool.changes import STATE_COUNTED, BadChange, Group
from postroom.spool.claims import Broken
from postroom.spool.queries import Condition
from postroom.spool.rows import Row, recipient_row
from postroom.spool.spool import NewRecipient, RecipientState

_READY, _EXPANDING, _HELD, _SHUNTED = RecipientState
_THERE = """
WITH wanted(address) AS MATERIALIZED (SELECT value FROM json_each(?2))
SELECT CAST(json_group_array(address) AS BLOB) FROM (
    SELECT address FROM recipients INDEXED BY recipients_children
    WHERE message = ?1 AND parent >= 0 AND number <> ?4
        AND address IN (SELECT address FROM wanted)
    UNION ALL
    SELECT address FROM recipients
    WHERE message = ?1 AND number < ?3 AND number <> ?4
        AND address IN (SELECT address FROM wanted))
"""
_ADDRESSES = msgspec.json.Decoder(list[str])


class Expand(msgspec.Struct, frozen=True):
    """Adds children of one EXPANDING recipient and moves its cursor, or ends it."""

    message: int
    number: int
    children: tuple[NewRecipient, ...]
    cursor: int | None

    def __call__(self, group: Group) -> int:
        """Apply; returns how many children were new."""
        connection, message = group.connection, self.message
        query = "SELECT given, next_number FROM messages WHERE id = ?"
        found = connection.execute(query, (message,)).get
        if found is None:
            raise BadChange("the message to be expanded is gone")
        added = self._add(group, *found) if self.children else 0
        if self.cursor is None:
            statements.delete_recipients(connection, [(message, self.number)])
            group.counts["recipients"] -= 1
            group.counts["expanding"] -= 1
            group.touched.add(message)
        else:
            connection.execute(
                "UPDATE recipients SET cursor = ? WHERE message = ? AND number = ?",
                (self.cursor, message, self.number),
            )
        return added

    def _add(self, group: Group, given: int, first: int) -> int:
        """Add those children whose address the message does not have yet."""
        connection, message = group.connection, self.message
        texts = [child.address.to_text() for child in self.children]
        bound = (message, msgspec.json.encode(texts).decode(), given, self.number)
        there = set(_ADDRESSES.decode(connection.execute(_THERE, bound).get))
        fresh: list[Row] = []
        for child, address in zip(self.children, texts, strict=True):
            if address not in there:
                there.add(address)
                number = first + len(fresh)
                fresh.append(recipient_row(message, number, child, self.number))
        statements.insert(connection, "recipients", fresh)
        # Numbers are never used twice: a mailbox knows a repeated delivery by them.
        connection.execute(
            "UPDATE messages SET next_number = ? WHERE id = ?",
            (first + len(fresh), message),
        )
        group.counts["recipients"] += len(fresh)
        for row in fresh:
            group.counts[STATE_COUNTED[row[2]]] += 1  # type: ignore[index]
        return len(fresh)


class Remove(msgspec.Struct, frozen=True):
    """Removes messages that are locked against leasing."""

    numbers: tuple[int, ...]

    def __call__(self, group: Group) -> int:
        """Apply; returns how many messages went."""
        before = group.counts["messages"]
        bound = (statements.numbers(self.numbers),)
        sql = "DELETE FROM recipients WHERE message IN carray(?) RETURNING state"
        gone: list[Any] = group.connection.execute(sql, bound).fetchall()
        for (state,) in gone:
            group.counts["recipients"] -= 1
            group.counts[STATE_COUNTED[state]] -= 1
        group.touched.update(self.numbers)
        groups.remove_finished(group)
        return before - group.counts["messages"]


class Move(msgspec.Struct, frozen=True):
    """Moves waiting recipients of locked messages to another state or due time.

    Args:
        to: HELD or SHUNTED with ``text`` as the reason; READY lets held and shunted
            ones go (back to EXPANDING where they have no route); None makes waiting
            ones due.
    """

    numbers: tuple[int, ...]
    condition: Condition
    to: RecipientState | None
    due_us: int
    text: str = ""

    def __call__(self, group: Group) -> int:
        """Apply; returns how many messages had a recipient that moved."""
        match self.to:
            case None:
                change, which = "due = ?", "r.state < 2 AND r.due > ?"
                values: tuple[int | str, ...] = (self.due_us, self.due_us)
            case RecipientState.READY:
                change = "state = (hop = ''), due = ?"
                which, values = "r.state >= 2", (self.due_us,)
            case _:
                change = f"state = {self.to.value}, status_text = ?"
                which, values = "r.state < 2", (self.text,)
        return self._apply(group, change, which, values)

    def _apply(
        self, group: Group, change: str, which: str, values: tuple[int | str, ...]
    ) -> int:
        connection = group.connection
        where = f"r.message IN carray(?) AND {which}"
        chosen = (statements.numbers(self.numbers), *values[1:])
        if self.condition.recipients:
            where += f" AND {self.condition.recipients}"
            chosen += self.condition.recipient_values
        rows: list[Any] = connection.execute(
            f"SELECT message, number, state FROM recipients AS r WHERE {where}",
            chosen,
        ).fetchall()
        if not rows:
            return 0
        after: list[Any] = connection.execute(
            f"UPDATE recipients AS r SET {change} WHERE {where} RETURNING state",
            (values[0], *chosen),
        ).fetchall()
        for _, _, state in rows:
            group.counts[STATE_COUNTED[state]] -= 1
        for (state,) in after:
            group.counts[STATE_COUNTED[state]] += 1
        return len({message for message, _, _ in rows})


class Shunt(msgspec.Struct, frozen=True):
    """Puts aside what cannot be read."""

    broken: tuple[Broken, ...]

    def __call__(self, group: Group) -> int:
        """Apply; returns how many recipients were put aside."""
        moved = 0
        for each in self.broken:
            which = "message = ? AND state < 2"
            if each.numbers:
                which += f" AND number IN ({','.join(map(str, each.numbers))})"
            found: list[Any] = group.connection.execute(
                f"SELECT state FROM recipients WHERE {which}",
                (each.message,),
            ).fetchall()
            group.connection.execute(
                f"UPDATE recipients SET state = ?, status_text = ? WHERE {which}",
                (_SHUNTED, each.reason, each.message),
            )
            for (state,) in found:
                group.counts[STATE_COUNTED[state]] -= 1
                group.counts["shunted"] += 1
            moved += len(found)
        return moved
