"""A second envelope hidden in a message stays part of it, whatever stands before it.

All 5,461 strings over CR, LF, NUL and the dot up to six octets stand between the text
of a message and an envelope that was never said. They go through the server's core and
the client's, cut in two at every place in and around them (``make search``: at every
place of all that is sent). What comes in is one message or a refusal. What goes out is
one message for a strict reader and for lax ones, which take LF, CR or NULs around a dot
for the end.
"""

import os
import re
from collections.abc import Iterator
from itertools import product

import msgspec
import pytest

from postroom.mail.address import Address
from postroom.smtp.client import BodyWanted, ClientConnection
from postroom.smtp.commands import Mail
from postroom.smtp.data import END, ContentWriter
from postroom.smtp.dialogue import State
from postroom.smtp.settings import ServerSettings
from postroom.smtp.transaction import Transaction, TransactionDone
from postroom.testing.site import Site

STRINGS = [
    bytes(octets)
    for length in range(7)
    for octets in product(b"\r\n\0.", repeat=length)
]
TEXTS = {"in-line": b"one", "at-line-start": b"one\r\n"}
ENVELOPE = b"MAIL FROM:<a@c.example>\r\nRCPT TO:<b@mx.example>\r\n"
SMUGGLED = b"MAIL FROM:<evil@c.example>\r\nRCPT TO:<b@mx.example>\r\nDATA\r\nevil"
BARE = re.compile(rb"(?<!\r)\n|\r(?!\n)")
NUL_DOT = re.compile(rb"((?:\A|(?<=\r\n))\0+)\.")
LAX_END = re.compile(rb"(?:\r\n|\r|\n)\.(?:\r\n|\r|\n)")
EVERYWHERE = os.environ.get("POSTROOM_EXAMPLES") == "search"

texts = pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())


def test_all_strings_are_there() -> None:
    assert len(STRINGS) == len(set(STRINGS)) == 5461


def cuts(before: int, string: bytes, after: int, margin: int = 1) -> Iterator[int]:
    """Where to cut: in the string and so many octets around it, or everywhere."""
    if EVERYWHERE:
        yield from range(before + len(string) + after + 1)
    else:
        yield from range(before - margin, before + len(string) + margin + 1)


class Inbound:
    """A server's core in the middle of its life, message after message."""

    def __init__(self, settings: ServerSettings) -> None:
        self.site = Site(msgspec.structs.replace(settings, errors_max=1 << 30))
        self.connection = self.site.connect()
        self.connection.greet(self.site.greeting)
        self.say(b"EHLO c.example\r\n")

    def say(self, *pieces: bytes) -> list[int]:
        """Send pieces; return the codes of the replies."""
        self.site.messages.clear()
        self.site.events.clear()
        for piece in pieces:
            if piece:
                self.connection.receive(piece)
                self.site.serve(self.connection)
        lines = self.connection.data_to_send().splitlines()
        return [int(line[:3]) for line in lines if line[3:4] != b"-"]

    @property
    def senders(self) -> list[str]:
        """Who was named by MAIL in what was said last."""
        return [str(e.address) for e in self.site.events if isinstance(e, Mail)]

    @property
    def taken(self) -> list[bytes]:
        """What was accepted of what was said last."""
        return [message.content for message in self.site.messages]


def unstuffed(content: bytes) -> bytes:
    return re.sub(rb"(?:\A|(?<=\r\n))\.", b"", content)


