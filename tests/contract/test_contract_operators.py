"""What operators may do: see, hold, release, retry and remove."""

import asyncio

import pytest

from postroom.spool.spool import Entry, QueueFilter, Settle, Spool
from postroom.testing.engines import HandClock
from postroom.testing.spool import Letters

HOUR_US = 3_600_000_000
ALL = QueueFilter()


async def entries(spool: Spool, wanted: QueueFilter = ALL) -> list[Entry]:
    return [entry async for page in spool.entries(wanted) for entry in page]


class TestOperators:
    async def test_hold_release_retry_remove(
        self, spool: Spool, letters: Letters, clock: HandClock
    ) -> None:
        await spool.accept(letters.letter("joe", ":pals"))
        assert await spool.hold(ALL, "suspicious") == 1
        assert not await spool.due_hops(clock(), 10)
        [entry] = await entries(spool, QueueFilter(states=("held",)))
        assert entry.recipients[0].status_text == "suspicious"
        assert await spool.release(ALL, clock()) == 1
        counts = await spool.counts()
        assert (counts["ready"], counts["expanding"], counts["held"]) == (1, 1, 0)
        [lease] = await spool.claim("local", 0, 1, clock())
        await spool.settle(lease, [Settle(0, clock.us + HOUR_US, "later")])
        assert await spool.retry(QueueFilter(errors=("LATER",)), clock()) == 1
        assert len(await spool.claim("local", 0, 1, clock())) == 1

    async def test_remove_leaves_what_is_being_delivered(
        self, spool: Spool, letters: Letters
    ) -> None:
        waiting = letters.letter()
        await spool.accept(waiting)
        [lease] = await spool.accept(letters.letter(), claim=True)
        assert await spool.remove(ALL) == [waiting.queue_id]
        [entry] = await entries(spool)
        assert entry.queue_id == lease.queue_id
        assert entry.recipients[0].active
        await spool.settle(lease, [Settle(0)])

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
        spool: Spool,
        letters: Letters,
        clock: HandClock,
    ) -> None:
        news = {letters.letter("joe").queue_id: ""}
        news.clear()
        a = letters.letter("joe", sender="betty@gonzo.test")
        clock.us += HOUR_US
        b = letters.letter("joe@whizzer.test", sender="ann@gonzo.test")
        c = letters.letter(":pals", sender="", body=b"x" * 200)
        for name, new in zip("abc", (a, b, c), strict=True):
            await spool.accept(new)
            news[new.queue_id] = name
        chosen = await entries(spool, wanted)
        assert "".join(news[entry.queue_id] for entry in chosen) == found  # type: ignore[index]

    async def test_pages_are_short_and_complete(
        self, spool: Spool, letters: Letters
    ) -> None:
        await asyncio.gather(*(spool.accept(letters.letter()) for _ in range(25)))
        pages = [len(page) async for page in spool.entries(ALL, page=10) if page]
        assert pages == [10, 10, 5]


async def test_what_is_being_delivered_is_neither_held_nor_made_due(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    [lease] = await spool.accept(letters.letter(), claim=True)
    assert await spool.hold(ALL, "too late") == 0
    assert await spool.retry(ALL, clock()) == 0
    await spool.settle(lease, [Settle(0)])
    assert (await spool.counts())["recipients"] == 0


async def test_what_is_held_can_be_removed(spool: Spool, letters: Letters) -> None:
    new = letters.letter("joe", ":pals")
    await spool.accept(new)
    await spool.hold(ALL, "suspicious")
    assert await spool.remove(QueueFilter(states=("held",))) == [new.queue_id]
    assert set((await spool.counts()).values()) == {0}


async def test_counts_tell_messages_recipients_octets_and_states(
    spool: Spool, letters: Letters
) -> None:
    news = [letters.letter("joe", "ann"), letters.letter(":pals")]
    for new in news:
        await spool.accept(new)
    await spool.hold(QueueFilter(recipients=("ann",)), "suspicious")
    assert await spool.counts() == {
        "messages": 2,
        "recipients": 3,
        "octets": sum(new.message.size for new in news),
        "ready": 1,
        "expanding": 1,
        "held": 1,
        "shunted": 0,
        "active": 0,
    }
