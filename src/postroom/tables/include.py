"""Reads the lists that ``:include:/path`` names, in threads, and remembers them.

A file is used only if it and its directory belong to root or to us and nobody else
may write them: whoever can write a list can direct mail. A refusal is ``Unusable``
with the remedy.
"""

import asyncio
import os
import stat
from collections.abc import Collection
from pathlib import Path

import msgspec

from postroom.tables.file import FileMark, read_file
from postroom.tables.settings import TableSettings
from postroom.tables.targets import split_targets


class Included(msgspec.Struct, frozen=True):
    """The targets of a list."""

    targets: tuple[str, ...]


class Unusable(msgspec.Struct, frozen=True, gc=False):
    """The list cannot be used until a person mends it; ``reason`` says how."""

    reason: str


class Unreadable(msgspec.Struct, frozen=True, gc=False):
    """The disk did not give it now; later it may."""

    reason: str


Include = Included | Unusable | Unreadable

KEPT_MAX = 100


class Includes:
    """Reads lists, each again only when its file has changed."""

    def __init__(self, settings: TableSettings) -> None:
        self._settings = settings
        self._kept: dict[str, tuple[FileMark, Include]] = {}

    async def read(self, path: str) -> Include:
        """Return a list; never raises for what is wrong with the file."""
        return await asyncio.to_thread(self._read, path)

    def _read(self, path: str) -> Include:
        mark = FileMark.of(path)
        kept = self._kept.get(path)
        if kept and kept[0] == mark and not isinstance(kept[1], Unreadable):
            return kept[1]
        include = read_include(path, self._settings)
        if len(self._kept) >= KEPT_MAX:
            self._kept.clear()
        self._kept[path] = mark, include
        return include


def read_include(
    path: str, settings: TableSettings, owners: Collection[int] = ()
) -> Include:
    """Read a list: addresses by commas or lines, ``#`` begins a comment line.

    ``owners`` may have it; empty: root and who runs this.
    """
    try:
        unsafe = _unsafe(path, owners or (0, os.geteuid()))
        if unsafe:
            return Unusable(unsafe)
        lines = read_file(path, settings).split("\n")
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        return Unusable(f"{path}: {getattr(error, 'strerror', None) or error}")
    except OSError as error:
        return Unreadable(f"{path}: {error.strerror or error}")
    targets: list[str] = []
    for number, line in enumerate(lines, 1):
        if line.lstrip().startswith("#"):
            continue
        try:
            targets += split_targets(line)
        except ValueError as error:
            return Unusable(f"{path}:{number}: {error}")
        if len(targets) > settings.entries_max:
            return Unusable(f"{path}: too many targets (setting entries_max)")
    return Included(tuple(targets))


def _unsafe(path: str, owners: Collection[int]) -> str:
    """Return why a list must not be trusted; empty if it may."""
    for place in (Path(path), Path(path).parent):
        found = place.stat()
        if found.st_uid not in owners:
            return f"{place} belongs to user {found.st_uid}; do: chown root {place}"
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            sticky = found.st_mode & stat.S_ISVTX and stat.S_ISDIR(found.st_mode)
            if not sticky:
                return f"others may write {place}; do: chmod go-w {place}"
    return ""
