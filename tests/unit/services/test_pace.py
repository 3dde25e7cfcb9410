"""The pace of claims: old mail gives way to new, and nothing stops altogether."""

import asyncio

import msgspec
import pytest

from postroom.mail.address import Address
from postroom.mail.envelope import Envelope
from postroom.mail.ids import QueueId
from postroom.mail.message import MemoryBody, Message
from postroom.mail.now import MINUTE_US
from postroom.services.pace import (
    RECEIVING_S,
    STEP_CLAIMS,
    STEP_S,
    TURN_S_MAX,
    Pace,
)
from postroom.spool.spool import Lease

NOW_US = 1_790_000_000_000_000
FRESH = Lease(
    queue_id=QueueId("0" * 11),
    fence=1,
    route=None,
    lane=0,
    envelope=Envelope(sender=Address("a", "b.test"), arrival_us=NOW_US),
    numbers=(0,),
    tries=(0,),
    warned=False,
    message=Message(b"", MemoryBody(b"")),
)
OLD = msgspec.structs.replace(
    FRESH,
    envelope=msgspec.structs.replace(FRESH.envelope, arrival_us=NOW_US - 2 * MINUTE_US),
)


class Told:
    """Who waits."""

    def __init__(self, is_receiving: bool, is_counting: bool = False) -> None:
        self.is_receiving = is_receiving
        self.is_counting = is_counting


@pytest.mark.parametrize(
    ("is_receiving", "brought", "most"),
    [
        pytest.param(False, [], None, id="idle"),
        pytest.param(False, [OLD] * 500, None, id="old-mail-and-nobody-there"),
        pytest.param(True, [], None, id="nothing-known-yet"),
        pytest.param(True, [FRESH] * 500, None, id="new-mail-passing-through"),
        pytest.param(True, [OLD] * 500, STEP_CLAIMS, id="old-mail-gives-way"),
        pytest.param(True, [FRESH] * 9 + [OLD], None, id="a-tenth-is-old"),
    ],
)
async def test_who_gives_way(
    is_receiving: bool, brought: list[Lease], most: int | None
) -> None:
    pace = Pace(Told(is_receiving))
    for lease in brought:
        pace.brought([lease], NOW_US)
    assert pace.claims() == most


class Watch:
    """A clock that goes on only when told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def busy_us(self) -> int:
        """Say that the thread has worked all the time."""
        return int(self.now_s * 1_000_000)


async def test_steps_come_one_at_a_time_and_go_on() -> None:
    watch = Watch()
    pace = Pace(Told(True), watch, watch.busy_us)
    for _ in range(100):
        pace.brought([OLD, FRESH], NOW_US)
    found = []
    for _ in range(21):
        found.append(pace.claims())
        watch.now_s += STEP_S / 3.9  # a little more than a quarter
    assert found == [STEP_CLAIMS, 0, 0, 0] * 5 + [STEP_CLAIMS]


async def test_old_mail_gives_way_a_moment_longer_than_new_mail_comes() -> None:
    watch, told = Watch(), Told(True)
    pace = Pace(told, watch, watch.busy_us)
    for _ in range(100):
        pace.brought([OLD, FRESH], NOW_US)
    assert pace.claims() == STEP_CLAIMS
    told.is_receiving = False
    watch.now_s += RECEIVING_S / 2
    assert pace.claims() == STEP_CLAIMS
    watch.now_s += RECEIVING_S
    assert pace.claims() is None


async def test_old_mail_does_not_give_way_where_there_is_time_for_both() -> None:
    watch, worked = Watch(), [0]
    pace = Pace(Told(True), watch, lambda: worked[0])
    for _ in range(100):
        pace.brought([OLD, FRESH], NOW_US)
    assert pace.claims() == STEP_CLAIMS  # not known yet
    for share, most in ((0.2, None), (0.4, STEP_CLAIMS), (0.0, None)):
        watch.now_s += 1
        worked[0] += int(share * 1_000_000)
        assert pace.claims() == most, share


async def test_old_mail_gives_way_to_an_operator_who_counts() -> None:
    watch = Watch()
    pace = Pace(Told(False, True), watch, lambda: 0)
    for _ in range(100):
        pace.brought([OLD], NOW_US)
    assert pace.claims() == STEP_CLAIMS
    assert pace.claims() == 0


async def test_a_slow_loop_gets_steps_only_until_it_is_quick_again() -> None:
    watch = Watch()
    pace = Pace(Told(False), watch)
    assert pace.claims() is None
    watch.now_s += 2 * TURN_S_MAX  # somebody takes long in this turn of the loop
    await asyncio.sleep(0)
    assert pace.claims() == STEP_CLAIMS
    assert pace.claims() == 0
    await asyncio.sleep(0)
    assert pace.claims() is None
