"""Real servers as processes: a world per test process, two hosts for the common tests.

Tests that harm their host, or need another configuration, make one of their own.
"""

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from postroom.testing.host import Host
from postroom.testing.ledger import Ledger, Load, audit_at_rest
from postroom.testing.world import World

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.whole)


@pytest.fixture(scope="session")
def world(worker_id: str) -> Iterator[World]:
    number = int(worker_id.removeprefix("gw")) if worker_id != "master" else 0
    with World(number) as made:
        yield made


@pytest.fixture(scope="session")
def gonzo(world: World) -> Iterator[Host]:
    """A host that relays for 127.0.0.1."""
    world.name("gonzo.test", 1)
    settings = {"smtp": {"message_octets_max": "1MiB"}}
    with world.host("gonzo.test", 1, settings) as host:
        yield host


@pytest.fixture(scope="session")
def whizzer(world: World) -> Iterator[Host]:
    """A host that takes mail for joe."""
    world.name("whizzer.test", 2)
    with world.host("whizzer.test", 2) as host:
        yield host


@pytest.fixture
def ledger(world: World, gonzo: Host, whizzer: Host) -> Iterator[Ledger]:
    """What gonzo promises in a test; at the end it must all have been delivered.

    A good letter at the end proves that the test has harmed nobody.
    """
    kept = Ledger()
    yield kept
    load = Load(kept, world.ip(1), world.smtp_port)
    name = f"last{next(_NUMBERS)}"
    asyncio.run(load.send([name], ["betty@gonzo.test", "joe@whizzer.test"]))
    found = audit_at_rest(kept, {"gonzo.test": gonzo, "whizzer.test": whizzer})
    assert found.duplicates == 0


_NUMBERS = itertools.count()
