"""Real servers as processes: a world per test process, two hosts for the common tests.

Tests that harm their host, or need another configuration, make one of their own.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from postroom.testing.host import Host
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
    with world.host("gonzo.test", 1) as host:
        yield host


@pytest.fixture(scope="session")
def whizzer(world: World) -> Iterator[Host]:
    """A host that takes mail for joe."""
    world.name("whizzer.test", 2)
    with world.host("whizzer.test", 2) as host:
        yield host
