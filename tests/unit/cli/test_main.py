"""The ``postroom`` command on a real spool, without a server."""

import asyncio
import errno
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from postroom import __version__
from postroom.admin.whole import WholeQueue
from postroom.cli.check import verdict_on
from postroom.cli.main import main
from postroom.config.check import CheckReport
from postroom.config.load import load
from postroom.net.clock import read_now
from postroom.spool.engine import open_shard
from postroom.spool.spool import Entry, QueueFilter
from postroom.testing.spool import Letters

LATER_US = 4_000_000_000_000_000


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "postroom.toml"
    path.write_text(
        'hostname = "gonzo.test"\n'
        'run_directory = "run"\ndrop_directory = "drop"\n'
        "[spool]\n"
        'directory = "spool"\n'
        'reserve_octets = "0B"\n'
        "reserve_inodes = 0\n"
    )
    return path


def fill(config: Path) -> list[str]:
    async def work() -> list[str]:
        settings = load(str(config)).spool
        shard = await open_shard(settings.directory, 0, settings, clock=read_now)
        letters = Letters(shard)
        ids: list[str] = []
        for recipients in (["joe@whizzer.test"], ["a@b.test", "c@d.test"], ["betty"]):
            waiting = [
                msgspec.structs.replace(letters.recipient(each), due_us=LATER_US)
                for each in recipients
            ]
            sender = f'"[bold]{len(ids)}"@gonzo.test'
            letter = letters.letter(*waiting, sender=sender)
            ids.append(letter.queue_id)
            await shard.accept(letter)
        await shard.aclose()
        return ids

    return asyncio.run(work())


def call(config: Path, *words: str) -> Result:
    return CliRunner().invoke(main, [*words, "--config", str(config)])


def test_version_and_help() -> None:
    assert __version__ in CliRunner().invoke(main, ["--version"]).output
    shown = CliRunner().invoke(main, ["-h"]).output
    for command in ("serve", "check", "queue", "user", "explain"):
        assert command in shown


def test_list_as_table_json_and_mailq(config: Path) -> None:
    ids = fill(config)
    table = call(config, "queue", "list")
    assert table.exit_code == 0, table.output
    assert all(each in table.output for each in ids)
    assert '"[bold]0"@gonzo.test' in table.output  # no markup from a peer
    assert "a@b.test and 1 more" in table.output
    as_json = call(config, "queue", "list", "--json")
    assert [json.loads(line)["queue_id"] for line in as_json.stdout.splitlines()] == ids
    mailq = call(config, "queue", "list", "--mailq")
    assert mailq.output.splitlines()[-1] == "\t\tTotal requests: 3"


def test_list_can_be_narrowed_and_is_limited(config: Path) -> None:
    ids = fill(config)
    one = call(config, "queue", "list", "--json", "--domain", "d.test")
    assert [json.loads(line)["queue_id"] for line in one.stdout.splitlines()] == ids[
        1:2
    ]
    few = call(config, "queue", "list", "--limit", "2")
    assert "more than 2" in few.stderr
    assert ids[2] not in few.stdout
    none = call(config, "queue", "list", "--older", "2h")
    assert none.output == "no messages\n"


def test_what_is_asked_can_be_sent_to_workers(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[object] = []

    async def entries(_: WholeQueue, wanted: QueueFilter) -> AsyncIterator[Entry]:
        sent.append(msgspec.json.decode(msgspec.json.encode(wanted), type=QueueFilter))
        none: tuple[Entry, ...] = ()
        for entry in none:
            yield entry

    monkeypatch.setattr(WholeQueue, "entries", entries)
    done = call(config, "queue", "list", "--older", "2h", "--larger", "1KiB")
    assert done.exit_code == 0, done.output
    expected = QueueFilter(older_us=7_200_000_000, larger_octets=1024)
    assert sent == [expected]


def test_empty_queue(config: Path) -> None:
    assert call(config, "queue", "list").output == "no messages\n"
    assert "messages" not in call(config, "queue", "stat").output


def test_show(config: Path) -> None:
    ids = fill(config)
    shown = call(config, "queue", "show", ids[1])
    assert "c@d.test" in shown.output
    assert "MX of b.test" in shown.output
    # Ids are counted up from a moment: some last digit of these few is not in use.
    unused = next(n for n in (ids[1][:-1] + c for c in "0123456789") if n not in ids)
    missing = call(config, "queue", "show", unused)
    assert missing.exit_code == 1
    assert "there is no message" in missing.output
    as_json = json.loads(call(config, "queue", "show", "--json", ids[0]).stdout)
    assert as_json["entry"]["shard"] == 0


def test_retry_and_remove(config: Path) -> None:
    ids = fill(config)
    assert (
        call(config, "queue", "retry", ids[0], ids[1]).output == "2 messages made due\n"
    )
    removed = call(config, "queue", "remove", "--recipient", "betty", "-v")
    assert removed.stdout == f"{ids[2]} removed\n1 message removed\n"
    counts = json.loads(call(config, "queue", "stat", "--json").stdout)["totals"]
    assert counts["messages"] == 2
    assert call(config, "queue", "remove", "--all").stdout == "2 messages removed\n"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["queue", "remove"], "or say --all"),
        (["queue", "retry"], "or say --all"),
        (["queue", "remove", "--all", "--sender", "x"], "or say --all"),
        (["queue", "show", "nonsense"], "no queue id"),
        (["queue", "list", "--older", "soon"], "no duration"),
        (["queue", "list", "--larger", "big"], "no size"),
    ],
)
def test_misuse_changes_nothing(config: Path, words: list[str], reason: str) -> None:
    ids = fill(config)
    wrong = call(config, *words)
    assert wrong.exit_code == 2
    assert reason in wrong.output
    assert len(call(config, "queue", "list", "--json").stdout.splitlines()) == len(ids)


