"""A hop that rests is left alone as a whole, and what waits for it is not changed."""

from collections.abc import Awaitable, Callable

from postroom.spool.spool import Rest, Settle, Spool
from postroom.testing.engines import START_US, HandClock
from postroom.testing.spool import Letters

SECOND_US = 1_000_000
REST = Rest(START_US + 60 * SECOND_US, "4.4.1", "Connection refused")
Open = Callable[..., Awaitable[Spool]]


async def hops(spool: Spool, clock: HandClock) -> set[str]:
    return {each.hop for each in await spool.due_hops(clock(), 10)}


async def test_a_resting_hop_is_not_due_until_the_end_of_its_rest(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    await spool.accept(letters.letter("joe@down.test"))
    await spool.accept(letters.letter("joe@up.test"))
    await spool.rest("down.test", REST)
    assert spool.has_rests
    assert spool.rest_of("down.test") == REST
    assert spool.rest_of("up.test") is None
    assert await hops(spool, clock) == {"up.test"}
    [lease] = await spool.claim("up.test", None, 9, clock())
    await spool.settle(lease, [Settle(0)])
    assert await spool.next_due_us() == REST.until_us
    clock.us = REST.until_us
    assert await hops(spool, clock) == {"down.test"}
    [lease] = await spool.claim("down.test", None, 9, clock())
    assert lease.tries == (0,), "a rest is no try"


async def test_a_rest_can_be_ended(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    for hop in ("one.test", "two.test", "three.test"):
        await spool.accept(letters.letter(f"joe@{hop}"))
        await spool.rest(hop, REST)
    assert not await spool.due_hops(clock(), 10)
    await spool.end_rests(["one.test"])
    assert await hops(spool, clock) == {"one.test"}
    await spool.end_rests()
    assert await hops(spool, clock) == {"one.test", "two.test", "three.test"}
    assert not spool.has_rests


async def test_a_rest_is_kept_over_a_restart(opening: Open, clock: HandClock) -> None:
    spool = await opening()
    await spool.accept(Letters(spool, clock).letter("joe@down.test"))
    await spool.rest("down.test", REST)
    await spool.aclose()
    spool = await opening()
    assert spool.rest_of("down.test") == REST
    assert not await spool.due_hops(clock(), 10)
    clock.us = REST.until_us
    assert await hops(spool, clock) == {"down.test"}
