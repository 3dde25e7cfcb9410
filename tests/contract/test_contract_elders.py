"""What waits for a resting hop is found when its sender is owed a word, or its end."""

import msgspec
import pytest

from postroom.mail.now import HOUR_US, MINUTE_US
from postroom.spool.spool import Lease, Patience, Rest, Settle, Spool
from postroom.testing.engines import START_US, HandClock
from postroom.testing.spool import Letters

PATIENCE = Patience(4 * HOUR_US, 48 * HOUR_US, 24 * HOUR_US)
ALWAYS = Rest(START_US + 1_000 * HOUR_US, "4.4.1", "Connection refused")


async def round_of(
    spool: Spool, clock: HandClock, patience: Patience = PATIENCE
) -> list[Lease]:
    found: list[Lease] = []
    while (leases := await spool.claim_elders(patience, clock())) is not None:
        found += leases
    return found


def names(leases: list[Lease]) -> list[str]:
    return sorted(
        r.address.to_text() for lease in leases for r in lease.envelope.recipients
    )


@pytest.mark.parametrize(
    ("sender", "age_us", "patience", "is_elder"),
    [
        pytest.param("a@b.test", 4 * HOUR_US - MINUTE_US, PATIENCE, False, id="young"),
        pytest.param("a@b.test", 4 * HOUR_US + MINUTE_US, PATIENCE, True, id="warn"),
        pytest.param("", 5 * HOUR_US, PATIENCE, False, id="null-is-not-warned"),
        pytest.param(
            "", 24 * HOUR_US - MINUTE_US, PATIENCE, False, id="null-just-not-expired"
        ),
        pytest.param("", 25 * HOUR_US, PATIENCE, True, id="null-expired"),
        pytest.param(
            "a@b.test", 30 * HOUR_US, Patience(0, 48 * HOUR_US, 1), False, id="no-warn"
        ),
        pytest.param(
            "a@b.test", 49 * HOUR_US, Patience(0, 48 * HOUR_US, 1), True, id="expired"
        ),
    ],
)
async def test_age(
    spool: Spool,
    letters: Letters,
    clock: HandClock,
    sender: str,
    age_us: int,
    patience: Patience,
    is_elder: bool,
) -> None:
    await spool.accept(letters.letter("joe@down.test", sender=sender))
    await spool.rest("down.test", ALWAYS)
    clock.us += age_us
    found = await round_of(spool, clock, patience)
    assert names(found) == (["joe@down.test"] if is_elder else [])


@pytest.mark.parametrize(
    ("held_us", "age_us", "is_elder"),
    [
        pytest.param(100 * HOUR_US, 99 * HOUR_US, False, id="held"),
        pytest.param(100 * HOUR_US, 103 * HOUR_US, False, id="young-since"),
        pytest.param(100 * HOUR_US, 105 * HOUR_US, True, id="late-since"),
        pytest.param(1 * HOUR_US, 49 * HOUR_US - MINUTE_US, True, id="warned-of"),
    ],
)
async def test_what_a_sender_had_held_is_as_old_as_its_release(
    spool: Spool,
    letters: Letters,
    clock: HandClock,
    held_us: int,
    age_us: int,
    is_elder: bool,
) -> None:
    """RFC 4865: nobody is to be told, nor is it to go, before its time."""
    letter = letters.letter("joe@down.test")
    envelope = msgspec.structs.replace(
        letter.envelope, hold_until_us=START_US + held_us
    )
    await spool.accept(msgspec.structs.replace(letter, envelope=envelope))
    await spool.rest("down.test", ALWAYS)
    clock.us += age_us
    assert names(await round_of(spool, clock)) == ["joe@down.test"] * is_elder


async def test_only_at_hops_that_rest(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    await spool.accept(letters.letter("joe@down.test", "joe@up.test", "jim@down.test"))
    await spool.accept(letters.letter("joe@over.test"))
    await spool.rest("down.test", ALWAYS)
    await spool.rest("over.test", Rest(START_US + MINUTE_US, "4.4.1", "no"))
    clock.us += 5 * HOUR_US
    found = await round_of(spool, clock)
    assert names(found) == ["jim@down.test", "joe@down.test"]
    assert {lease.route.hop for lease in found if lease.route} == {"down.test"}


async def test_what_is_leased_or_was_warned_of_is_left_alone(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    await spool.accept(letters.letter("leased@down.test"), claim=True)
    await spool.accept(letters.letter("warned@down.test"))
    await spool.rest("down.test", ALWAYS)
    clock.us += 5 * HOUR_US
    [lease] = await round_of(spool, clock)
    assert names([lease]) == ["warned@down.test"]
    assert await round_of(spool, clock) == []
    await spool.settle(lease, [Settle(0, ALWAYS.until_us, "Deferred: no", warned=True)])
    assert await round_of(spool, clock) == []
    clock.us += 48 * HOUR_US
    assert names(await round_of(spool, clock)) == ["warned@down.test"]


async def test_many_are_found_in_one_round_and_once_each(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    wanted = [f"user{n:03}@down.test" for n in range(130)]
    for name in wanted:
        await spool.accept(letters.letter(name))
    await spool.rest("down.test", ALWAYS)
    clock.us += 5 * HOUR_US
    assert names(await round_of(spool, clock)) == wanted


async def test_messages_that_somebody_follows(
    spool: Spool, letters: Letters, clock: HandClock
) -> None:
    followed, other = letters.letter("joe@down.test"), letters.letter("jim@down.test")
    await spool.accept(followed)
    await spool.accept(other)
    ids = [followed.queue_id]
    assert await spool.claim_messages(ids, clock()) == [], "its hop does not rest"
    await spool.rest("down.test", ALWAYS)
    [lease] = await spool.claim_messages(ids, clock())
    assert names([lease]) == ["joe@down.test"]
    assert await spool.claim_messages(ids, clock()) == [], "it is leased"
    assert await spool.claim_messages([], clock()) == []
