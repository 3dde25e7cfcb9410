"""Memory stays bounded and work linear, whatever is sent and however it is cut."""

import pytest

from postroom.smtp import replies
from postroom.smtp.client import ClientConnection, LostConnection, ProtocolError
from postroom.smtp.commands import Noop, Refused
from postroom.smtp.data import ContentReader, Problem
from postroom.smtp.lines import Inbox, LineFault
from postroom.smtp.server import Chunk, EndOfData, ServerConnection
from postroom.smtp.settings import ServerSettings

BLOCK = b"x" * 65536


def greeted() -> ServerConnection:
    server = ServerConnection(ServerSettings(), "mx.example")
    server.greet(replies.greeting("mx.example"))
    return server


@pytest.mark.parametrize("block", [BLOCK, b"\r" * 4096, b"\n" * 4096, b"N\0" * 999])
def test_a_line_without_end_is_swallowed(block: bytes) -> None:
    server = greeted()
    for _ in range(64):
        server.receive(block)
        assert server.next_event() is None
        assert len(server._inbox) <= 2048
    server.receive(b"\r\nNOOP\r\n")
    event = server.next_event()
    assert isinstance(event, Refused)
    assert str(event.reply).startswith("500 5.5.2")
    assert server.next_event() == Noop()


@pytest.mark.parametrize("length", [2044, 2045, 2046, 2047, 2048, 2049, 5000])
def test_the_limit_is_the_same_however_it_is_cut(length: int) -> None:
    line = b"x" * length + b"\r\n"
    expected = line[:-2] if length <= 2046 else LineFault.TOO_LONG
    for size in (1, 2, 7, 2045, 2046, 2047, 2048, 2049, 9000):
        inbox = Inbox()
        got: list[bytes | LineFault] = []
        for at in range(0, len(line), size):
            inbox.add(line[at : at + size])
            found = inbox.line(2048)
            if found is not None:
                got.append(found)
        assert got == [expected], size
        inbox.add(b"next\r\n")
        assert inbox.line(2048) == b"next"


def test_lines_that_come_before_others_are_taken_do_not_wait() -> None:
    inbox = Inbox()
    for data in (b"one\r\ntwo\r\n", b"three\r\n", b"four\r\nfi"):
        inbox.add(data)
    taken = [inbox.line(2048) for _ in range(5)]
    assert taken == [b"one", b"two", b"three", b"four", None]


def test_much_can_wait_while_a_reply_is_owed() -> None:
    server = greeted()
    server.receive(b"NOOP\r\n")
    assert server.next_event() == Noop()
    for _ in range(20_000):
        for octet in (b"NO", b"OP\r", b"\n"):
            server.receive(octet)
    assert server.next_event() is None
    for _ in range(20_000):
        server.reply(replies.NOOP_OK)
        assert server.next_event() == Noop()


def test_content_over_the_limit_is_not_kept() -> None:
    reader = ContentReader(100_000, 1000, fix=False)
    handed_on = 0
    for _ in range(100):
        handed_on += len(reader.read((b"x" * 70 + b"\r\n") * 500))
        assert len(reader._held) <= 4
    assert handed_on <= 100_000
    reader.read(b".\r\n")
    assert reader.ended
    assert reader.problem is Problem.TOO_LARGE
    assert reader.size_octets == 72 * 500 * 100


@pytest.mark.parametrize("junk", [b"\r", b"\r\n", b"\r\n.", b"\n.", b".", b"\0"])
def test_held_back_octets_are_few(junk: bytes) -> None:
    reader = ContentReader(0, 1 << 30, fix=True)
    for _ in range(3000):
        reader.read(junk)
        assert len(reader._held) <= 4


def test_a_large_message_octet_by_octet() -> None:
    content = (b"y" * 70 + b"\r\n..z\r\n") * 800
    server = greeted()
    for line, answer in (
        (b"EHLO c.example\r\n", replies.NOOP_OK),
        (b"MAIL FROM:<>\r\n", replies.SENDER_OK),
        (b"RCPT TO:<postmaster>\r\n", replies.RECIPIENT_OK),
        (b"DATA\r\n", replies.START_CONTENT),
    ):
        server.receive(line)
        assert server.next_event() is not None
        server.reply(answer)
    got, end = [], None
    for octet in content + b".\r\n":
        server.receive(bytes([octet]))
        while (event := server.next_event()) is not None:
            if isinstance(event, Chunk):
                got.append(event.data)
            else:
                end = event
    assert b"".join(got) == content.replace(b"\r\n.", b"\r\n")
    assert end == EndOfData(sum(map(len, got)))


@pytest.mark.parametrize(
    "flood",
    [b"250-x\r\n" * 1000, BLOCK, b"\n" * 65536, b"250 x\r\n" * 10_000],
    ids=["lines", "line", "line-feeds", "replies"],
)
def test_a_client_is_not_flooded(flood: bytes) -> None:
    client = ClientConnection("c.example")
    client.receive(b"220 mx.example\r\n")
    client.send_hello()
    client.receive(flood)
    for _ in range(100):
        client.receive(flood)
    events = list(iter(client.next_event, None))
    assert len(events) <= 5
    assert isinstance(events[-2], ProtocolError)
    assert isinstance(events[-1], LostConnection)
    assert len(client._inbox) <= len(flood)
