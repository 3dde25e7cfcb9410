"""The table of limits names the settings as they are, and forgets none."""

import re
from pathlib import Path
from typing import get_type_hints

import msgspec
import pytest

from postroom.config.reference import Setting, settings_of
from postroom.config.settings import Config

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "limits.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.partition("## All limits")[2].partition("\n## ")[0].splitlines()
    if line.startswith("| `")
]
SECTIONS = ("receive", "smtp", "policy", "submission", "auth")
LIMITS = re.compile(
    r"_(max|timeout|rate|pause|delay|window|free)$|_per_|^failures_max$"
)
# Limits that no client can reach: they bound our own work, or are another service's.
OUR_OWN = {
    "auth.argon2_memory",
    "auth.failure_delay_max",
    "auth.module_timeout",
    "auth.pam_timeout",
    "auth.remembered_max",
    "policy.async_timeout",
    "policy.blocking_threads_max",
    "policy.blocking_timeout",
    "policy.blocking_waiting_max",
    "smtp.future_release_max",
    "smtp.mt_priority_max",
    "submission.header_octets_max",
    "submission.sessions_max",
}


def setting(path: str) -> Setting | None:
    kind: type[msgspec.Struct] = Config
    *sections, name = path.split(".")
    for section in sections:
        kind = get_type_hints(kind)[section]
    return {one.name: one for one in settings_of(kind)}.get(name)


def all_limits() -> list[str]:
    hints = get_type_hints(Config)
    return [
        f"{section}.{one.name}"
        for section in SECTIONS
        for one in settings_of(hints[section])
        if LIMITS.search(one.name)
    ]


def plain(cell: str) -> str:
    return cell.strip("`")


def test_there_is_a_table() -> None:
    assert len(ROWS) > 40
    assert all(len(row) == 5 for row in ROWS)
    names = [row[0] for row in ROWS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: plain(row[0]))
def test_each_row_is_true(row: list[str]) -> None:
    name, default, reply, counted, why = map(plain, row)
    found = setting(name)
    assert found is not None, "no such setting"
    assert default == found.default
    assert why
    if reply:  # what the setting itself says of the reply
        assert re.fullmatch(r"[45]\d\d [45]\.\d\.\d+", reply)
        assert counted
        said = re.findall(r"\b[45]\d\d\s+[45]\.\d\.\d+", found.meaning)
        said = [" ".join(one.split()) for one in said]
        assert not said or reply in said, said


@pytest.mark.parametrize("name", all_limits())
def test_no_limit_is_forgotten(name: str) -> None:
    assert name in OUR_OWN or f"`{name}`" in {row[0] for row in ROWS}


@pytest.mark.parametrize("name", sorted(OUR_OWN))
def test_the_exceptions_exist(name: str) -> None:
    assert setting(name) is not None
