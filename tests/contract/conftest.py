"""A spool of each engine, for the tests of what every one promises."""

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress

import pytest

from postroom.spool.spool import Spool, SpoolError
from postroom.testing.engines import ENGINES, Engine, HandClock
from postroom.testing.spool import MEMORY, Letters

Open = Callable[..., Awaitable[Spool]]


@pytest.fixture(params=ENGINES, ids=lambda engine: engine.name)
def engine(request: pytest.FixtureRequest) -> Engine:
    found: Engine = request.param
    return found


@pytest.fixture
def place() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="contract-", dir=MEMORY) as made:
        yield made


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def opening(engine: Engine, place: str, clock: HandClock) -> AsyncIterator[Open]:
    """Opens spools, by default at the test's place, and closes them at the end."""
    opened: list[Spool] = []

    async def open_(at: str = place, **how: object) -> Spool:
        spool = await engine.open(at, clock, **how)  # type: ignore[arg-type]
        opened.append(spool)
        return spool

    yield open_
    for spool in opened:
        with suppress(SpoolError):
            await spool.aclose()


@pytest.fixture
async def spool(opening: Open) -> Spool:
    return await opening()


@pytest.fixture
def letters(spool: Spool, clock: HandClock) -> Letters:
    return Letters(spool, clock)