@pytest.mark.parametrize("words", [["queue", "list"], ["serve"], ["explain", "a@b"]])
def test_wrong_configuration_is_status_78(config: Path, words: list[str]) -> None:
    config.write_text("hostnam = 1\n")
    wrong = call(config, *words)
    assert wrong.exit_code == 78
    assert "hostname" in wrong.output


def test_explain_wants_an_address(config: Path) -> None:
    wrong = call(config, "explain", "a b@c")
    assert wrong.exit_code == 64


@pytest.mark.parametrize(
    ("users", "exit_code", "said"),
    [("users", 67, "User unknown"), (".", 75, "problem: ")],
)
def test_explain_does_not_deny_a_user_whom_it_cannot_look_up(
    config: Path, users: str, exit_code: int, said: str
) -> None:
    (config.parent / "users").write_text("")
    config.write_text(f'users_file = "{users}"\n' + config.read_text())
    told = call(config, "explain", "nosuch")
    assert told.exit_code == exit_code
    assert said in told.output


@pytest.mark.parametrize(
    ("words", "exit_code"),
    [
        (["queue", "list"], 75),
        (["queue", "stat"], 75),
        (["explain", "betty"], 69),
        (["trace", "--since", "1h"], 75),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_a_run_directory_of_others_is_told_of(
    config: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], exit_code: int
) -> None:
    fill(config)
    forbidden = (config.parent / "run", config.parent / "spool" / "history")

    def guarded(allowed: Callable[..., Any]) -> Callable[..., Any]:
        def look(path: Any = ".") -> Any:
            if not isinstance(path, int) and Path(path) in forbidden:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
            return allowed(path)

        return look

    (config.parent / "run").mkdir(exist_ok=True)
    for name in ("listdir", "scandir"):  # Pythons differ in what pathlib calls
        monkeypatch.setattr(os, name, guarded(getattr(os, name)))
    told = call(config, *words)
    assert told.exit_code == exit_code, told.output
    assert "ermission" in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize(
    ("problems", "warnings", "verdict"),
    [
        ((), (), "all is well: no problems, no warnings"),
        ((), ("a",), "a server can work with it; see 1 warning"),
        ((), ("a", "b"), "a server can work with it; see 2 warnings"),
        (("a",), (), "a server cannot work with it: 1 problem, 0 warnings"),
        (("a", "b"), ("c",), "a server cannot work with it: 2 problems, 1 warning"),
    ],
)
def test_check_ends_with_a_verdict(
    problems: tuple[str, ...], warnings: tuple[str, ...], verdict: str
) -> None:
    report = CheckReport(not problems, problems, warnings, "")
    assert verdict_on(report) == verdict


def test_check_prints_what_is_in_force_and_what_is_unsafe(config: Path) -> None:
    checked = call(config, "check")
    assert 'hostname = "gonzo.test"' in checked.stdout
    *found, verdict = checked.stderr.splitlines()
    assert all(line.startswith(("warning: ", "problem: ")) for line in found)
    assert not verdict.startswith(("warning", "problem"))
    quiet = call(config, "check", "--quiet")
    assert (quiet.stdout, quiet.stderr.splitlines()) == ("", found)
    config.write_text("hostnam = 1\n")
    wrong = call(config, "check")
    assert wrong.exit_code == 78
    assert wrong.stderr.splitlines()[-1].endswith("it: 1 problem, 0 warnings")
    assert "hostname" in wrong.stderr
