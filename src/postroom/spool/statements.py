"""Few, large statements: many rows in one, padded to a power of two.

Every step of SQLite gives up the interpreter lock and must win it back from a busy
loop, so a group of rows goes in one step. A power of two of rows, filled up with rows
of NULLs (or repeated keys, where that is harmless), keeps the number of different
statements small enough to stay prepared.
"""

# ruff: noqa: S608 (statements are made of constants only; values are bound)
from array import array
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import TypeVar

import apsw

from postroom.spool.rows import Row, Value

ROWS_MAX = 64
_Key = TypeVar("_Key")
_MESSAGE_COLUMNS = 28
_BODY_COLUMNS = 6
_RECIPIENT_COLUMNS = 16
_LATER_COLUMNS = 11
COLUMNS = {
    "messages": _MESSAGE_COLUMNS,
    "bodies": _BODY_COLUMNS,
    "recipients": _RECIPIENT_COLUMNS,
}

_LATER = (
    "UPDATE recipients SET state = new.column3, due = new.column4,"
    " tries = tries + new.column5, last = new.column6, status_text = new.column7,"
    " hop = CASE new.column8 WHEN 0 THEN hop ELSE new.column9 END,"
    " agent = CASE new.column8 WHEN 0 THEN agent ELSE new.column10 END,"
    " rule = CASE new.column8 WHEN 0 THEN rule ELSE new.column11 END"
    " FROM (VALUES {values}) AS new"
    " WHERE message = new.column1 AND number = new.column2"
)


def insert(connection: apsw.Connection, table: str, rows: Sequence[Row]) -> None:
    """Add rows to a table; a row that is there already is an error."""
    width = COLUMNS[table]
    for piece, count in _pieces(rows):
        filled: list[Value] = list(chain.from_iterable(piece))
        filled += [None] * (width * (count - len(piece)))
        connection.execute(_insert(table, width, count), filled)


def delete_recipients(
    connection: apsw.Connection, keys: Sequence[tuple[int, int]]
) -> None:
    """Remove recipients by (message, number)."""
    for piece, count in _pieces(keys):
        filled = list(chain.from_iterable(piece))
        filled += piece[-1] * (count - len(piece))
        connection.execute(_delete(count), filled)


def update_recipients(connection: apsw.Connection, rows: Sequence[Row]) -> None:
    """Change recipients that wait on.

    A row: message, number, state, due, tries to add, last, status text, whether the
    route changes, hop, agent, rule.
    """
    for piece, count in _pieces(rows):
        filled: list[Value] = list(chain.from_iterable(piece))
        filled += [None] * (_LATER_COLUMNS * (count - len(piece)))
        connection.execute(_update(count), filled)


def numbers(values: Sequence[int]) -> object:
    """Bind many numbers to one ``carray(?)``; there must be at least one."""
    return apsw.carray(array("q", values))


def _pieces(rows: Sequence[_Key]) -> list[tuple[Sequence[_Key], int]]:
    """Cut rows into pieces, each with the power of two that it is filled up to."""
    if len(rows) <= ROWS_MAX:
        return [(rows, 1 << (len(rows) - 1).bit_length())] if rows else []
    found = []
    for start in range(0, len(rows), ROWS_MAX):
        piece = rows[start : start + ROWS_MAX]
        found.append((piece, 1 << (len(piece) - 1).bit_length()))
    return found


@lru_cache(maxsize=64)
def _insert(table: str, width: int, count: int) -> str:
    values = _values(width, count)
    if count == 1:
        return f"INSERT INTO {table} VALUES {values}"
    # The filling is not inserted; OR IGNORE would hide an id used twice.
    return (
        f"INSERT INTO {table} SELECT * FROM (VALUES {values}) WHERE column1 IS NOT NULL"
    )


@lru_cache(maxsize=16)
def _delete(count: int) -> str:
    return (
        "DELETE FROM recipients WHERE (message, number) IN"
        f" (VALUES {_values(2, count)})"
    )


@lru_cache(maxsize=16)
def _update(count: int) -> str:
    return _LATER.format(values=_values(_LATER_COLUMNS, count))


def _values(width: int, count: int) -> str:
    row = f"({','.join('?' * width)})"
    return ",".join([row] * count)
