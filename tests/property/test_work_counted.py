"""Work is counted, not timed: twice the input takes at most 2.2 times the lines.

Each parser gets the nastiest input that we could think of, once and at twice the
length; the lines of our code that are run are counted by the interpreter. What the
regular expressions do within one line is shown to be linear in ``test_ambiguity``.
Memory is measured as the most that was held at once.
"""

import sys
import tracemalloc
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from postroom.mail.address import Address, AddressError
from postroom.mail.address_list import parse_address_list
from postroom.mail.completion import Author, complete_header, header_recipients
from postroom.mail.headers import fields, find, find_all, split_message
from postroom.net.proxy import read_header
from postroom.render.demand import Demand
from postroom.smtp import replies
from postroom.smtp.chunks import ChunkReader
from postroom.smtp.client import ClientConnection
from postroom.smtp.commands import parser
from postroom.smtp.data import ContentReader, ContentWriter
from postroom.smtp.lines import Inbox
from postroom.smtp.replies import ReplyReader
from postroom.smtp.server import ServerConnection
from postroom.smtp.settings import ServerSettings
from postroom.testing.rendering import in_windows
from postroom.testing.site import Site

N = 300
RATIO_MAX = 2.2
PARSE = parser(ServerSettings(etrn=True, xclient_networks=("::1",)), lmtp=False)
AUTHOR = Author(Address("betty", "gonzo.test"), "", "gonzo.test")

Work = Callable[[int], object]


