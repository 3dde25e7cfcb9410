"""Every test of the net room runs on both loops: asyncio's and uvloop's."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

from postroom.net import sweeper as sweeper_module


def pytest_asyncio_loop_factories() -> Mapping[
    str, Callable[[], asyncio.AbstractEventLoop]
]:
    return {
        "asyncio": asyncio.SelectorEventLoop,
        "uvloop": uvloop.new_event_loop,
    }


@pytest.fixture
def fast_sweeper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines are looked at each millisecond."""
    monkeypatch.setattr(sweeper_module, "SWEEP_US", 1_000)
