"""No expression of ours can be made to try many ways: the engine's work is linear."""

import importlib
import inspect
import pkgutil
import re
from functools import cache

import pytest

import postroom
from postroom.testing.ambiguity import ambiguities, begins_with_a_loop

Pattern = re.Pattern[str] | re.Pattern[bytes]
# What no stranger writes, or what cannot fail behind the loop.
HARMLESS = {
    "postroom.config.problems._HEAD": "a line of our own configuration file",
    "postroom.config.problems._KEY": "a line of our own configuration file",
    "postroom.mail.units._DURATION": "a value of our own configuration file",
    "postroom.mail.units._DURATION_PART": "a value of our own configuration file",
    "postroom.render.section._PARAMETER": "the second loop never fails",
    "postroom.route.ways._ERROR": "a line of our own routes table",
    "postroom.smtp.commands._BDAT": "printable text, on which the second never fails",
    "postroom.smtp.commands._FROM": "printable text, on which the second never fails",
    "postroom.smtp.commands._TO": "printable text, on which the second never fails",
    "postroom.mail.headers._FIELD": "is given blocks of fields that follow one another",
}
SEARCHES = frozenset({"search", "finditer", "findall", "sub", "subn", "split"})


@cache
def patterns() -> dict[str, Pattern]:
    """Every expression that a module keeps under a name."""
    found: dict[str, Pattern] = {}
    for info in pkgutil.walk_packages(postroom.__path__, "postroom."):
        if "__main__" in info.name or ".testing" in info.name:
            continue
        for name, value in vars(importlib.import_module(info.name)).items():
            if isinstance(value, re.Pattern):
                found[f"{info.name}.{name}"] = value
    return found


def test_there_are_many() -> None:
    assert len(patterns()) >= 80


def test_none_is_ambiguous() -> None:
    told = {name: ambiguities(one) for name, one in patterns().items()}
    assert {name: why for name, why in told.items() if why and not harmless(name)} == {}


def test_none_is_searched_for_anew_within_one_run() -> None:
    wrong = []
    for name, pattern in patterns().items():
        module, _, short = name.rpartition(".")
        if harmless(name) or not begins_with_a_loop(pattern):
            continue
        source = inspect.getsource(importlib.import_module(module))
        if SEARCHES & set(re.findall(rf"\b{short}\.(\w+)", source)):
            wrong.append(name)
    assert wrong == []


def harmless(name: str) -> bool:
    """Also under the name under which another module imports it."""
    own = name.rpartition(".")[2]
    return any(known.endswith(f".{own}") for known in HARMLESS)


def test_what_is_called_harmless_is_still_there() -> None:
    assert set(HARMLESS) <= set(patterns())


SLOW = [
    r"(a+)+b",
    r"(a*)*b",
    r"(?:a|a)*b",
    r"(?:a*b?)*c",
    r"a*a*b",
    r"a+b?a+c",
    r"\w+\d+x",
    r"(?:[a-z]+\d?)+!",
    r"(x+x+)+y",
    r"([a-zA-Z]+)*$",
    r"(?i:A+)a+b",
    r"(?:\s*\w*)*;",
    r".*.*=",
]
QUICK = [
    r'"(?:[^"\\]|\\.)*"',
    r"[^<]*<",
    r"a+b+",
    r"(?:a+b)+",
    r"(?:\.[a-z]+)*",
    r"a++a*",
    r"[a-z]{1,60}[a-z]{1,60}",
    r"(?:A|B|C[0-9]*;)*",
]


@pytest.mark.parametrize("text", SLOW)
def test_slow_ones_are_told(text: str) -> None:
    assert ambiguities(re.compile(text))


@pytest.mark.parametrize("text", QUICK)
def test_quick_ones_are_not(text: str) -> None:
    assert ambiguities(re.compile(text)) == []


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        (r"\s+$", False),
        (r"a+b", True),
        (r"(a+)b", True),
        (r"a+", False),
        (r"ba+c", False),
    ],
)
def test_searches_that_begin_anew(text: str, loops: bool) -> None:
    assert begins_with_a_loop(re.compile(text)) is loops
