"""Header blocks: split, found, edited; nothing lost, nothing guessed."""

import pytest

from postroom.mail.headers import (
    edited_header,
    fields,
    find,
    find_all,
    split_message,
    unfold,
)
from postroom.mail.message import (
    Add,
    Edit,
    MemoryBody,
    Message,
    Prepend,
    Remove,
    Replace,
)

SPLITS = {
    "plain": (b"A: 1\r\n\r\nbody\r\n", b"A: 1\r\n", b"body\r\n", True),
    "nothing": (b"", b"", b"", False),
    "empty header": (b"\r\nbody\r\n", b"", b"body\r\n", True),
    "only body": (
        b"just text\r\n\r\nmore\r\n",
        b"",
        b"just text\r\n\r\nmore\r\n",
        False,
    ),
    "only header": (b"A: 1\r\n", b"A: 1\r\n", b"", False),
    "empty body": (b"A: 1\r\n\r\n", b"A: 1\r\n", b"", True),
    "folded": (b"A: 1\r\n 2\r\n\t3\r\n\r\nb", b"A: 1\r\n 2\r\n\t3\r\n", b"b", True),
    "breaks off": (
        b"A: 1\r\nno field\r\nB: 2\r\n",
        b"A: 1\r\n",
        b"no field\r\nB: 2\r\n",
        False,
    ),
    "blank first": (b" A: 1\r\n\r\n", b"", b" A: 1\r\n\r\n", False),
    "blank line of spaces continues": (
        b"A: 1\r\n \r\nB: 2\r\n\r\n",
        b"A: 1\r\n \r\nB: 2\r\n",
        b"",
        True,
    ),
    "blank before colon": (b"A \t: 1\r\n\r\n", b"A \t: 1\r\n", b"", True),
    "blank in name": (b"A B: 1\r\n\r\n", b"", b"A B: 1\r\n\r\n", False),
    "no name": (b": 1\r\n\r\n", b"", b": 1\r\n\r\n", False),
    "no value": (b"A:\r\n\r\n", b"A:\r\n", b"", True),
    "octets in name": (b"\xc3\xa9: 1\r\n\r\n", b"", b"\xc3\xa9: 1\r\n\r\n", False),
    "octets in value": (b"A: \xff\x00\r\n\r\n", b"A: \xff\x00\r\n", b"", True),
    "unfinished line": (b"A: 1\r\nB: 2", b"A: 1\r\n", b"B: 2", False),
    "From_ line": (
        b"From a Mon Jun  6\r\nA: 1\r\n",
        b"",
        b"From a Mon Jun  6\r\nA: 1\r\n",
        False,
    ),
}


@pytest.mark.parametrize("case", SPLITS.values(), ids=SPLITS.keys())
def test_split(case: tuple[bytes, bytes, bytes, bool]) -> None:
    content, header, body, has_separator = case
    assert split_message(content) == (header, body, has_separator)


HEADER = (
    b"Received: from a\r\n\tby b\r\n"
    b"To: joe@x.test\r\n"
    b"to : second@x.test\r\n"
    b"Subject:  one\r\n two \r\n"
    b"X-To: no\r\n"
    b"Comment: x\r\n To: folded\r\n"
    b"Empty:\r\n"
)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("received", [b"from a\tby b"]),
        ("To", [b"joe@x.test", b"second@x.test"]),
        ("SUBJECT", [b"one two"]),
        ("Empty", [b""]),
        ("X.To", []),
        ("Subjec", []),
    ],
)
def test_find(name: str, values: list[bytes]) -> None:
    assert find_all(HEADER, name) == values
    assert find(HEADER, name) == (values[0] if values else None)


def test_fields_know_name_key_and_value() -> None:
    found = list(fields(HEADER))
    assert [field.name for field in found][:3] == ["Received", "To", "to"]
    assert found[2].key == "to"
    assert found[3].value == b"one two"
    assert b"".join(field.raw for field in found) == HEADER


def test_unfold_leaves_other_line_ends() -> None:
    assert unfold(b"a\r\n b\r\nc") == b"a b\r\nc"


ABC = b"A: 1\r\nB: 2\r\na: 3\r\nC: 4\r\n"
EDITS: dict[str, tuple[tuple[Edit, ...], bytes]] = {
    "none": ((), ABC),
    "prepend": (
        (Prepend(b"X: 1\r\n"), Prepend(b"Y: 2\r\n")),
        b"Y: 2\r\nX: 1\r\n" + ABC,
    ),
    "add": ((Add(b"X: 1\r\n"), Add(b"Y: 2\r\n")), ABC + b"X: 1\r\nY: 2\r\n"),
    "remove": ((Remove("A"),), b"B: 2\r\nC: 4\r\n"),
    "remove what is not there": ((Remove("Z"),), ABC),
    "replace": ((Replace("a", b"A: 9\r\n"),), b"A: 9\r\nB: 2\r\nC: 4\r\n"),
    "replace what is not there": ((Replace("Z", b"Z: 9\r\n"),), ABC + b"Z: 9\r\n"),
    "mixed": (
        (Prepend(b"A: 0\r\n"), Remove("B"), Prepend(b"B: 0\r\n"), Add(b"D: 5\r\n")),
        b"B: 0\r\nA: 0\r\nA: 1\r\na: 3\r\nC: 4\r\nD: 5\r\n",
    ),
    "remove what was prepended": ((Prepend(b"X: 1\r\n"), Remove("x")), ABC),
}


@pytest.mark.parametrize("case", EDITS.values(), ids=EDITS.keys())
def test_edits(case: tuple[tuple[Edit, ...], bytes]) -> None:
    edits, expected = case
    assert edited_header(Message(ABC, MemoryBody(b""), edits)) == expected
