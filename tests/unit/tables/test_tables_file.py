"""Table files: a version is in force as a whole or not at all."""

import os
from pathlib import Path

import pytest

from postroom.mail.units import Size
from postroom.observe.events import Lifecycle, TableRefused
from postroom.tables.aliases import alias_file
from postroom.tables.settings import TableSettings
from postroom.tables.table import TableProblem
from postroom.tables.text import text_table

SETTINGS = TableSettings()


def write(path: Path, text: str) -> None:
    path.write_text(text)
    os.utime(path, ns=(0, hash(text) % 10**18))


def test_broken_version_leaves_the_old_one_in_force(tmp_path: Path) -> None:
    path = tmp_path / "aliases"
    write(path, "friends: betty\n")
    aliases = alias_file(str(path), SETTINGS)
    assert aliases.fault
    assert aliases.reload() == ()
    assert not aliases.fault
    write(path, "friends: joe\nbroken\n")
    assert aliases.is_changed()
    problems = aliases.reload()
    assert problems == (TableProblem(str(path), 2, 'no ":" after "broken"'),)
    assert problems[0].to_text() == f'{path}:2: error: no ":" after "broken"'
    assert problems[0].to_event(7) == TableRefused(
        7, str(path), 2, 'no ":" after "broken"'
    )
    assert aliases.get("friends") == ("betty",)
    assert not aliases.fault
    assert not aliases.is_changed()
    newborn = alias_file(str(path), SETTINGS)
    for _ in range(2):
        (problem,) = newborn.reload()
        told = problem.to_event(7)
        assert isinstance(told, TableRefused)
        assert not told.in_force
    write(path, "friends: joe\n")
    assert aliases.reload() == ()
    assert aliases.get("friends") == ("joe",)


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    path = tmp_path / "aliases"
    path.write_text("\ufefffriends: betty\n", "utf-8")
    aliases = alias_file(str(path), SETTINGS)
    assert aliases.reload() == ()
    assert aliases.get("friends") == ("betty",)


def test_warnings_do_not_refuse(tmp_path: Path) -> None:
    path = tmp_path / "aliases"
    write(path, "a: /file\n")
    (problem,) = alias_file(str(path), SETTINGS).reload()
    assert not problem.refused
    assert problem.to_text().startswith(f"{path}:1: warning: ")
    assert problem.to_event(7) == Lifecycle(7, problem.to_text(), "warning")


def test_first_version_broken_is_a_fault_not_an_empty_table(tmp_path: Path) -> None:
    path = tmp_path / "aliases"
    write(path, "broken\n")
    aliases = alias_file(str(path), SETTINGS)
    aliases.reload()
    assert aliases.fault == f'table {path} cannot be used: no ":" after "broken"'


def unreadable(path: Path) -> None:
    path.unlink()


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def for_all(path: Path) -> None:
    path.chmod(0o666)


def latin(path: Path) -> None:
    path.write_bytes(b"a b\nc \xe4\n")


def large(path: Path) -> None:
    path.write_bytes(b"a b\n" * 100)


SPOILT = {
    "missing": (unreadable, "No such file"),
    "fifo": (fifo, "not a regular file"),
    "folder": (folder, "not a regular file"),
    "writable by everybody": (for_all, "chmod o-w"),
    "not UTF-8": (latin, "line 2 is not UTF-8"),
    "too large": (large, "file_octets_max"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_file_is_refused_and_the_old_one_stays(
    name: str, tmp_path: Path
) -> None:
    spoil, error = SPOILT[name]
    path = tmp_path / "routes"
    write(path, "a.test discard:\n")
    table = text_table(str(path), TableSettings(file_octets_max=Size(300)))
    assert table.reload() == ()
    spoil(path)
    (problem,) = table.reload()
    assert problem.refused
    assert problem.line == 0
    assert error in problem.error
    assert table.get("a.test") == "discard:"


TEXTS: dict[str, tuple[str, dict[str, str]]] = {
    "entry": ("A.Test  smtp:[b]", {"a.test": "smtp:[b]"}),
    "value with blanks": (
        "a error:5.1.1 no such  host",
        {"a": "error:5.1.1 no such  host"},
    ),
    "tabs, comments, empty lines": ("# x\n\n a\t\tb \n", {"a": "b"}),
    "a sharp within a value stays": ("a b # c", {"a": "b # c"}),
}


@pytest.mark.parametrize(("text", "expected"), TEXTS.values(), ids=TEXTS.keys())
def test_text_table(text: str, expected: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "t"
    write(path, text)
    table = text_table(str(path), SETTINGS)
    assert table.reload() == ()
    assert dict(table.version.entries) == expected
    assert table.get("nowhere") is None


def picky(key: str, value: str) -> None:
    if value == "bad":
        raise ValueError(f"{key} is bad")


BAD_TEXTS = {
    "no value": ("a b\nc\n", 2, '"c" has no value'),
    "twice": ("a b\n\nA c\n", 3, '"a" is there twice'),
    "refused by its check": ("a b\nc bad\n", 2, "c is bad"),
    "long line": ("a b\nc " + "x" * 100, 2, "line_octets_max"),
    "too many": ("a 1\nb 2\nc 3\nd 4\n", 4, "entries_max"),
}


@pytest.mark.parametrize(
    ("text", "line", "error"), BAD_TEXTS.values(), ids=BAD_TEXTS.keys()
)
def test_bad_text_table(text: str, line: int, error: str, tmp_path: Path) -> None:
    path = tmp_path / "t"
    write(path, text)
    settings = TableSettings(line_octets_max=Size(50), entries_max=3)
    (problem,) = text_table(str(path), settings, picky).reload()
    assert (problem.line, problem.refused) == (line, True)
    assert error in problem.error
