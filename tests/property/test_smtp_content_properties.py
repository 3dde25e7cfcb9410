"""Content goes through writer and reader unchanged, however it is cut."""

import re

from hypothesis import example, given
from hypothesis import strategies as st

from postroom.smtp.data import ContentReader, ContentWriter, Problem

# Without a dot behind NULs: it is doubled for good, see ``ContentWriter``.
LINES = st.lists(
    st.binary(max_size=12)
    .map(lambda b: b.translate(None, b"\r\n"))
    .filter(lambda line: not re.match(rb"\0+\.", line))
    | st.sampled_from([b"", b".", b"..", b".x", b"x" * 30, b"From x", b"\0"]),
    max_size=20,
)
SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=8)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        pieces.append(data[at : at + size])
        at, turn = at + size, turn + 1
    return pieces


@given(LINES, SIZES, SIZES)
def test_round_trip(lines: list[bytes], out: list[int], back: list[int]) -> None:
    content = b"".join(line + b"\r\n" for line in lines)
    writer = ContentWriter()
    wire = b"".join(map(writer.write, cut(content, out))) + writer.end()
    reader = ContentReader(0, 1000, fix=False)
    got = b"".join(map(reader.read, cut(wire, back)))
    assert reader.ended
    assert (got, reader.problem, reader.rest) == (content, None, b"")
    assert reader.size_octets == len(content)


@given(LINES, SIZES, st.integers(1, 35))
@example([b"x" * 12, b"x" * 12], [30], 12)
def test_line_limit(lines: list[bytes], sizes: list[int], limit: int) -> None:
    """A line over the limit is found wherever the cuts fall, and no other."""
    content = b"".join(line + b"\r\n" for line in lines)
    writer = ContentWriter()
    wire = writer.write(content) + writer.end()
    reader = ContentReader(0, limit, fix=False)
    got = b"".join(map(reader.read, cut(wire, sizes)))
    too_long = any(len(line) > limit for line in lines)
    assert reader.ended
    assert reader.problem == (Problem.LINE_TOO_LONG if too_long else None)
    assert content.startswith(got)
    assert too_long or got == content


@given(LINES, SIZES, st.integers(1, 60))
def test_size_limit(lines: list[bytes], sizes: list[int], limit: int) -> None:
    content = b"".join(line + b"\r\n" for line in lines)
    writer = ContentWriter()
    wire = writer.write(content) + writer.end()
    reader = ContentReader(limit, 1000, fix=False)
    got = b"".join(map(reader.read, cut(wire, sizes)))
    too_large = len(content) > limit
    assert reader.problem == (Problem.TOO_LARGE if too_large else None)
    assert reader.size_octets == len(content)
    assert len(got) <= limit


@given(st.binary(max_size=60), SIZES, st.integers(1, 30), st.booleans())
@example(b"x" * 9 + b"\n", [1], 5, False)
def test_the_same_is_wrong_however_it_is_cut(
    content: bytes, sizes: list[int], limit: int, fix: bool
) -> None:
    readers = []
    for pieces in ([content + b"\r\n.\r\n"], cut(content + b"\r\n.\r\n", sizes)):
        reader = ContentReader(40, limit, fix=fix)
        for piece in pieces:
            if not reader.ended:
                reader.read(piece)
        readers.append(reader)
    assert readers[0].ended
    assert readers[0].problem == readers[1].problem
