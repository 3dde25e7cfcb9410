"""Of all commands only the one that is called is imported, and what it needs."""

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from postroom.cli.lazy import LazyCommand
from postroom.cli.main import main

LIST_MODULES = """
import sys
from postroom.cli.main import main
try:
    main(sys.argv[1:])
finally:
    print("\\n--modules", *sys.modules)
"""
SERVER = {"uvloop", "dns", "cryptography", "postroom.app", "postroom.smtp.server"}
ENGINE = {"apsw", "postroom.spool.engine"}


def groups() -> list[click.Group]:
    queue = main.commands["queue"]
    assert isinstance(queue, LazyCommand)
    loaded = queue.load()
    assert isinstance(loaded, click.Group)
    return [main, loaded]


LAZY = [
    pytest.param(name, command, id=f"{group.name} {name}")
    for group in groups()
    for name, command in group.commands.items()
]


@pytest.mark.parametrize(("name", "command"), LAZY)
def test_the_table_says_of_a_command_what_it_says_of_itself(
    name: str, command: click.Command
) -> None:
    assert isinstance(command, LazyCommand)
    itself = command.load()
    assert itself.name == name
    assert command.get_short_help_str(200) == itself.get_short_help_str(200)
    assert CliRunner().invoke(command, ["--help"]).output == (
        CliRunner().invoke(itself, ["--help"], prog_name=name).output
    )


def modules_of(directory: Path, *words: str) -> set[str]:
    config = directory / "postroom.toml"
    config.write_text(
        'hostname = "gonzo.test"\nrun_directory = "run"\nusers_file = "users"\n'
        'drop_directory = "drop"\n'
        '[spool]\ndirectory = "spool"\n'
    )
    (directory / "users").write_text("")
    if "--help" not in words:
        words = (*words, "--config", str(config))
    ran = subprocess.run(
        [sys.executable, "-c", LIST_MODULES, *words],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return set(ran.stdout.rpartition("--modules ")[2].split())


NEEDLESS = {
    "--help": {*SERVER, *ENGINE, "asyncio", "rich", "msgspec"},
    "queue --help": {*SERVER, *ENGINE, "asyncio", "rich", "msgspec"},
    "queue stat": {*SERVER, "postroom.spool.engine", "argon2"},
    "queue list": {*SERVER, "postroom.spool.engine", "argon2"},
    "user list": {*SERVER, *ENGINE, "asyncio", "rich"},
}


@pytest.mark.parametrize("line", NEEDLESS)
def test_what_a_command_does_not_need_is_not_imported(
    tmp_path: Path, line: str
) -> None:
    imported = modules_of(tmp_path, *line.split())
    assert "postroom.cli.main" in imported
    assert not imported & NEEDLESS[line]


def test_a_name_that_is_no_command_is_refused() -> None:
    wrong = CliRunner().invoke(main, ["queue", "stats"])
    assert wrong.exit_code == 2
    assert "No such command 'stats'" in wrong.output
