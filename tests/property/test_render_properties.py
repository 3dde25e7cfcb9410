"""Conversion loses nothing, whatever a message holds and however it is cut."""

import base64
import quopri
from email import message_from_bytes
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from postroom.mail.headers import split_message
from postroom.render.demand import Demand, has_long_line
from postroom.render.encoders import Base64, QuotedPrintable
from postroom.render.look import WINDOW_OCTETS_MIN
from postroom.render.plan import Unconvertible
from postroom.smtp.chunk_writer import ChunkWriter
from postroom.smtp.data import ContentReader, ContentWriter
from postroom.testing.rendering import in_windows
from postroom.testing.transcript import at_random

SEVEN = Demand(seven_bit=True)
BINARY = Demand(seven_bit=True, was_binary=True)
SHORT = [b"", b".", b"..", b"text", b"=", b"a=b ", b"tab\t", b"From here", b"caf\xe9"]
LONG = [b"x" * n for n in (75, 76, 77, 998)] + [b"\xe4" * 30, b"x" * 3000 + b"\xff"]
ODD = [b"--b", b"--b--", b"--c", b"--", b"A: b", b" folded"]
LINES = st.sampled_from((*SHORT, *LONG, *ODD))
OCTETS = st.binary(max_size=300) | st.lists(
    st.sampled_from([b"\r", b"\n", b"\0", b".", b"\r\n", b"x", b"\xff", b" "])
).map(b"".join)


def text(lines: list[bytes]) -> bytes:
    return b"\r\n".join(lines)


def leaves(content: bytes) -> list[object]:
    return [
        part.get_payload(decode=True)
        for part in message_from_bytes(content).walk()
        if not part.is_multipart()
    ]


@given(st.lists(LINES, max_size=40), st.integers(0, 1 << 60), st.booleans())
def test_quoted_printable(lines: list[bytes], seed: int, closed: bool) -> None:
    data = text(lines)
    encoder = QuotedPrintable(closed=closed)
    out = b"".join([encoder.feed(p) for p in at_random(seed)(data)]) + encoder.finish()
    assert quopri.decodestring(out) == data
    assert out.isascii()
    assert not has_long_line(out, 76)
    assert out.count(b"\n") == out.count(b"\r\n") == out.count(b"\r")
    assert not closed or not out or out.endswith(b"\r\n")


@given(OCTETS, st.integers(0, 1 << 60), st.booleans())
def test_base64(data: bytes, seed: int, closed: bool) -> None:
    encoder = Base64(closed=closed)
    out = b"".join([encoder.feed(p) for p in at_random(seed)(data)]) + encoder.finish()
    assert base64.b64decode(out, validate=False) == data
    assert not has_long_line(out, 76)
    assert all(len(line) == 76 for line in out.split(b"\r\n")[:-2])
    assert out.endswith(b"\r\n") is (closed and bool(data))


TYPES = st.sampled_from(
    [
        b"",
        b"Content-Type: text/html\r\n",
        b"Content-Type: a/b\r\nX-Y: \xe4\r\n",
        b"Content-Type: text/x; charset=x\r\nContent-Transfer-Encoding: 8bit\r\n",
    ]
)


def part(kind: bytes, body: bytes) -> bytes:
    return kind + b"\r\n" + body


def multipart(boundary: bytes, parts: list[bytes]) -> bytes:
    inside = b"".join(b"\r\n--" + boundary + b"\r\n" + p for p in parts)
    field = b"Content-Type: multipart/mixed; boundary=" + boundary + b"\r\n"
    return field + b"\r\nbefore" + inside + b"\r\n--" + boundary + b"--\r\n"


def embedded(message: bytes) -> bytes:
    return b"Content-Type: message/rfc822\r\n\r\n" + message


