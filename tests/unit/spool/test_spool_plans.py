"""No statement that the schedule or a commit runs walks through a whole table.

Each is explained by SQLite on an empty shard, where a plan can only come from the
indexes. A queue of a million messages is where a wrong one would be felt.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from postroom.spool import claims, groups, rests, schema, statements

TABLES = "messages|recipients|bodies|m|r"
SCAN = re.compile(rf"\bSCAN ({TABLES})\b(?! USING (COVERING )?INDEX)")
STATEMENTS = {
    "recipients of a place": claims._RECIPIENTS,
    "the same, one by one": claims._RECIPIENTS_SINGLY,
    "the first that is free": claims._FIRST_FREE,
    "places, from the start": claims._PLACES_FROM_START,
    "places, going on": claims._PLACES_AFTER,
    "when the next is due": claims._NEXT_DUE,
    "lanes of a hop": claims._LANES,
    "messages with bodies": claims._message_query(8),
    "elders looked at": rests._LAST,
    "elders": rests._ELDERS,
    "recipients of elders": rests._RECIPIENTS,
    "messages that are finished": groups._FINISHED,
    "their removal": groups._REMOVE_MESSAGES,
    "their bodies' removal": groups._REMOVE_BODIES,
    "recipients that go": statements._delete(64),
    "recipients that wait on": statements._update(64),
}


@pytest.fixture
def connection() -> Iterator[apsw.Connection]:
    connection = apsw.Connection(":memory:")
    schema.prepare(connection, 0, 1)
    yield connection
    connection.close()


def plan_of(connection: apsw.Connection, sql: str) -> list[str]:
    found = connection.execute(
        f"EXPLAIN QUERY PLAN {sql}", [None] * _parameters(connection, sql)
    )
    return [str(row[3]) for row in found]


def _parameters(connection: apsw.Connection, sql: str) -> int:
    numbered = [int(n) for n in re.findall(r"\?(\d+)", sql)]
    return max(numbered) if numbered else sql.count("?")


@pytest.mark.parametrize("sql", STATEMENTS.values(), ids=STATEMENTS.keys())
def test_no_table_is_walked_through(connection: apsw.Connection, sql: str) -> None:
    plan = plan_of(connection, sql)
    assert plan
    assert not [line for line in plan if SCAN.search(line)], plan


@pytest.mark.parametrize(
    "sql", ["SELECT * FROM messages", "SELECT 1 FROM recipients WHERE address = 'a'"]
)
def test_a_walk_would_be_noticed(connection: apsw.Connection, sql: str) -> None:
    assert any(SCAN.search(line) for line in plan_of(connection, sql))


def test_places_are_found_by_single_look_ups(connection: apsw.Connection) -> None:
    """Each step of the walk is a search by hop and lane, not along the recipients."""
    plan = plan_of(connection, claims._NEXT_DUE)
    looks = [line for line in plan if "recipients" in line]
    assert looks
    assert all(line.startswith("SEARCH recipients USING") for line in looks), plan


def test_a_new_shard_is_of_the_present_schema(tmp_path: Path) -> None:
    connection = apsw.Connection(str(tmp_path / "queue.db"))
    schema.prepare(connection, 0, 1)
    schema.check(connection)
    connection.close()
