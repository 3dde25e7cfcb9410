"""Shards of workers that are no longer there: taken over, emptied, given back.

There are such shards once the number of workers was lowered. Each has one heir, told by
its number. A shard that cannot be opened is tried again and again; why is told once.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from postroom.services.line import Line
from postroom.spool.lock import SpoolLocked, shards_in
from postroom.spool.spool import SpoolError

LOOK_S = 2.0
"""How often shards to be taken over, and shards that have become empty, are sought."""

OpenLine = Callable[[int], Awaitable[Line]]


class Tell(Protocol):
    """Takes a sentence for the log and its level."""

    def __call__(self, what: str, level: str) -> None:
        """Tell it."""


class Adoption:
    """What one worker takes over. ``run`` it once.

    Args:
        directory: the spool's.
        worker: our number.
        workers: how many there are; shards with lower numbers are theirs.
        lines: the open shards; the first is our own.
        open_line: opens a shard and adds its line.
        tell: is told what happens.
    """

    def __init__(
        self,
        directory: str,
        worker: int,
        workers: int,
        lines: list[Line],
        open_line: OpenLine,
        tell: Tell,
    ) -> None:
        self._directory = directory
        self._worker = worker
        self._workers = workers
        self._lines = lines
        self._open_line = open_line
        self._tell = tell
        self._emptied: set[int] = set()
        self._told_of: set[int] = set()
        self._told = ""

    async def run(self, ended: asyncio.Event) -> None:
        """Take over and give back until told to end."""
        while not ended.is_set():
            for number in await asyncio.to_thread(shards_in, self._directory):
                if self._is_ours(number) and not ended.is_set():
                    await self._adopt(number)
            for line in tuple(self._lines[1:]):
                await self._give_back_if_empty(line)
            try:
                async with asyncio.timeout(LOOK_S):
                    await ended.wait()
            except TimeoutError:
                continue

    def _is_ours(self, number: int) -> bool:
        is_heir = number >= self._workers and number % self._workers == self._worker
        return is_heir and number not in self._emptied | self._held()

    def _held(self) -> set[int]:
        return {line.shop.spool.shard for line in self._lines}

    async def _adopt(self, number: int) -> None:
        try:
            line = await self._open_line(number)
        except SpoolLocked:
            return  # its last holder is about to end, or somebody looks at it
        except (SpoolError, OSError) as error:
            why = f"cannot adopt shard {number}: {error}"
            if why != self._told:
                self._told = why
                self._tell(why, "error")
            return
        if messages := await _messages_in(line):  # else it was emptied long ago
            self._tell(f"adopted shard {number}, messages={messages}", "info")
            self._told_of.add(number)

    async def _give_back_if_empty(self, line: Line) -> None:
        spool = line.shop.spool
        if line.dispatcher.active or await _messages_in(line):
            return
        self._lines.remove(line)
        self._emptied.add(spool.shard)
        await line.dispatcher.drain(0)
        await line.aclose()
        if spool.shard in self._told_of:
            self._tell(f"shard {spool.shard} is empty: given back", "info")


async def _messages_in(line: Line) -> int:
    return (await line.shop.spool.counts())["messages"]
