"""What ``postroom serve`` says, and ends with, where its directories cannot be had."""

import os
from pathlib import Path

import pytest

from postroom.supervise.plan import Plan
from postroom.supervise.serve import EX_CANTCREAT, serve


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "umask", lambda mask: 0)
    return Plan(
        config_path=str(tmp_path / "postroom.toml"),
        config_text="",
        hostname="gonzo.test",
        spool_directory=str(tmp_path / "spool"),
        run_directory=str(tmp_path / "run"),
        workers=0,
        listens=(),
    )


@pytest.mark.parametrize("name", ["spool", "run", "spool/postroom.lock"])
def test_what_cannot_be_made_is_named_with_the_remedy(
    plan: Plan, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    in_the_way = tmp_path / name
    in_the_way.parent.mkdir(exist_ok=True)
    if name.endswith("lock"):
        in_the_way.mkdir()
    else:
        in_the_way.touch()
    assert serve(lambda: plan, lambda _: 0) == EX_CANTCREAT
    said = capsys.readouterr().err
    assert said.startswith(f"postroom: {in_the_way}: ")
    assert '"postroom check"' in said
