"""The implementations of the spool interface, as the contract tests know them.

Each promise of ``spool/spool.py`` is a test in ``tests/contract``, run for every
engine in ``ENGINES``. Another implementation only adds its factory here.
"""

import asyncio
import os
import shutil
from collections.abc import Callable
from typing import Protocol

from postroom.mail.now import Now
from postroom.spool.engine import Emit, open_shard
from postroom.spool.settings import SpoolSettings
from postroom.spool.spool import Spool
from postroom.testing.spool import QUICK

START_US = 1_790_000_000_000_000


class HandClock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.us = START_US

    def __call__(self) -> Now:
        """Return the moment."""
        return Now(self.us, self.us - START_US)


class Engine(Protocol):
    """Opens spools of one kind.

    A place is a directory that is the test's own; what an engine keeps elsewhere it
    names after it.
    """

    @property
    def name(self) -> str:
        """What the tests call it."""

    async def open(
        self,
        place: str,
        clock: Callable[[], Now],
        *,
        shard: int = 0,
        settings: SpoolSettings = QUICK,
        emit: Emit | None = None,
    ) -> Spool:
        """Open a shard, made if it does not exist.

        Raises:
            SpoolError: it cannot be opened, or somebody has it.
        """

    async def as_left(self, place: str, there: str) -> None:
        """Make ``there`` what a process that ends now would leave at ``place``."""


class Embedded:
    """The engine in SQLite, one directory for each shard."""

    name = "embedded"

    async def open(
        self,
        place: str,
        clock: Callable[[], Now],
        *,
        shard: int = 0,
        settings: SpoolSettings = QUICK,
        emit: Emit | None = None,
    ) -> Spool:
        """Open a shard."""
        return await open_shard(place, shard, settings, clock=clock, emit=emit)

    async def as_left(self, place: str, there: str) -> None:
        """Copy the files, but for the memory that is shared by living processes."""
        ignored = shutil.ignore_patterns("*-shm")
        await asyncio.to_thread(
            shutil.copytree, place, there, ignore=ignored, dirs_exist_ok=True
        )
        assert os.listdir(there)


ENGINES: tuple[Engine, ...] = (Embedded(),)
"""Everything that keeps the contract."""
