"""Shards that no worker holds, opened by a command.

Looking needs no lock and goes on beside a running server. Each change takes the
shard's lock for as long as it lasts, so a worker that comes up meanwhile waits.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from postroom.mail.ids import QueueId
from postroom.mail.now import Now
from postroom.spool.engine import Shard, open_shard
from postroom.spool.offline import ShardView
from postroom.spool.settings import SpoolSettings
from postroom.spool.spool import Entry, QueueFilter

Clock = Callable[[], Now]


class OfflineShard:
    """One such shard, with the methods of a ``QueueView``.

    Reads block, which is nothing to a command.
    """

    def __init__(self, view: ShardView, settings: SpoolSettings, clock: Clock) -> None:
        self._view = view
        self._settings = settings
        self._clock = clock

    @property
    def shard(self) -> int:
        """The number of this shard."""
        return self._view.shard

    async def entries(
        self, wanted: QueueFilter, *, page: int = 200
    ) -> AsyncIterator[Sequence[Entry]]:
        """Yield matching entries, oldest first, in short pages.

        Raises:
            SpoolError: it cannot be read.
        """
        for entries in self._view.entries(wanted, self._clock(), page=page):
            yield entries

    async def counts(self) -> dict[str, int]:
        """Return counts by name.

        Raises:
            SpoolError: it cannot be read.
        """
        return self._view.counts()

    async def retry(self, wanted: QueueFilter, now: Now) -> int:
        """Make matching waiting recipients due now; returns how many messages.

        Raises:
            SpoolError: a process holds the shard, or it cannot be written.
        """
        async with self._held() as held:
            return await held.retry(wanted, now)

    async def release(self, wanted: QueueFilter, now: Now) -> int:
        """Let matching held and shunted recipients be tried now; returns messages.

        Raises:
            SpoolError: a process holds the shard, or it cannot be written.
        """
        async with self._held() as held:
            return await held.release(wanted, now)

    async def remove(self, wanted: QueueFilter) -> Sequence[QueueId]:
        """Remove matching messages; returns their ids.

        Raises:
            SpoolError: a process holds the shard, or it cannot be written.
        """
        async with self._held() as held:
            return await held.remove(wanted)

    @asynccontextmanager
    async def _held(self) -> AsyncIterator[Shard]:
        settings = self._settings
        held = await open_shard(
            settings.directory, self.shard, settings, clock=self._clock
        )
        try:
            yield held
        finally:
            await held.aclose()