@texts
@pytest.mark.parametrize("line_ends", ["refuse", "fix"])
def test_inbound_data(text: bytes, line_ends: str) -> None:
    inbound = Inbound(ServerSettings(bare_line_ends=line_ends))  # type: ignore[arg-type]
    ended = 0
    for string in STRINGS:
        wire = text + string + SMUGGLED + END
        # By the letter of RFC 5321 §4.1.1.4; only here may the message end.
        end = (b"\r\n" + wire).index(END) - 2
        content = unstuffed(wire[: end + 2])
        is_bare = bool(BARE.search(content)) and line_ends == "refuse"
        taken = [] if is_bare else [BARE.sub(b"\r\n", content)]
        codes, senders = [550 if is_bare else 250], []
        left = wire[end + 5 : -len(SMUGGLED + END)] if end + 5 < len(wire) else None
        if left is not None:  # the string did end it: what follows are commands
            ended += 1
            *lines, spoilt = left.split(b"\r\n")
            codes += [500] * len(lines)
            if not spoilt:
                codes += [250, 250, 354, 250]
                taken.append(b"evil\r\n")
                senders.append("evil@c.example")
        for at in cuts(len(text), string, len(SMUGGLED + END)):
            assert inbound.say(b"RSET\r\n", ENVELOPE + b"DATA\r\n")[-1] == 354
            said = inbound.say(wire[:at], wire[at:])
            assert (said[: len(codes)], inbound.taken) == (codes, taken), (string, at)
            assert inbound.senders == senders, (string, at)
            assert left is not None or len(said) == 1, (string, at)
    # No other strings than those that hold the end itself.
    before = b"\r\n" if text.endswith(b"\r\n") else b""
    assert ended == sum(END in before + string for string in STRINGS) < 100


class Outbound:
    """A client's core in the middle of its life, message after message."""

    def __init__(self, hello: bytes, *, lmtp: bool = False) -> None:
        self.client = ClientConnection("c.example", lmtp=lmtp)
        self.hear(b"220 mx.example\r\n")
        self.client.send_hello()
        self.hear(hello)
        self.client.data_to_send()

    def hear(self, octets: bytes) -> list[object]:
        self.client.receive(octets)
        return list(iter(self.client.next_event, None))

    def send(self, pieces: list[bytes], *, chunked: bool = False) -> bytes:
        """Send a message; return the octets of its content on the wire."""
        sender, recipient = Address("a", "c.example"), Address("b", "mx.example")
        self.client.submit(Transaction(sender, (recipient,), chunked=chunked))
        assert self.client.data_to_send().endswith(b"" if chunked else b"DATA\r\n")
        ready = b"" if chunked else b"354 go\r\n"
        events = self.hear(b"250 ok\r\n250 ok\r\n" + ready)
        assert isinstance(events[-1], BodyWanted)
        for piece in pieces:
            self.client.send_body(piece)
        self.client.end_body()
        wire = self.client.data_to_send()
        replies = wire.count(b"BDAT ") if chunked else 1
        events = self.hear(b"250 taken\r\n" * replies)
        assert isinstance(events[-1], TransactionDone)
        return wire


def written(pieces: list[bytes]) -> bytes:
    writer = ContentWriter()
    return b"".join([writer.write(piece) for piece in pieces]) + writer.end()


@texts
def test_outbound_data(text: bytes) -> None:
    hello = b"250-mx.example\r\n250 PIPELINING\r\n"
    outbound = Outbound(hello), Outbound(hello, lmtp=True)
    for number, string in enumerate(STRINGS):
        content = text + string + SMUGGLED
        wires = {
            written([content[:at], content[at:]])
            for at in cuts(len(text), string, len(SMUGGLED))
        }
        wires.add(outbound[number % 2].send([content]))
        assert len(wires) == 1, string
        (wire,) = wires
        assert is_one_message(wire), string
        fixed = BARE.sub(b"\r\n", content) + b"\r\n"
        assert unstuffed(wire[:-3]) == NUL_DOT.sub(rb"\1..", fixed), string
        assert unstuffed(nul_less(wire[:-3])) == nul_less(fixed), string


def is_one_message(wire: bytes) -> bool:
    """Whether strict and lax readers alike find the end of data at the very end."""
    whole = b"\r\n" + wire
    ends = [LAX_END.search(seen) for seen in (whole, nul_less(whole))]
    return (
        not BARE.search(wire)
        and wire.endswith(END)
        and all(end and end.end() == len(end.string) for end in ends)
    )