def by_octet(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def read_content(unit: bytes) -> Work:
    def work(n: int) -> object:
        reader = ContentReader(0, 1 << 30, fix=True)
        return [reader.read(piece) for piece in by_octet(unit * n)]

    return work


def write_content(unit: bytes) -> Work:
    def work(n: int) -> object:
        writer = ContentWriter()
        return [writer.write(piece) for piece in by_octet(unit * n)]

    return work


def read_chunks(unit: bytes, *, binary: bool) -> Work:
    def work(n: int) -> object:
        reader = ChunkReader(0, 1 << 30, fix=True, binary=binary)
        return [reader.read(piece) for piece in by_octet(unit * n)], reader.end()

    return work


def read_lines(unit: bytes) -> Work:
    def work(n: int) -> object:
        inbox, found = Inbox(), 0
        for piece in by_octet(unit * n):
            inbox.add(piece)
            found += inbox.line(512) is not None
        return found

    return work


def command(begin: bytes, unit: bytes, end: bytes = b"") -> Work:
    return lambda n: PARSE(begin + unit * n + end)


def session(unit: bytes) -> Work:
    def work(n: int) -> object:
        site = Site(ServerSettings(errors_max=1 << 30))
        server = site.connect()
        server.greet(site.greeting)
        server.receive(b"EHLO c.example\r\nMAIL FROM:<a@b.example>\r\n" + unit * n)
        return site.serve(server)

    return work


def heard(unit: bytes) -> Work:
    def work(n: int) -> object:
        client = ClientConnection("c.example")
        client.receive(b"220 hi\r\n")
        client.send_hello()
        for piece in by_octet(unit * n):
            client.receive(piece)
        return client.state

    return work


def reply_lines(n: int) -> object:
    reader = ReplyReader(1 << 30)
    return [reader.read(b"250-5.1.1 x") for _ in range(n)], reader.read(b"250 end")


def header(unit: bytes, end: bytes = b"") -> Work:
    def work(n: int) -> object:
        block, _, _ = split_message(unit * n + end)
        found = [field.value for field in fields(block)]
        return found, find(block, "X"), find_all(block, "a")

    return work


def address_list(unit: str, end: str = "") -> Work:
    return lambda n: parse_address_list(unit * n + end)


def letter(begin: bytes, unit: bytes) -> Work:
    def work(n: int) -> object:
        block = begin + unit * n + b"\r\n"
        whole = complete_header(block, AUTHOR, date="d", message_id="<m@x>")
        return whole, header_recipients(block)

    return work


def address(begin: str, unit: str, end: str) -> Work:
    def work(n: int) -> object:
        try:
            return Address.from_text(begin + unit * n + end)
        except AddressError as error:
            return error

    return work


def conversion(begin: bytes, unit: bytes, *, binary: bool = False) -> Work:
    demand = Demand(seven_bit=True, was_binary=binary)
    return lambda n: in_windows(begin + unit * n, demand, 2000)


MIXED = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
WORK: dict[str, Work] = {
    "content: dots": read_content(b"\r\n."),
    "content: dots and ends begun": read_content(b"\r\n.\r"),
    "content: CR": read_content(b"\r"),
    "content: LF": read_content(b"\n"),
    "content: one line": read_content(b"x"),
    "writing: LF and dots": write_content(b"\n."),
    "writing: NULs and dots": write_content(b"\r\n\0."),
    "writing: NULs": write_content(b"\0"),
    "writing: CR": write_content(b"\r"),
    "chunks: CR": read_chunks(b"\r", binary=False),
    "chunks: header without end": read_chunks(b"\r\n", binary=True),
    "chunks: almost a separator": read_chunks(b"\r\n\rx", binary=True),
    "lines: short": read_lines(b"a\r\n"),
    "lines: without end": read_lines(b"x"),
    "lines: CR": read_lines(b"\r"),
    "command: quotes": command(b'MAIL FROM:<"', b"\\"),
    "command: quoted pairs": command(b'MAIL FROM:<"', b'\\"', b'"@x>'),
    "command: quoted words": command(b"MAIL FROM:<", b'""'),
    "command: routes": command(b"RCPT TO:<", b"@a,", b"@b:c@d>"),
    "command: dots": command(b"RCPT TO:<a", b".a", b">"),
    "command: labels": command(b"EHLO a", b".a", b"!"),
    "command: blanks": command(b"MAIL FROM:<a@b> ", b" "),
    "command: parameters": command(b"MAIL FROM:<a@b>", b" SIZE=1"),
    "command: other parameters": command(b"MAIL FROM:<a@b> X", b"=1"),
    "command: xtext": command(b"RCPT TO:<a@b> ORCPT=rfc822;", b"+41"),
    "command: notify": command(b"RCPT TO:<a@b> NOTIFY=", b",SUCCESS"),
    "command: utf-8": command(b"VRFY ", "é".encode()),
    "command: base64": command(b"AUTH PLAIN ", b"AAAA", b"="),
    "command: ETRN": command(b"ETRN ", b"a."),
    "command: XCLIENT": command(b"XCLIENT ", b"NAME=a "),
    "session: recipients": session(b"RCPT TO:<b@mx.example>\r\n"),
    "session: nonsense": session(b"\r\n"),
    "session: hellos": session(b"EHLO a\r\n"),
    "session: chunks": session(b"RCPT TO:<b@c.example>\r\nBDAT 1\r\nx"),
    "session: empty chunks": session(b"RCPT TO:<b@c.example>\r\nBDAT 0\r\n"),
    "client: reply lines": heard(b"250-a\r\n"),
    "client: one line": heard(b"2"),
    "client: replies": heard(b"250 a\r\n"),
    "reply: lines": reply_lines,
    "header: empty fields": header(b"a:\r\n"),
    "header: folding": header(b"a: b\r\n \r\n", b"\r\n"),
    "header: one folded field": header(b" \r\n"),
    "header: a name without colon": header(b"a"),
    "header: blanks before a colon": header(b"a \r\n"),
    "list: comments": address_list("(", ")"),
    "list: deep comments": address_list("()"),
    "list: escapes": address_list("(\\"),
    "list: words": address_list("a "),
    "list: commas": address_list(","),
    "list: quotes": address_list('"'),
    "list: angles": address_list("<a@b>,"),
    "list: at-signs": address_list("@"),
    "list: brackets": address_list("["),
    "list: routes": address_list("<@a,"),
    "list: groups": address_list("a:;"),
    "letter: bare names": letter(b"To: x", b", a"),
    "letter: words": letter(b"To: x", b" a"),
    "letter: folded": letter(b"Bcc: x", b",\r\n a"),
    "letter: fields": letter(b"X: x", b"\r\nTo: a"),
    "address: dots": address("a", ".a", "@x"),
    "address: labels": address("a@a", ".a", "!"),
    "address: routes": address("", "@a,", "@b:c@d"),
    "address: literal": address("a@[IPv6:", "1:", "]"),
    "conversion: delimiters": conversion(MIXED, b"--b\r\n"),
    "conversion: almost delimiters": conversion(MIXED, b"\xff\r\n--c\r\n"),
    "conversion: parts": conversion(MIXED, b"--b\r\n\r\n\xff\r\n"),
    "conversion: nested": conversion(MIXED, b"--b\r\n" + MIXED),
    "conversion: a long line": conversion(b"a: b\r\n\r\n", b"\xff"),
    "conversion: binary": conversion(b"a: b\r\n\r\n", b"\r\0\n", binary=True),
    "proxy: extras": lambda n: read_header(
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11"
        + (12 + 3 * n).to_bytes(2, "big")
        + bytes(12)
        + b"\x04\0\0" * n
    ),
}


def lines_run(work: Work, n: int) -> int:
    """Count the lines of our own code that are run."""
    count = 0

    def within(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal count
        count += 1
        return within

    def entered(frame: FrameType, event: str, arg: Any) -> Any:
        return within if "/postroom/" in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(entered)
    try:
        work(n)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("name", WORK)
def test_twice_the_input_is_twice_the_work(name: str) -> None:
    work = WORK[name]
    work(3)  # what is made once is not counted
    single, double = lines_run(work, N), lines_run(work, 2 * N)
    assert double <= RATIO_MAX * single + 50, (single, double)


def test_counting_notices_what_is_quadratic() -> None:
    def work(n: int) -> object:
        one = Address("a", "b")
        return [one.domain_key for end in range(n) for _ in range(end)]

    single, double = lines_run(work, 60), lines_run(work, 120)
    assert double > RATIO_MAX * single


HELD: dict[str, tuple[Work, int]] = {
    "content by octets": (
        lambda n: _discarded(ContentReader(0, 1 << 30, fix=False).read, n),
        20_000,
    ),
    "chunks by octets": (
        lambda n: _discarded(ChunkReader(0, 1 << 30, fix=False, binary=False).read, n),
        20_000,
    ),
    "writing by octets": (lambda n: _discarded(ContentWriter().write, n), 20_000),
    "a command without end": (lambda n: _endless(n), 200_000),
    "a reply without end": (lambda n: _endless_reply(n), 200_000),
}
BLOCK = b"x" * 4096


def _discarded(read: Callable[[bytes], bytes], n: int) -> None:
    for _ in range(n):
        read(b"\r\n")
        read(b"x" * 60)


def _endless(n: int) -> None:
    server = ServerConnection(ServerSettings(), "mx.example")
    server.greet(replies.greeting("mx.example"))
    for _ in range(n // 1000):
        server.receive(BLOCK)
        server.next_event()


def _endless_reply(n: int) -> None:
    client = ClientConnection("c.example")
    for _ in range(n // 1000):
        client.receive(BLOCK)
        client.next_event()


@pytest.mark.parametrize("name", HELD)
def test_little_is_held_at_once(name: str) -> None:
    work, n = HELD[name]
    work(10)
    tracemalloc.start()
    try:
        work(n)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000, peak
