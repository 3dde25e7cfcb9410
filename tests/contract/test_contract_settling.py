"""Settling is one act: the results of a lease, and the reports about them."""

import pytest

from postroom.mail.route import Route
from postroom.spool.spool import (
    Entry,
    Lease,
    QueueFilter,
    RecipientState,
    Settle,
    Spool,
    SpoolError,
)
from postroom.testing.engines import HandClock
from postroom.testing.spool import Letters

HOUR_US = 3_600_000_000
ALL = QueueFilter()


async def entries(spool: Spool, wanted: QueueFilter = ALL) -> list[Entry]:
    return [entry async for page in spool.entries(wanted) for entry in page]


async def test_settling_the_last_recipient_removes_the_message(
    spool: Spool, letters: Letters
) -> None:
    new = letters.letter("joe@whizzer.test", "joe@gonzo.test")
    leases = await spool.accept(new, claim=True)
    assert len(leases) == 2
    await spool.settle(leases[0], [Settle(0)])
    assert (await spool.counts())["messages"] == 1
    await spool.settle(leases[1], [Settle(1)])
    assert set((await spool.counts()).values()) == {0}
    assert not await entries(spool)


async def test_a_deferred_recipient_waits_until_it_is_due(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    [lease] = await spool.accept(letters.letter(), claim=True)
    due_us = clock.us + HOUR_US
    await spool.settle(lease, [Settle(0, due_us, "no route to host", warned=True)])
    assert not await spool.claim("whizzer.test", 0, 10, clock())
    assert await spool.next_due_us() == due_us
    assert not await spool.due_hops(clock(), 10)
    clock.us = due_us
    assert [hop.hop for hop in await spool.due_hops(clock(), 10)] == ["whizzer.test"]
    [again] = await spool.claim("whizzer.test", None, 10, clock())
    assert again.tries == (1,)
    assert again.warned
    assert not await spool.due_hops(clock(), 10)
    assert await spool.next_due_us() is None


async def test_a_settled_recipient_may_get_another_route(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    [lease] = await spool.accept(letters.letter(), claim=True)
    route = Route("smtp", "[relay.test]:587", "smart host")
    await spool.settle(lease, [Settle(0, clock.us, "", route=route)])
    [again] = await spool.claim("[relay.test]:587", 0, 1, clock())
    assert again.route == route


async def test_a_report_is_queued_with_the_settlement(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    [lease] = await spool.accept(letters.letter(), claim=True)
    report = letters.letter("betty", sender="")
    await spool.settle(lease, [Settle(0)], [report])
    [found] = await spool.claim("local", 0, 10, clock())
    assert found.queue_id == report.queue_id
    assert found.envelope.sender.is_null


async def test_expanding_recipients_that_are_deferred_stay_expanding(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    [lease] = await spool.accept(letters.letter(":pals"), claim=True)
    await spool.settle(lease, [Settle(0, clock.us, "table is broken")])
    [again] = await spool.claim("", None, 1, clock())
    assert isinstance(again, Lease)
    assert again.route is None
    assert (await spool.counts())["expanding"] == 1


async def test_a_state_may_be_set_by_settling(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    [lease] = await spool.accept(letters.letter(), claim=True)
    await spool.settle(
        lease, [Settle(0, clock.us, "quarantined", state=RecipientState.HELD)]
    )
    assert (await spool.counts())["held"] == 1
    assert not await spool.claim("whizzer.test", 0, 1, clock())


async def test_what_is_not_named_goes_back_unchanged(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    names = [f"u{i}@whizzer.test" for i in range(4)]
    [lease] = await spool.accept(letters.letter(*names), claim=True)
    await spool.settle(lease, [Settle(1), Settle(2, clock.us + HOUR_US, "busy")])
    [again] = await spool.claim("whizzer.test", 0, 9, clock())
    assert (again.numbers, again.tries) == ((0, 3), (0, 0))
    clock.us += HOUR_US
    [later] = await spool.claim("whizzer.test", 0, 9, clock())
    assert (later.numbers, later.tries) == ((2,), (1,))


async def test_a_report_that_cannot_be_queued_settles_nothing(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    [lease] = await spool.accept(letters.letter(), claim=True)
    taken = letters.letter("betty", sender="")
    await spool.accept(taken)
    with pytest.raises(SpoolError):
        await spool.settle(lease, [Settle(0)], [taken])
    assert (await spool.counts())["recipients"] == 2
    assert not await spool.claim("whizzer.test", 0, 9, clock()), "the lease is held"
    await spool.settle(lease, [Settle(0)], [letters.letter("betty", sender="")])
    assert (await spool.counts())["recipients"] == 2


async def test_why_a_recipient_waits_can_be_seen(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    [lease] = await spool.accept(letters.letter(), claim=True)
    await spool.settle(lease, [Settle(0, clock.us + HOUR_US, "no route to host")])
    [entry] = await entries(spool)
    [seen] = entry.recipients
    assert (seen.status_text, seen.tries) == ("no route to host", 1)
    assert (seen.due_us, seen.last_us) == (clock.us + HOUR_US, clock.us)
