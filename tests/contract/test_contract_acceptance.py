"""A message that was accepted is durable and whole; one that was not is nowhere."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from postroom.mail.address import Address
from postroom.mail.envelope import BodyType, Envelope, Origin, Recipient
from postroom.mail.message import MemoryBody, Message, Prepend
from postroom.mail.route import Route
from postroom.mail.units import Size
from postroom.spool.settings import SpoolSettings
from postroom.spool.spool import (
    NewMessage,
    NewRecipient,
    RecipientState,
    Settle,
    Spool,
    SpoolError,
    SpoolFull,
)
from postroom.testing.engines import START_US, Engine, HandClock
from postroom.testing.spool import Letters

Open = Callable[..., Awaitable[Spool]]
LARGE = b"large\r\n" * 50_000


async def test_accept_and_claim_give_the_same_lease(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    new = letters.letter("joe@whizzer.test", "ann@whizzer.test")
    [first] = await spool.accept(new, claim=True)
    assert not await spool.claim("whizzer.test", 0, 10, clock())
    await spool.settle(first, [])
    [second] = await spool.claim("whizzer.test", 0, 10, clock())
    assert second == first


async def test_everything_said_in_the_envelope_comes_back(
    spool: Spool, clock: HandClock
) -> None:
    new = full_letter(Letters(spool, clock))
    await spool.accept(new)
    [lease] = await spool.claim("whizzer.test", 7, 10, clock())
    assert lease.envelope == new.envelope
    assert lease.message == new.message
    assert lease.message_id == "<1@gonzo.test>"
    assert lease.route == new.recipients[0].route


def full_letter(letters: Letters) -> NewMessage:
    joe = Address('odd "name', "Whizzer.Test")
    recipient = Recipient(joe, "SUCCESS,FAILURE", "rfc822;joe+40x")
    envelope = Envelope(
        sender=Address("bätty", "gonzo.test"),
        recipients=(recipient,),
        origin=Origin("ESMTPSA", "::1", 25, "name.test", "helo", "betty", "mx"),
        body=BodyType.BINARY,
        size=12345,
        smtputf8=True,
        ret="HDRS",
        envid="QQ+40",
        auth="betty@gonzo.test",
        requiretls=True,
        deliver_by="120;RT",
        hold_until_us=5,
        priority=-9,
        arrival_us=START_US - 1,
    )
    edits = (Prepend(b"Received: \xff\r\n"),)
    return NewMessage(
        queue_id=letters.letter().queue_id,
        envelope=envelope,
        message=Message(b"Subject: \xff\0\r\n", MemoryBody(b"\xff\0"), edits, False),
        recipients=(
            NewRecipient(
                joe,
                Route("smtp", "whizzer.test", "rule"),
                7,
                notify=recipient.notify,
                orcpt=recipient.orcpt,
            ),
        ),
        message_id="<1@gonzo.test>",
    )


async def test_a_bad_message_fails_alone(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    news = [letters.letter() for _ in range(9)]
    again = news[0]
    results = await asyncio.gather(
        *(spool.accept(new, claim=True) for new in (*news, again)),
        return_exceptions=True,
    )
    assert [isinstance(result, SpoolError) for result in results] == [False] * 9 + [
        True
    ]
    assert (await spool.counts())["messages"] == 9


async def test_a_cancelled_accept_leaves_the_message_to_be_claimed(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    task = asyncio.create_task(spool.accept(letters.letter(), claim=True))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await spool.accept(letters.letter("joe"))  # the writer is past the first now
    assert len(await spool.claim("whizzer.test", 0, 1, clock())) == 1


async def stored(spool: Spool, new: NewMessage, body: bytes) -> NewMessage:
    """Write a body as large ones are."""
    writer = spool.body_writer(new.queue_id)
    for start in range(0, len(body), 100_000):
        await writer.write(body[start : start + 100_000])
    message = msgspec.structs.replace(new.message, body=await writer.finish())
    return msgspec.structs.replace(new, message=message)


@pytest.mark.parametrize("body", [b"", b"small\r\n", LARGE], ids=len)
async def test_what_was_answered_is_there_and_whole_though_the_process_ends(
    body: bytes,
    engine: Engine,
    opening: Open,
    place: str,
    clock: HandClock,
    tmp_path: Path,
) -> None:
    spool = await opening()
    new = Letters(spool, clock).letter("joe@whizzer.test", "ann@whizzer.test")
    await spool.accept(await stored(spool, new, body))
    await engine.as_left(place, str(tmp_path))
    found = await opening(str(tmp_path))
    [lease] = await found.claim("whizzer.test", 0, 10, clock())
    assert lease.queue_id == new.queue_id
    assert lease.numbers == (0, 1)
    assert lease.message.header == new.message.header
    assert lease.message.body.size == len(body)
    assert await lease.message.body.read(0, len(body) + 1) == body


async def test_a_large_body_is_read_from_any_offset(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    new = await stored(spool, letters.letter(), LARGE)
    await spool.accept(new)
    [lease] = await spool.claim("whizzer.test", 0, 1, clock())
    body = lease.message.body
    assert await body.read(70_001, 9) == LARGE[70_001:70_010]
    assert await body.read(len(LARGE) - 3, 100) == LARGE[-3:]
    assert await body.read(len(LARGE), 100) == b""


async def test_a_large_body_that_is_thrown_away_is_no_message(
    spool: Spool, letters: Letters
) -> None:
    writer = spool.body_writer(letters.letter().queue_id)
    await writer.write(LARGE)
    await writer.abandon()
    assert (await spool.counts())["messages"] == 0
    await spool.accept(letters.letter())


async def test_what_is_not_due_yet_or_held_is_not_leased_by_accepting(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    later = msgspec.structs.replace(
        letters.recipient("joe@whizzer.test"), due_us=clock.us + 1
    )
    held = msgspec.structs.replace(
        letters.recipient("ann@whizzer.test"), state=RecipientState.HELD
    )
    assert not await spool.accept(letters.letter(later), claim=True)
    assert not await spool.accept(letters.letter(held), claim=True)
    counts = await spool.counts()
    assert (counts["ready"], counts["held"], counts["active"]) == (1, 1, 0)


async def test_a_message_that_cannot_be_stored_is_refused_alone(
    spool: Spool, letters: Letters
) -> None:
    bad = msgspec.structs.replace(letters.letter(), message_id="\ud800")
    results = await asyncio.gather(
        spool.accept(letters.letter()), spool.accept(bad), return_exceptions=True
    )
    assert [isinstance(result, SpoolError) for result in results] == [False, True]
    assert (await spool.counts())["messages"] == 1


async def test_without_space_mail_is_refused_and_the_queue_drains(
    opening: Open, clock: HandClock
) -> None:
    spool = await opening()
    await spool.accept(Letters(spool, clock).letter())
    await spool.aclose()
    full = SpoolSettings(reserve_octets=Size(1 << 60), reserve_inodes=0)
    spool = await opening(settings=full)
    assert not spool.check_space(0)
    with pytest.raises(SpoolFull):
        await spool.accept(Letters(spool, clock).letter())
    [lease] = await spool.claim("whizzer.test", 0, 9, clock())
    await spool.settle(lease, [Settle(0)])
    assert set((await spool.counts()).values()) == {0}
