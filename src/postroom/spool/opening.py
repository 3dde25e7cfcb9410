"""What happens when a shard is opened, all of it blocking, in a thread.

In order: the lock; the database, whose log SQLite replays; a count for each message
that was in hand when the last holder crashed; removal of body files that no row names.
On failure everything is let go again and ``SpoolError`` says what is wrong.
"""

# ruff: noqa: S608 (statements are made of constants only; values are bound)
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import apsw
import msgspec

from postroom.mail.ids import QueueId, parse_queue_id, to_number
from postroom.spool.acts import Shunt
from postroom.spool.bodies import BodyDirectory
from postroom.spool.changes import COUNTED, Group
from postroom.spool.claims import Broken
from postroom.spool.crashes import count_crash
from postroom.spool.database import Database
from postroom.spool.files import Files, Seam
from postroom.spool.in_hand import InHand
from postroom.spool.lock import ShardLock, shard_directory
from postroom.spool.mounts import refuse_network_file_system
from postroom.spool.rests import read_rests
from postroom.spool.schema import SchemaError
from postroom.spool.settings import SpoolSettings
from postroom.spool.space import Space
from postroom.spool.spool import Rest, SpoolError, disk_error

_BODY_THREADS = 4
DATABASE = "queue.db"
BODIES = "bodies"


class Wish(msgspec.Struct, frozen=True):
    """Which shard to open, and how."""

    directory: str
    shard: int
    settings: SpoolSettings
    generation: int
    now_us: int
    seam: Seam = Seam()


class Opened(msgspec.Struct, frozen=True):
    """The parts of an open shard. ``suspects`` have been in hand at a crash."""

    lock: ShardLock
    database: Database
    bodies: BodyDirectory
    space: Space
    in_hand: InHand
    suspects: set[int]
    shunted: list[Broken]
    rests: dict[str, Rest]


def open_files(wish: Wish) -> Opened:
    """Open a shard, made if it does not exist.

    Raises:
        SpoolError: (``SpoolLocked`` if another process has it.)
    """
    path = shard_directory(wish.directory, wish.shard)
    files = wish.seam.files
    try:
        _make_directories(files, wish.directory, path)
        refuse_network_file_system(path)
        lock = ShardLock(path)
    except OSError as error:
        raise disk_error(error) from error
    try:
        return _open_locked(wish, path, files, lock)
    except (apsw.Error, SchemaError) as error:
        lock.release()
        raise SpoolError(f"{path}: {_explain(error)}") from error
    except OSError as error:
        lock.release()
        raise disk_error(error) from error
    except BaseException:
        lock.release()
        raise


def _explain(error: Exception) -> str:
    match error:
        case apsw.CantOpenError() | apsw.ReadOnlyError():
            return f"{error}: all files there have to belong to the server's user"
        case apsw.NotADBError() | apsw.CorruptError():
            return f"{error}: the database is damaged; other shards are not affected"
        case apsw.IOError():
            return f"{error}: the disk fails, or is full"
        case _:
            return str(error)


def _make_directories(files: Files, directory: str, path: str) -> None:
    """Make the directories, and make sure of their names in any case.

    What is there may have been made by a process that was killed before it could.
    """
    bodies = os.path.join(path, BODIES)
    above = [os.path.dirname(os.path.abspath(directory))]
    while not os.path.isdir(above[-1]):
        above.append(os.path.dirname(above[-1]))
    if not os.path.isdir(bodies):
        files.make_directory(bodies)
    files.sync_directory(path)
    files.sync_directory(directory)
    for each in above:
        with suppress(PermissionError):  # whoever may read it has made ours, and synced
            files.sync_directory(each)


def _open_locked(wish: Wish, path: str, files: Files, lock: ShardLock) -> Opened:
    database = Database(
        os.path.join(path, DATABASE),
        wish.shard,
        wish.settings,
        generation=wish.generation,
        vfs=wish.seam.vfs,
    )
    try:
        return _open_rest(wish, path, files, lock, database)
    except BaseException:
        # What is left open here would be taken up, unlooked at, by the next opening.
        with suppress(apsw.Error):
            database.close(clean=False)
        raise


def _open_rest(
    wish: Wish, path: str, files: Files, lock: ShardLock, database: Database
) -> Opened:
    settings = wish.settings
    files.sync_directory(path)
    in_hand = InHand(os.path.join(path, "in-hand"))
    shunted = _count_crashes(database.writer, in_hand.left_behind(), wish)
    in_hand.forget()
    threads = ThreadPoolExecutor(_BODY_THREADS, "spool-bodies")
    bodies = BodyDirectory(os.path.join(path, BODIES), files, threads)
    _remove_orphans(database.writer, bodies)
    suspects = database.writer.execute("SELECT id FROM messages WHERE crashes > 0")
    return Opened(
        lock=lock,
        database=database,
        bodies=bodies,
        space=Space(path, settings.reserve_octets, settings.reserve_inodes),
        in_hand=in_hand,
        suspects={number for (number,) in suspects},
        shunted=shunted,
        rests=read_rests(database.writer, wish.now_us),
    )


def _count_crashes(
    connection: apsw.Connection, left: list[int], wish: Wish
) -> list[Broken]:
    """Count a crash for what was in hand; put aside what was there too often."""
    if not left:
        return []
    with connection:
        guilty = count_crash(connection, left, wish.settings.crashes_max, wish.now_us)
        _shunt(connection, guilty)
    return guilty


def _shunt(connection: apsw.Connection, broken: list[Broken]) -> None:
    columns = ", ".join(COUNTED)
    row = connection.execute(f"SELECT {columns} FROM counters").get
    group = Group(connection, dict(zip(COUNTED, row, strict=True)))
    Shunt(tuple(broken))(group)
    sets = ", ".join(f"{name} = ?" for name in COUNTED)
    connection.execute(
        f"UPDATE counters SET {sets}",
        [group.counts[name] for name in COUNTED],
    )


def _remove_orphans(connection: apsw.Connection, bodies: BodyDirectory) -> None:
    """Remove body files that no row names: a crash came before their message."""
    orphans = []
    for name in bodies.files.names(bodies.path):
        try:
            number = to_number(parse_queue_id(name))
        except ValueError:
            continue
        query = "SELECT 1 FROM bodies WHERE id = ? AND file = ?"
        if connection.execute(query, (number, name)).get is None:
            orphans.append(QueueId(name))
    bodies.remove([str(name) for name in orphans])
