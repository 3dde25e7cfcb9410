"""What the pages name is there: settings, commands, options, files, links."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

import msgspec
import pytest
from click.testing import CliRunner

from postroom.cli.main import main
from postroom.config.load import parse
from postroom.config.settings import Config

ROOT = Path(__file__).parents[3]
PAGES = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
PAGE_IDS = [page.name for page in PAGES]
CERTIFICATE = '[[tls.certificate]]\ncert = "mx.pem"\n'
PLACES = ("", "src/postroom", "tests", "tests/unit", "docs", "src/postroom/testing")
GROUPS = ("queue", "user")
NOT_OURS = ("text/", "message/", "multipart/", "application/")
STAND_INS = ("TARGET", "ROOM", "QUEUEID")


class Block(NamedTuple):
    """A piece of a page between fences, with the line it begins at."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(language: str) -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text()
        for one in re.finditer(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            line = text.count("\n", 0, one.start()) + 1
            found.append(Block(page, line, one[1], one[2]))
    return [one for one in found if one.language == language]


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_each_piece_of_configuration_is_one(block: Block) -> None:
    text = block.text.replace("d0:1a:...:7f", ":".join(["d0"] * 32))
    if re.match(r"\[\w+\]\nuser = ", text):
        return  # the file of logins, which has tables of its own
    if 'tls = "implicit"' in text and "tls.certificate" not in text:
        text += CERTIFICATE
    assert parse(text, "/etc/postroom/postroom.toml")


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_each_piece_of_python_is_one(block: Block) -> None:
    assert ast.parse(block.text).body


def settings(kind: type) -> dict[str, Any]:
    """Return the names below a table; where any name may stand, nothing."""
    found = {}
    for name, hint in get_type_hints(kind).items():
        below = [
            one
            for one in (hint, *get_args(hint))
            if isinstance(one, type) and issubclass(one, msgspec.Struct)
        ]
        found[name] = settings(below[0]) if below else None
    return found


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_each_setting_that_is_named_exists(page: Path) -> None:
    known = settings(Config)
    for words in re.findall(r"`([a-z0-9_]+(?:\.[a-z0-9_]+)+)`", page.read_text()):
        names = words.split(".")
        if names[0] not in known or names[-1] in ("md", "py", "toml"):
            continue
        if names[:2] in (["tls", "server"], ["tls", "client"]):
            continue  # counters
        at: dict[str, Any] | None = known
        for name in names:
            assert at is None or name in at, words
            at = None if at is None else at[name]


@cache
def options(words: tuple[str, ...]) -> str:
    done = CliRunner().invoke(main, [*words, "--help"])
    assert done.exit_code == 0, f"postroom {' '.join(words)}"
    return done.output


def calls(text: str) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Yield each command of ours in a text: its words, its options."""
    for one in re.finditer(r"(?:`|^    )postroom ([^`\n]*)", text, re.MULTILINE):
        said = one[1].partition(" #")[0].split()
        count = 2 if said[0] in GROUPS and len(said) > 1 else 1
        yield tuple(said[:count]), [word for word in said if word.startswith("-")]


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_each_command_that_is_named_exists(page: Path) -> None:
    for words, given in calls(page.read_text()):
        for option in given:
            assert re.search(rf"(?<![\w-]){option}\b", options(words)), (words, option)


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_each_file_of_ours_that_is_named_exists(page: Path) -> None:
    named = r"`((?:[\w-]+/)+[\w.-]*|[\w-]+\.(?:py|md|socket|service))(?:::\w+)?`"
    for name in re.findall(named, page.read_text()):
        if name.startswith(NOT_OURS) or any(word in name for word in STAND_INS):
            continue
        if any((ROOT / place / name).exists() for place in PLACES):
            continue
        assert any(anywhere(name)), f"{page.name} names {name}"


def anywhere(name: str) -> Iterator[Path]:
    for top in ("src", "tests", "packaging", "fuzz", "interop", "simulate", "bench"):
        yield from (ROOT / top).rglob(name.rstrip("/"))


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_each_page_is_found_from_the_first_ones() -> None:
    told = "".join(page.read_text() for page in PAGES[:2])
    for page in PAGES[2:]:
        assert page.name in told, page.name
