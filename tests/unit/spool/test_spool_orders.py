"""Operators' orders in one shard, page by page, and the shape of the queue."""

from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest

from postroom.mail.ids import QueueId
from postroom.mail.now import MINUTE_US, SECOND_US, Now
from postroom.spool.engine import Shard
from postroom.spool.orders import PAGE_MESSAGES
from postroom.spool.selection import QueueFilter
from postroom.spool.shape import AGES_US, HopShape, SenderShape, Shape
from postroom.spool.spool import (
    Entry,
    Handled,
    Hold,
    Lease,
    NewMessage,
    Order,
    Release,
    Requeue,
    Retry,
    SpoolError,
    TakeOut,
)
from postroom.testing.spool import Letters, temporary_shard

ALL = QueueFilter()
NOON_US = 1_795_348_800_000_000


class Clock:
    def __init__(self) -> None:
        self.us = NOON_US

    def __call__(self) -> Now:
        return Now(self.us, self.us)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def shard(clock: Clock) -> AsyncIterator[Shard]:
    async with temporary_shard(clock=clock) as made:
        yield made


@pytest.fixture
def letters(shard: Shard, clock: Clock) -> Letters:
    return Letters(shard, clock)


async def entries(shard: Shard, wanted: QueueFilter = ALL) -> list[Entry]:
    return [entry async for page in shard.entries(wanted) for entry in page]


async def order(shard: Shard, what: Order, wanted: QueueFilter = ALL) -> Handled:
    pages = shard.carry_out(what, wanted, shard._clock())
    return _joined([page async for page in pages])


def _joined(pages: Sequence[Handled]) -> Handled:
    return Handled(
        tuple(i for page in pages for i in page.queue_ids),
        tuple(i for page in pages for i in page.busy),
        tuple(i for page in pages for i in page.unreadable),
        tuple(sorted({hop for page in pages for hop in page.hops})),
    )


async def test_long_queues_are_handled_in_pages(
    shard: Shard, letters: Letters, clock: Clock
) -> None:
    count = PAGE_MESSAGES + 3
    for _ in range(count):
        await shard.accept(letters.letter())
    pages = [page async for page in shard.carry_out(Hold("x"), ALL, clock())]
    assert [len(page.queue_ids) for page in pages if page.queue_ids] == [
        PAGE_MESSAGES,
        3,
    ]
    assert (await shard.counts())["held"] == count
    assert len((await order(shard, TakeOut())).queue_ids) == count
    assert (await shard.counts())["recipients"] == 0


async def test_only_matching_recipients_are_held(
    shard: Shard, letters: Letters
) -> None:
    new = letters.letter("joe@a.test", "joe@b.test")
    await shard.accept(new)
    done = await order(shard, Hold("x"), QueueFilter(domains=("a.test",)))
    assert (done.queue_ids, done.hops) == ((new.queue_id,), ("a.test",))
    (entry,) = await entries(shard)
    assert [one.state for one in entry.recipients] == ["held", "ready"]
    nothing = await order(shard, Hold("x"), QueueFilter(domains=("a.test",)))
    assert nothing.queue_ids == ()


async def test_what_is_delivered_is_left_alone_and_named(
    shard: Shard, letters: Letters, clock: Clock
) -> None:
    busy, free = letters.letter(), letters.letter()
    await shard.accept(busy, claim=True)
    await shard.accept(free)
    for what in (Hold("x"), Release(), Requeue(), Retry(), TakeOut()):
        done = await order(shard, what)
        assert done.busy == (busy.queue_id,)
    (entry,) = await entries(shard, QueueFilter(states=("delivering",)))
    assert entry.queue_id == busy.queue_id
    chosen = QueueFilter(states=("delivering",), senders=("nobody",))
    assert await entries(shard, chosen) == []


async def test_requeue_expands_and_routes_anew(
    shard: Shard, letters: Letters, clock: Clock
) -> None:
    new = letters.letter("joe@a.test", ":pals")
    await shard.accept(new)
    await order(shard, Hold("x"), QueueFilter(recipients=("pals",)))
    done = await order(shard, Requeue())
    assert done.queue_ids == (new.queue_id,)
    (entry,) = await entries(shard)
    assert [(one.state, one.hop) for one in entry.recipients] == [
        ("expanding", ""),
        ("held", ""),
    ]
    await order(shard, Requeue(), QueueFilter(states=("held",)))
    counts = await shard.counts()
    assert (counts["expanding"], counts["held"], counts["ready"]) == (2, 0, 0)
    leases = await shard.claim("", None, 10, clock())
    assert {lease.envelope.recipients[0].address.local for lease in leases} == {
        "joe",
        "pals",
    }


async def test_retry_goes_before_what_was_due(
    shard: Shard, letters: Letters, clock: Clock
) -> None:
    first, second = letters.letter(), letters.letter()
    await shard.accept(first)
    await shard.accept(second)
    await order(shard, Retry(), QueueFilter(queue_ids=(second.queue_id,)))
    (lease,) = await shard.claim("whizzer.test", 0, 1, clock())
    assert lease.queue_id == second.queue_id


