"""What operators order, page by page; looking at mail; giving up with reports."""

from collections.abc import Awaitable, Callable, Sequence

import pytest

from postroom.mail.message import Message, Prepend
from postroom.spool.spool import (
    Handled,
    Hold,
    Lease,
    NewMessage,
    Order,
    Patience,
    QueueFilter,
    Release,
    Requeue,
    Rest,
    Retry,
    Settle,
    Spool,
    SpoolError,
    TakeOut,
)
from postroom.testing.engines import HandClock
from postroom.testing.spool import Letters

HOUR_US = 3_600_000_000
ALL = QueueFilter()
Open = Callable[..., Awaitable[Spool]]


async def order(spool: Spool, what: Order, clock: HandClock) -> list[Handled]:
    return [page async for page in spool.carry_out(what, ALL, clock())]


def done(pages: list[Handled]) -> list[str]:
    return [queue_id for page in pages for queue_id in page.queue_ids]


def busy(pages: list[Handled]) -> list[str]:
    return [queue_id for page in pages for queue_id in page.busy]


@pytest.mark.parametrize(
    "what",
    [Hold("by hand"), Retry(), Requeue(), TakeOut()],
    ids=lambda what: type(what).__name__,
)
async def test_what_is_being_delivered_is_named_and_left_alone(
    what: Order, spool: Spool, letters: Letters, clock: HandClock
) -> None:
    [lease] = await spool.accept(letters.letter(), claim=True)
    pages = await order(spool, what, clock)
    assert busy(pages) == [lease.queue_id]
    assert not done(pages)
    await spool.settle(lease, [Settle(0)])
    assert (await spool.counts())["messages"] == 0


async def test_orders_are_kept_over_a_restart(opening: Open, clock: HandClock) -> None:
    spool = await opening()
    letters = Letters(spool, clock)
    news = [letters.letter("joe"), letters.letter("ann"), letters.letter(":pals")]
    for new in news:
        await spool.accept(new)
    ids = [new.queue_id for new in news]
    assert done(await order(spool, Hold("suspicious"), clock)) == ids
    await spool.aclose()
    spool = await opening()
    assert (await spool.counts())["held"] == 3
    assert done(await order(spool, Release(), clock)) == ids
    await spool.aclose()
    spool = await opening()
    counts = await spool.counts()
    assert (counts["held"], counts["ready"], counts["expanding"]) == (0, 2, 1)
    assert sorted(done(await order(spool, TakeOut(), clock))) == sorted(ids)
    await spool.aclose()
    spool = await opening()
    assert set((await spool.counts()).values()) == {0}


async def test_retry_makes_due_what_waits(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    [lease] = await spool.accept(letters.letter(), claim=True)
    await spool.settle(lease, [Settle(0, clock.us + HOUR_US, "busy")])
    assert done(await order(spool, Retry(), clock)) == [lease.queue_id]
    assert len(await spool.claim("whizzer.test", None, 9, clock())) == 1


async def test_requeued_mail_is_routed_anew(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    new = letters.letter("joe@old.test")
    await spool.accept(new)
    assert done(await order(spool, Requeue(), clock)) == [new.queue_id]
    assert not await spool.claim("old.test", None, 9, clock())
    [lease] = await spool.claim("", None, 9, clock())
    assert lease.route is None
    assert (await spool.counts())["recipients"] == 1


class Farewell:
    """Makes a report about each message that is given up."""

    def __init__(self, letters: Letters) -> None:
        self._letters = letters
        self.reasons: list[str] = []
        self.reports: list[NewMessage] = []

    async def __call__(
        self, lease: Lease, reasons: Sequence[str]
    ) -> Sequence[NewMessage]:
        self.reasons += reasons
        self.reports.append(self._letters.letter("betty", sender=""))
        return self.reports[-1:]


async def test_giving_up_takes_out_and_reports_in_one_act(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    [lease] = await spool.accept(letters.letter(), claim=True)
    await spool.settle(lease, [Settle(0, clock.us + HOUR_US, "no route")])
    farewell = Farewell(letters)
    wanted = QueueFilter(domains=("whizzer.test",))
    pages = [page async for page in spool.give_up(wanted, clock(), farewell)]
    assert done(pages) == [lease.queue_id]
    assert farewell.reasons == ["no route"]
    assert not await spool.claim("whizzer.test", None, 9, clock())
    [report] = await spool.claim("local", None, 9, clock())
    assert report.queue_id == farewell.reports[0].queue_id


async def test_a_report_that_cannot_be_queued_gives_nothing_up(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    taken = letters.letter("betty")
    await spool.accept(taken)
    await spool.accept(letters.letter())

    async def twice(_: Lease, __: Sequence[str]) -> Sequence[NewMessage]:
        return [taken]

    wanted = QueueFilter(domains=("whizzer.test",))
    with pytest.raises(SpoolError):
        async for _ in spool.give_up(wanted, clock(), twice):
            pass
    assert (await spool.counts())["messages"] == 2
    assert len(await spool.claim("whizzer.test", None, 9, clock())) == 1


async def test_a_message_can_be_looked_at(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    new = letters.letter("joe", "ann", "eve", body=b"looked at\r\n")
    edits = (Prepend(b"Received: from a\r\n"),)
    message = Message(new.message.header, new.message.body, edits)
    await spool.accept(NewMessage(new.queue_id, new.envelope, message, new.recipients))
    kept = await spool.kept(new.queue_id)
    assert kept is not None
    assert kept.message.edits == edits
    assert await kept.message.body.read(0, 99) == b"looked at\r\n"
    raw = await spool.raw(new.queue_id)
    assert raw is not None
    assert (raw.header, raw.edits) == (new.message.header, ())
    found = await spool.recipients(new.queue_id, 0, 9)
    assert [(each.number, each.address) for each in found] == [(1, "ann"), (2, "eve")]
    assert len(await spool.recipients(new.queue_id, -1, 2)) == 2


async def test_what_is_not_there_cannot_be_looked_at(
    spool: Spool, letters: Letters
) -> None:
    nobody = letters.letter().queue_id
    assert await spool.kept(nobody) is None
    assert await spool.raw(nobody) is None
    assert not await spool.recipients(nobody, -1, 9)


async def test_the_shape_counts_by_destination_and_sender(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    for name in ("a@one.test", "b@one.test", "c@two.test"):
        await spool.accept(letters.letter(name))
    await spool.hold(QueueFilter(domains=("two.test",)), "wait")
    shape = await spool.shape(clock())
    assert {hop.hop: sum(hop.by_age) for hop in shape.hops}["one.test"] == 2
    assert {hop.hop: hop.stopped for hop in shape.hops}["two.test"] == 1
    [sender] = shape.senders
    assert (sender.domain, sender.messages) == ("gonzo.test", 3)


async def test_elders_at_resting_hops_are_found_once_a_round(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    await spool.accept(letters.letter("old@down.test"))
    clock.us += HOUR_US
    young = letters.letter("young@down.test")
    await spool.accept(young)
    await spool.rest("down.test", Rest(clock.us + 9 * HOUR_US, "4.4.1", "is down"))
    patience = Patience(HOUR_US // 2, 5 * HOUR_US, HOUR_US)
    found: list[Lease] = []
    while (leases := await spool.claim_elders(patience, clock())) is not None:
        found += leases
    assert [str(x.envelope.recipients[0].address) for x in found] == ["old@down.test"]
    again = await spool.claim_messages([young.queue_id], clock())
    assert [lease.queue_id for lease in again] == [young.queue_id]
