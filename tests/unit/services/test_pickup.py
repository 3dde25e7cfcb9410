"""The submission service as the courier meets it, over a real Unix socket."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from postroom.cli.sendmail import GREETING, frame
from postroom.mail.outcome import Say
from postroom.net.connect import connect_unix
from postroom.net.stream import Stream
from postroom.observe.events import Lifecycle
from postroom.services.queue_run import QueueSelection
from postroom.services.settings import SubmissionSettings
from postroom.testing.host import login_of
from postroom.testing.submitter import QUEUE_ID, Kept, PostOffice

LETTER = b"Subject: s\n\nbody\n"
USER = login_of(os.geteuid())


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[PostOffice]:
    settings = SubmissionSettings(users={USER: "betty"}, trusted_users=(USER,))
    async with PostOffice(str(tmp_path / "submit.sock"), settings) as office:
        yield office


class Result:
    """What a call printed and how it ended; -1 if it was cut off."""

    def __init__(self) -> None:
        self.out = self.err = b""
        self.exit_code = -1
        self.was_asked = False


async def call(
    office: PostOffice, line: str, pieces: Sequence[bytes] = (LETTER,)
) -> Result:
    stream = await connect_unix(office.path)
    payload = line.encode("utf-8", "surrogateescape").replace(b" ", b"\0")
    stream.write(GREETING + frame(b"A", payload))
    for piece in pieces:
        stream.write(frame(b"I", piece))
    stream.write(frame(b"E", b""))
    return await answer(stream)


async def answer(stream: Stream) -> Result:
    result, data = Result(), b""
    while piece := await stream.read():
        data += piece
    while data:
        kind, octets = data[:1], int.from_bytes(data[1:5], "big")
        payload, data = data[5 : 5 + octets], data[5 + octets :]
        match kind:
            case b"G":
                result.was_asked = True
            case b"O":
                result.out += payload
            case b"R":
                result.err += payload
            case b"X":
                result.exit_code = payload[0]
    await stream.aclose()
    return result


def only(office: PostOffice) -> Kept:
    (letter,) = office.submitter.letters
    assert letter.abandoned  # given back, whatever happened
    return letter


async def test_a_letter_is_completed_and_kept(office: PostOffice) -> None:
    result = await call(office, "sendmail joe@whizzer.test")
    assert (result.exit_code, result.out, result.err) == (0, b"", b"")
    letter = only(office)
    assert letter.envelope.sender.to_text() == "betty@gonzo.test"
    assert letter.envelope.origin.login == USER
    assert letter.to == ["joe@whizzer.test"]
    header = letter.content.removesuffix(b"Subject: s\r\n\r\nbody\r\n")
    date, sender, message_id = header.splitlines()
    assert date == b"Date: Sun, 22 Nov 2026 13:00:00 +0100"
    assert sender.startswith(b"From: ")  # who runs this may have a full name, or none
    assert sender.rpartition(b" ")[2].strip(b"<>") == b"betty@gonzo.test"
    assert message_id == b"Message-Id: <202611221200.0123456789A@gonzo.test>"


CONTENTS = {
    "no header": ([b"just text\n"], b"\r\n\r\njust text\r\n"),
    "nothing": ([], b"@gonzo.test>\r\n\r\n"),
    "header only": ([b"X-A: 1\n"], b"X-A: 1\r\n\r\n"),
    "breaks off": (
        [b"X-A: 1\nno field\nX-B: 2\n"],
        b"X-A: 1\r\n\r\nno field\r\nX-B: 2\r\n",
    ),
    "mbox line": ([b"From a Mon Jun  6\nX-A: 1\n\nb\n"], b"X-A: 1\r\n\r\nb\r\n"),
    "From in the body": ([b"X-A: 1\n\nFrom here\n"], b"X-A: 1\r\n\r\nFrom here\r\n"),
    "by octet": (
        [bytes([c]) for c in b"X-A: 1\n\nb\r\nc"],
        b"X-A: 1\r\n\r\nb\r\nc\r\n",
    ),
    "empty pieces": ([b"", b"X-A: 1\n", b"", b"\nb"], b"X-A: 1\r\n\r\nb\r\n"),
    "dot": ([b"X-A: 1\n\nb\n.\nmore\n"], b"X-A: 1\r\n\r\nb\r\n"),
    "huge line, no field": ([b"x" * 200_000], b"\r\n\r\n" + b"x" * 200_000 + b"\r\n"),
    "huge text": (
        [b"y: 1\nx\n" + b"z\n" * 99_999],
        b"y: 1\r\n\r\nx\r\n" + b"z\r\n" * 99_999,
    ),
    "stray cr": ([b"X-A: 1\n\nb\rc\n"], b"X-A: 1\r\n\r\nb\r\nc\r\n"),
}


@pytest.mark.parametrize("case", CONTENTS.values(), ids=CONTENTS.keys())
async def test_content(office: PostOffice, case: tuple[list[bytes], bytes]) -> None:
    pieces, expected = case
    result = await call(office, "sendmail joe", pieces)
    assert result.exit_code == 0
    assert only(office).content.endswith(expected)


async def test_a_large_letter_is_whole(office: PostOffice) -> None:
    pieces = [b"x" * 70 + b"\n"] * 900
    await call(office, "sendmail -i joe", [b"\n", *[b"".join(pieces)] * 20])
    body = only(office).content.partition(b"\r\n\r\n")[2]
    assert body == (b"x" * 70 + b"\r\n") * 900 * 20


async def test_recipients_from_the_header(office: PostOffice) -> None:
    header = b"To: joe, Bob <bob@x.test>, JOE\nCc: joe\nBcc: secret@x.test\n\n"
    result = await call(office, "sendmail -t not@counted.test", [header])
    assert result.exit_code == 0
    letter = only(office)
    assert letter.to == [
        "joe@gonzo.test",
        "bob@x.test",
        "JOE@gonzo.test",
        "secret@x.test",
    ]
    assert b"secret" not in letter.content


async def test_recipient_arguments_are_lists(office: PostOffice) -> None:
    await call(office, "sendmail -Nnever a,b@x.test <c@x.test>")
    letter = only(office)
    assert letter.to == ["a@gonzo.test", "b@x.test", "c@x.test"]
    assert {recipient.notify for recipient in letter.recipients} == {"NEVER"}


REFUSED = {
    "no recipients": ("sendmail", LETTER, 64, "Recipient names must be specified"),
    "none in the header": (
        "sendmail -t",
        LETTER,
        64,
        "No recipient addresses found in header",
    ),
    "unknown user": ("sendmail nosuch", LETTER, 67, "nosuch... User unknown"),
    "not now": ("sendmail later", LETTER, 75, "later... Try again later"),
    "sender": (
        "sendmail -f spammer joe",
        LETTER,
        77,
        "spammer@gonzo.test... Access denied",
    ),
    "no space": ("sendmail joe", b"\nno space\n", 75, "Insufficient system storage"),
    "content": ("sendmail joe", b"\npoison\n", 65, "Content refused"),
    "list in the header": (
        "sendmail -t",
        b"To: a; b\n\n",
        64,
        "Cannot read the recipients: To: ';' outside of a group",
    ),
    "list in arguments": (
        "sendmail <joe",
        LETTER,
        64,
        "Cannot read the recipients: Unbalanced '<'",
    ),
    "no address": (
        "sendmail joe@",
        LETTER,
        64,
        "joe@... domain is missing or has forbidden characters",
    ),
    "mode": ("sendmail -bY", LETTER, 64, "Invalid operation mode Y"),
    "octets": ("sendmail \udcff@x", LETTER, 64, "\\udcff@x... Invalid octets"),
    "null recipient": ("sendmail <>", LETTER, 64, "<>... User address required"),
    "empty recipient": (
        "sendmail -i ",
        LETTER,
        64,
        "Recipient names must be specified",
    ),
    "nobody": ("sendmail nobody:;", LETTER, 64, "Recipient names must be specified"),
    "huge field": (
        "sendmail joe",
        b"Subject: s\nTo: " + b"x" * 200_000 + b"\n\nb\n",
        65,
        "Header is longer than 131072 octets",
    ),
    "huge field at first": (
        "sendmail -t",
        b"To: " + b"x" * 200_000 + b"\n\nb\n",
        65,
        "Header is longer than 131072 octets",
    ),
    "huge folded line": (
        "sendmail joe",
        b"X: y\n " + b"x" * 200_000 + b"\n\nb\n",
        65,
        "Header is longer than 131072 octets",
    ),
    "huge header": (
        "sendmail joe",
        b"X: y\n" * 40_000,
        65,
        "Header is longer than 131072 octets",
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
async def test_refused(office: PostOffice, case: tuple[str, bytes, int, str]) -> None:
    line, letter, exit_code, text = case
    pieces = [letter[at : at + 65_536] for at in range(0, len(letter), 65_536)]
    result = await call(office, line, pieces)
    assert result.exit_code == exit_code
    assert result.out.decode() == text + "\n"
    assert office.submitter.letters == []
    assert all(begun.abandoned for begun in office.submitter.begun)


async def test_others_get_the_letter_of_an_unknown_user(office: PostOffice) -> None:
    result = await call(office, "sendmail nosuch joe later")
    assert result.out == b"nosuch... User unknown\nlater... Try again later\n"
    assert result.exit_code == 67
    assert only(office).to == ["joe@gonzo.test"]


async def test_what_concerns_all_decides_the_exit_code(office: PostOffice) -> None:
    result = await call(office, "sendmail nosuch joe", [b"\nno space\n"])
    assert result.exit_code == 75
    assert result.out == b"nosuch... User unknown\nInsufficient system storage\n"


async def test_quiet_errors_still_have_an_exit_code(office: PostOffice) -> None:
    result = await call(office, "sendmail -oeq nosuch")
    assert (result.exit_code, result.out) == (67, b"")


async def test_envelope_wishes(office: PostOffice) -> None:
    await call(office, "sendmail -f <> -B 8BITMIME -R full -V id joe@\u00e9.test")
    envelope = only(office).envelope
    assert envelope.sender.is_null
    assert (envelope.body, envelope.ret, envelope.envid) == ("8BITMIME", "FULL", "id")
    assert envelope.smtputf8


async def test_a_trusted_user_may_set_the_sender(office: PostOffice) -> None:
    await call(office, "sendmail -f joe@x.test bob")
    letter = only(office)
    assert letter.envelope.sender.to_text() == "joe@x.test"
    assert b"Warning" not in letter.content
    assert b"From: joe@x.test\r\n" in letter.content


async def test_others_are_warned_of(tmp_path: Path) -> None:
    settings = SubmissionSettings(trusted_users=())
    async with PostOffice(str(tmp_path / "s"), settings) as office:
        await call(office, "sendmail -f joe@x.test bob")
        assert only(office).content.startswith(
            f"X-Authentication-Warning: gonzo.test: {USER} set sender to joe@x.test "
            "using -f\r\n".encode()
        )
        result = await call(office, "sendmail -q")
        assert result.exit_code == 77


async def test_errands_do_not_read_the_input(office: PostOffice) -> None:
    office.queue = ("one\ttab", "two\x1b[31m")
    listed = await call(office, "mailq")
    assert listed.out == b"one\ttab\ntwo?[31m\n"
    renewed = await call(office, "newaliases")
    assert renewed.out == b"/etc/aliases: 2 aliases\n"
    run = await call(office, "sendmail -qRjoe")
    assert office.selections == [QueueSelection(recipients=("joe",))]
    verified = await call(office, "sendmail -bv joe nosuch bob@x.test")
    assert verified.exit_code == 67
    assert verified.out.count(b"\n") == 3
    for result in (listed, renewed, run, verified):
        assert not result.was_asked


async def test_who_says_nothing_does_not_keep_a_place(
    office: PostOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postroom.services.pickup.ARGUMENTS_WAIT_US", 1_000)
    monkeypatch.setattr("postroom.net.sweeper.SWEEP_US", 1_000)
    async with asyncio.timeout(60):
        result = await answer(await connect_unix(office.path))
    assert result.exit_code == 75


async def test_smtp_on_standard_input(office: PostOffice) -> None:
    result = await call(office, "sendmail -bs", [b"helo x\r\n", b"quit\r\n"])
    assert result.out == f"220 hello {USER}\r\nHELO X\r\nQUIT\r\n".encode()
    assert result.exit_code == 0


@pytest.mark.parametrize(
    "pieces",
    [
        [b"helo x\nquit\n"],
        [b"helo x\n", b"quit\n"],
        [b"he", b"lo x", b"\nquit", b"\n"],
        [b"helo x\nquit\r\n"],
        [b"helo x\nquit\r", b"\n"],
        [b"helo x\r", b"\nquit\r\n"],
    ],
)
async def test_smtp_on_standard_input_with_line_ends_of_a_file(
    office: PostOffice, pieces: list[bytes]
) -> None:
    result = await call(office, "sendmail -bs", pieces)
    said = result.out.replace(f"220 hello {USER}\r\n".encode(), b"")
    assert said == b"HELO X\r\nQUIT\r\n"


async def test_smtp_with_its_own_line_ends_stays_as_it_is(office: PostOffice) -> None:
    pieces = [b"helo x\r\n", b"a\nb\r\n", b"c\n", b"quit\r\n"]
    result = await call(office, "sendmail -bs", pieces)
    assert result.out.endswith(b"HELO X\r\nA\nB\r\nC\nQUIT\r\n")


# Watching


async def test_verbose_tells_until_the_end(office: PostOffice) -> None:
    async def narrate(say: Say) -> None:
        say("joe... Connecting to local...")
        await asyncio.sleep(0)
        say("joe... Sent\x07")

    office.submitter.narrate = narrate
    result = await call(office, "sendmail -v joe")
    assert result.out == b"joe... Connecting to local...\njoe... Sent?\n"
    assert result.exit_code == 0


async def test_verbose_without_a_story_names_the_queue_id(office: PostOffice) -> None:
    for line in ("sendmail -v joe", "sendmail -v -odq joe"):
        result = await call(office, line)
        assert result.out == f"{QUEUE_ID}... queued\n".encode()


async def test_who_leaves_while_watching_does_not_stop_the_delivery(
    office: PostOffice,
) -> None:
    may_go_on = asyncio.Event()
    told = []

    async def narrate(say: Say) -> None:
        say("first")
        await may_go_on.wait()
        for number in range(5000):  # far more than is held for anybody
            say(f"line {number}")
        told.append("all")

    office.submitter.narrate = narrate
    stream = await connect_unix(office.path)
    stream.write(GREETING + frame(b"A", b"sendmail\0-v\0joe"))
    stream.write(frame(b"I", LETTER) + frame(b"E", b""))
    seen = b""
    while b"first" not in seen:
        seen += await stream.read()
    stream.abort()
    may_go_on.set()
    await asyncio.gather(*office.submitter.telling)
    assert told == ["all"]
    assert only(office).finished


async def test_lines_nobody_can_follow_are_counted(office: PostOffice) -> None:
    async def narrate(say: Say) -> None:
        for number in range(1500):  # without a pause: nobody can have read them
            say(f"line {number}")

    office.submitter.narrate = narrate
    result = await call(office, "sendmail -v joe")
    lines = result.out.decode().splitlines()
    assert lines[:2] == ["line 0", "line 1"]
    assert lines[-1] == "... 500 lines are not shown"
    assert len(lines) == 1001


# Callers who break the rules


BROKEN = {
    "greeting": b"EHLO gonzo.test\r\n",
    "no arguments": GREETING + frame(b"I", b"x"),
    "unknown frame": GREETING + b"Q\0\0\0\0",
    "huge frame": GREETING + b"A\xff\xff\xff\xff",
    "huge input": GREETING + frame(b"A", b"sendmail\0joe") + b"I\x10\0\0\0",
    "arguments twice": GREETING + frame(b"A", b"sendmail\0joe") * 2,
    "gone in greeting": GREETING[:3],
    "gone in arguments": GREETING + b"A\0\0\0\x10send",
    "gone in a piece": GREETING + frame(b"A", b"sendmail\0joe") + b"I\0\0\0\x10body",
    "gone before the end": GREETING
    + frame(b"A", b"sendmail\0joe")
    + frame(b"I", b"Subject: s\n\nhalf of it"),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
async def test_nothing_is_kept_of_a_broken_call(
    office: PostOffice, data: bytes
) -> None:
    reader, writer = await asyncio.open_unix_connection(office.path)
    writer.write(data)
    writer.write_eof()
    said = await reader.read()
    writer.close()
    assert said.endswith(frame(b"X", bytes([75])))
    assert office.submitter.letters == []
    assert all(begun.abandoned for begun in office.submitter.begun)


async def test_our_own_failure_is_told_and_logged(
    office: PostOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(kept: Kept, data: bytes) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Kept, "add", fail)
    result = await call(office, "sendmail joe")
    assert result.exit_code == 70
    assert b"Nothing was sent" in result.err
    (event,) = office.events
    assert isinstance(event, Lifecycle)
    assert "a bug" in event.what
    assert office.submitter.begun[0].abandoned
