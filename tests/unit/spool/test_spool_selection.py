"""What a filter may say, what it means, and that SQL means the same as Python."""

from typing import Any

import apsw
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.spool.conditions import condition, domain_of
from postroom.spool.selection import QueueFilter, matches


@pytest.mark.parametrize(
    ("texts", "value", "expected"),
    [
        (("joe",), "JOE@whizzer.test", True),
        (("joe", "betty"), "betty@gonzo.test", True),
        (("joe",), "betty@gonzo.test", False),
        (("joe@*.test",), "joe@whizzer.test", True),
        (("oe@*.test",), "joe@whizzer.test", False),
        (("j?e@*",), "joe@x", True),
        (("!joe",), "betty", True),
        (("!joe",), "joe", False),
        (("!joe", "betty"), "betty and joe", False),
        (("<>",), "", True),
        (("<>",), "x", False),
        (("!<>",), "x", True),
        (("[a]*",), "[a]b", True),
        (("[a]*",), "ab", False),
        (("a*a*a*a*a*b",), "a" * 200, False),
        (("%",), "abc", False),
        (("_",), "abc", False),
        (("ä",), "xäx", True),
    ],
)
def test_patterns(texts: tuple[str, ...], value: str, expected: bool) -> None:
    assert matches(texts, value) is expected
    assert _sql_matches(QueueFilter(senders=texts), sender=value) is expected


_TEXT = st.text("aAbB@.*?![]%_'\"\\ä<>", min_size=1, max_size=6)


@given(texts=st.lists(_TEXT, max_size=3), value=st.text("aAbB@.[]%_'\"ä", max_size=8))
def test_sql_means_what_python_means(texts: list[str], value: str) -> None:
    chosen = tuple(text for text in texts if text.removeprefix("!"))
    wanted = QueueFilter(senders=chosen)
    assert _sql_matches(wanted, sender=value) is matches(chosen, value)


@pytest.mark.parametrize(
    ("domains", "address", "expected"),
    [
        (("whizzer.test",), "joe@WHIZZER.test", True),
        (("whizzer.test.",), "joe@whizzer.test", True),
        (("@whizzer.test",), "joe@whizzer.test", True),
        (("zzer.test",), "joe@whizzer.test", False),
        (("*zzer.test",), "joe@whizzer.test", True),
        (("b.test",), '"a@b.test"@whizzer.test', False),
        (("b*",), '"a@b.test"@whizzer.test', False),
        (("!whizzer.test",), "joe@gonzo.test", True),
        (("*",), "betty", True),
        (("betty",), "betty", False),
        (("@",), "betty", True),
    ],
)
def test_domains(domains: tuple[str, ...], address: str, expected: bool) -> None:
    assert _sql_matches(QueueFilter(domains=domains), address=address) is expected


def test_domain_of_an_address() -> None:
    connection = apsw.Connection(":memory:")
    for address, domain in (
        ("joe@whizzer.test", "whizzer.test"),
        ('"a@b"@c.test', "c.test"),
        ("betty", ""),
        ("", ""),
        ("x@[127.0.0.1]", "[127.0.0.1]"),
    ):
        assert connection.execute(f"SELECT {domain_of('?1')}", (address,)).get == domain


@pytest.mark.parametrize(
    ("state", "text", "states", "expected"),
    [
        (2, "held by root: x", ("held",), True),
        (2, "held by root: x", ("quarantined",), False),
        (2, "virus", ("quarantined",), True),
        (2, "virus", ("held",), True),
        (0, "", ("ready", "shunted"), True),
        (1, "", ("ready", "shunted"), False),
        (0, "", ("delivering",), False),
        (0, "", ("delivering", "ready"), True),
    ],
)
def test_states(state: int, text: str, states: tuple[str, ...], expected: bool) -> None:
    wanted = QueueFilter(states=states)
    assert _sql_matches(wanted, state=state, status_text=text) is expected


@pytest.mark.parametrize(
    ("given_", "reason"),
    [
        ({"queue_ids": ["short"]}, "no queue id"),
        ({"queue_ids": ["z" * 11]}, "out of range"),
        ({"states": ["asleep"]}, "no state"),
        ({"senders": [""]}, "empty text"),
        ({"senders": ["!"]}, "empty text"),
        ({"errors": ["a\nb"]}, "cannot be printed"),
        ({"errors": ["x" * 1001]}, "longer than"),
        ({"recipients": ["x"] * 101}, "more than 100"),
        ({"queue_ids": ["0" * 11] * 2001}, "more than 2000"),
        ({"older_us": -1}, "out of range"),
        ({"older": 1}, "unknown field"),
        ({"senders": "x"}, "Expected `array`"),
    ],
)
def test_nonsense_is_refused_where_it_is_read(given_: Any, reason: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=reason):
        msgspec.convert(given_, QueueFilter)


def _sql_matches(wanted: QueueFilter, **row: Any) -> bool:
    """Whether the SQL of a filter finds a message with one recipient."""
    values = {"sender": "", "address": "", "hop": "", "status_text": "", "state": 0}
    values |= row
    connection = apsw.Connection(":memory:")
    connection.execute(
        "CREATE TABLE messages(id, sender, size, arrival);"
        "CREATE TABLE recipients(message, address, hop, status_text, state, due);"
        "CREATE TABLE rests(hop, until, status_text)"
    )
    connection.execute("INSERT INTO messages VALUES(1, ?, 0, 0)", (values["sender"],))
    connection.execute(
        "INSERT INTO recipients VALUES(1, ?, ?, ?, ?, 0)",
        [values[name] for name in ("address", "hop", "status_text", "state")],
    )
    chosen = condition(wanted, 0)
    sql = (
        "SELECT 1 FROM messages AS m JOIN recipients AS r ON r.message = m.id"
        f" WHERE {chosen.messages or '1'} AND {chosen.recipients or '1'}"
    )
    bound = (*chosen.message_values, *chosen.recipient_values)
    return connection.execute(sql, bound).get is not None
