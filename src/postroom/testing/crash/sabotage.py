"""Proof that the proof can fail: the spool is made worse, and that must be noticed.

Each ``Sabotage`` leaves out one thing that the promises rest on, and says by which
trials it is to be found out. One that is not found out says that the trials are blind.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import apsw
import msgspec

from postroom.spool import groups, opening
from postroom.spool.bodies import BodyDirectory
from postroom.spool.changes import Change, Group
from postroom.spool.database import Database
from postroom.spool.engine import Shard
from postroom.spool.files import Files
from postroom.spool.spool import (
    Fenced,
    Lease,
    NewMessage,
    NewRecipient,
    Settle,
    SpoolError,
)
from postroom.spool.writer import Writer
from postroom.testing.crash.promises import Lost
from postroom.testing.crash.trials import Bench
from postroom.testing.disk import Fault, Kind, Loss, Operation
from postroom.testing.recording import RecordingFiles

_LOSSES = (Loss.ALL, Loss.NONE, Loss.CONTENTS, Loss.NAMES, Loss.DATABASE, Loss.LOG)

Find = Callable[[Bench], AsyncIterator[object]]
Skips = Callable[[Operation], bool]


class Sabotage(msgspec.Struct, frozen=True):
    """One thing made worse, and the trials that are to find it out."""

    name: str
    find: Find
    worsen: Callable[[], AbstractContextManager[object]] = nullcontext
    skips: Skips | None = None

    async def is_noticed(self, place: Path) -> str:
        """Return what was noticed, empty if nothing was."""
        bench = Bench(place, "sabotage", self.skips)
        with self.worsen():
            try:
                async for _ in self.find(bench):
                    pass
            except Lost as lost:
                return str(lost)
        return ""


async def _power(bench: Bench) -> AsyncIterator[object]:
    async for each in bench.power_cuts(_LOSSES):
        yield each


def _faults(fault: Fault, kind: Kind, name: str = "") -> Find:
    async def find(bench: Bench) -> AsyncIterator[object]:
        for index, operation in enumerate(await bench.operations()):
            if operation.kind is kind and name in operation.path:
                yield await bench.fault(index, fault)

    return find


async def _kills(bench: Bench) -> AsyncIterator[object]:
    for index, operation in enumerate(await bench.operations()):
        if operation.kind is Kind.NAMES:
            yield await bench.kill(index)


async def _kills_at_failed_sync(bench: Bench) -> AsyncIterator[object]:
    for index, operation in enumerate(await bench.operations()):
        if operation.kind is Kind.SYNC:
            yield await bench.kill(index, sync_fails=True)


def _sync_of(end: str) -> Skips:
    return lambda o: o.kind is Kind.SYNC and o.path.endswith(end)


def _sync_of_body(operation: Operation) -> bool:
    return operation.kind is Kind.SYNC and "/bodies/" in operation.path


def _names_of(end: str) -> Skips:
    return lambda o: o.kind is Kind.NAMES and o.path.endswith(end)


def _instead(owner: object, name: str, made: Callable[[Any], Any]) -> Any:
    """Return a patch that puts ``made(original)`` in the place of a function."""
    return lambda: patch.object(owner, name, made(getattr(owner, name)))


def _answers_early(change: Any) -> Any:
    async def early(self: Shard, given: Change) -> Any:
        if given.message or given.act:
            return await change(self, given)
        task = asyncio.ensure_future(change(self, given))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return None

    return early


def _removes_files_early(_: Any) -> Any:
    def transaction(self: Writer, changes: Sequence[Change]) -> Group:
        connection = self._database.writer
        connection.execute("BEGIN IMMEDIATE")
        group = groups.apply(connection, changes, self._counts)
        self._bodies.remove(group.files)
        connection.execute("COMMIT")
        return group

    return transaction


def _reports_apart(settle: Any) -> Any:
    async def apart(
        self: Shard,
        lease: Lease,
        settled: Sequence[Settle],
        new: Sequence[NewMessage] = (),
    ) -> None:
        await settle(self, lease, settled)
        for message in new:
            await self.accept(message)

    return apart


def _cursor_first(expand: Any) -> Any:
    async def first(
        self: Shard,
        lease: Lease,
        number: int,
        children: Sequence[NewRecipient],
        cursor: int | None,
        new: Sequence[NewMessage] = (),
    ) -> int:
        if cursor is not None:
            await expand(self, lease, number, [], cursor)
        count: int = await expand(self, lease, number, children, cursor, new)
        return count

    return first


def _hides_failure(call: Any) -> Any:
    async def hiding(self: Shard, *given: Any, **named: Any) -> Any:
        try:
            return await call(self, *given, **named)
        except Fenced:
            raise
        except SpoolError:
            return []

    return hiding


def _hides_short_files(append: Any) -> Any:
    def hiding(self: RecordingFiles, descriptor: int, data: bytes) -> None:
        with suppress(OSError):
            append(self, descriptor, data)

    return hiding


def _is_no_transaction(_: Any) -> Any:
    def apart(self: Writer, changes: Sequence[Change]) -> Group:
        return groups.apply(self._database.writer, changes, self._counts)

    return apart


def _syncs_seldom(prepare: Any) -> Any:
    def seldom(self: Database, connection: apsw.Connection) -> None:
        prepare(self, connection)
        connection.pragma("synchronous", "NORMAL")

    return seldom


def _syncs_what_it_made(_: Any) -> Any:
    def make(files: Files, directory: str, path: str) -> None:
        if not Path(path, opening.BODIES).is_dir():
            files.make_directory(str(Path(path, opening.BODIES)))
            for made in (path, directory):
                files.sync_directory(made)

    return make


def _removes_all_files(_: Any) -> Any:
    def remove(_: apsw.Connection, bodies: BodyDirectory) -> None:
        bodies.remove(bodies.files.names(bodies.path))

    return remove


def _nothing(_: Any) -> Any:
    return lambda *_: None


SABOTAGES = (
    Sabotage("a body file is not synced", _power, skips=_sync_of_body),
    Sabotage(
        "the directory of bodies is not synced", _power, skips=_names_of("bodies")
    ),
    Sabotage("a shard's directory is not synced", _power, skips=_names_of("-000")),
    Sabotage("the spool's directory is not synced", _power, skips=_names_of("spool")),
    Sabotage("the log is not synced", _power, skips=_sync_of("-wal")),
    Sabotage("a checkpoint does not sync", _power, skips=_sync_of("queue.db")),
    Sabotage(
        "the log is synced by checkpoints only",
        _power,
        _instead(Database, "_prepare", _syncs_seldom),
    ),
    Sabotage(
        "250 is said before the commit",
        _power,
        _instead(Shard, "_change", _answers_early),
    ),
    Sabotage(
        "a body file is removed before the commit",
        _power,
        _instead(Writer, "_transaction", _removes_files_early),
    ),
    Sabotage(
        "a group is no transaction",
        _power,
        _instead(Writer, "_transaction", _is_no_transaction),
    ),
    Sabotage(
        "a report is queued after its settlement",
        _power,
        _instead(Shard, "settle", _reports_apart),
    ),
    Sabotage(
        "an expansion's cursor is moved first",
        _power,
        _instead(Shard, "expand", _cursor_first),
    ),
    Sabotage(
        "opening removes body files that are named",
        _power,
        _instead(opening, "_remove_orphans", _removes_all_files),
    ),
    Sabotage(
        "opening leaves files that nothing names",
        _power,
        _instead(opening, "_remove_orphans", _nothing),
    ),
    Sabotage(
        "the log is not cut after a failed sync",
        _faults(Fault.IO, Kind.SYNC, "-wal"),
        _instead(Database, "_cut_log", _nothing),
    ),
    Sabotage(
        "a message that could not be kept is answered",
        _faults(Fault.IO, Kind.SYNC, "-wal"),
        _instead(Shard, "accept", _hides_failure),
    ),
    Sabotage(
        "a settlement that failed is taken as done",
        _faults(Fault.IO, Kind.SYNC, "-wal"),
        _instead(Shard, "settle", _hides_failure),
    ),
    Sabotage(
        "a body file cut short by a full disk is kept",
        _faults(Fault.SHORT, Kind.WRITE, "/bodies/"),
        _instead(RecordingFiles, "append", _hides_short_files),
    ),
    Sabotage(
        "directories are synced by those who made them only",
        _kills,
        _instead(opening, "_make_directories", _syncs_what_it_made),
    ),
    Sabotage(
        "the log is trusted after a kill",
        _kills_at_failed_sync,
        _instead(Database, "_rewrite_log", _nothing),
    ),
)
"""All of them."""
