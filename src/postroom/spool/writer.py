"""The thread that writes: gathers what is pending and commits it in one transaction.

It never waits for a group to fill while nothing else is coming: it begins with what is
there and gathers what arrives meanwhile. While more is coming, the loop thread hands
over at most every 5 ms: a group costs nearly the same however much is in it, above all
the hand-over from thread to thread. Nobody waits for a settlement, so it goes with the
next new mail, or a few milliseconds later. What went wrong is sorted out here:

- one bad change fails alone, the rest of its group is committed without it;
- a full disk fails what adds mail (``SpoolFull``), what frees space is tried again;
- after any other failure of the disk or the file, all fail, and the database is closed
  and opened anew before the next group.

Nothing is reported as done before its commit has returned.
"""

# ruff: noqa: S608 (statements are made of constants only; values are bound)
import asyncio
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

import apsw

from postroom.spool import groups
from postroom.spool.bodies import BodyDirectory
from postroom.spool.changes import COUNTED, Change, Group
from postroom.spool.database import Database
from postroom.spool.schema import PAGE_OCTETS
from postroom.spool.settings import SpoolSettings
from postroom.spool.space import Space
from postroom.spool.spool import SpoolError, SpoolFull

_GROUPS_A_LOOK = 64
_IDLE_S = 1.0
_SETTLE_WAIT_S = 0.004
_SETTLES_WAITING_MAX = 64
_PACE_S = 0.005
_PAGES_GIVEN_BACK = 1024
_DISK_ERRORS = (
    apsw.IOError,
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.CantOpenError,
    apsw.ReadOnlyError,
    apsw.BusyError,
    apsw.LockedError,
    apsw.NoMemError,
    apsw.InternalError,
    apsw.MisuseError,
    apsw.ProtocolError,
    apsw.ConnectionClosedError,
    MemoryError,
    OSError,
)

Failed = Callable[[str], None]


