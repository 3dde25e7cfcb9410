"""ORCPT with octets of UTF-8 in a type for ASCII, as Postfix sends it."""

import pytest

from postroom.smtp.grammar import Fault
from postroom.smtp.parameters import _orcpt


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("rfc822;j+C3+B6rg+2Bx@a.test", r"utf-8;j\x{F6}rg+2Bx@a.test"),
        ("Rfc822;+E6+97+A5@a.test", r"utf-8;\x{65E5}@a.test"),
        ("rfc822;joe+2Bx@a.test", "rfc822;joe+2Bx@a.test"),
        ("utf-8;jörg@a.test", r"utf-8;j\x{F6}rg@a.test"),
    ],
)
def test_is_kept_in_the_form_that_passes_everywhere(given: str, kept: str) -> None:
    assert _orcpt(given) == kept


@pytest.mark.parametrize(
    "given",
    ["rfc822;j+F6rg@a.test", "rfc822;+C3@a.test", "x400;+C3+B6", "rfc822;+C3+B6+0A"],
)
def test_what_is_no_utf8_is_refused(given: str) -> None:
    with pytest.raises(Fault):
        _orcpt(given)
