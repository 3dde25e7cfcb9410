"""The queue for commands that look at it with no worker to ask.

Looking is possible always, also beside a running server. To change a shard it is opened
as a worker does (``engine.open_shard``), which is refused where another holds it.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import apsw

from postroom.mail.now import Now
from postroom.spool import queries
from postroom.spool.changes import COUNTED
from postroom.spool.database import open_read_only
from postroom.spool.lock import shard_directory, shards_in
from postroom.spool.opening import DATABASE
from postroom.spool.spool import Entry, QueueFilter, SpoolError


class ShardView:
    """One shard to be looked at only. All methods block."""

    def __init__(self, shard: int, connection: apsw.Connection) -> None:
        self.shard = shard
        self._connection = connection

    def entries(
        self, wanted: QueueFilter, now: Now, *, page: int = 200
    ) -> Iterator[Sequence[Entry]]:
        """Yield matching entries, oldest first, in short pages.

        Nobody knows here what is being delivered: none is shown as active.

        Raises:
            SpoolError: it cannot be read.
        """
        condition = queries.condition(wanted, now.utc_us)
        after: int | None = queries.FIRST
        while after is not None:
            try:
                found = queries.entries_page(
                    self._connection, condition, after, page, self.shard
                )
            except apsw.Error as error:
                raise SpoolError(f"shard {self.shard}: {error}") from error
            if found.entries:
                yield found.entries
            after = found.next_after

    def counts(self) -> dict[str, int]:
        """Return the counts as ``Spool.counts`` does; ``active`` is 0."""
        sql = f"SELECT {', '.join(COUNTED)} FROM counters"  # noqa: S608 (constants)
        try:
            row = self._connection.execute(sql).get
        except apsw.Error as error:
            raise SpoolError(f"shard {self.shard}: {error}") from error
        counts: dict[str, int] = dict(zip(COUNTED, row, strict=True))
        del counts["last_number"]
        return counts | {"active": 0}


@contextmanager
def view_shards(directory: str) -> Iterator[list[ShardView]]:
    """Lend all shards of a spool for looking, whether a server runs or not.

    Raises:
        SpoolError: one cannot be read.
    """
    views: list[tuple[ShardView, apsw.Connection]] = []
    try:
        for shard in shards_in(directory):
            path = os.path.join(shard_directory(directory, shard), DATABASE)
            if not os.path.exists(path):  # a server was stopped while making it
                continue
            connection = open_read_only(path)
            views.append((ShardView(shard, connection), connection))
        yield [view for view, _ in views]
    finally:
        for _, connection in views:
            connection.close(force=True)
