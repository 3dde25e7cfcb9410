"""What is kept over a restart, what is not, and who may open a shard."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from postroom.mail.ids import to_number
from postroom.observe.events import AnyEvent, MessageShunted
from postroom.spool.spool import (
    Entry,
    Fenced,
    QueueFilter,
    Settle,
    Spool,
    SpoolError,
)
from postroom.testing.engines import Engine, HandClock
from postroom.testing.spool import Letters

HOUR_US = 3_600_000_000
Open = Callable[..., Awaitable[Spool]]
ALL = QueueFilter()


async def entries(spool: Spool, wanted: QueueFilter = ALL) -> list[Entry]:
    return [entry async for page in spool.entries(wanted) for entry in page]


async def test_everything_is_as_it_was(opening: Open, clock: HandClock) -> None:
    spool = await opening()
    letters = Letters(spool, clock)
    await spool.accept(letters.letter("ready@whizzer.test"))
    [lease] = await spool.accept(letters.letter("later@whizzer.test"), claim=True)
    await spool.settle(lease, [Settle(0, clock.us + HOUR_US, "busy", warned=True)])
    await spool.accept(letters.letter("held@whizzer.test"))
    await spool.hold(QueueFilter(recipients=("held",)), "suspicious")
    pals = letters.letter(":pals", body=b"shared\r\n")
    [lease] = await spool.accept(pals, claim=True)
    owned = letters.letter("owned", sender="owner-pals@gonzo.test")
    owned = msgspec.structs.replace(owned, body_of=pals.queue_id)
    await spool.expand(lease, 0, [letters.recipient("joe")], 1000, [owned])
    await spool.settle(lease, [])
    before, counts = await entries(spool), await spool.counts()
    await spool.aclose()
    spool = await opening()
    assert await entries(spool) == before
    assert await spool.counts() == counts
    assert await spool.next_due_us() == clock.us
    [found] = [
        x for x in await spool.claim("local", 0, 9, clock()) if "owned" in str(x)
    ]
    assert await found.message.body.read(0, 99) == b"shared\r\n"


async def test_leases_end_and_old_ones_are_fenced(
    opening: Open, clock: HandClock
) -> None:
    spool = await opening()
    [old] = await spool.accept(Letters(spool, clock).letter(), claim=True)
    await spool.aclose()
    spool = await opening()
    [lease] = await spool.claim("whizzer.test", 0, 9, clock())
    assert lease.fence > old.fence
    with pytest.raises(Fenced):
        await spool.settle(old, [Settle(0)])
    await spool.settle(lease, [Settle(0)])


async def test_a_queue_id_is_never_given_out_twice(
    opening: Open, clock: HandClock
) -> None:
    clock.us += HOUR_US
    spool = await opening()
    [lease] = await spool.accept(Letters(spool, clock).letter(), claim=True)
    await spool.settle(lease, [Settle(0)])
    await spool.aclose()
    clock.us -= HOUR_US  # the clock went back, and the queue is empty
    spool = await opening()
    assert spool.last_number == to_number(lease.queue_id)
    assert Letters(spool, clock).letter().queue_id > lease.queue_id


async def test_a_shard_has_one_holder(opening: Open) -> None:
    spool = await opening()
    with pytest.raises(SpoolError, match="in use"):
        await opening()
    await spool.aclose()
    await opening()


async def test_shards_know_nothing_of_one_another(
    opening: Open, clock: HandClock
) -> None:
    first, second = await opening(), await opening(shard=1)
    assert (first.shard, second.shard) == (0, 1)
    await second.accept(Letters(second, clock).letter())
    assert (await first.counts())["messages"] == 0
    assert (await second.counts())["messages"] == 1


async def test_closing_twice_is_harmless_and_calls_after_it_fail(
    opening: Open, clock: HandClock
) -> None:
    spool = await opening()
    new = Letters(spool, clock).letter()
    await spool.aclose()
    await spool.aclose()
    with pytest.raises(SpoolError, match="closed"):
        await spool.accept(new)
    with pytest.raises(SpoolError, match="closed"):
        await spool.claim("whizzer.test", 0, 9, clock())
    spool.in_hand.begin(new.queue_id)


async def test_closing_finishes_what_is_pending(
    opening: Open, clock: HandClock
) -> None:
    spool = await opening()
    new = Letters(spool, clock).letter()
    accepted = asyncio.create_task(spool.accept(new))
    await asyncio.sleep(0)
    await spool.aclose()
    await accepted
    spool = await opening()
    [entry] = await entries(spool)
    assert entry.queue_id == new.queue_id


async def test_a_message_in_hand_at_three_crashes_is_put_aside(
    engine: Engine, opening: Open, place: str, clock: HandClock, tmp_path: Path
) -> None:
    events: list[AnyEvent] = []
    spool = await opening()
    letters = Letters(spool, clock)
    guilty, innocent = letters.letter("joe"), letters.letter("ann")
    await spool.accept(guilty)
    await spool.accept(innocent)
    for crash in range(3):
        spool.in_hand.begin(guilty.queue_id)
        spool.in_hand.begin(innocent.queue_id)
        spool.in_hand.done(innocent.queue_id)
        left = str(tmp_path / f"crash-{crash}")
        await engine.as_left(place, left)
        await spool.aclose()
        place = left
        spool = await opening(place, emit=events.append)
    counts = await spool.counts()
    assert (counts["shunted"], counts["ready"]) == (1, 1)
    [event] = events
    assert isinstance(event, MessageShunted)
    assert event.queue_id == guilty.queue_id
    shunted = QueueFilter(states=("shunted",))
    assert await spool.release(shunted, clock()) == 1
    assert len(await spool.claim("local", 0, 9, clock())) == 2
