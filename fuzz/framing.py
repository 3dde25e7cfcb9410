"""Targets of framing: content after 354, chunks, the header of the PROXY protocol."""

import re
from ipaddress import ip_address

from postroom.net.proxy import V2_OCTETS_MAX, Malformed, Proxied, read_header
from postroom.smtp.chunks import ChunkReader
from postroom.smtp.data import END, ContentReader, ContentWriter, LineEnds, Problem

BARE = re.compile(rb"(?<!\r)\n|\r(?!\n)")
DOT = re.compile(rb"(?:\A|(?<=\r\n))\.")
NUL_DOT = re.compile(rb"(?:\A|\r\n)\0+\.")


def cut(data: bytes, size: int) -> list[bytes]:
    """Cut octets into pieces of a size."""
    return [data[at : at + size] for at in range(0, len(data), size)]


def content(data: bytes) -> None:
    """The end of data is found where RFC 5321 says, and writing is its reverse."""
    if not data:
        return
    size, fix, octets = 1 + data[0] % 16, bool(data[0] & 128), data[1:]
    wire = octets + END
    reader = ContentReader(0, 1000, fix=fix)
    got = rest = b""
    for piece in cut(wire, size):
        if reader.ended:
            rest += piece
        else:
            got += reader.read(piece)
            rest = reader.rest
    assert reader.ended
    end = (b"\r\n" + wire).index(END)  # RFC 5321 §4.1.1.4, by its letter
    assert rest == wire[end + 3 :]
    if reader.problem is None:
        assert got == BARE.sub(b"\r\n", DOT.sub(b"", wire[:end]))
        assert reader.size_octets == len(got)
    else:
        assert reader.problem is Problem.LINE_TOO_LONG or not fix
    written(octets, size)


def complete(raw: bytes) -> bytes:
    """End the last line of what stood before the end."""
    return raw if raw.endswith(b"\r\n") or not raw else raw + b"\r\n"


def written(octets: bytes, size: int) -> None:
    """What is sent has no bare line end, one end, and reads back as it was."""
    writer = ContentWriter()
    wire = b"".join(writer.write(piece) for piece in cut(octets, size)) + writer.end()
    assert wire == (whole := ContentWriter()).write(octets) + whole.end()
    assert not BARE.search(wire)
    for seen in (b"\r\n" + wire, b"\r\n" + wire.replace(b"\0", b"")):
        assert seen.index(END) == len(seen) - len(END)
    fixed = complete(BARE.sub(b"\r\n", octets))
    reader = ContentReader(0, 1 << 30, fix=False)
    got = reader.read(wire)
    assert reader.problem is None
    assert got == fixed or NUL_DOT.search(fixed)
    ends = LineEnds()
    lined = b"".join(ends.write(piece) for piece in cut(octets, size)) + ends.end()
    assert lined == fixed


def chunks(data: bytes) -> None:
    """Content in chunks: the same however they are cut, and ended once."""
    if len(data) < 2:
        return
    fix, binary, size = bool(data[0] & 1), bool(data[0] & 2), 1 + data[1] % 16
    octets = data[2:]
    told = [told_of(pieces, fix, binary) for pieces in ([octets], cut(octets, size))]
    assert told[0] == told[1]
    got, problem = told[0]
    if problem is not None:
        assert not (fix and problem is Problem.BARE_LINE_END)
    elif binary:
        assert got.count(b"\0") == octets.count(b"\0")
    else:
        assert got == complete(BARE.sub(b"\r\n", octets))


def told_of(
    pieces: list[bytes], fix: bool, binary: bool
) -> tuple[bytes, Problem | None]:
    reader = ChunkReader(5000, 1000, fix=fix, binary=binary)
    got = b"".join(reader.read(piece) for piece in pieces) + reader.end()
    assert reader.end() == b""
    if reader.problem is None:
        assert reader.size_octets == len(got) <= 5000
        return got, None
    return b"", reader.problem


def proxy(data: bytes) -> None:
    """A header of the PROXY protocol: decided early, and once."""
    found = read_header(data)
    for size in range(1, min(len(data), 120)):
        early = read_header(data[:size])
        assert early is None or early == found or isinstance(early, Malformed)
        if isinstance(early, Proxied):
            assert early == found
            break
        if isinstance(early, Malformed):
            assert isinstance(found, Malformed)
            break
    match found:
        case Proxied():
            assert 0 < found.octets <= min(len(data), V2_OCTETS_MAX)
            assert 0 <= found.port <= 65535
            if found.ip:
                assert str(ip_address(found.ip))
        case Malformed():
            assert found.why.isprintable()
        case None:
            assert len(data) < V2_OCTETS_MAX
