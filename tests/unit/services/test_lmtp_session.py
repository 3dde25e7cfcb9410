"""LMTP on the server: LHLO, and a reply for each recipient after the content."""

import pytest

from postroom import hook, reject
from postroom.mail.envelope import Origin
from postroom.mail.units import Size
from postroom.observe.events import MessageQueued
from postroom.services.face import Face, Kind
from postroom.services.receive import ReceiveService
from postroom.smtp.settings import ServerSettings
from postroom.spool.spool import SpoolError, SpoolFull
from postroom.testing.conversation import ListConversation
from postroom.testing.workbench import Bench, Plan, bench

SMALL = ServerSettings(message_octets_max=Size(50))
FACES = {
    "in": Face(ServerSettings(), Kind.LMTP),
    "small": Face(SMALL, Kind.LMTP),
}
TWO = "RCPT TO:<joe@gonzo.test>\nRCPT TO:<betty@gonzo.test>\n"
BEGIN = "LHLO c.test\nMAIL FROM:<ann@c.test>\n"
LETTER = "DATA\nSubject: s\n\nhello\n.\n"


async def talk(b: Bench, *text: str, listener: str = "in") -> list[str]:
    conversation = ListConversation(*text, "QUIT\n")
    origin = Origin("SMTP", "127.0.0.1", listener=listener)
    await ReceiveService(b.tools).converse(conversation, origin)
    return conversation.codes


async def test_each_recipient_has_a_reply() -> None:
    async with bench(Plan(faces=FACES)) as b:
        codes = await talk(b, BEGIN + TWO + LETTER)
        assert codes[2:] == [
            "250 2.1.0", "250 2.1.5", "250 2.1.5", "354",
            "250 2.0.0", "250 2.0.0", "221 2.0.0",
        ]  # fmt: skip
        (queued,) = b.told(MessageQueued)
        assert queued.origin.protocol == "LMTP"
        assert queued.recipients == 2


async def test_refused_recipients_have_none() -> None:
    async with bench(Plan(faces=FACES)) as b:
        codes = await talk(b, BEGIN, "RCPT TO:<nosuch@gonzo.test>\n" + TWO + LETTER)
        assert codes[3:] == [
            "550 5.1.1", "250 2.1.5", "250 2.1.5", "354",
            "250 2.0.0", "250 2.0.0", "221 2.0.0",
        ]  # fmt: skip


async def test_a_recipient_named_twice_is_answered_twice() -> None:
    """RFC 2033 §4.2: one reply for each RCPT that was answered by 250."""
    async with bench(Plan(faces=FACES)) as b:
        codes = await talk(b, BEGIN + TWO + TWO + LETTER)
        assert codes[8:] == ["250 2.0.0"] * 4 + ["221 2.0.0"]
        (queued,) = b.told(MessageQueued)
        assert queued.recipients == 2


@hook.message
def never(session: object, message: object) -> object:
    return reject("5.7.1", "no thanks")


async def test_a_refused_content_is_refused_for_all() -> None:
    async with bench(Plan(faces=FACES, hooks=[never])) as b:
        codes = await talk(b, BEGIN + TWO + LETTER)
        assert codes[6:] == ["550 5.7.1", "550 5.7.1", "221 2.0.0"]


async def test_a_content_that_is_too_large_is_refused_for_all() -> None:
    async with bench(Plan(faces=FACES, server=SMALL)) as b:
        codes = await talk(b, BEGIN + TWO + LETTER + "NOOP\n", listener="small")
        assert codes[6:8] == ["250 2.0.0"] * 2  # it just fits
        large = LETTER.replace("hello", "hello" * 20)
        codes = await talk(b, BEGIN + TWO + large + "NOOP\n", listener="small")
        assert codes[6:] == ["552 5.3.4"] * 2 + ["250 2.0.0", "221 2.0.0"]


@pytest.mark.parametrize(
    ("fault", "code"),
    [(SpoolError("broken"), "451 4.3.0"), (SpoolFull("full"), "452 4.3.1")],
)
async def test_a_spool_that_fails_is_told_to_all(fault: Exception, code: str) -> None:
    async with bench(Plan(faces=FACES)) as b:
        b.spool.faults["accept"] = [fault]
        codes = await talk(b, BEGIN + TWO + LETTER)
        assert codes[6:] == [code, code, "221 2.0.0"]


@pytest.mark.parametrize("hello", ["EHLO c.test\n", "HELO c.test\n"])
async def test_lmtp_has_no_other_hello(hello: str) -> None:
    async with bench(Plan(faces=FACES)) as b:
        assert (await talk(b, hello))[1].startswith("500")


async def test_smtp_has_no_lhlo() -> None:
    async with bench() as b:
        assert (await talk(b, "LHLO c.test\n"))[1].startswith("500")
