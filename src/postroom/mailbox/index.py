"""Sizes and ids of messages whose files do not tell them: a cache, never the truth.

Files we delivered carry their sizes in their names and need no entry. For files that
other programs put into a Maildir, and for mbox files, the index keeps what was found
by reading them once, with the file's size, modification time and inode as they were.
An entry that does not agree with the mailbox is not used and soon replaced. An index
that is broken, locked or cannot be written is done without.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence

import apsw
import msgspec

from postroom.mailbox.name import Place

_SCHEMA = """
CREATE TABLE IF NOT EXISTS maildir_file (
  name TEXT PRIMARY KEY, octets INTEGER NOT NULL,
  stamp TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS mbox_file (
  name TEXT PRIMARY KEY, stamp TEXT NOT NULL, messages BLOB NOT NULL) WITHOUT ROWID;
"""
_FLAGS = (
    apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_NOFOLLOW
)
_BUSY_MS = 100
_STAMP = re.compile(r"(\d{1,20}):(\d{1,19}):-?\d{1,20}")


class Spot(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a message lies in an mbox: content without From_ line and last blank.

    ``from_offset`` is where the From_ line begins; ``octets`` is the length in CRLF
    form without quoting.
    """

    from_offset: int
    offset: int
    stored_octets: int
    octets: int
    uid: str


def stamp_of(status: os.stat_result) -> str:
    """Return what must be unchanged for an entry to be used."""
    return f"{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"


def is_grown(before: str, now: str) -> bool:
    """Whether two stamps can be of one file to which something was appended."""
    was, is_now = _STAMP.fullmatch(before), _STAMP.fullmatch(now)
    if not was or not is_now or was[1] != is_now[1]:
        return False
    return int(was[2]) < int(is_now[2])


class Index:
    """The index of one mailbox, open for a moment."""

    def __init__(self, database: apsw.Connection) -> None:
        self._database = database

    def maildir_files(self) -> dict[str, tuple[int, str]]:
        """Return octets and stamp of all files known, by unique name."""
        rows = self._database.execute("SELECT name, octets, stamp FROM maildir_file")
        return {_name_in(kept): (octets, stamp) for kept, octets, stamp in rows}

    def set_maildir_files(
        self, found: Mapping[str, tuple[int, str]], gone: Iterable[str]
    ) -> None:
        """Note new or changed files, and forget those that are gone."""
        rows = [(_kept(name), octets, stamp) for name, (octets, stamp) in found.items()]
        with self._database:
            self._database.executemany(
                "INSERT OR REPLACE INTO maildir_file VALUES (?, ?, ?)", rows
            )
            self._database.executemany(
                "DELETE FROM maildir_file WHERE name = ?",
                [(_kept(name),) for name in gone],
            )

    def mbox_spots(self, name: str) -> tuple[str, list[Spot]]:
        """Return an mbox's stamp when it was read last, and where its messages lay.

        The stamp is empty if it never was.
        """
        found = self._database.execute(
            "SELECT stamp, messages FROM mbox_file WHERE name = ?", (name,)
        ).fetchone()
        try:
            stamp, messages = found or ("", b"\x90")
            return stamp, msgspec.msgpack.decode(messages, type=list[Spot])
        except msgspec.DecodeError:
            return "", []

    def set_mbox_spots(self, name: str, stamp: str, spots: Sequence[Spot]) -> None:
        """Note where an mbox's messages lie."""
        with self._database:
            self._database.execute(
                "INSERT OR REPLACE INTO mbox_file VALUES (?, ?, ?)",
                (name, stamp, msgspec.msgpack.encode(spots)),
            )

    def close(self) -> None:
        """Let go of it."""
        self._database.close()


def _kept(name: str) -> str | bytes:
    """Return how a file's name is kept: its octets if they are no UTF-8 text."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name)
    return name


def _name_in(kept: str | bytes) -> str:
    return kept if isinstance(kept, str) else os.fsdecode(kept)


def open_index(place: Place, name: str) -> Index | None:
    """Open the index called ``name`` within a directory; None if there can be none.

    A broken one is removed and begun anew.
    """
    root = os.path.realpath(place.root)
    path = os.path.join(root, *place.parts, name)
    for _ in range(2):
        try:
            return Index(_connect(path))
        except (apsw.NotADBError, apsw.CorruptError):
            try:
                os.unlink(path)
            except OSError:
                return None
        except apsw.Error:
            return None
    return None


def _connect(path: str) -> apsw.Connection:
    database = apsw.Connection(path, flags=_FLAGS)
    try:
        database.set_busy_timeout(_BUSY_MS)
        # A cache: its loss costs time, so it is synced just enough not to be broken.
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute(_SCHEMA)
    except BaseException:
        database.close()
        raise
    return database
