"""Whatever is split joins again, byte for byte."""

from hypothesis import given
from hypothesis import strategies as st

from postroom.mail.headers import edited_header, fields, find, split_message
from postroom.mail.message import Edit, MemoryBody, Message, Prepend, Remove

PIECES = st.sampled_from(
    [
        b"A",
        b":",
        b" ",
        b"\t",
        b"\r\n",
        b"\r",
        b"\n",
        b"\x00",
        b"\xff",
        b"Received: x\r\n",
    ]
)
CONTENT = st.lists(PIECES, max_size=40).map(b"".join)
NAME = st.text("abcXYZ-", min_size=1, max_size=8)
VALUE = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=20)
FIELD = st.builds(lambda name, value: f"{name}: {value}\r\n".encode(), NAME, VALUE)
HEADER = st.lists(FIELD, max_size=8).map(b"".join)


@given(CONTENT)
def test_split_loses_nothing(content: bytes) -> None:
    header, body, has_separator = split_message(content)
    assert header + b"\r\n" * has_separator + body == content
    assert b"".join(field.raw for field in fields(header)) == header


@given(HEADER, st.binary(max_size=20))
def test_a_whole_header_is_found_whole(header: bytes, body: bytes) -> None:
    assert split_message(header + b"\r\n" + body) == (header, body, True)


@given(HEADER, NAME)
def test_find_agrees_with_fields(header: bytes, name: str) -> None:
    first = next((f.value for f in fields(header) if f.key == name.lower()), None)
    assert find(header, name) == first


@given(HEADER, st.lists(FIELD, max_size=4))
def test_prepends_stand_in_front_latest_first(
    header: bytes, front: list[bytes]
) -> None:
    edits: tuple[Edit, ...] = tuple(Prepend(field) for field in front)
    whole = b"".join(reversed(front)) + header
    assert edited_header(Message(header, MemoryBody(b""), edits)) == whole
    slow: tuple[Edit, ...] = (*edits, Remove("not-there"))
    assert edited_header(Message(header, MemoryBody(b""), slow)) == whole
