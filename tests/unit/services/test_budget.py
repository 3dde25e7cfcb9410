import asyncio

import pytest

from postroom.services.budget import Budget


def test_it_gives_while_there_is_room() -> None:
    budget = Budget(100)
    assert budget.try_take(60)
    assert not budget.try_take(60)
    assert budget.try_take(40)
    assert budget.used == 100


async def test_who_waits_goes_on_in_order() -> None:
    budget = Budget(100)
    await budget.take(100)
    first = asyncio.ensure_future(budget.take(80))
    second = asyncio.ensure_future(budget.take(10))
    await asyncio.sleep(0)
    assert not budget.try_take(1), "nobody overtakes"
    budget.give_back(100)
    await asyncio.gather(first, second)
    assert budget.used == 90


async def test_one_that_never_fits_goes_alone() -> None:
    budget = Budget(100)
    await budget.take(1)
    huge = asyncio.ensure_future(budget.take(1000))
    await asyncio.sleep(0)
    assert not huge.done()
    budget.give_back(1)
    await huge
    assert budget.used == 1000


async def test_one_that_gave_up_is_passed_over() -> None:
    budget = Budget(10)
    await budget.take(10)
    lost = asyncio.ensure_future(budget.take(10))
    patient = asyncio.ensure_future(budget.take(5))
    await asyncio.sleep(0)
    lost.cancel()
    budget.give_back(10)
    await patient
    with pytest.raises(asyncio.CancelledError):
        await lost
    assert budget.used == 5


async def test_cancelled_as_it_came_gives_back() -> None:
    budget = Budget(10)
    await budget.take(10)
    waiting = asyncio.ensure_future(budget.take(10))
    await asyncio.sleep(0)
    budget.give_back(10)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert budget.used == 0
