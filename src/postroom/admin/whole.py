"""The whole queue, seen from outside: live workers asked, orphaned shards opened.

A live worker answers for all shards that it holds. What no live worker holds is opened
directly: reading always, changing only under the shard's lock. What could not be
reached is listed in ``problems``, never passed over in silence.
"""

from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from postroom.admin.client import (
    RequestRefused,
    WorkerGone,
    ask,
    ask_stream,
    find_workers,
)
from postroom.admin.mailq import ZoneOffset, mailq_entry, mailq_foot, mailq_head
from postroom.admin.offline import Clock, OfflineShard
from postroom.admin.queue import (
    QueueCounts,
    Removed,
    Retried,
    flatten,
    may_see,
    merge_entries,
    try_now,
)
from postroom.mail.now import Now
from postroom.spool.offline import view_shards
from postroom.spool.settings import SpoolSettings
from postroom.spool.spool import Entry, QueueFilter, SpoolError

T = TypeVar("T")


class WholeQueue:
    """All shards of one server, running or not. To be used with ``async with``.

    Args:
        run_directory: where the workers' control sockets are.
        spool: where the shards are, to open those that no worker holds; None to leave
            them out.
        clock: gives the present moment.

    Attributes:
        workers: the control sockets on which someone answered.
        problems: what could not be reached, for people.
    """

    def __init__(
        self, run_directory: str, spool: SpoolSettings | None, clock: Clock
    ) -> None:
        self._run_directory = run_directory
        self._spool = spool
        self._clock = clock
        self._offline: list[OfflineShard] = []
        self._stack = ExitStack()
        self.workers: list[Path] = []
        self.problems: list[str] = []

    async def __aenter__(self) -> "WholeQueue":
        held: set[int] = set()
        for number, path in find_workers(self._run_directory).items():
            try:
                held |= {*await ask(path, "queue.shards", {}, int)}
                self.workers.append(path)
            except WorkerGone:
                continue
            except RequestRefused as error:
                self.problems.append(f"worker {number}: {error}")
                held.add(number)
        if self._spool is not None:
            self._open_offline(self._spool, held)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stack.close()

    def _open_offline(self, spool: SpoolSettings, held: set[int]) -> None:
        try:
            views = self._stack.enter_context(view_shards(spool.directory))
        except (SpoolError, OSError) as error:
            self.problems.append(f"spool {spool.directory}: {error}")
            return
        free = [view for view in views if view.shard not in held]
        self._offline = [OfflineShard(view, spool, self._clock) for view in free]

    def entries(self, wanted: QueueFilter) -> AsyncIterator[Entry]:
        """Yield matching messages, oldest first, holding few at a time."""
        live = [self._stream(path, wanted) for path in self.workers]
        offline = [self._read(shard, wanted) for shard in self._offline]
        return merge_entries([*live, *offline])

    async def counts(self) -> QueueCounts:
        """Return what lies in the queue, summed by name."""
        total = QueueCounts()
        for path in self.workers:
            for part in await self._ask(path, "queue.stat", QueueFilter(), QueueCounts):
                total += part
        for shard in self._offline:
            try:
                total += QueueCounts(await shard.counts())
            except SpoolError as error:
                self.problems.append(str(error))
        return total

    async def retry(self, wanted: QueueFilter, now: Now) -> int:
        """Make matching waiting recipients due now; returns how many messages."""
        messages = 0
        for path in self.workers:
            parts = await self._ask(path, "queue.retry", wanted, Retried)
            messages += sum(part.messages for part in parts)
        for shard in self._offline:
            try:
                messages += await try_now(shard, wanted, now)
            except SpoolError as error:
                self.problems.append(str(error))
        return messages

    async def remove(self, wanted: QueueFilter) -> list[str]:
        """Remove matching messages that are not being delivered; returns their ids."""
        removed: list[str] = []
        for path in self.workers:
            for part in await self._ask(path, "queue.remove", wanted, Removed):
                removed += part.queue_ids
        for shard in self._offline:
            try:
                removed += await shard.remove(wanted)
            except SpoolError as error:
                self.problems.append(str(error))
        return sorted(removed)

    async def _stream(self, path: Path, wanted: QueueFilter) -> AsyncIterator[Entry]:
        try:
            async for entry in ask_stream(path, "queue.list", wanted, Entry):
                yield entry
        except (WorkerGone, RequestRefused) as error:
            self.problems.append(str(error))

    async def _read(
        self, shard: OfflineShard, wanted: QueueFilter
    ) -> AsyncIterator[Entry]:
        try:
            async for entry in flatten(shard.entries(wanted)):
                yield entry
        except SpoolError as error:
            self.problems.append(str(error))

    async def _ask(
        self, path: Path, method: str, wanted: QueueFilter, kind: type[T]
    ) -> list[T]:
        try:
            return await ask(path, method, wanted, kind)
        except (WorkerGone, RequestRefused) as error:
            self.problems.append(str(error))
            return []


async def mailq_lines(
    queue: WholeQueue,
    *,
    verbose: bool,
    user: str | None,
    spool_directory: str,
    zone_offset_s: ZoneOffset,
) -> AsyncIterator[str]:
    """Yield what ``mailq`` prints.

    Args:
        queue: the opened queue.
        verbose: the longer form.
        user: only messages that this user has submitted here; None for all.
        spool_directory: what the head line names.
        zone_offset_s: the local zone.
    """
    total = 0
    if user is None:
        total = (await queue.counts()).counts.get("messages", 0)
    else:
        async for entry in queue.entries(QueueFilter()):
            total += may_see(user, entry)
    for line in mailq_head(total, spool_directory, verbose=verbose):
        yield line
    shown = 0
    async for entry in queue.entries(QueueFilter()):
        if user is None or may_see(user, entry):
            shown += 1
            for line in mailq_entry(
                entry, verbose=verbose, zone_offset_s=zone_offset_s
            ):
                yield line
    yield mailq_foot(shown)
