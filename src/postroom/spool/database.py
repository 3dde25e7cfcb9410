"""The SQLite file of one shard: its two connections, its log, and its recovery.

One connection belongs to the writer thread, one to the reader thread. After a failed
write or sync neither is trusted: both are closed, what the failed commit may have left
in the log is cut off (the kernel forgets that a sync failed, so a later one would
pass over a hole), and they are opened anew. ``apsw`` brings its own SQLite; older
versions, which can lose commits in WAL mode, are refused.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import apsw

from postroom.spool import schema
from postroom.spool.settings import SpoolSettings
from postroom.spool.spool import SpoolError

SQLITE_VERSION_MIN = 3_051_003
_WAL_HEADER_OCTETS = 32
_FRAME_HEADER_OCTETS = 24
_PIECE_OCTETS = 1 << 16  # SQLite's own files take less than 128 KiB at a time
_BUSY_MS = 5_000
_STATEMENTS_KEPT = 256
_OPEN = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE


class Database:
    """The database of a shard that this process holds the lock of.

    Args:
        path: of ``queue.db``.
        vfs: name of the apsw VFS, None for the system's (crash tests record here).

    Raises:
        SpoolError: it cannot be opened.
        apsw.Error: as SQLite says.
    """

    def __init__(
        self,
        path: str,
        shard: int,
        settings: SpoolSettings,
        *,
        generation: int = 0,
        vfs: str | None = None,
    ) -> None:
        check_sqlite_version()
        self._path = path
        self._settings = settings
        self._vfs = vfs
        self._wal_frames = 0
        self._wal_salt = b""
        self._wal_kept = True
        self._is_certain = True
        self._reading = threading.Lock()
        self._reader: apsw.Connection | None = None
        self._rewrite_log()
        self.writer = self._connect()
        try:
            self.generation = schema.prepare(self.writer, shard, generation)
            self._reader = self._connect()
        except BaseException:
            self.writer.close(force=True)
            raise

    @property
    def path(self) -> str:
        """Where it lies."""
        return self._path

    @property
    def wal_octets(self) -> int:
        """How much of the log waits to be copied back."""
        frame = _FRAME_HEADER_OCTETS + schema.PAGE_OCTETS
        return self._wal_frames * frame

    @contextmanager
    def reading(self) -> Iterator[apsw.Connection]:
        """Lend the reader's connection, in one snapshot. Reader thread only."""
        with self._reading:
            connection = self._reader
            if connection is None:
                if not self._is_certain:
                    raise SpoolError("the log is still to be cut")
                connection = self._reader = self._connect()
            try:
                connection.execute("BEGIN")
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                connection.close(force=True)
                self._reader = None
                raise

    def checkpoint(self) -> None:
        """Copy the log back into the database as far as readers allow."""
        frames, copied = self.writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        # Copied wholly, the log starts again from its beginning at the next commit.
        self._wal_kept = frames > copied
        if not self._wal_kept:
            self._wal_frames = 0

    def give_back(self, pages: int) -> None:
        """Return up to ``pages`` free pages to the file system."""
        self.writer.execute(f"PRAGMA incremental_vacuum({int(pages)})").fetchall()

    def free_pages(self) -> int:
        """Return how many pages of the file are unused."""
        return int(self.writer.pragma("freelist_count"))

    def reopen(self) -> None:
        """Begin anew after a failure, from what was certainly committed.

        Raises:
            apsw.Error, OSError: the disk still fails; call again later.
        """
        with self._reading:
            # The first to connect takes all of the log as committed.
            self._is_certain = False
            self.writer.close(force=True)
            self._close_reader()
            self._cut_log()
            self.writer = self._connect()
            self._is_certain = True

    def close(self, *, clean: bool) -> None:
        """Close; if ``clean``, after copying the log back and emptying it.

        Otherwise what is uncertain is cut off the log: it was refused, and should not
        be found by whoever opens it next.

        Raises:
            apsw.Error: the log could not be copied back, or cut. Nothing is lost by
                that.
        """
        with self._reading:
            self._close_reader()
            try:
                if clean:
                    self.writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            finally:
                self.writer.close(force=True)
            if not clean:
                self._cut_log()

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close(force=True)
            self._reader = None

    def _connect(self) -> apsw.Connection:
        connection = apsw.Connection(
            self._path, flags=_OPEN, vfs=self._vfs, statementcachesize=_STATEMENTS_KEPT
        )
        try:
            self._prepare(connection)
        except BaseException:
            connection.close(force=True)
            raise
        return connection

    def _prepare(self, connection: apsw.Connection) -> None:
        connection.set_busy_timeout(_BUSY_MS)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.pragma("page_size", schema.PAGE_OCTETS)
        connection.pragma("auto_vacuum", "INCREMENTAL")
        if connection.pragma("journal_mode", "wal") != "wal":
            raise SpoolError(f"{self._path}: SQLite will not use a write-ahead log")
        connection.pragma("synchronous", "FULL")
        connection.pragma("journal_size_limit", 2 * self._settings.wal_octets_max)
        connection.pragma("cache_size", -(self._settings.cache_octets // 1024))
        connection.pragma("temp_store", "MEMORY")
        connection.pragma("trusted_schema", 0)
        # Replaces the automatic checkpoint, too: we choose the moment.
        connection.set_wal_hook(self._committed)

    def _committed(self, _connection: apsw.Connection, _name: str, frames: int) -> int:
        if not self._wal_kept or not self._wal_salt:
            self._wal_salt = self._read_salt()
            self._wal_kept = True
        self._wal_frames = frames
        return apsw.SQLITE_OK

    def _read_salt(self) -> bytes:
        with self._log() as log:
            if log.xFileSize() < _WAL_HEADER_OCTETS:
                return b""
            return bytes(log.xRead(8, 16))

    def _cut_log(self) -> None:
        """Cut the log after its last certain commit.

        A changed salt says that the failed commit had begun the log anew: then all
        that was certain is in the database, and the log is worth nothing.
        """
        if not os.path.exists(self._path + "-wal"):
            return
        if self._read_salt() != self._wal_salt:
            self._wal_frames = 0
        end = _WAL_HEADER_OCTETS + self.wal_octets if self._wal_frames else 0
        with self._log() as log:
            if log.xFileSize() > end:
                log.xTruncate(end)
                log.xSync(apsw.SQLITE_SYNC_FULL)
        if not end:
            self._wal_salt = b""

    def _rewrite_log(self) -> None:
        """Write what is in the log once more, and sync it.

        A process may have ended between a failed sync and cutting the log. Its last
        commit is then read back from memory as if it were sound, though the kernel
        will not write it any more; what was committed after it would be lost with it.
        Written again, all of the log is certain.
        """
        if not os.path.exists(self._path + "-wal"):
            return
        with self._log() as log:
            size = log.xFileSize()
            for start in range(0, size, _PIECE_OCTETS):
                octets = min(_PIECE_OCTETS, size - start)
                log.xWrite(log.xRead(octets, start), start)
            if size:
                log.xSync(apsw.SQLITE_SYNC_FULL)

    @contextmanager
    def _log(self) -> Iterator[apsw.VFSFile]:
        flags = [apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_WAL, 0]
        log = apsw.VFSFile(self._vfs or "", self._path + "-wal", flags)
        try:
            yield log
        finally:
            log.xClose()


def open_read_only(path: str) -> apsw.Connection:
    """Open a shard that another process may hold, for looking only.

    Raises:
        SpoolError: it cannot be read; the text says why.
    """
    check_sqlite_version()
    try:
        connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
        connection.set_busy_timeout(_BUSY_MS)
        schema.check(connection)
    except (apsw.Error, schema.SchemaError) as error:
        raise SpoolError(f"{path}: {error}") from error
    return connection


def check_sqlite_version() -> None:
    """Check the SQLite that apsw brings.

    Raises:
        SpoolError: it is too old to be trusted with a write-ahead log.
    """
    number = apsw.SQLITE_VERSION_NUMBER
    version = apsw.sqlite_lib_version()
    linked = tuple(int(part) for part in version.split(".")[:3])
    padded = (*linked, 0, 0, 0)[:3]
    number = min(number, padded[0] * 1_000_000 + padded[1] * 1_000 + padded[2])
    if number < SQLITE_VERSION_MIN:
        raise SpoolError(
            f"apsw brings SQLite {version}, which can lose commits;"
            " install apsw 3.51.3 or later"
        )
