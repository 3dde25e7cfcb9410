"""The queue for commands that look at it with no worker to ask.

Looking is possible always, also beside a running server. To change a shard it is opened
as a worker does (``engine.open_shard``), which is refused where another holds it.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import apsw

from postroom.mail.ids import QueueId, to_number
from postroom.mail.message import Message
from postroom.mail.now import Now
from postroom.spool import kept, queries, rows
from postroom.spool.bodies import BodyDirectory
from postroom.spool.changes import COUNTED
from postroom.spool.conditions import condition
from postroom.spool.database import open_read_only
from postroom.spool.files import SystemFiles
from postroom.spool.kept import Kept
from postroom.spool.lock import shard_directory
from postroom.spool.opening import BODIES, DATABASE
from postroom.spool.shape import Shape, shape_of
from postroom.spool.spool import Entry, EntryRecipient, QueueFilter, SpoolError


class ShardView:
    """One shard to be looked at only. All methods block."""

    def __init__(
        self, shard: int, connection: apsw.Connection, bodies: BodyDirectory
    ) -> None:
        self.shard = shard
        self._connection = connection
        self._bodies = bodies

    def entries(
        self, wanted: QueueFilter, now: Now, *, page: int = 200
    ) -> Iterator[Sequence[Entry]]:
        """Yield matching entries, oldest first, in short pages, some of them empty.

        Nobody knows here what is being delivered: none is shown as active.

        Raises:
            SpoolError: it cannot be read.
        """
        chosen = condition(wanted, now.utc_us)
        after: int | None = queries.FIRST
        while after is not None:
            with self._reading() as connection:
                found = queries.entries_page(
                    connection, chosen, after, page, self.shard
                )
            yield found.entries
            after = found.next_after

    def recipients(
        self, queue_id: QueueId, after: int, limit: int
    ) -> Sequence[EntryRecipient]:
        """Return recipients of a message after one of them, by number.

        Raises:
            SpoolError: it cannot be read.
        """
        with self._reading() as connection:
            return queries.recipients_page(
                connection, to_number(queue_id), after, limit
            )

    def kept(self, queue_id: QueueId) -> Kept | None:
        """Return a message with its content; None if it is not there.

        Raises:
            SpoolError: it cannot be read.
        """
        try:
            with self._reading() as connection:
                return kept.read_kept(connection, to_number(queue_id), self._bodies)
        except rows.Unreadable as error:
            raise SpoolError(f"{queue_id} cannot be read: {error}") from error

    def raw(self, queue_id: QueueId) -> Message | None:
        """Return what lies there of a message, readable or not.

        Raises:
            SpoolError: not even that can be read.
        """
        with self._reading() as connection:
            return kept.read_raw(connection, to_number(queue_id), self._bodies)

    def shape(self, now: Now) -> Shape:
        """Count what waits by destination, age and sender.

        Raises:
            SpoolError: it cannot be read.
        """
        with self._reading() as connection:
            return shape_of(connection, now.utc_us)

    def counts(self) -> dict[str, int]:
        """Return the counts as ``Spool.counts`` does; ``active`` is 0."""
        sql = f"SELECT {', '.join(COUNTED)} FROM counters"  # noqa: S608 (constants)
        with self._reading() as connection:
            row = connection.execute(sql).get
        counts: dict[str, int] = dict(zip(COUNTED, row, strict=True))
        del counts["last_number"]
        return counts | {"active": 0}

    @contextmanager
    def _reading(self) -> Iterator[apsw.Connection]:
        try:
            yield self._connection
        except apsw.Error as error:
            raise SpoolError(f"shard {self.shard}: {error}") from error


@contextmanager
def view_shards(directory: str, shards: Sequence[int]) -> Iterator[list[ShardView]]:
    """Lend some shards of a spool for looking, whether a server runs or not.

    Raises:
        SpoolError: one cannot be read.
        OSError: one may not be looked at.
    """
    views: list[ShardView] = []
    with ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor(1, "spool-bodies"))
        for shard in shards:
            home = shard_directory(directory, shard)
            path = os.path.join(home, DATABASE)
            try:
                os.stat(path)
            except FileNotFoundError:  # a server was stopped while making it
                continue
            connection = open_read_only(path)
            stack.callback(connection.close, force=True)
            bodies = BodyDirectory(os.path.join(home, BODIES), SystemFiles(), threads)
            views.append(ShardView(shard, connection, bodies))
        yield views