def nul_less(octets: bytes) -> bytes:
    """As readers see it that throw NULs away."""
    return octets.replace(b"\0", b"")


# In chunks (RFC 3030) nothing ends a message but the count of its octets.


def chunks(pieces: list[bytes]) -> bytes:
    *first, last = pieces
    whole = b"".join(b"BDAT %d\r\n%b" % (len(piece), piece) for piece in first)
    return whole + b"BDAT %d LAST\r\n%b" % (len(last), last)


@texts
@pytest.mark.parametrize("line_ends", ["refuse", "fix"])
def test_inbound_chunks(text: bytes, line_ends: str) -> None:
    inbound = Inbound(ServerSettings(bare_line_ends=line_ends))  # type: ignore[arg-type]
    for number, string in enumerate(STRINGS):
        content = text + string + SMUGGLED
        is_bare = bool(BARE.search(content)) and line_ends == "refuse"
        taken = [] if is_bare else [BARE.sub(b"\r\n", content) + b"\r\n"]
        places = list(cuts(len(text), string, len(SMUGGLED), 0))
        if line_ends == "fix" and not EVERYWHERE:  # a sample: it is the same reader
            places = [places[number % len(places)]]
        for at in places:
            wire = ENVELOPE + chunks([content[:at], content[at:]])
            # Cut on its way where the chunks meet, and amid the second one.
            here = wire.index(b"BDAT", len(ENVELOPE) + 4)
            amid = max(here, len(wire) - 50)
            pieces = wire[:here], wire[here:amid], wire[amid:]
            said = inbound.say(b"RSET\r\n", *pieces)
            assert said[-1] == (550 if is_bare else 250), (string, at)
            assert inbound.taken == taken, (string, at)
            assert inbound.senders == ["a@c.example"], (string, at)
            assert inbound.connection.state is State.READY, (string, at)


@texts
def test_inbound_binary_chunks(text: bytes) -> None:
    """With BINARYMIME the body may hold anything; it is told octet for octet."""
    inbound = Inbound(ServerSettings())
    envelope = ENVELOPE.replace(b">\r\n", b"> BODY=BINARYMIME\r\n", 1)
    for number, string in enumerate(STRINGS):
        content = b"H: x\r\n\r\n" + text + string + SMUGGLED
        places = list(cuts(8 + len(text), string, len(SMUGGLED)))
        for at in places if EVERYWHERE else [places[number % len(places)]]:
            wire = envelope + chunks([content[:at], content[at:]])
            said = inbound.say(wire[:-60], wire[-60:])
            assert said[-1] == 250, (string, at)
            assert inbound.taken == [content], (string, at)
            assert inbound.senders == ["a@c.example"], (string, at)


CHUNK = re.compile(rb"BDAT ([0-9]+)( LAST)?\r\n")


def unchunked(wire: bytes) -> bytes:
    """Read chunks by the letter of RFC 3030 §2; the last one must end the octets."""
    content, at, is_last = b"", 0, False
    while not is_last:
        match = CHUNK.match(wire, at)
        assert match, wire[at:]
        begin, is_last = match.end(), bool(match[2])
        at = begin + int(match[1])
        content += wire[begin:at]
    assert at == len(wire)
    return content


@texts
def test_outbound_chunks(text: bytes) -> None:
    """Also in chunks no bare CR or LF leaves: the next host may go on with DATA."""
    hello = b"250-mx.example\r\n250-PIPELINING\r\n250 CHUNKING\r\n"
    outbound = Outbound(hello), Outbound(hello, lmtp=True)
    for number, string in enumerate(STRINGS):
        content = text + string + SMUGGLED
        at = (number % (len(string) + 4)) + len(text) - 2
        sent = unchunked(
            outbound[number % 2].send([content[:at], content[at:]], chunked=True)
        )
        assert sent == BARE.sub(b"\r\n", content) + b"\r\n", string
