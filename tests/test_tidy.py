"""The source is kept small, plainly named and honestly cited; this test reads it."""

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
PARAMETERS_MAX = 7
FORBIDDEN_NAMES = {"util", "utils", "helpers", "common", "manager", "base", "misc"}
LEFTOVERS = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
# What a citation looks like: `RFC 5321 §4.5.2`, `RFC 7505`; letters for appendices.
CITATION = re.compile(r"RFC ?(\d+)((?:,? ?§ ?[\w.]+)*)")
CITATION_OK = re.compile(
    r"RFC [1-9]\d{2,3}(?:,? §(?:\d+(?:\.\d+)*|[A-Z](?:\.\d+)*)\.?)*"
)
SECTION = re.compile(
    r"^ {0,3}(\d+(?:\.\d+)*)\.?\s+\S|^(?:APPENDIX|Appendix) ([A-Z])\b", re.M
)
RFCS = ROOT.parent / "shared" / "rfc"


@cache
def tracked() -> tuple[Path, ...]:
    """Every file that git knows or would add."""
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    return tuple(ROOT / n for n in names if n and (ROOT / n).is_file())


def python_files() -> list[Path]:
    return [p for p in tracked() if p.suffix == ".py"]


def source_files() -> list[Path]:
    return [p for p in python_files() if p.is_relative_to(ROOT / "src")]


def ident(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_something_is_checked() -> None:
    assert len(source_files()) > 20


@pytest.mark.parametrize("path", python_files(), ids=ident)
def test_sizes(path: Path) -> None:
    lines = path.read_text().count("\n")
    assert lines <= FILE_LINES_MAX, "split it by noun"
    for function in functions(path):
        size = (function.end_lineno or 0) - function.lineno + 1
        assert size <= FUNCTION_LINES_MAX, f"{function.name} has {size} lines"
        a = function.args
        count = len(a.posonlyargs) + len(a.args) + len(a.kwonlyargs)
        if a.args and a.args[0].arg in ("self", "cls"):
            count -= 1
        assert count <= PARAMETERS_MAX, f"{function.name} has {count} parameters"


@pytest.mark.parametrize("path", python_files(), ids=ident)
def test_names_say_something(path: Path) -> None:
    words = set(re.split(r"[_/.]", ident(path).lower()))
    assert not words & FORBIDDEN_NAMES


@pytest.mark.parametrize("path", source_files(), ids=ident)
def test_modules_introduce_themselves(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), "needs a module docstring"


@pytest.mark.parametrize("path", source_files(), ids=ident)
def test_nothing_is_left_for_later(path: Path) -> None:
    assert not LEFTOVERS.search(path.read_text())


@cache
def sections(number: str) -> frozenset[str] | None:
    """The section numbers of an RFC, or None when its text is not at hand."""
    text = RFCS / f"rfc{number}.txt"
    if not text.is_file():
        return None
    found = {a or b for a, b in SECTION.findall(text.read_text(errors="replace"))}
    return frozenset(found)


@pytest.mark.parametrize(
    "path",
    [p for p in tracked() if p.suffix in (".py", ".md", ".smtp", ".pop3")],
    ids=ident,
)
def test_citations_are_real(path: Path) -> None:
    for match in CITATION.finditer(path.read_text()):
        cited = match[0].rstrip(".,")
        assert CITATION_OK.fullmatch(cited), f"write {cited!r} as 'RFC 5321 §4.5.2'"
        known = sections(match[1])
        if known is None:
            continue
        for section in re.findall(r"§([\w.]+)", cited):
            assert section.rstrip(".") in known, f"RFC {match[1]} has no §{section}"


def test_test_files_have_names_of_their_own() -> None:
    # pytest imports them by their names alone, and finds the second one only in a
    # run of everything.
    names = sorted(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name in names if names.count(name) > 1] == []
