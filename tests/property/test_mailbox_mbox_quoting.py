from hypothesis import given
from hypothesis import strategies as st

from postroom.mailbox.mbox_format import (
    Scanner,
    Start,
    from_line,
    mark_line,
    quoting,
    unquoting,
)

WORDS = st.sampled_from(
    [b">", b">>", b"F", b"Fr", b"From", b"From ", b"\n", b"\n\n", b"x", b"m ", b" "]
)
PIECES = st.lists(st.lists(WORDS, max_size=6).map(b"".join), max_size=6)


def through(pieces: list[bytes], *, quote: bool) -> bytes:
    work = quoting() if quote else unquoting()
    return b"".join(work.feed(piece) for piece in pieces) + work.end()


@given(PIECES)
def test_quoting_round_trip(pieces: list[bytes]) -> None:
    content = b"".join(pieces)
    quoted = through([content], quote=True)
    assert through([quoted], quote=False) == content
    assert b"\nFrom " not in b"\n" + quoted


@given(PIECES)
def test_pieces_do_not_matter(pieces: list[bytes]) -> None:
    for quote in (True, False):
        assert through(pieces, quote=quote) == through([b"".join(pieces)], quote=quote)


@given(st.lists(PIECES.map(b"".join), max_size=5), st.integers(1, 4000))
def test_messages_are_found_however_the_file_is_read(
    contents: list[bytes], step: int
) -> None:
    line = from_line("a@b", 0)
    file, expected = b"", []
    for i, content in enumerate(contents):
        mark = mark_line(f"0Ab1Cd2Ef3G.{i}")
        expected.append((len(file), len(file) + len(line) + len(mark)))
        ended = content if content.endswith(b"\n") or not content else content + b"\n"
        file += line + mark + through([ended], quote=True) + b"\n"
    scanner = Scanner()
    found: list[Start] = []
    for start in range(0, len(file), step):
        is_last = start + step >= len(file)
        found += scanner.feed(file[start : start + step], is_last=is_last)
    assert [(start.from_offset, start.offset) for start in found] == expected
