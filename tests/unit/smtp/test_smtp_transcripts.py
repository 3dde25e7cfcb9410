"""Every SMTP transcript, with the client's octets cut up in every way."""

from pathlib import Path

import pytest

from postroom.mail.envelope import BodyType
from postroom.smtp.transaction import Transaction
from postroom.testing.pair import Pair
from postroom.testing.transcript import (
    Transcript,
    TranscriptError,
    at_random,
    by_line,
    by_octet,
    play,
    whole,
)

DIRECTORY = Path(__file__).parents[2] / "transcripts"
TRANSCRIPTS = [Transcript.from_file(p) for p in sorted(DIRECTORY.glob("*.smtp"))]
CUTS = {"whole": whole, "line": by_line, "octet": by_octet} | {
    f"random-{seed}": at_random(seed) for seed in range(5)
}


@pytest.mark.parametrize("ahead", [False, True], ids=["waiting", "ahead"])
@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda t: t.name)
def test_transcript(transcript: Transcript, ahead: bool) -> None:
    for name, cut in CUTS.items():
        try:
            play(transcript, cut, ahead=ahead)
        except TranscriptError as error:
            raise TranscriptError(f"cut {name}: {error}") from error


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda t: t.name)
def test_our_client_gets_the_same_across(transcript: Transcript) -> None:
    """What a transcript has accepted our client sends to a server of the same rules."""
    played = play(transcript)
    for cut in (whole, by_octet, at_random(7)):
        for taken, params in zip(played.messages, played.envelopes, strict=True):
            pair = Pair(transcript.site(), cut=cut)
            pair.greet()
            is_binary = params.body is BodyType.BINARY
            transaction = Transaction(
                taken.sender,
                taken.recipients,
                size_octets=len(taken.content),
                eight_bit=not taken.content.isascii(),
                ret=params.ret,
                envid=params.envid,
                chunked=is_binary,
                binary=is_binary,
                utf8=params.smtputf8,
            )
            pair.submit(transaction, taken.content)
            pair.pump()
            (got,) = pair.site.messages
            assert (got.sender, got.recipients) == (taken.sender, taken.recipients)
            assert got.content.replace(b"\0..", b"\0.") == taken.content
            assert pair.client.is_idle


def test_there_are_enough() -> None:
    assert len(TRANSCRIPTS) >= 150


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("S: 220 ...\nC: NOOP\nS: 251 ...", "expected '251 ...', got '250 2.0.0 OK'"),
        ("S: 220 ...\nC: NOOP", "says more"),
        ("S: 220 ...\nC: QUIT\nS: 221 ...", "has closed"),
        ("S: 220 ...\nC: NOOP\nS: 250 ...\nS: (closed)", "has not closed"),
        ("S: 220 ...\nD: never", "messages accepted"),
        ("S: 220 ...\nS: 220 ...", "got ''"),
        ("S: 220-...\nC: HELP\nS: 214-...\nS: 214 ...", "got ''"),
    ],
)
def test_a_difference_is_told(text: str, problem: str) -> None:
    with pytest.raises(TranscriptError, match=problem.replace(".", r"\.")):
        play(Transcript.from_text(text))


@pytest.mark.parametrize("line", ["X: y", "C NOOP", "s: 220", "text"])
def test_a_malformed_line_is_named(line: str) -> None:
    with pytest.raises(ValueError, match="line 2"):
        Transcript.from_text(f"S: 220 ...\n{line}")


@pytest.mark.parametrize("rule", ["nosuch x", "setting nosuch 1", "setting starttls 7"])
def test_an_unknown_rule_is_an_error(rule: str) -> None:
    with pytest.raises(ValueError, match=r"nosuch|starttls"):
        play(Transcript.from_text(f"# @{rule}\nS: 220 ..."))
