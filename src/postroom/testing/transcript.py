r"""Transcripts: SMTP dialogues as test files, played against the server's core.

A line of a transcript begins with what it is:

====== ==============================================================================
``C:`` what the client sends, with CRLF behind it
``R:`` octets the client sends as they are; ``\r \n \0 \t \\ \xNN`` are understood
``S:`` one reply line; ``...`` at its end stands for any text, and ``S: 250-...`` for
       all lines that are left of a reply
``D:`` a line of a message that was accepted, without CRLF, escapes as in ``R:``;
       ``D:`` lines with nothing between are one message, ``D: (empty)`` is one
       without content; a line that ends in ``\z`` has no CRLF behind it
``#``  says why; ``# @unknown nosuch@mx.example`` is a rule of ``Site.rule``.
       ``# @stepwise`` keeps the client from sending ahead of replies (STARTTLS)
====== ==============================================================================

``S: (closed)`` says that the server closes here, ``C: (closes)`` that the client does.
A transcript with a malformed line is a ``ValueError`` that names file and line; what
the server does otherwise than written is a ``TranscriptError``.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from postroom.testing.site import Site

Cut = Callable[[bytes], Sequence[bytes]]
"""Cuts what the client sends into the pieces that arrive."""

_LINE = re.compile(r"([CRSD]): ?(.*)")
_RULE = re.compile(r"# @([a-z\-]+) ?(.*)")
_ESCAPE = re.compile(rb"\\(x[0-9A-Fa-f]{2}|[rn0t\\])")
_ESCAPED = {b"r": b"\r", b"n": b"\n", b"0": b"\0", b"t": b"\t", b"\\": b"\\"}


class TranscriptError(AssertionError):
    """The server did not do what the transcript says."""


class Who(StrEnum):
    """What a step is."""

    CLIENT = "client"
    SERVER = "server"
    CLIENT_CLOSES = "client closes"
    SERVER_CLOSES = "server closes"


class Step(msgspec.Struct, frozen=True):
    """One line of the dialogue: octets of the client, or the pattern of a reply."""

    who: Who
    octets: bytes


class Transcript(msgspec.Struct, frozen=True):
    """A dialogue: its rules, its steps, and the messages it leaves accepted."""

    name: str
    rules: tuple[tuple[str, str], ...]
    steps: tuple[Step, ...]
    messages: tuple[bytes, ...]
    stepwise: bool

    @classmethod
    def from_text(cls, text: str, name: str = "transcript") -> "Transcript":
        """Read a transcript.

        Raises:
            ValueError: a line is malformed; the message names it.
        """
        rules: list[tuple[str, str]] = []
        steps: list[Step] = []
        messages: list[bytes] = []
        within = False
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip():
                continue
            rule = _RULE.fullmatch(line)
            if rule:
                rules.append((rule[1], rule[2].strip()))
            if line.startswith("#"):
                within = False
                continue
            match = _LINE.fullmatch(line)
            if not match:
                raise ValueError(f"{name}, line {number}: not C:, R:, S:, D: or #")
            if match[1] == "D":
                empty = match[2] == "(empty)"
                more = b"" if empty else _content_line(match[2])
                messages[len(messages) - within :] = [
                    (messages[-1] if within else b"") + more
                ]
            else:
                steps.append(_step(match[1], match[2]))
            within = match[1] == "D"
        stepwise = ("stepwise", "") in rules
        rules = [rule for rule in rules if rule[0] != "stepwise"]
        return cls(name, tuple(rules), tuple(steps), tuple(messages), stepwise)

    @classmethod
    def from_file(cls, path: Path) -> "Transcript":
        """Read a transcript file."""
        return cls.from_text(path.read_text(encoding="utf-8"), path.stem)

    def site(self) -> Site:
        """Return a site that keeps to the rules of this transcript."""
        site = Site()
        for name, argument in self.rules:
            site.rule(name, argument)
        return site


def _step(letter: str, text: str) -> Step:
    if letter == "S":
        closed = text == "(closed)"
        return Step(Who.SERVER_CLOSES if closed else Who.SERVER, text.encode())
    if letter == "R":
        return Step(Who.CLIENT, _unescaped(text))
    if text == "(closes)":
        return Step(Who.CLIENT_CLOSES, b"")
    return Step(Who.CLIENT, text.encode() + b"\r\n")


def _content_line(text: str) -> bytes:
    if text.endswith("\\z"):
        return _unescaped(text[:-2])
    return _unescaped(text) + b"\r\n"


def _unescaped(text: str) -> bytes:
    def octet(match: re.Match[bytes]) -> bytes:
        name = match[1]
        return _ESCAPED.get(name) or bytes([int(name[1:], 16)])

    return _ESCAPE.sub(octet, text.encode())


# Ways to cut


def whole(data: bytes) -> Sequence[bytes]:
    """All at once."""
    return [data] if data else []


def by_line(data: bytes) -> Sequence[bytes]:
    """A line at a time; also at bare line ends."""
    return data.splitlines(keepends=True)


def by_octet(data: bytes) -> Sequence[bytes]:
    """An octet at a time."""
    return [data[i : i + 1] for i in range(len(data))]


def at_random(seed: int) -> Cut:
    """Return a way to cut at random places; the same seed cuts alike."""
    sizes = _sizes(seed)

    def cut(data: bytes) -> Sequence[bytes]:
        pieces, at = [], 0
        while at < len(data):
            size = next(sizes)
            pieces.append(data[at : at + size])
            at += size
        return pieces

    return cut


def _sizes(state: int) -> Iterator[int]:
    while True:  # a linear congruential generator is random enough to cut with
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        yield (1, 2, 3, 5, 8, 40, 300, 5000)[state >> 61]


# Playing


class _Play:
    """One performance: the server's lines as they come, compared with the script."""

    def __init__(self, transcript: Transcript, cut: Cut) -> None:
        self._transcript = transcript
        self._cut = cut
        self.site = transcript.site()
        self._connection = self.site.connect()
        self._said = self._connection.greet(self.site.greeting)
        self._open = not self._connection.is_closed

    def run(self, turns: Sequence[Sequence[Step]]) -> None:
        """Let the client speak turn by turn, and compare after each."""
        for turn in turns:
            octets = b"".join(s.octets for s in turn if s.who is Who.CLIENT)
            for piece in self._cut(octets):
                self._give(piece)
            if any(s.who is Who.CLIENT_CLOSES for s in turn):
                self._give(b"")
            self._compare(turn)
        ends = (Who.SERVER_CLOSES, Who.CLIENT_CLOSES)
        if not (self._open or any(s.who in ends for s in self._transcript.steps)):
            raise self._error("the server has closed")
        if self._said:
            raise self._error(f"the server says more: {self._said!r}")
        taken = tuple(message.content for message in self.site.messages)
        if taken != self._transcript.messages:
            raise self._error(f"messages accepted: {taken!r}")

    def _give(self, piece: bytes) -> None:
        self._connection.receive(piece)
        if self._open:
            self._open = self.site.serve(self._connection)
        self._said += self._connection.data_to_send()

    def _compare(self, turn: Sequence[Step]) -> None:
        for step in turn:
            if step.who is Who.SERVER_CLOSES and self._open:
                raise self._error("the server has not closed")
            if step.who is Who.SERVER:
                self._expect(step.octets)

    def _expect(self, pattern: bytes) -> None:
        line, end, self._said = self._said.partition(b"\r\n")
        if pattern[3:] == b"-...":
            while line[:4] == pattern[:3] + b"-":
                line, end, self._said = self._said.partition(b"\r\n")
            pattern = pattern[:3] + b"..."
        if pattern.endswith(b"..."):
            good = line.startswith(pattern[:-3])
        else:
            good = line == pattern
        if not good or not end:
            raise self._error(f"expected {pattern.decode()!r}, got {line.decode()!r}")

    def _error(self, text: str) -> TranscriptError:
        return TranscriptError(f"{self._transcript.name}: {text}")


def play(transcript: Transcript, cut: Cut = whole, *, ahead: bool = False) -> Site:
    """Play a transcript; return the site as it is left.

    With ``ahead`` the client says everything without waiting for a reply; otherwise
    it waits wherever the script has the server speak.

    Raises:
        TranscriptError: the server did otherwise.
    """
    performance = _Play(transcript, cut)
    turns: list[list[Step]] = [[]]
    for step in transcript.steps:
        client = step.who in (Who.CLIENT, Who.CLIENT_CLOSES)
        before = turns[-1][-1].who if turns[-1] else Who.CLIENT
        answered = before in (Who.SERVER, Who.SERVER_CLOSES)
        if client and answered and not (ahead and not transcript.stepwise):
            turns.append([])
        turns[-1].append(step)
    performance.run(turns)
    return performance.site
