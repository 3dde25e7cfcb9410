"""What a shard promises, call by call."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from postroom.mail.address import Address
from postroom.mail.ids import to_number
from postroom.mail.message import MemoryBody, Message, Prepend
from postroom.mail.now import Now
from postroom.mail.route import Route
from postroom.mail.units import Size
from postroom.spool.engine import Shard
from postroom.spool.settings import SpoolSettings
from postroom.spool.spool import (
    Entry,
    Fenced,
    Lease,
    NewMessage,
    NewRecipient,
    QueueFilter,
    RecipientState,
    Settle,
    SpoolError,
)
from postroom.testing.spool import Letters, temporary_shard

START_US = 1_790_000_000_000_000
HOUR_US = 3_600_000_000
ALL = QueueFilter()


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.us = START_US

    def __call__(self) -> Now:
        return Now(self.us, self.us - START_US)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def shard(clock: Clock) -> AsyncIterator[Shard]:
    async with temporary_shard(clock=clock) as opened:
        yield opened


@pytest.fixture
def letters(shard: Shard, clock: Clock) -> Letters:
    return Letters(shard, clock)


async def entries(shard: Shard, wanted: QueueFilter = ALL) -> list[Entry]:
    return [entry async for page in shard.entries(wanted) for entry in page]


async def test_accept_and_claim_give_the_same_lease(
    shard: Shard, letters: Letters, clock: Clock
) -> None:
    new = letters.letter("joe@whizzer.test", "ann@whizzer.test")
    [first] = await shard.accept(new, claim=True)
    assert not await shard.claim("whizzer.test", 0, 10, clock())
    await shard.settle(first, [])
    [second] = await shard.claim("whizzer.test", 0, 10, clock())
    assert second == first


async def test_everything_said_in_the_envelope_comes_back(
    shard: Shard, clock: Clock
) -> None:
    new = full_letter(Letters(shard, clock))
    await shard.accept(new)
    [lease] = await shard.claim("whizzer.test", 7, 10, clock())
    assert lease.envelope == new.envelope
    assert lease.message == new.message
    assert lease.message_id == "<1@gonzo.test>"
    assert lease.route == new.recipients[0].route


def full_letter(letters: Letters) -> NewMessage:
    from postroom.mail.envelope import BodyType, Envelope, Origin, Recipient

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


async def test_settling_the_last_recipient_removes_the_message(
    shard: Shard, letters: Letters
) -> None:
    new = letters.letter("joe@whizzer.test", "joe@gonzo.test")
    leases = await shard.accept(new, claim=True)
    assert len(leases) == 2
    await shard.settle(leases[0], [Settle(0)])
    assert (await shard.counts())["messages"] == 1
    await shard.settle(leases[1], [Settle(1)])
    assert set((await shard.counts()).values()) == {0}
    assert not await entries(shard)


async def test_a_deferred_recipient_waits_until_it_is_due(
    shard: Shard, letters: Letters, clock: Clock
) -> None:
    [lease] = await shard.accept(letters.letter(), claim=True)
    due_us = clock.us + HOUR_US
    await shard.settle(lease, [Settle(0, due_us, "no route to host", warned=True)])
    assert not await shard.claim("whizzer.test", 0, 10, clock())
    assert await shard.next_due_us() == due_us
    assert not await shard.due_hops(clock(), 10)
    clock.us = due_us
    assert [hop.hop for hop in await shard.due_hops(clock(), 10)] == ["whizzer.test"]
    [again] = await shard.claim("whizzer.test", None, 10, clock())
    assert again.tries == (1,)
    assert again.warned
    assert not await shard.due_hops(clock(), 10)
    assert await shard.next_due_us() is None


async def test_a_settled_recipient_may_get_another_route(
    shard: Shard, letters: Letters, clock: Clock
) -> None:
    [lease] = await shard.accept(letters.letter(), claim=True)
    route = Route("smtp", "[relay.test]:587", "smart host")
    await shard.settle(lease, [Settle(0, clock.us, "", route=route)])
    [again] = await shard.claim("[relay.test]:587", 0, 1, clock())
    assert again.route == route


@pytest.mark.parametrize("how", ["settled", "foreign fence", "released"])
async def test_a_stale_lease_is_fenced(
    how: str, shard: Shard, letters: Letters
) -> None:
    [lease] = await shard.accept(letters.letter(), claim=True)
    if how == "settled":
        await shard.settle(lease, [Settle(0)])
    elif how == "released":
        await shard.settle(lease, [])
    else:
        import msgspec

        lease = msgspec.structs.replace(lease, fence=lease.fence - 1)
    with pytest.raises(Fenced):
        await shard.settle(lease, [Settle(0)])


async def test_one_lease_cannot_be_settled_twice_at_once(
    shard: Shard, letters: Letters
) -> None:
    [lease] = await shard.accept(letters.letter(), claim=True)
    results = await asyncio.gather(
        shard.settle(lease, [Settle(0)]),
        shard.settle(lease, [Settle(0)]),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None), Fenced]
    assert (await shard.counts())["recipients"] == 0


async def test_a_report_is_queued_with_the_settlement(
    shard: Shard, letters: Letters, clock: Clock
) -> None:
    [lease] = await shard.accept(letters.letter(), claim=True)
    report = letters.letter("betty", sender="")
    await shard.settle(lease, [Settle(0)], [report])
    [found] = await shard.claim("local", 0, 10, clock())
    assert found.queue_id == report.queue_id
    assert found.envelope.sender.is_null


async def test_concurrent_claims_never_share(
    shard: Shard, letters: Letters, clock: Clock
) -> None:
    await asyncio.gather(*(shard.accept(letters.letter()) for _ in range(40)))
    claims = await asyncio.gather(
        *(shard.claim("whizzer.test", 0, 10, clock()) for _ in range(8))
    )
    ids = [lease.queue_id for leases in claims for lease in leases]
    assert len(ids) == len(set(ids)) == 40


async def test_a_claim_takes_the_oldest_due_first(
    shard: Shard, letters: Letters, clock: Clock
) -> None:
    news = [letters.letter() for _ in range(5)]
    for new in reversed(news):
        await shard.accept(new)
        clock.us += 1
    found = await shard.claim("whizzer.test", 0, 2, clock())
    assert [lease.queue_id for lease in found] == [new.queue_id for new in news[:2]]


async def test_recipients_of_a_message_come_in_leases_of_bounded_size(
    shard: Shard, letters: Letters, clock: Clock
) -> None:
    names = [f"u{i}@whizzer.test" for i in range(250)]
    await shard.accept(letters.letter(*names))
    found = await shard.claim("whizzer.test", 0, 2, clock())
    assert [len(lease.numbers) for lease in found] == [100, 100]
    [rest] = await shard.claim("whizzer.test", 0, 2, clock())
    assert len(rest.numbers) == 50
    for lease in (*found, rest):
        await shard.settle(lease, [Settle(number) for number in lease.numbers])
    assert (await shard.counts())["messages"] == 0


async def test_lanes_take_turns_when_any_lane_will_do(
    shard: Shard, letters: Letters, clock: Clock
) -> None:
    import msgspec

    for lane in (3, 3, 3, 5):
        recipient = letters.recipient("joe@whizzer.test")
        recipient = msgspec.structs.replace(recipient, lane=lane)
        await shard.accept(letters.letter(recipient))
    found = await shard.claim("whizzer.test", None, 2, clock())
    assert [lease.lane for lease in found] == [3, 5]


class TestExpansion:
    async def test_children_replace_their_parent(
        self, shard: Shard, letters: Letters, clock: Clock
    ) -> None:
        [lease] = await shard.accept(letters.letter(":pals"), claim=True)
        assert lease.route is None
        children = [letters.recipient("joe"), letters.recipient("ann@whizzer.test")]
        await shard.expand(lease, 0, children, None)
        with pytest.raises(Fenced):
            await shard.settle(lease, [Settle(0)])
        assert (await shard.counts())["recipients"] == 2
        [local] = await shard.claim("local", 0, 10, clock())
        assert local.numbers == (1,)

    async def test_it_goes_on_at_the_cursor(
        self, shard: Shard, letters: Letters, clock: Clock
    ) -> None:
        [lease] = await shard.accept(letters.letter(":pals"), claim=True)
        await shard.expand(lease, 0, [letters.recipient("joe")], 1000)
        await shard.settle(lease, [])
        [again] = await shard.claim("", 0, 10, clock())
        assert again.cursor == 1000
        twice = [letters.recipient("joe"), letters.recipient("ann")]
        await shard.expand(again, 0, twice, None)
        [entry] = await entries(shard)
        assert [r.address for r in entry.recipients] == ["joe", "ann"]

    async def test_a_child_known_as_recipient_is_not_added(
        self, shard: Shard, letters: Letters
    ) -> None:
        new = letters.letter("joe", ":pals")
        _, lease = await shard.accept(new, claim=True)
        children = [letters.recipient("joe"), letters.recipient("pals")]
        await shard.expand(lease, 1, children, None)
        [entry] = await entries(shard)
        assert [(r.number, r.address) for r in entry.recipients] == [
            (0, "joe"),
            (2, "pals"),
        ]

    async def test_numbers_are_never_used_twice(
        self, shard: Shard, letters: Letters, clock: Clock
    ) -> None:
        [lease] = await shard.accept(letters.letter(":pals"), claim=True)
        await shard.expand(lease, 0, [letters.recipient("joe")], 1)
        [child] = await shard.claim("local", 0, 1, clock())
        await shard.settle(child, [Settle(1)])
        await shard.expand(lease, 0, [letters.recipient("ann")], None)
        [entry] = await entries(shard)
        assert [r.number for r in entry.recipients] == [2]

    async def test_an_expansion_to_nobody_ends_the_message(
        self, shard: Shard, letters: Letters
    ) -> None:
        [lease] = await shard.accept(letters.letter(":pals"), claim=True)
        await shard.expand(lease, 0, [], None)
        assert (await shard.counts())["messages"] == 0

    async def test_a_second_envelope_shares_the_body(
        self, shard: Shard, letters: Letters, clock: Clock
    ) -> None:
        import msgspec

        new = letters.letter(":pals", body=b"shared\r\n")
        [lease] = await shard.accept(new, claim=True)
        clone = letters.letter("joe", sender="owner-pals@gonzo.test")
        clone = msgspec.structs.replace(clone, body_of=new.queue_id)
        await shard.expand(lease, 0, [], None, [clone])
        assert (await shard.counts())["messages"] == 1
        [found] = await shard.claim("local", 0, 1, clock())
        assert found.message == new.message
        assert found.envelope.sender == clone.envelope.sender
        await shard.settle(found, [Settle(0)])
        assert (await shard.counts())["octets"] == 0

    async def test_sharing_the_body_of_nothing_is_an_error(
        self, shard: Shard, letters: Letters
    ) -> None:
        import msgspec

        new = letters.letter()
        clone = letters.letter()
        clone = msgspec.structs.replace(clone, body_of=new.queue_id)
        with pytest.raises(SpoolError, match="gone"):
            await shard.accept(clone)
        assert (await shard.counts())["messages"] == 0


class TestOperators:
    async def test_hold_release_retry_remove(
        self, shard: Shard, letters: Letters, clock: Clock
    ) -> None:
        await shard.accept(letters.letter("joe", ":pals"))
        assert await shard.hold(ALL, "suspicious") == 1
        assert not await shard.due_hops(clock(), 10)
        [entry] = await entries(shard, QueueFilter(states=("held",)))
        assert entry.recipients[0].status_text == "suspicious"
        assert await shard.release(ALL, clock()) == 1
        counts = await shard.counts()
        assert (counts["ready"], counts["expanding"], counts["held"]) == (1, 1, 0)
        [lease] = await shard.claim("local", 0, 1, clock())
        await shard.settle(lease, [Settle(0, clock.us + HOUR_US, "later")])
        assert await shard.retry(QueueFilter(errors=("LATER",)), clock()) == 1
        assert len(await shard.claim("local", 0, 1, clock())) == 1

    async def test_remove_leaves_what_is_being_delivered(
        self, shard: Shard, letters: Letters
    ) -> None:
        waiting = letters.letter()
        await shard.accept(waiting)
        [lease] = await shard.accept(letters.letter(), claim=True)
        assert await shard.remove(ALL) == [waiting.queue_id]
        [entry] = await entries(shard)
        assert entry.queue_id == lease.queue_id
        assert entry.recipients[0].active
        await shard.settle(lease, [Settle(0)])

    @pytest.mark.parametrize(
        ("wanted", "found"),
        [
            (QueueFilter(), "abc"),
            (QueueFilter(senders=("BETTY",)), "a"),
            (QueueFilter(recipients=("joe@whizz",)), "b"),
            (QueueFilter(domains=("Whizzer.Test.",)), "b"),
            (QueueFilter(domains=("zzer.test",)), ""),
            (QueueFilter(states=("expanding",)), "c"),
            (QueueFilter(larger_octets=100), "c"),
            (QueueFilter(senders=("gonzo",), recipients=("nobody",)), ""),
            (QueueFilter(older_us=HOUR_US), "a"),
            (QueueFilter(senders=("%",)), ""),
        ],
        ids=str,
    )
    async def test_filters(
        self,
        wanted: QueueFilter,
        found: str,
        shard: Shard,
        letters: Letters,
        clock: Clock,
    ) -> None:
        news = {letters.letter("joe").queue_id: ""}
        news.clear()
        a = letters.letter("joe", sender="betty@gonzo.test")
        clock.us += HOUR_US
        b = letters.letter("joe@whizzer.test", sender="ann@gonzo.test")
        c = letters.letter(":pals", sender="", body=b"x" * 200)
        for name, new in zip("abc", (a, b, c), strict=True):
            await shard.accept(new)
            news[new.queue_id] = name
        chosen = await entries(shard, wanted)
        assert "".join(news[entry.queue_id] for entry in chosen) == found  # type: ignore[index]

    async def test_pages_are_short_and_complete(
        self, shard: Shard, letters: Letters
    ) -> None:
        await asyncio.gather(*(shard.accept(letters.letter()) for _ in range(25)))
        pages = [len(page) async for page in shard.entries(ALL, page=10) if page]
        assert pages == [10, 10, 5]


async def test_a_bad_message_fails_alone(
    shard: Shard, letters: Letters, clock: Clock
) -> None:
    news = [letters.letter() for _ in range(9)]
    again = news[0]
    results = await asyncio.gather(
        *(shard.accept(new, claim=True) for new in (*news, again)),
        return_exceptions=True,
    )
    assert [isinstance(result, SpoolError) for result in results] == [False] * 9 + [
        True
    ]
    assert (await shard.counts())["messages"] == 9


async def test_a_cancelled_accept_leaves_the_message_to_be_claimed(
    shard: Shard, letters: Letters, clock: Clock
) -> None:
    task = asyncio.create_task(shard.accept(letters.letter(), claim=True))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await shard.accept(letters.letter("joe"))  # the writer is past the first now
    assert len(await shard.claim("whizzer.test", 0, 1, clock())) == 1


async def test_expanding_recipients_that_are_deferred_stay_expanding(
    shard: Shard, letters: Letters, clock: Clock
) -> None:
    [lease] = await shard.accept(letters.letter(":pals"), claim=True)
    await shard.settle(lease, [Settle(0, clock.us, "table is broken")])
    [again] = await shard.claim("", None, 1, clock())
    assert isinstance(again, Lease)
    assert again.route is None
    assert (await shard.counts())["expanding"] == 1


async def test_last_number_survives_an_empty_queue(
    clock: Clock, tmp_path: Path
) -> None:
    async with temporary_shard(directory=str(tmp_path), clock=clock) as shard:
        [lease] = await shard.accept(Letters(shard, clock).letter(), claim=True)
        await shard.settle(lease, [Settle(0)])
        fence = shard.fence
    async with temporary_shard(directory=str(tmp_path), clock=clock) as shard:
        assert shard.last_number == to_number(lease.queue_id)
        assert shard.fence > fence
        with pytest.raises(Fenced):
            await shard.settle(lease, [Settle(0)])


async def test_space_comes_back_after_a_drain(tmp_path: Path) -> None:
    small = SpoolSettings(reserve_octets=Size(0), free_octets_max=Size(1 << 20))
    clock = Clock()
    database = tmp_path / "shard-000" / "queue.db"
    async with temporary_shard(
        directory=str(tmp_path), settings=small, clock=clock
    ) as shard:
        letters = Letters(shard, clock)
        news = [letters.letter(body=b"x" * 60_000) for _ in range(200)]
        leases = await asyncio.gather(*(shard.accept(new, claim=True) for new in news))
        await asyncio.gather(*(shard.settle(lease, [Settle(0)]) for [lease] in leases))
    assert database.stat().st_size < 2 << 20


async def test_a_state_may_be_set_by_settling(
    shard: Shard, letters: Letters, clock: Clock
) -> None:
    [lease] = await shard.accept(letters.letter(), claim=True)
    await shard.settle(
        lease, [Settle(0, clock.us, "quarantined", state=RecipientState.HELD)]
    )
    assert (await shard.counts())["held"] == 1
    assert not await shard.claim("whizzer.test", 0, 1, clock())
