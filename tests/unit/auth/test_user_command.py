"""``postroom user``."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from postroom.auth.file import read_users
from postroom.auth.scram import prepare
from postroom.cli.user import user

CHEAP = '[auth]\nargon2_memory = "8KiB"\nargon2_passes = 1\nscram_iterations = 4096\n'


class Command:
    def __init__(self, path: Path) -> None:
        self.users_file = str(path / "users")
        self.config = path / "postroom.toml"
        self.config.write_text(f'users_file = "users"\n{CHEAP}')

    def __call__(self, *args: str, given: bytes | str = "") -> Result:
        arguments = [*args, "--config", str(self.config)]
        return CliRunner().invoke(user, arguments, input=given)

    def knows(self, name: str, password: str) -> bool:
        prepared = prepare(password.encode())
        return all(
            one.matches(prepared)
            for one in read_users(self.users_file)[name].credentials
        )


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path)


def test_from_add_to_remove(command: Command) -> None:
    result = command("add", "Joe", "--generate")
    assert result.exit_code == 0
    assert result.stderr == "added joe\n"
    assert command.knows("joe", result.stdout.strip())
    assert command("add", "sales", "--no-login").stdout == "added sales\n"
    listed = command("list").stdout
    assert listed == (
        "joe    SCRAM-SHA-256, PLAIN, LOGIN (kept: argon2id, SCRAM-SHA-256)\n"
        "sales  no login\n"
    )
    result = command("password", "joe", "--password-stdin", given="sécret\r\nmore\n")
    assert result.stdout == "changed joe\n"
    assert command.knows("joe", "sécret")
    assert command("remove", "joe").stdout == "removed joe\n"
    assert list(read_users(command.users_file)) == ["sales"]


def test_the_password_is_asked_for_twice_and_not_shown(command: Command) -> None:
    result = command("add", "joe", given="hush\nhush\n")
    assert result.exit_code == 0
    assert "hush" not in result.output
    assert command.knows("joe", "hush")
    assert command("password", "joe", given="one\ntwo\n").exit_code == 1


def test_without_a_verifier(command: Command) -> None:
    command.config.write_text(command.config.read_text() + "scram = false\n")
    command("add", "joe", "--generate")
    assert command("list").stdout == "joe  PLAIN, LOGIN (kept: argon2id)\n"


def test_with_a_secret_for_old_clients(command: Command) -> None:
    given = {"given": "hush\n"}
    assert (
        command("add", "joe", "--password-stdin", "--cram-md5", **given).exit_code == 0
    )
    assert command.knows("joe", "hush")
    assert "CRAM-MD5 (kept: argon2id" in command("list").stdout
    command("password", "joe", "--password-stdin", **given)
    assert "CRAM-MD5" not in command("list").stdout


def test_testing_a_password(command: Command) -> None:
    def tried(name: str, password: str) -> str:
        result = command("test", name, "--password-stdin", given=f"{password}\n")
        assert result.exit_code == (0 if result.stdout else 1)
        assert password not in result.output
        return result.stdout or result.stderr

    command("add", "joe", "--password-stdin", given="hush\n")
    command("add", "sales", "--no-login")
    right = "right; joe can log in by SCRAM-SHA-256, PLAIN, LOGIN\n"
    assert tried("joe", "hush") == right
    assert command("test", "joe", given="hush\n").stdout == right  # asked for once
    assert "not the password of joe" in tried("joe", "hsh")
    assert 'no user "ghost"' in tried("ghost", "hush")
    assert "sales has no password" in tried("sales", "hush")
    path = Path(command.users_file)
    before = path.read_text()
    command("password", "joe", "--password-stdin", given="other\n")
    other = path.read_text().split("SCRAM-SHA-256$")[1].split()[0]
    scram = before.split("SCRAM-SHA-256$")[1].split()[0]
    path.write_text(before.replace(scram, other))
    assert "right, but not for SCRAM-SHA-256" in tried("joe", "hush")
    command.config.write_text(command.config.read_text() + 'backend = "pam"\n')
    assert 'auth.backend is "pam"' in tried("joe", "hush")


def test_a_users_file_without_any_configuration(tmp_path: Path) -> None:
    file = str(tmp_path / "u")
    result = CliRunner().invoke(user, ["add", "x", "--no-login", "--users-file", file])
    assert result.exit_code == 0
    assert list(read_users(file)) == ["x"]


BAD = {
    "there already": (["add", "joe", "--generate"], "", 'is a user "joe" already'),
    "nobody to change": (["password", "x", "--generate"], "", 'there is no user "x"'),
    "nobody to remove": (["remove", "x"], "", 'there is no user "x"'),
    "a bad name": (["add", "../x", "--generate"], "", "is no user's name"),
    "both sources": (
        ["add", "x", "--generate", "--password-stdin"],
        "",
        "exclude each",
    ),
    "no password": (["add", "x", "--password-stdin"], "\n", "the password is empty"),
    "nothing given": (["add", "x", "--password-stdin"], "", "the password is empty"),
    "too long": (["add", "x", "--password-stdin"], "x" * 2000, "longer than 1024"),
    "a control character": (["add", "x", "--password-stdin"], "a\tb\n", "control"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be(name: str, command: Command) -> None:
    arguments, given, reason = BAD[name]
    command("add", "joe", "--no-login")
    result = command(*arguments, given=given)
    assert result.exit_code == 1
    assert reason in result.stderr
    assert result.stderr.startswith("Error: ")
    assert list(read_users(command.users_file)) == ["joe"]


def test_a_configuration_that_is_wrong(command: Command) -> None:
    command.config.write_text("nonsense = 1\n")
    result = command("list")
    assert result.exit_code == 1
    assert "postroom.toml:1: nonsense: there is no such setting" in result.stderr