BODIES = st.lists(LINES.filter(lambda line: not line.startswith(b"--")), max_size=6)
LEAVES = st.builds(part, TYPES, BODIES.map(text))
TREES = st.recursive(
    LEAVES,
    lambda children: (
        st.builds(
            multipart,
            st.integers(0, 1 << 30).map(lambda n: b"=_%d" % n),
            st.lists(children, min_size=1, max_size=3),
        )
        | st.builds(embedded, children)
    ),
    max_leaves=6,
)
SIZES = st.integers(WINDOW_OCTETS_MIN, WINDOW_OCTETS_MIN + 3000)


@given(TREES, SIZES)
def test_all_parts_decode_to_what_they_were(tree: bytes, octets: int) -> None:
    content = b"MIME-Version: 1.0\r\n" + tree
    out = in_windows(content, SEVEN, octets)
    assert isinstance(out, bytes)
    assert _lines(leaves(out)) == _lines(leaves(content))
    _, body, _ = split_message(out)
    assert body.replace(b"X-Y: \xe4", b"").isascii()
    assert not has_long_line(body)
    assert out == in_windows(content, SEVEN, 1 << 20)
    # what has become fit is not touched again
    assert in_windows(out, SEVEN, octets) == out or b"X-Y" in out


def _lines(found: list[object]) -> list[bytes]:
    """Return leaves without their last line end, which ``closed`` may add softly."""
    return [leaf.rstrip(b"\r\n") for leaf in found if isinstance(leaf, bytes)]


@given(OCTETS)
def test_binary_bodies_decode_to_what_they_were(body: bytes) -> None:
    head = b"MIME-Version: 1.0\r\nContent-Type: a/b\r\n"
    content = head + b"Content-Transfer-Encoding: binary\r\n\r\n" + body
    out = in_windows(content, BINARY, 1 << 20)
    assert isinstance(out, bytes)
    if b"base64" in out:
        _, encoded, _ = split_message(out)
        assert base64.b64decode(encoded) == body
    elif b"quoted" in out:
        _, encoded, _ = split_message(out)
        assert quopri.decodestring(encoded) == body
    else:
        assert out.endswith(b"\r\n\r\n" + body)


@given(
    st.binary(max_size=200), st.lists(LINES | OCTETS, max_size=30), st.integers(0, 9)
)
def test_anything_at_all(header: bytes, lines: list[bytes], cut: int) -> None:
    """No message makes it fail, or look at the same octets twice."""
    head = b"Content-Type: multipart/mixed; boundary=b\r\n" if cut % 2 else header
    content = head + b"\r\n" + text(lines)
    for demand in (SEVEN, BINARY, Demand()):
        out = in_windows(content, demand, WINDOW_OCTETS_MIN + cut)
        assert isinstance(out, bytes | Unconvertible)
        assert out == in_windows(content, demand, 1 << 20)


def strictly_read(sent: bytes) -> bytes:
    reader = ContentReader(0, 1 << 30, fix=False)
    read = reader.read(sent)
    assert reader.ended
    assert reader.problem is None
    assert not reader.rest
    return read


ENDS = [
    b"".join(s)
    for n in range(7)
    for s in product((b"\r", b"\n", b"\0", b"."), repeat=n)
]


def test_no_content_makes_a_second_message() -> None:
    """All 5,461 strings of CR, LF, NUL and dots, through DATA and chunks."""
    for end in ENDS:
        for body in (end, b"x" + end + b"y", b"\xe4\r\n" + end):
            out = in_windows(b"A: b\r\n\r\n" + body, SEVEN, 1 << 20)
            assert isinstance(out, bytes)
            for cut in (len(out), len(out) - len(end) // 2 - 1):
                writer = ContentWriter()
                sent = writer.write(out[:cut]) + writer.write(out[cut:]) + writer.end()
                assert sent.count(b"\r\n.\r\n") == 1
                canonical = strictly_read(sent)
                chunks = ChunkWriter(0, binary=False)
                chunk = chunks.write(out[:cut]) + chunks.write(out[cut:]) + chunks.end()
                command, _, octets = chunk.partition(b"\r\n")
                assert command == b"BDAT %d LAST" % len(octets)
                assert octets == canonical