async def test_retry_of_what_is_held_wants_its_state(
    shard: Shard, letters: Letters
) -> None:
    await shard.accept(letters.letter())
    await order(shard, Hold("x"))
    assert (await order(shard, Retry())).queue_ids == ()
    named = QueueFilter(states=("held", "ready"))
    assert len((await order(shard, Retry(), named)).queue_ids) == 1
    assert (await shard.counts())["held"] == 0


class Farewell:
    """Notes what it is asked to report, and reports to the sender."""

    def __init__(self, letters: Letters) -> None:
        self._letters = letters
        self.told: list[tuple[QueueId, list[str], list[str]]] = []

    async def __call__(
        self, lease: Lease, waited: Sequence[str]
    ) -> Sequence[NewMessage]:
        recipients = [r.address.to_text() for r in lease.envelope.recipients]
        self.told.append((lease.queue_id, recipients, list(waited)))
        return [self._letters.letter("betty", sender="")]


async def test_giving_up_reports_in_the_same_transaction(
    shard: Shard, letters: Letters, clock: Clock
) -> None:
    new = letters.letter("joe@a.test", "joe@b.test", ":pals")
    await shard.accept(new)
    await order(shard, Hold("odd"), QueueFilter(domains=("a.test",)))
    farewell = Farewell(letters)
    wanted = QueueFilter(queue_ids=(new.queue_id,), recipients=("joe@",))
    pages = [page async for page in shard.give_up(wanted, clock(), farewell)]
    assert _joined(pages).queue_ids == (new.queue_id,)
    assert farewell.told == [(new.queue_id, ["joe@a.test", "joe@b.test"], ["odd", ""])]
    left, report = await entries(shard)
    assert [one.address for one in left.recipients] == ["pals"]
    assert report.sender == ""
    counts = await shard.counts()
    assert (counts["recipients"], counts["held"], counts["messages"]) == (2, 0, 2)


async def test_a_report_that_cannot_be_written_changes_nothing(
    shard: Shard, letters: Letters, clock: Clock
) -> None:
    await shard.accept(letters.letter())

    async def fail(lease: Lease, waited: Sequence[str]) -> Sequence[NewMessage]:
        raise SpoolError("no pen")

    with pytest.raises(SpoolError, match="no pen"):
        [page async for page in shard.give_up(ALL, clock(), fail)]
    assert (await shard.counts())["recipients"] == 1
    assert len((await order(shard, TakeOut())).queue_ids) == 1  # nothing stays locked


async def test_recipients_beyond_a_page(shard: Shard, letters: Letters) -> None:
    names = [f"u{n}@x.test" for n in range(30)]
    new = letters.letter(*names)
    await shard.accept(new)
    first = await shard.recipients(new.queue_id, -1, 20)
    rest = await shard.recipients(new.queue_id, first[-1].number, 20)
    assert [one.address for one in (*first, *rest)] == names
    assert await shard.recipients(QueueId("0" * 11), -1, 20) == []


async def test_content_is_read_back(shard: Shard, letters: Letters) -> None:
    new = letters.letter(body=b"x" * 10)
    await shard.accept(new)
    found = await shard.kept(new.queue_id)
    assert found is not None
    assert found.message == new.message
    assert found.envelope.sender == new.envelope.sender
    assert await shard.raw(new.queue_id) == new.message
    assert await shard.kept(QueueId("0" * 11)) is None
    assert await shard.raw(QueueId("0" * 11)) is None


async def test_shape(shard: Shard, letters: Letters, clock: Clock) -> None:
    await shard.accept(letters.letter("joe@a.test", sender="x@Old.test"))
    clock.us += AGES_US[0] + SECOND_US
    await shard.accept(letters.letter("joe@a.test", "joe@b.test", sender=""))
    await order(shard, Hold("x"), QueueFilter(domains=("b.test",)))
    shape = await shard.shape(clock())
    none = (0,) * (len(AGES_US) - 1)
    assert shape.hops == (
        HopShape("a.test", (1, 1, *none)),
        HopShape("b.test", (1, 0, *none), stopped=1),
    )
    sizes = [entry.size_octets for entry in await entries(shard)]
    assert shape.senders == (
        SenderShape("", 1, sizes[1]),
        SenderShape("old.test", 1, sizes[0]),
    )
    twice = shape + shape
    assert [hop.recipients for hop in twice.hops] == [4, 2]
    assert Shape() + shape == shape
    assert msgspec.json.decode(msgspec.json.encode(twice), type=Shape) == twice


async def test_shape_counts_everything(
    shard: Shard, letters: Letters, clock: Clock
) -> None:
    for minutes in (0, 3, 7, 500, 1000):
        clock.us += minutes * MINUTE_US
        await shard.accept(letters.letter("joe", ":pals", "x@y.test"))
    shape = await shard.shape(clock())
    counted = sum(hop.recipients for hop in shape.hops)
    assert counted == (await shard.counts())["recipients"] == 15
