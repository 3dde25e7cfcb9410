"""Writes the lower part of ``docs/standards.md`` from the citations in code and tests.

``python -m postroom.testing.standards docs/standards.md`` renews what stands after the
marker; what stands before it is written by hand. Run from the root of a checkout. A
citation is ``RFC 5321 §4.5.2``, with further sections behind commas; transcripts are
named after the section that they prove.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

MARKER = (
    "<!-- Below this line: written by python -m postroom.testing.standards "
    "docs/standards.md -->"
)
SHOWN_MAX = 5
"""Files that are named in one cell."""
_KINDS = frozenset({".py", ".smtp", ".pop3"})
_CITATION = re.compile(r"RFC (\d{3,4})\b((?:(?:,| and)? §[\w.]+)*)")
_SECTION = re.compile(r"§([\w.]*\w)")
_WRAPPED = re.compile(r"[ \t]*\n[ \t]*(?:# )?[ \t]*")
_ENTRY = re.compile(r"^\| (?:RFC )?(\d{3,4}) \| ([^|]+?) \|", re.MULTILINE)
WHOLE = ""
"""Stands for an RFC that is cited without a section."""


class Citation(msgspec.Struct, frozen=True, order=True):
    """One section of an RFC, cited in a file; ``section`` may be ``WHOLE``."""

    rfc: int
    section: str
    path: str


def citations(root: Path) -> set[Citation]:
    """Return what the code and the tests of a checkout cite."""
    found: set[Citation] = set()
    for top in ("src/postroom", "tests"):
        for path in sorted((root / top).rglob("*")):
            if path.suffix in _KINDS and "__pycache__" not in path.parts:
                name = path.relative_to(root).as_posix()
                found.update(cited_in(path.read_text("utf-8"), name))
    return found


def cited_in(text: str, name: str) -> Iterator[Citation]:
    """Yield what one text cites, under its file's name."""
    for match in _CITATION.finditer(_WRAPPED.sub(" ", text)):
        sections = _SECTION.findall(match[2])
        for section in sections or [WHOLE]:
            yield Citation(int(match[1]), section, name)


def titles(page: str) -> dict[int, str]:
    """Return the titles of the RFCs that the hand-written part describes."""
    return {int(number): title for number, title in _ENTRY.findall(page)}


def reference(found: Iterable[Citation], known: dict[int, str]) -> str:
    """Return the lower part of the page: each RFC, section by section."""
    by_rfc: dict[int, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for one in sorted(found):
        by_rfc[one.rfc][one.section].append(one.path)
    parts = ["## Section by section\n"]
    for rfc, sections in sorted(by_rfc.items()):
        title = known.get(rfc)
        parts.append(f"### RFC {rfc}{': ' + title if title else ''}\n")
        parts.append("| Section | Obeyed in | Tested in |\n|---|---|---|")
        for section in sorted(sections, key=_place):
            paths = sections[section]
            code = [p.removeprefix("src/postroom/") for p in paths if p[:4] == "src/"]
            tests = [p.removeprefix("tests/") for p in paths if p[:6] == "tests/"]
            name = f"§{section}" if section else "as a whole"
            parts.append(f"| {name} | {_listed(code)} | {_listed(tests)} |")
        parts.append("")
    return "\n".join(parts)


def _place(section: str) -> list[tuple[int, int, str]]:
    """Sort sections as a table of contents does, appendices last."""
    return [
        (0, int(part), "") if part.isdecimal() else (1, 0, part)
        for part in section.split(".")
        if part
    ]


def _listed(paths: list[str]) -> str:
    shown = ", ".join(f"`{path}`" for path in paths[:SHOWN_MAX])
    return f"{shown} and more" if len(paths) > SHOWN_MAX else shown


def renewed(page: str, found: Iterable[Citation]) -> str:
    """Return the page with its lower part as it should be.

    Raises:
        ValueError: the page has no marker.
    """
    head, marker, _ = page.partition(MARKER)
    if not marker:
        raise ValueError(f"the page lacks its marker: {MARKER}")
    return f"{head}{MARKER}\n\n{reference(found, titles(head))}"


def main() -> None:
    """Renew the page that is named on the command line."""
    path = Path(sys.argv[1])
    page = path.read_text("utf-8")
    path.write_text(renewed(page, citations(Path())), "utf-8")


if __name__ == "__main__":
    main()
