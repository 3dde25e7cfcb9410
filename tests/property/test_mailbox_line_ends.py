from hypothesis import given
from hypothesis import strategies as st

from postroom.mailbox.line_ends import ToCrlf, ToLf, crlf_octets, to_crlf

PIECES = st.lists(st.text(alphabet="\r\nab", max_size=6).map(str.encode), max_size=8)
LINES = st.lists(st.binary(max_size=5), max_size=8).map(
    lambda lines: b"".join(
        line.replace(b"\r", b"").replace(b"\n", b"") + b"\r\n" for line in lines
    )
)


def through(ends: ToLf | ToCrlf, pieces: list[bytes]) -> bytes:
    return b"".join(ends.feed(piece) for piece in pieces) + ends.end()


@given(LINES)
def test_canonical_content_survives(content: bytes) -> None:
    stored = through(ToLf(), [content])
    assert b"\r" not in stored
    assert to_crlf(stored) == content
    assert through(ToCrlf(), [stored]) == content


@given(PIECES)
def test_pieces_do_not_matter(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    assert through(ToLf(), pieces) == through(ToLf(), [whole])
    assert through(ToCrlf(), pieces) == through(ToCrlf(), [whole])


@given(PIECES)
def test_sizes_are_told_right(pieces: list[bytes]) -> None:
    ends, octets, stored = ToLf(), 0, b""
    for piece in pieces:
        part = ends.feed(piece)
        octets += crlf_octets(part)
        stored += part
    part = ends.end()
    octets += crlf_octets(part)
    stored += part
    assert octets == len(to_crlf(stored)) == len(through(ToCrlf(), [stored]))