class Writer:
    """The writer thread of one shard.

    Args:
        failed: called on the loop thread with the text of each failure of the disk.
    """

    def __init__(
        self,
        database: Database,
        bodies: BodyDirectory,
        space: Space,
        settings: SpoolSettings,
        failed: Failed,
    ) -> None:
        self._database = database
        self._bodies = bodies
        self._space = space
        self._settings = settings
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._gathered: list[Change] = []
        self._is_due = self._is_awaited = False
        self._timer: asyncio.TimerHandle | None = None
        self._not_before_s = 0.0
        self._arriving = 0
        self._pending: SimpleQueue[Change | None] = SimpleQueue()
        self._broken = False
        self._groups = 0
        self._counts = _read_counts(database.writer)
        self.counts = self._counts
        """The counts after the last commit; replaced whole, never changed."""
        self._thread = threading.Thread(
            target=self._run, name="spool-writer", daemon=True
        )
        self._thread.start()

    @property
    def broken(self) -> bool:
        """Whether the database failed and was not opened anew since."""
        return self._broken

    def submit(self, change: Change) -> None:
        """Hand over a change. Its future is answered once it is committed."""
        self._gathered.append(change)
        if self._is_due:
            return
        if change.can_wait and len(self._gathered) < _SETTLES_WAITING_MAX:
            self._hand_over_in(_SETTLE_WAIT_S)
            return
        self._is_awaited = True
        left_s = self._not_before_s - self._loop.time()
        if self._arriving and left_s > 0:
            self._hand_over_in(left_s)
        else:
            self._hand_over_soon()

    def expect(self, messages: int) -> None:
        """Take the hint that so many more messages are on their way, or fewer."""
        self._arriving += messages
        if self._is_awaited and not self._arriving:
            self._hand_over_soon()

    @property
    def is_expecting(self) -> bool:
        """Whether messages are on their way."""
        return self._arriving > 0

    async def aclose(self) -> None:
        """Finish what is pending and end the thread; the database stays open."""
        self._hand_over()
        self._pending.put(None)
        await self._loop.run_in_executor(None, self._thread.join)

    def _hand_over_in(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(seconds, self._hand_over)

    def _hand_over_soon(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self._is_due = self._is_awaited = False
        self._not_before_s = self._loop.time() + _PACE_S
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for change in self._gathered:
            self._pending.put(change)
        self._gathered.clear()

    def _run(self) -> None:
        open_ = True
        while open_:
            changes, open_ = self._gather(self._wait())
            if changes:
                self._commit_surely(changes)
                self._loop.call_soon_threadsafe(_tell, changes)
            if not self._broken:
                self._tidying(self._tidy)

    def _commit_surely(self, changes: Sequence[Change]) -> None:
        """Commit; a mistake of our own must not end the thread and hang its callers."""
        try:
            self._commit(changes)
        except Exception as error:
            self._broken = True
            self._disk_failed(changes, error)

    def _wait(self) -> Change | None:
        """Wait for a change; if none comes for a while, return unused space."""
        if not self._broken:
            try:
                return self._pending.get(timeout=_IDLE_S)
            except Empty:
                self._tidying(self._shrink)
        return self._pending.get()

    def _gather(self, change: Change | None) -> tuple[list[Change], bool]:
        """Take what else is there, up to the group's limits; None says to end."""
        changes: list[Change] = []
        pending, left = self._pending, int(self._settings.group_octets_max)
        while change is not None:
            changes.append(change)
            for rows in change.new:
                left -= rows.octets
            full = left < 0 or len(changes) >= self._settings.group_messages_max
            if full or pending.empty():
                return changes, True
            change = pending.get()
        return changes, False

    def _commit(self, changes: Sequence[Change]) -> None:
        """Commit a group; afterwards each change has its result or its error."""
        try:
            if self._broken:
                self._reopen()
            group = self._transaction(changes)
        except apsw.FullError as error:
            self._rollback()
            self._full(changes, error)
        except _DISK_ERRORS as error:
            self._broken = True
            self._disk_failed(changes, error)
        except Exception as error:
            self._rollback()
            self._isolate(changes, error)
        else:
            self._counts = self.counts = group.counts
            self._bodies.remove(group.files)

    def _transaction(self, changes: Sequence[Change]) -> Group:
        connection = self._database.writer
        connection.execute("BEGIN IMMEDIATE")
        group = groups.apply(connection, changes, self._counts)
        connection.execute("COMMIT")
        return group

    def _isolate(self, changes: Sequence[Change], error: Exception) -> None:
        """Commit halves apart, so that a bad change ends up alone."""
        if len(changes) == 1:
            changes[0].error = _as_spool_error(error)
            return
        middle = len(changes) // 2
        self._commit(changes[:middle])
        self._commit(changes[middle:])

    def _full(self, changes: Sequence[Change], error: Exception) -> None:
        self._space.exhausted()
        freeing = [change for change in changes if change.frees]
        adding = [change for change in changes if not change.frees]
        if not adding:
            adding, freeing = freeing, []
        for change in adding:
            change.error = SpoolFull(f"no space left for the queue: {error}")
        self._report(error)
        if freeing:
            self._commit(freeing)

    def _disk_failed(self, changes: Sequence[Change], error: Exception) -> None:
        self._space.refresh()
        full = not self._space.has(0)
        for change in changes:
            kind = SpoolFull if full else SpoolError
            change.error = kind(f"the queue could not be written: {error}")
        self._report(error)

    def _report(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        self._loop.call_soon_threadsafe(self._failed, text)

    def _reopen(self) -> None:
        self._database.reopen()
        self._counts = self.counts = _read_counts(self._database.writer)
        self._broken = False

    def _rollback(self) -> None:
        connection = self._database.writer
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except apsw.Error:
            self._broken = True

    def _tidy(self) -> None:
        """Between groups: copy the log back, and sometimes return space."""
        if self._database.wal_octets >= self._settings.wal_octets_max:
            self._database.checkpoint()
        self._groups += 1
        if not self._counts["messages"] or self._groups % _GROUPS_A_LOOK == 0:
            self._shrink()

    def _shrink(self) -> None:
        """Return unused space, one small step at least, and on while nobody waits."""
        database = self._database
        pages_max = self._settings.free_octets_max // PAGE_OCTETS
        if not self._space.has(self._settings.free_octets_max):
            pages_max = 0  # what lies unused here is what new mail waits for
        if database.free_pages() <= pages_max:
            return
        database.give_back(_PAGES_GIVEN_BACK)
        while self._pending.empty() and database.free_pages() > pages_max:
            database.give_back(_PAGES_GIVEN_BACK)
        database.checkpoint()

    def _tidying(self, work: Callable[[], None]) -> None:
        """Do work that nobody waits for; a failure means that we reopen."""
        try:
            work()
        except (apsw.Error, OSError) as error:
            self._broken = True
            self._report(error)


def _tell(changes: Sequence[Change]) -> None:
    """On the loop thread: end what the group's changes began."""
    for change in changes:
        error, future = change.error, change.future
        if change.done is not None:
            change.done(error is None)
        if future.done():  # the caller was cancelled meanwhile
            continue
        if error is None:
            future.set_result(change.result)
        else:
            future.set_exception(error)


def _as_spool_error(error: Exception) -> SpoolError:
    if isinstance(error, SpoolError):
        return error
    return SpoolError(f"this entry cannot be stored: {type(error).__name__}: {error}")


def _read_counts(connection: apsw.Connection) -> dict[str, int]:
    row = connection.execute(f"SELECT {', '.join(COUNTED)} FROM counters").get
    return dict(zip(COUNTED, row, strict=True))
