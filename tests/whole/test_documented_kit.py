"""The examples of docs/scripting.md work as they stand there."""

import subprocess
from pathlib import Path
from typing import Any, ClassVar

import pytest

from postroom.testing.policy import PolicyTest

PAGE = Path(__file__).parents[2] / "docs" / "scripting.md"
SENDING, FETCHING, TESTING = (
    part.split("```")[0] for part in PAGE.read_text().split("```python\n")[1:]
)


def names_of(source: str, **given: object) -> dict[str, Any]:
    found: dict[str, Any] = dict(given)
    exec(compile(source, PAGE.name, "exec"), found)
    return found


def test_a_program_is_tested_with_the_kit(worker_id: str) -> None:
    number = int("0" + worker_id.removeprefix("master").removeprefix("gw"))
    source = TESTING.replace("World()", f'World({number}, "127.0.7")')
    assert source != TESTING
    names_of(source)["test_the_welcome_letter_arrives"]()


def test_an_address_of_one_domain_is_somebody_elses(tmp_path: Path) -> None:
    moving = (PAGE.parent / "moving.md").read_text()
    (tmp_path / "virtual.py").write_text(moving.split("```python\n")[1].split("```")[0])
    policy = PolicyTest(str(tmp_path / "virtual.py"))
    for recipients, count in (
        (("Info@shop.example", "joe@example.org"), 2),
        (("info@example.org",), 0),
    ):
        said = policy.message("Subject: hi\n\nhi\n", recipients=recipients)
        assert len(said.changes) == count, said


def test_letters_are_fetched() -> None:
    class Pop:
        said: ClassVar[list[str]] = []

        def user(self, name: str) -> None:
            self.said.append(f"USER {name}")

        def pass_(self, password: str) -> None:
            self.said.append(f"PASS {password}")

        def stat(self) -> tuple[int, int]:
            return 1, 40

        def retr(self, number: int) -> tuple[bytes, list[bytes], int]:
            return b"+OK", [b"Subject: hi", b"", b"body"], 40

        def dele(self, number: int) -> None:
            self.said.append(f"DELE {number}")

        def quit(self) -> None:
            self.said.append("QUIT")

    (letter,) = names_of(FETCHING)["letters"](Pop(), "joe", "secret")
    assert (letter["Subject"], letter.get_payload()) == ("hi", "body")
    assert Pop.said == ["USER joe", "PASS secret", "DELE 1", "QUIT"]


def test_letters_are_sent(tmp_path: Path) -> None:
    program = tmp_path / "sendmail"
    kept = tmp_path / "kept"
    program.write_text(f'#!/bin/sh\n[ "$*" = "-i -t" ] || exit 64\ncat > {kept}\n')
    program.chmod(0o755)
    found = names_of(SENDING)
    found["send"](found["letter"], program=str(program))
    assert b"To: joe@example.org\nSubject: Welcome\n" in kept.read_bytes()
    program.write_text("#!/bin/sh\ncat > /dev/null\nexit 67\n")
    with pytest.raises(subprocess.CalledProcessError) as error:
        found["send"](found["letter"], program=str(program))
    assert error.value.returncode == 67
