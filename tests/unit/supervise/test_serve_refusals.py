"""What ``postroom serve`` says, and ends with, where its directories cannot be had."""

import os
import resource
from pathlib import Path

import msgspec
import pytest

from postroom.supervise.plan import Plan, load_plan
from postroom.supervise.serve import EX_CANTCREAT, _too_few_files, serve


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


def test_too_low_a_limit_of_open_files_is_told_with_the_remedy(plan: Plan) -> None:
    busy = msgspec.structs.replace(plan, files_max=1200)
    assert _too_few_files(1200, busy) == ""
    assert _too_few_files(resource.RLIM_INFINITY, busy) == ""
    said = _too_few_files(1199, busy)
    assert "limited to 1199, but a worker may need 1200" in said
    assert "LimitNOFILE=" in said


def test_files_are_counted_for_what_is_served(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text("[receive]\nsessions_max = 50\n")
    few = load_plan(str(file)).files_max
    file.write_text("[receive]\nsessions_max = 60\n")
    assert load_plan(str(file)).files_max == few + 2 * 10  # a connection, a body
    file.write_text(
        "[receive]\nsessions_max = 50\n[pop3]\nsessions_max = 7\n"
        '[[listen]]\naddress = "127.0.0.1:110"\nservice = "pop3"\n'
    )
    assert load_plan(str(file)).files_max == few + 5 * 7
