"""Lists in files: who may write them may direct mail, so they are looked at hard."""

import asyncio
import os
from pathlib import Path

import pytest

from postroom.tables.include import (
    KEPT_MAX,
    Include,
    Included,
    Includes,
    Unreadable,
    Unusable,
    read_include,
)
from postroom.tables.settings import TableSettings

SETTINGS = TableSettings()


@pytest.fixture
def listing(tmp_path: Path) -> Path:
    folder = tmp_path / "lists"
    folder.mkdir(mode=0o755)
    path = folder / "friends"
    path.write_text("# friends\nbetty, joe@whizzer.test\n\n  \\sue\n")
    path.chmod(0o644)
    return path


def test_list(listing: Path) -> None:
    found = read_include(str(listing), SETTINGS)
    assert found == Included(("betty", "joe@whizzer.test", "\\sue"))


def group_writable(path: Path) -> None:
    path.chmod(0o664)


def folder_writable(path: Path) -> None:
    path.parent.chmod(0o777)


def gone(path: Path) -> None:
    path.unlink()


def broken(path: Path) -> None:
    path.write_text("betty\njoe smith\n")


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


SPOILT = {
    "group may write": (group_writable, "chmod go-w"),
    "folder writable": (folder_writable, "chmod go-w"),
    "missing": (gone, "No such file"),
    "syntax": (broken, "friends:2: "),
    "fifo": (fifo, "not a regular file"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_refused(name: str, listing: Path) -> None:
    spoil, reason = SPOILT[name]
    spoil(listing)
    found = read_include(str(listing), SETTINGS)
    assert isinstance(found, Unusable)
    assert reason in found.reason


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_foreign_owner(listing: Path) -> None:
    os.chown(listing, 12345, 12345)
    found = read_include(str(listing), SETTINGS)
    assert isinstance(found, Unusable)
    assert "belongs to user 12345" in found.reason


def test_too_many(listing: Path) -> None:
    found = read_include(str(listing), TableSettings(entries_max=2))
    assert isinstance(found, Unusable)
    assert "entries_max" in found.reason


def test_disk_failure_may_pass(listing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("postroom.tables.include.read_file", fail)
    found = read_include(str(listing), SETTINGS)
    assert found == Unreadable(f"{listing}: Input/output error")


def test_read_again_only_when_changed(listing: Path) -> None:
    includes = Includes(SETTINGS)

    def read(path: object) -> Include:
        return asyncio.run(includes.read(str(path)))

    first = read(listing)
    assert read(listing) is first
    listing.write_text("sue\n")
    assert read(listing) == Included(("sue",))
    for number in range(KEPT_MAX + 1):
        includes._read(f"/nonexistent/{number}")
    assert read(listing) == Included(("sue",))
