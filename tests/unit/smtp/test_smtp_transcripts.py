"""Every SMTP transcript, with the client's octets cut up in every way."""

from pathlib import Path

import pytest

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


def test_there_are_enough() -> None:
    assert len(TRANSCRIPTS) >= 40


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
