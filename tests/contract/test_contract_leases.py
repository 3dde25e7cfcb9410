"""What is due is leased once, oldest first, by hop and lane; old leases are fenced."""

import asyncio

import msgspec
import pytest

from postroom.spool.spool import Fenced, Settle, Spool
from postroom.testing.engines import HandClock
from postroom.testing.spool import Letters


@pytest.mark.parametrize("how", ["settled", "foreign fence", "released"])
async def test_a_stale_lease_is_fenced(
    how: str, spool: Spool, letters: Letters
) -> None:
    [lease] = await spool.accept(letters.letter(), claim=True)
    if how == "settled":
        await spool.settle(lease, [Settle(0)])
    elif how == "released":
        await spool.settle(lease, [])
    else:
        lease = msgspec.structs.replace(lease, fence=lease.fence - 1)
    with pytest.raises(Fenced):
        await spool.settle(lease, [Settle(0)])


async def test_one_lease_cannot_be_settled_twice_at_once(
    spool: Spool, letters: Letters
) -> None:
    [lease] = await spool.accept(letters.letter(), claim=True)
    results = await asyncio.gather(
        spool.settle(lease, [Settle(0)]),
        spool.settle(lease, [Settle(0)]),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None), Fenced]
    assert (await spool.counts())["recipients"] == 0


async def test_concurrent_claims_never_share(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    await asyncio.gather(*(spool.accept(letters.letter()) for _ in range(40)))
    claims = await asyncio.gather(
        *(spool.claim("whizzer.test", 0, 10, clock()) for _ in range(8))
    )
    ids = [lease.queue_id for leases in claims for lease in leases]
    assert len(ids) == len(set(ids)) == 40


async def test_a_claim_takes_the_oldest_due_first(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    news = [letters.letter() for _ in range(5)]
    for new in reversed(news):
        await spool.accept(new)
        clock.us += 1
    found = await spool.claim("whizzer.test", 0, 2, clock())
    assert [lease.queue_id for lease in found] == [new.queue_id for new in news[:2]]


async def test_recipients_of_a_message_come_in_leases_of_bounded_size(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    names = [f"u{i}@whizzer.test" for i in range(250)]
    await spool.accept(letters.letter(*names))
    found = await spool.claim("whizzer.test", 0, 2, clock())
    assert [len(lease.numbers) for lease in found] == [100, 100]
    [rest] = await spool.claim("whizzer.test", 0, 2, clock())
    assert len(rest.numbers) == 50
    for lease in (*found, rest):
        await spool.settle(lease, [Settle(number) for number in lease.numbers])
    assert (await spool.counts())["messages"] == 0


async def test_lanes_take_turns_when_any_lane_will_do(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    for lane in (3, 3, 3, 5):
        recipient = letters.recipient("joe@whizzer.test")
        recipient = msgspec.structs.replace(recipient, lane=lane)
        await spool.accept(letters.letter(recipient))
    found = await spool.claim("whizzer.test", None, 2, clock())
    assert [lease.lane for lease in found] == [3, 5]


async def test_only_the_hop_and_lane_that_are_meant_are_leased(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    for name, lane in (("a@one.test", 0), ("b@one.test", 1), ("c@two.test", 0)):
        recipient = msgspec.structs.replace(letters.recipient(name), lane=lane)
        await spool.accept(letters.letter(recipient))
    places = {(each.hop, each.lane) for each in await spool.due_hops(clock(), 10)}
    assert places == {("one.test", 0), ("one.test", 1), ("two.test", 0)}
    [lease] = await spool.claim("one.test", 1, 10, clock())
    assert str(lease.envelope.recipients[0].address) == "b@one.test"
    assert not await spool.claim("one.test", 2, 10, clock())
    assert not await spool.claim("no.test", None, 10, clock())
    assert len(await spool.claim("one.test", None, 10, clock())) == 1


async def test_every_hop_gets_its_turn_however_small_the_pages(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    names = {f"hop{i}.test" for i in range(7)}
    for name in names:
        await spool.accept(letters.letter(f"joe@{name}"))
    seen: set[str] = set()
    for _ in range(8):
        seen.update(each.hop for each in await spool.due_hops(clock(), 2))
    assert seen == names


async def test_what_is_leased_is_counted_as_active_and_not_due(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    [lease] = await spool.accept(letters.letter(), claim=True)
    assert (await spool.counts())["active"] == 1
    assert not await spool.due_hops(clock(), 10)
    assert await spool.next_due_us() is None
    await spool.settle(lease, [])
    assert (await spool.counts())["active"] == 0
    assert [each.hop for each in await spool.due_hops(clock(), 10)] == ["whizzer.test"]
