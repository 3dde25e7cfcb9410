from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from postroom.pop3.events import Event, Flush
from postroom.pop3.lines import Stuffing, TopCut
from postroom.pop3.server import ServerConnection
from postroom.pop3.settings import Pop3Settings

LINES = st.lists(
    st.text(alphabet=".a\t >", max_size=6).map(lambda t: t.encode() + b"\r\n"),
    max_size=12,
).map(b"".join)
CUTS = st.lists(st.integers(0, 80), max_size=6)
COMMANDS = st.lists(
    st.sampled_from(
        [
            b"USER joe\r\n",
            b"PASS x\r\n",
            b"STAT\r\n",
            b"LIST\r\n",
            b"UIDL 2\r\n",
            b"DELE 1\r\n",
            b"RETR 2\r\n",
            b"TOP 2 1\r\n",
            b"RSET\r\n",
            b"NOOP\r\n",
            b"X" * 300 + b"\r\n",
            b"\x00\r\n",
            b"LIST\n",
            b"QUIT\r\n",
        ]
    ),
    max_size=12,
).map(b"".join)
BINARY = st.binary(max_size=60)


def cut_up(data: bytes, cuts: list[int]) -> list[bytes]:
    marks = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    return [data[a:b] for a, b in pairwise(marks)]


def unstuffed(wire: bytes) -> bytes:
    """What a client makes of a multi-line response, as RFC 1939 §3 says."""
    assert wire.endswith(b"\r\n")
    lines = wire[:-2].split(b"\r\n")
    assert lines[-1] == b"."
    assert b"." not in lines[:-1]
    kept = [line.removeprefix(b".") for line in lines[:-1]]
    return b"".join(line + b"\r\n" for line in kept)


@given(LINES, CUTS)
def test_stuffing_round_trip(content: bytes, cuts: list[int]) -> None:
    stuffing = Stuffing()
    wire = b"".join(stuffing.feed(piece) for piece in cut_up(content, cuts))
    assert unstuffed(wire + stuffing.end()) == content


@given(LINES, st.integers(0, 15), CUTS)
def test_top_is_header_and_lines(content: bytes, lines: int, cuts: list[int]) -> None:
    cut = TopCut(lines)
    top = b"".join(cut.feed(piece) for piece in cut_up(content, cuts))
    header, separator, body = (b"\r\n" + content).partition(b"\r\n\r\n")
    wanted = (header + separator)[2:]
    wanted += b"".join(body.splitlines(keepends=True)[:lines])
    assert top == wanted


def dialogue(pieces: list[bytes]) -> tuple[list[Event], bytes]:
    server = ServerConnection(Pop3Settings(errors_max=6), plaintext_allowed=True)
    seen, out = [], []
    for piece in [*filter(None, pieces), b""]:  # an empty one is the end
        server.receive(piece)
        while event := server.next_event():
            seen.append(event)
            match type(event).__name__:
                case "Login":
                    server.login_accepted((5, 6), ("a", "b"))
                case "Retrieve":
                    server.message(b"A: b\r\n\r\n.\r\n")
                case "Update":
                    server.updated(0)
        out.append(server.data_to_send())
    return [event for event in seen if not isinstance(event, Flush)], b"".join(out)


@given(st.one_of(COMMANDS, BINARY), CUTS)
def test_a_session_does_not_depend_on_packets(data: bytes, cuts: list[int]) -> None:
    whole = dialogue([data])
    assert dialogue(cut_up(data, cuts)) == whole
    assert dialogue([data[i : i + 1] for i in range(len(data))]) == whole
