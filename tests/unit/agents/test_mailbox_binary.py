"""A message with a binary body in a mailbox: each octet survives (RFC 3030 §3)."""

import email
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.message import Message as Parsed
from pathlib import Path

import pytest

from postroom.agents.mailbox import MailboxAgent
from postroom.mail.address import Address
from postroom.mail.envelope import BodyType, Envelope, Recipient
from postroom.mail.ids import QueueId
from postroom.mail.message import MemoryBody, Message, Prepend
from postroom.mail.now import Now
from postroom.mail.outcome import Attempt, Delivered, Failed
from postroom.mail.route import Route
from postroom.mail.units import Size
from postroom.mailbox.maildir import Maildirs
from postroom.mailbox.name import MailboxName
from postroom.mailbox.settings import MailboxSettings
from postroom.mailbox.store import InUse, Unusable

NASTY = bytes(range(256)) + b"\n.\r\n\n\r\0\r\r.\n"
PLAIN = b"MIME-Version: 1.0\r\nContent-Type: application/x-it\r\n"
BINARY = PLAIN + b"Content-Transfer-Encoding: binary\r\n"


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


async def delivered(
    tmp_path: Path, pool: ThreadPoolExecutor, header: bytes, body: bytes
) -> bytes:
    path = MailboxSettings(path=f"{tmp_path}/{{user}}", memory_octets_max=Size(9000))
    store = Maildirs(path, "mx.test")
    agent = MailboxAgent(store, path, pool, hostname="mx.test")
    (outcome,) = await agent.deliver(attempt(header, body))
    assert isinstance(outcome, Delivered), outcome
    session = store.open(MailboxName("joe"))
    assert not isinstance(session, InUse | Unusable)
    (found,) = session.read(0, 1, 10**9)
    session.close()
    assert found is not None
    return found


def attempt(header: bytes, body: bytes) -> Attempt:
    envelope = Envelope(
        sender=Address("betty", "gonzo.test"),
        recipients=(Recipient(Address("joe", "mx.test")),),
        body=BodyType.BINARY,
        arrival_us=1_767_225_600_000_000,
    )
    received = (Prepend(b"Received: by x\r\n"),)
    return Attempt(
        queue_id=QueueId("0Ab1Cd2Ef3G"),
        envelope=envelope,
        numbers=(0,),
        message=Message(header, MemoryBody(body), received),
        route=Route("mailbox", "local"),
        now=Now(1_767_225_601_000_000, 5_000_000),
    )


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(NASTY, id="small"),
        pytest.param(NASTY * 400, id="in-pieces"),
        pytest.param(NASTY * 30, id="small-before-only"),
    ],
)
async def test_each_octet_survives(
    tmp_path: Path, pool: ThreadPoolExecutor, body: bytes
) -> None:
    found = await delivered(tmp_path, pool, BINARY, body)
    assert found.startswith(b"Return-Path: <betty@gonzo.test>\r\n")
    assert found.count(b"\n") == found.count(b"\r\n") == found.count(b"\r")
    parsed: Parsed = email.message_from_bytes(found)
    assert parsed["Received"] == "by x"
    assert parsed["Content-Transfer-Encoding"] == "base64"
    assert parsed.get_payload(decode=True) == body


async def test_text_that_was_sent_as_binary_stays_as_it_is(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    found = await delivered(tmp_path, pool, PLAIN, b"one\r\ntwo\r\n")
    assert found.endswith(b"\r\n\r\none\r\ntwo\r\n")


async def test_what_cannot_be_converted_comes_back(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    signed = b'Content-Type: multipart/signed; boundary="x"\r\n'
    body = b"--x\r\n\r\n" + NASTY + b"\r\n--x--\r\n"
    settings = MailboxSettings(path=f"{tmp_path}/{{user}}")
    agent = MailboxAgent(Maildirs(settings, "mx.test"), settings, pool)
    (outcome,) = await agent.deliver(attempt(b"MIME-Version: 1.0\r\n" + signed, body))
    assert isinstance(outcome, Failed)
    assert outcome.status == "5.6.3"
