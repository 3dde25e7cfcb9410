"""Plays tests/transcripts/*.pop3 against the server's core, however it is cut up.

``C:`` is a line of the client, ``R:`` octets of the client as they are, ``S:`` a line
of the server (``...`` at its end stands for any text), ``(closed)`` and ``(closes)``
the ends, ``#`` says why. ``# @deleted 1 2`` and ``# @no-update`` tell what the session
must have removed. joe's password is ``secret``, betty's ``two  words ``; busy's mailbox
is in use; each has the two messages below.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from postroom.pop3.events import Ended, Event, Flush, Login, Refused, Retrieve, Update
from postroom.pop3.server import ServerConnection
from postroom.pop3.settings import Pop3Settings

FILES = sorted((Path(__file__).parents[2] / "transcripts").glob("*.pop3"))
ONE = (
    b"Subject: one\r\n\r\n.a line that begins with a stop\r\n.\r\n"
    + b"0123456789" * 6
    + b"012\r\n0\r\n"
)
TWO = b"Subject: two\r\n\r\n" + b"0123456789" * 18 + b"01\r\n"
MESSAGES = (ONE, TWO)
PASSWORDS = {"joe": "secret", "busy": "secret", "betty": "two  words "}
Cut = Callable[[bytes], Sequence[bytes]]
CUTS: dict[str, Cut] = {
    "whole": lambda data: [data],
    "by line": lambda data: data.splitlines(keepends=True),
    "by octet": lambda data: [data[i : i + 1] for i in range(len(data))],
    "by seven": lambda data: [data[i : i + 7] for i in range(0, len(data), 7)],
}


class Played:
    """A session: what was sent to it, what it answered, and how it ended."""

    def __init__(self) -> None:
        self.server = ServerConnection(Pop3Settings(), plaintext_allowed=True)
        self.out = b""
        self.ended: Ended | None = None
        self.deleted: tuple[int, ...] | None = None
        self.server.greet("ready")

    def receive(self, data: bytes) -> None:
        self.server.receive(data)
        while event := self.server.next_event():
            self.answer(event)
        self.out += self.server.data_to_send()

    def answer(self, event: Event) -> None:
        server = self.server
        match event:
            case Login(user, password):
                if PASSWORDS.get(user) != password:
                    server.login_refused("AUTH", "wrong")
                elif user == "busy":
                    server.login_refused("IN-USE", "busy", is_failure=False)
                else:
                    server.login_accepted([120, 200], ["uid-one", "uid-two"])
            case Retrieve(index):
                server.message(MESSAGES[index])
            case Update(deleted):
                self.deleted = deleted
                server.updated(0)
            case Ended():
                self.ended = event
            case Flush():
                self.out += server.data_to_send()
            case Refused():
                pass


def unescaped(text: str) -> bytes:
    return text.encode().decode("unicode_escape").encode("latin-1")


def read(path: Path) -> tuple[bytes, bool, list[str], bool, list[str]]:
    sent, closes, expected, closed, rules = b"", False, [], False, []
    for line in path.read_text().splitlines():
        kind, _, rest = line.partition(": ") if ":" in line[:2] else ("#", "", line)
        match kind.rstrip(":"), rest:
            case "C", "(closes)":
                closes = True
            case "S", "(closed)":
                closed = True
            case "C", text:
                sent += text.encode() + b"\r\n"
            case "R", text:
                sent += unescaped(text)
            case "S", text:
                expected.append(text)
            case _, _ if found := re.match(r"# @(.*)", line):
                rules.append(found[1].strip())
    return sent, closes, expected, closed, rules


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_transcript(path: Path, how: str) -> None:
    sent, closes, expected, closed, rules = read(path)
    played = Played()
    for piece in CUTS[how](sent):
        played.receive(piece)
    if closes:
        played.receive(b"")
    answered = played.out.decode().split("\r\n")
    assert answered.pop() == ""
    assert len(answered) == len(expected), answered
    for line, wanted in zip(answered, expected, strict=True):
        if wanted.endswith("..."):
            assert line.startswith(wanted[:-3].rstrip()), f"{line!r} is not {wanted!r}"
        else:
            assert line == wanted
    assert (played.ended is not None) is closed
    for rule in rules:
        if rule == "no-update":
            assert played.deleted is None
        else:
            numbers = [int(word) - 1 for word in rule.split()[1:]]
            assert played.deleted == tuple(numbers)


def test_the_messages_are_as_long_as_the_transcripts_say() -> None:
    assert [len(message) for message in MESSAGES] == [120, 200]
    assert len(FILES) > 10
