"""An alias is expanded piece by piece; a piece that is repeated adds nobody twice."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

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

Open = Callable[..., Awaitable[Spool]]
ALL = QueueFilter()


async def entries(spool: Spool, wanted: QueueFilter = ALL) -> list[Entry]:
    return [entry async for page in spool.entries(wanted) for entry in page]


class TestExpansion:
    async def test_children_replace_their_parent(
        self, spool: Spool, letters: Letters, clock: HandClock
    ) -> None:
        [lease] = await spool.accept(letters.letter(":pals"), claim=True)
        assert lease.route is None
        children = [letters.recipient("joe"), letters.recipient("ann@whizzer.test")]
        await spool.expand(lease, 0, children, None)
        with pytest.raises(Fenced):
            await spool.settle(lease, [Settle(0)])
        assert (await spool.counts())["recipients"] == 2
        [local] = await spool.claim("local", 0, 10, clock())
        assert local.numbers == (1,)

    async def test_it_goes_on_at_the_cursor(
        self, spool: Spool, letters: Letters, clock: HandClock
    ) -> None:
        [lease] = await spool.accept(letters.letter(":pals"), claim=True)
        await spool.expand(lease, 0, [letters.recipient("joe")], 1000)
        await spool.settle(lease, [])
        [again] = await spool.claim("", 0, 10, clock())
        assert again.cursor == 1000
        twice = [letters.recipient("joe"), letters.recipient("ann")]
        await spool.expand(again, 0, twice, None)
        [entry] = await entries(spool)
        assert [r.address for r in entry.recipients] == ["joe", "ann"]

    async def test_a_child_known_as_recipient_is_not_added(
        self, spool: Spool, letters: Letters
    ) -> None:
        new = letters.letter("joe", ":pals")
        _, lease = await spool.accept(new, claim=True)
        children = [letters.recipient("joe"), letters.recipient("pals")]
        await spool.expand(lease, 1, children, None)
        [entry] = await entries(spool)
        assert [(r.number, r.address) for r in entry.recipients] == [
            (0, "joe"),
            (2, "pals"),
        ]

    async def test_a_recipient_yet_to_be_expanded_is_no_copy(
        self, spool: Spool, letters: Letters
    ) -> None:
        r"""It may stand for others: ``joe: ann`` and ``pals: \joe``."""
        new = letters.letter(":joe", ":pals")
        joe, pals = await spool.accept(new, claim=True)
        assert await spool.expand(pals, 1, [letters.recipient("joe")], None) == 1
        children = [letters.recipient("ann"), letters.recipient("joe")]
        assert await spool.expand(joe, 0, children, None) == 1
        [entry] = await entries(spool)
        assert [r.address for r in entry.recipients] == ["joe", "ann"]

    async def test_numbers_are_never_used_twice(
        self, spool: Spool, letters: Letters, clock: HandClock
    ) -> None:
        [lease] = await spool.accept(letters.letter(":pals"), claim=True)
        await spool.expand(lease, 0, [letters.recipient("joe")], 1)
        [child] = await spool.claim("local", 0, 1, clock())
        await spool.settle(child, [Settle(1)])
        await spool.expand(lease, 0, [letters.recipient("ann")], None)
        [entry] = await entries(spool)
        assert [r.number for r in entry.recipients] == [2]

    async def test_an_expansion_to_nobody_ends_the_message(
        self, spool: Spool, letters: Letters
    ) -> None:
        [lease] = await spool.accept(letters.letter(":pals"), claim=True)
        await spool.expand(lease, 0, [], None)
        assert (await spool.counts())["messages"] == 0

    async def test_a_second_envelope_shares_the_body(
        self, spool: Spool, letters: Letters, clock: HandClock
    ) -> None:
        new = letters.letter(":pals", body=b"shared\r\n")
        [lease] = await spool.accept(new, claim=True)
        clone = letters.letter("joe", sender="owner-pals@gonzo.test")
        clone = msgspec.structs.replace(clone, body_of=new.queue_id)
        await spool.expand(lease, 0, [], None, [clone])
        assert (await spool.counts())["messages"] == 1
        [found] = await spool.claim("local", 0, 1, clock())
        assert found.message == new.message
        assert found.envelope.sender == clone.envelope.sender
        await spool.settle(found, [Settle(0)])
        assert (await spool.counts())["octets"] == 0

    async def test_sharing_the_body_of_nothing_is_an_error(
        self, spool: Spool, letters: Letters
    ) -> None:
        new = letters.letter()
        clone = letters.letter()
        clone = msgspec.structs.replace(clone, body_of=new.queue_id)
        with pytest.raises(SpoolError, match="gone"):
            await spool.accept(clone)
        assert (await spool.counts())["messages"] == 0


async def test_after_a_crash_it_goes_on_at_the_cursor_and_adds_nobody_twice(
    engine: Engine, opening: Open, place: str, clock: HandClock, tmp_path: Path
) -> None:
    spool = await opening()
    letters = Letters(spool, clock)
    [lease] = await spool.accept(letters.letter(":pals"), claim=True)
    first = [letters.recipient(f"u{i}") for i in range(5)]
    assert await spool.expand(lease, 0, first, 5) == 5
    await engine.as_left(place, str(tmp_path))
    spool = await opening(str(tmp_path))
    [lease] = await spool.claim("", 0, 9, clock())
    assert lease.cursor == 5
    repeated = [letters.recipient(f"u{i}") for i in range(3, 8)]
    assert await spool.expand(lease, 0, repeated, None) == 3
    [entry] = await entries(spool)
    assert [r.address for r in entry.recipients] == [f"u{i}" for i in range(8)]
