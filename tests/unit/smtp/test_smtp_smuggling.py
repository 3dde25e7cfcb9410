"""No string of CR, LF, NUL and dots ends a message but CRLF "." CRLF.

All strings up to five octets, at the start of the content and within a line, cut in
two at every place and octet by octet, are read and compared with a plain model that
goes over the whole input at once.
"""

import re
from collections.abc import Iterator
from itertools import product

import pytest

from postroom.smtp.data import ContentReader, ContentWriter, Problem

STRINGS = [
    bytes(octets)
    for length in range(6)
    for octets in product(b"\r\n\0.", repeat=length)
]
BARE = re.compile(rb"(?<!\r)\n|\r(?!\n)")
NUL_DOT = re.compile(rb"((?:\A|(?<=\r\n))\0+)\.")
TAIL = b"\r\n.\r\nNOOP\r\n"


def cuts(data: bytes) -> Iterator[list[bytes]]:
    for at in range(len(data)):
        yield [data[:at], data[at:]] if at else [data]
    yield [data[i : i + 1] for i in range(len(data))]


def model(wire: bytes) -> tuple[bytes, bytes]:
    """Return the content and what follows it, by the letter of RFC 5321 §4.1.1.4."""
    end = (b"\r\n" + wire).index(b"\r\n.\r\n")
    lines = wire[:end].split(b"\r\n")
    content = b"\r\n".join(line[1:] if line[:1] == b"." else line for line in lines)
    return content, wire[end + 3 :]


def read(pieces: list[bytes], *, fix: bool) -> tuple[ContentReader, bytes, bytes]:
    reader = ContentReader(0, 1000, fix=fix)
    content, rest = b"", b""
    for piece in pieces:
        if reader.ended:
            rest += piece
        else:
            content += reader.read(piece)
            rest = reader.rest
    return reader, content, rest


@pytest.mark.parametrize("before", [b"", b"a"], ids=["at-start", "in-line"])
def test_refusing(before: bytes) -> None:
    for string in STRINGS:
        wire = before + string + TAIL
        content, rest = model(wire)
        for pieces in cuts(wire):
            reader, got, after = read(pieces, fix=False)
            assert reader.ended, pieces
            assert after == rest, pieces
            if BARE.search(content):
                assert reader.problem is Problem.BARE_LINE_END, pieces
            else:
                assert (reader.problem, got) == (None, content), pieces


@pytest.mark.parametrize("before", [b"", b"a"], ids=["at-start", "in-line"])
def test_fixing(before: bytes) -> None:
    for string in STRINGS:
        wire = before + string + TAIL
        content, rest = model(wire)
        for pieces in cuts(wire):
            reader, got, after = read(pieces, fix=True)
            assert reader.problem is None, pieces
            assert after == rest, pieces
            assert got == BARE.sub(b"\r\n", content), pieces
            assert reader.size_octets == len(got), pieces


def told(content: bytes) -> bytes:
    """Double the dots that stand behind NULs, as the writer does for lax readers."""
    return NUL_DOT.sub(rb"\1..", content)


@pytest.mark.parametrize("before", [b"", b"a"], ids=["at-start", "in-line"])
def test_writing(before: bytes) -> None:
    """Whatever the content, what leaves is read back as that content, fixed.

    Only a dot behind NULs at the begin of a line is doubled for good.
    """
    for string in STRINGS:
        content = before + string + b"b"
        expected = told(BARE.sub(b"\r\n", content) + b"\r\n")
        for pieces in cuts(content):
            writer = ContentWriter()
            wire = b"".join(writer.write(piece) for piece in pieces) + writer.end()
            assert not BARE.search(wire), pieces
            reader, got, rest = read([wire], fix=False)
            assert (reader.ended, rest) == (True, b""), pieces
            assert (reader.problem, got) == (None, expected), pieces


def test_writing_what_ends_in_any_way() -> None:
    for string in STRINGS:
        writer = ContentWriter()
        wire = writer.write(b"a" + string) + writer.end()
        content = BARE.sub(b"\r\n", b"a" + string)
        if not content.endswith(b"\r\n"):
            content += b"\r\n"
        content = told(content)
        assert model(wire) == (content, b"") or model(wire + b"x") == (content, b"x")
