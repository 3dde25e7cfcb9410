"""Content in chunks: however it is cut it is the same, and judged as after DATA."""

from hypothesis import given
from hypothesis import strategies as st

from postroom.smtp.chunks import ChunkReader
from postroom.smtp.data import ContentReader, ContentWriter, Problem

PIECES = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"..", b"\0", b"x", b"y" * 9])
    | st.binary(max_size=4),
    max_size=25,
).map(b"".join)
CUTS = st.lists(st.integers(0, 7), min_size=1, max_size=12)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)] or 1
        pieces.append(data[at : at + size])
        at, turn = at + size, turn + 1
    return pieces


def read(
    data: bytes, sizes: list[int], *, fix: bool = False, binary: bool = False
) -> tuple[bytes, Problem | None, int]:
    reader = ChunkReader(60, 12, fix=fix, binary=binary)
    got = b"".join([*map(reader.read, cut(data, sizes)), reader.end()])
    return got, reader.problem, reader.size_octets


def is_text(data: bytes) -> bool:
    return data.count(b"\r") == data.count(b"\n") == data.count(b"\r\n")


@given(PIECES, CUTS, CUTS, st.booleans(), st.booleans())
def test_the_same_however_cut(
    data: bytes, one: list[int], other: list[int], fix: bool, binary: bool
) -> None:
    first = read(data, one, fix=fix, binary=binary)
    second = read(data, other, fix=fix, binary=binary)
    assert first[1:] == second[1:]
    if first[1] is None:
        assert first[0] == second[0]


@given(PIECES, CUTS)
def test_text_is_judged_as_after_data(data: bytes, sizes: list[int]) -> None:
    """What DATA makes of the same text: no better, no worse, no dot more or less."""
    got, problem, _ = read(data, sizes)
    whole = data if data.endswith(b"\r\n") or not data else data + b"\r\n"
    if not is_text(data):
        assert problem in (Problem.BARE_LINE_END, Problem.TOO_LARGE)
        return
    writer = ContentWriter()
    wire = writer.write(whole) + writer.end()
    reader = ContentReader(60, 12, fix=False)
    expected = b"".join(map(reader.read, cut(wire, sizes)))
    assert problem == reader.problem
    if problem is None and b"\0" not in data:  # after NULs dots are doubled for safety
        assert got == expected == whole


@given(PIECES, CUTS)
def test_repair_makes_no_bare_line_end(data: bytes, sizes: list[int]) -> None:
    got, problem, _ = read(data, sizes, fix=True)
    assert problem is not Problem.BARE_LINE_END
    assert is_text(got)
    if problem is None:
        lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines += b"\n" * bool(lines and not lines.endswith(b"\n"))
        assert got == lines.replace(b"\n", b"\r\n")


@given(PIECES, CUTS)
def test_a_binary_body_is_kept_as_it_is(body: bytes, sizes: list[int]) -> None:
    data = b"A: b\r\n\r\n" + body
    got, problem, size = read(data, sizes, binary=True)
    assert problem is (Problem.TOO_LARGE if len(data) > 60 else None)
    assert size == len(data)
    assert problem or got == data


@given(PIECES, CUTS)
def test_the_header_of_a_binary_message_is_text(data: bytes, sizes: list[int]) -> None:
    header = data.partition(b"\r\n\r\n")[0]
    if data.startswith(b"\r\n"):
        header = b""
    _, problem, _ = read(data, sizes, binary=True)
    if not is_text(header):
        assert problem in (Problem.BARE_LINE_END, Problem.TOO_LARGE)
