"""The page of standards: complete, and as the citations of today make it."""

from pathlib import Path

import pytest

from postroom.testing.standards import (
    MARKER,
    Citation,
    citations,
    cited_in,
    reference,
    renewed,
    titles,
)

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "standards.md").read_text("utf-8")


def test_the_page_is_up_to_date() -> None:
    assert renewed(PAGE, citations(ROOT)) == PAGE, (
        "run: python -m postroom.testing.standards docs/standards.md"
    )


def test_every_rfc_is_described() -> None:
    """Each that the code or a test cites, and no other."""
    cited = {one.rfc for one in citations(ROOT)}
    described = set(titles(PAGE.partition(MARKER)[0]))
    assert described == cited, "write a line about it into the tables of the page"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("? 5321", [""]),
        ("(? 5321 §4.5.2)", ["4.5.2"]),
        ("? 5321 §4.5.2, §2.3.8: why", ["4.5.2", "2.3.8"]),
        ("? 5321, §C.", ["C"]),
        ("?\n    5321", [""]),
        ("# as ? 5321\n# §3.1 says", ["3.1"]),
        ("? 5321 §3.1 and §3.2.", ["3.1", "3.2"]),
        ("? 53219 §1", []),
        ("?5321 §1", []),
    ],
)
def test_citations_are_read(text: str, found: list[str]) -> None:
    text = text.replace("?", "RFC")  # so that this file cites nothing itself
    assert [one.section for one in cited_in(text, "x.py")] == found


def test_sections_stand_in_order_and_long_lists_are_cut() -> None:
    many = {Citation(5321, "4.10", f"src/postroom/m{n}.py") for n in range(7)}
    page = reference(
        {*many, Citation(5321, "4.9", "tests/t.py"), Citation(5321, "C", "tests/t.py")},
        {5321: "Title"},
    )
    assert "5321: Title\n" in page
    assert page.index("§4.9") < page.index("§4.10") < page.index("§C")
    assert "`m4.py` and more |" in page
    assert "| §4.9 |  | `t.py` |" in page


def test_a_page_without_its_marker_is_an_error() -> None:
    with pytest.raises(ValueError, match="marker"):
        renewed("# Standards\n", [])
