"""The rare changes: expansion, and what operators do.

Each runs inside a group's transaction; ``BadChange`` fails it alone.
"""

# ruff: noqa: S608 (statements are made of constants only; values are bound)
from collections.abc import Sequence
from enum import Enum
from typing import Any

import msgspec

from postroom.spool import groups, statements
from postroom.spool.changes import STATE_COUNTED, BadChange, Group
from postroom.spool.claims import Broken
from postroom.spool.conditions import Condition
from postroom.spool.rows import Row, recipient_row
from postroom.spool.spool import NewRecipient, RecipientState

_READY, _EXPANDING, _HELD, _SHUNTED = RecipientState
_WITHOUT_ROUTE = "hop = '', agent = '', rule = ''"
# One that came with the message and has no agent is an alias itself: no copy yet.
_THERE = """
WITH wanted(address) AS MATERIALIZED (SELECT value FROM json_each(?2))
SELECT CAST(json_group_array(address) AS BLOB) FROM (
    SELECT address FROM recipients INDEXED BY recipients_children
    WHERE message = ?1 AND parent >= 0 AND number <> ?4
        AND address IN (SELECT address FROM wanted)
    UNION ALL
    SELECT address FROM recipients
    WHERE message = ?1 AND number < ?3 AND number <> ?4 AND agent <> ''
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


class Touched(msgspec.Struct, frozen=True):
    """What an order has changed: messages by number, and where they go."""

    numbers: Sequence[int] = ()
    hops: Sequence[str] = ()


class Remove(msgspec.Struct, frozen=True):
    """Removes messages that are locked against leasing."""

    numbers: tuple[int, ...]

    def __call__(self, group: Group) -> Touched:
        """Apply; returns which messages went."""
        bound = (statements.numbers(self.numbers),)
        there = "SELECT id FROM messages WHERE id IN carray(?) ORDER BY id"
        gone = [number for (number,) in group.connection.execute(there, bound)]
        sql = "DELETE FROM recipients WHERE message IN carray(?) RETURNING state"
        _uncount(group, group.connection.execute(sql, bound).fetchall())
        group.touched.update(self.numbers)
        groups.remove_finished(group)
        return Touched(gone)


class Erase(msgspec.Struct, frozen=True):
    """Removes some recipients of a locked message, whatever their state."""

    message: int
    numbers: tuple[int, ...]

    def __call__(self, group: Group) -> int:
        """Apply; returns how many recipients went."""
        gone = group.connection.execute(
            "DELETE FROM recipients WHERE message = ? AND number IN carray(?)"
            " RETURNING state",
            (self.message, statements.numbers(self.numbers)),
        ).fetchall()
        _uncount(group, gone)
        group.touched.add(self.message)
        return len(gone)


def _uncount(group: Group, gone: list[Any]) -> None:
    for (state,) in gone:
        group.counts["recipients"] -= 1
        group.counts[STATE_COUNTED[state]] -= 1


class MoveTo(Enum):
    """What becomes of recipients that an operator moves.

    ``HELD`` with a reason; ``READY`` lets held and shunted ones go (back to EXPANDING
    where they have no route); ``DUE`` makes waiting ones due; ``EXPANDING`` has them
    expanded and routed anew, from the cursor if that had begun.
    """

    HELD = "held"
    READY = "ready"
    DUE = "due"
    EXPANDING = "expanding"


class Move(msgspec.Struct, frozen=True):
    """Moves recipients of locked messages to another state or due time.

    ``all_states`` says that all are meant, whatever they wait for.
    """

    numbers: tuple[int, ...]
    condition: Condition
    to: MoveTo
    due_us: int = 0
    text: str = ""
    all_states: bool = False

    def __call__(self, group: Group) -> Touched:
        """Apply; returns which messages had a recipient that moved."""
        which = "r.state < 2"
        value: int | str = self.due_us
        match self.to:
            case MoveTo.DUE:
                change = "due = min(due, ?)"
            case MoveTo.READY:
                change = "state = (hop = ''), due = ?"
                which = "1" if self.all_states else "r.state >= 2"
            case MoveTo.EXPANDING:
                change = f"state = {_EXPANDING.value}, due = ?, {_WITHOUT_ROUTE}"
                which = "1" if self.all_states else which
            case MoveTo.HELD:
                change = f"state = {_HELD.value}, status_text = ?"
                value = self.text
        return self._apply(group, change, which, value)

    def _apply(
        self, group: Group, change: str, which: str, value: int | str
    ) -> Touched:
        where = f"r.message IN carray(?) AND {which}"
        chosen: tuple[Any, ...] = (statements.numbers(self.numbers),)
        if self.condition.recipients:
            where += f" AND {self.condition.recipients}"
            chosen += self.condition.recipient_values
        rows: list[Any] = group.connection.execute(
            f"SELECT message, state, hop FROM recipients AS r WHERE {where}", chosen
        ).fetchall()
        if not rows:
            return Touched()
        after: list[Any] = group.connection.execute(
            f"UPDATE recipients AS r SET {change} WHERE {where} RETURNING state",
            (value, *chosen),
        ).fetchall()
        for _, state, _ in rows:
            group.counts[STATE_COUNTED[state]] -= 1
        for (state,) in after:
            group.counts[STATE_COUNTED[state]] += 1
        messages = sorted({message for message, _, _ in rows})
        return Touched(messages, sorted({hop for _, _, hop in rows}))


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
