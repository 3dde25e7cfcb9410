"""The queue commands' words and statuses on a real spool, without a server."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from postroom.cli.drop import chosen_from_queue
from postroom.cli.main import main
from postroom.config.load import load
from postroom.mail.message import MemoryBody, Message
from postroom.net.clock import read_now
from postroom.spool.engine import open_shard
from postroom.spool.opening import DATABASE
from postroom.testing.spool import Letters

LATER_US = 4_000_000_000_000_000
HEADER = (
    b"From: Betty <betty@gonzo.test>\r\nSubject: =?utf-8?q?h=C3=A9?=\r\n"
    b"X-Hostile: \x1b[31m\r\n"
)
BODY = b"From here\r\n>From there\r\n.\r\n\xff no end"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "postroom.toml"
    path.write_text(
        'hostname = "gonzo.test"\nrun_directory = "run"\nusers_file = "users"\n'
        'drop_directory = "drop"\n'
        '[spool]\ndirectory = "spool"\nreserve_octets = "0B"\nreserve_inodes = 0\n'
        '[mailbox]\npath = "mail/{user}"\n'
    )
    (tmp_path / "users").write_text("")
    return path


@pytest.fixture
def ids(config: Path) -> list[str]:
    async def fill() -> list[str]:
        settings = load(str(config)).spool
        shard = await open_shard(settings.directory, 0, settings, clock=read_now)
        letters = Letters(shard)
        made = []
        for name in ("joe", "ann", "eve"):
            recipient = letters.recipient(f"{name}@whizzer.test")
            late = msgspec.structs.replace(recipient, due_us=LATER_US)
            new = letters.letter(late, sender=f"{name}@gonzo.test")
            message = Message(HEADER, MemoryBody(BODY))
            await shard.accept(msgspec.structs.replace(new, message=message))
            made.append(str(new.queue_id))
        await shard.aclose()
        return made

    return asyncio.run(fill())


def call(config: Path, *words: str, text: str = "") -> Result:
    return CliRunner().invoke(main, [*words, "--config", str(config)], input=text)


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_orders_as_json_name_each_message(config: Path, ids: list[str]) -> None:
    unknown = "0" * 11
    done = call(config, "queue", "hold", ids[0], unknown, "--json")
    assert done.exit_code == 1
    assert lines(done) == [
        {"queue_id": ids[0], "result": "held"},
        {"queue_id": unknown, "result": "unknown"},
    ]
    again = call(config, "queue", "hold", *ids, "--json")
    assert [line["result"] for line in lines(again)] == ["held", "held", "unchanged"]
    assert again.exit_code == 1


def test_a_filter_that_matches_nothing_is_no_error(
    config: Path, ids: list[str]
) -> None:
    done = call(config, "queue", "remove", "--sender", "nobody")
    assert (done.exit_code, done.output) == (0, "0 messages removed\n")


def test_ids_from_standard_input(config: Path, ids: list[str]) -> None:
    done = call(config, "queue", "remove", "-", text="\n".join(ids[:2]))
    assert done.output == "2 messages removed\n"
    none = call(config, "queue", "remove", "-", text=" \n")
    assert none.exit_code == 2
    left = call(config, "queue", "list", "--json")
    assert [line["queue_id"] for line in lines(left)] == ids[2:]


def test_a_filter_has_to_be_confirmed_at_a_terminal(
    config: Path, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postroom.cli.orders._Command._must_ask", True)
    refused = call(config, "queue", "remove", "--domain", "whizzer.test", text="n\n")
    assert refused.exit_code == 1
    assert "Remove 3 messages to 3 recipients" in refused.output
    assert len(lines(call(config, "queue", "list", "--json"))) == 3
    single = call(config, "queue", "remove", "--sender", "joe", text="")
    assert single.output == "1 message removed\n"
    agreed = call(config, "queue", "remove", "--all", text="y\n")
    assert agreed.output.endswith("2 messages removed\n")


def test_who_sits_at_a_terminal_is_asked_unless_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from postroom.cli.options import Choice
    from postroom.cli.orders import Deed, Manner, _Command
    from postroom.config.settings import Config
    from postroom.mail.ids import QueueId
    from postroom.spool.selection import QueueFilter

    for stream in (sys.stdin, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    chosen = Choice((QueueFilter(senders=("x",)),))
    named = Choice((QueueFilter(senders=("x",)),), (QueueId("0" * 11),))
    deed: Deed = Deed("hold", "held", None)  # type: ignore[arg-type]

    def asks(choice: Choice, yes: bool) -> bool:
        manner = Manner(False, False, yes, False, False)
        return _Command(Config(), choice, deed, manner)._must_ask

    assert asks(chosen, False)
    assert not asks(chosen, True)
    assert not asks(named, False)


def test_bounce_without_a_server(config: Path, ids: list[str]) -> None:
    done = call(config, "queue", "bounce", ids[0], "--reason", "no such\u00e9")
    assert (done.exit_code, done.output) == (0, "1 message returned\n")
    listed = lines(call(config, "queue", "list", "--json", "--sender", "<>"))
    (report,) = listed
    (recipient,) = report["recipients"]
    assert recipient["address"] == "joe@gonzo.test"
    content = CliRunner().invoke(
        main,
        [
            "queue",
            "show",
            str(report["queue_id"]),
            "--content",
            "--config",
            str(config),
        ],
    )
    assert "no such" in content.output


def test_reasons_are_one_line(config: Path, ids: list[str]) -> None:
    for act in ("hold", "bounce"):
        wrong = call(config, "queue", act, ids[0], "--reason", "a\nb")
        assert wrong.exit_code == 2, wrong.output
        assert "one line" in wrong.output


def test_show_is_harmless_and_decoded(config: Path, ids: list[str]) -> None:
    shown = call(config, "queue", "show", ids[0])
    assert "Subject        hé" in shown.output
    assert "\x1b" not in shown.output
    as_json = json.loads(call(config, "queue", "show", ids[0], "--json").stdout)
    assert as_json["header"]["From"] == "Betty <betty@gonzo.test>"


@pytest.mark.parametrize(
    "subject",
    [
        pytest.param(b"=?x\xff?Q?a?=", id="charset-that-is-none"),
        pytest.param(b"=?utf-7?Q?+2AA-?=", id="half-a-surrogate-pair"),
        pytest.param(b"=?unicode_escape?Q?=5Cud800?=", id="another-half"),
        pytest.param(b"\xc2\x9b31m", id="C1"),
        pytest.param(b"=?utf-8?q?=1B[31m=0D=0A?=", id="encoded-controls"),
        pytest.param("\u202edaed\u2069".encode(), id="direction"),
        pytest.param(b"=?punycode?Q?" + b"9" * 100_000 + b"?=", id="long"),
    ],
)
def test_no_subject_keeps_a_message_from_being_shown(
    config: Path, ids: list[str], subject: bytes
) -> None:
    async def fill() -> str:
        settings = load(str(config)).spool
        shard = await open_shard(settings.directory, 0, settings, clock=read_now)
        new = Letters(shard).letter("joe@whizzer.test")
        message = Message(b"Subject: " + subject + b"\r\n", MemoryBody(BODY))
        await shard.accept(msgspec.structs.replace(new, message=message))
        await shard.aclose()
        return str(new.queue_id)

    queue_id = asyncio.run(fill())
    for words in ([], ["--json"]):
        shown = call(config, "queue", "show", queue_id, *words)
        assert shown.exit_code == 0, shown.output
        told = shown.stdout.replace("\n", "")
        assert told.isprintable(), ascii(told)


def test_export_to_files(config: Path, ids: list[str], tmp_path: Path) -> None:
    home = tmp_path / "out"
    done = call(config, "queue", "export", "--all", "--directory", str(home))
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in home.iterdir()) == sorted(
        f"{queue_id}.{end}" for queue_id in ids for end in ("eml", "json")
    )
    whole = (home / f"{ids[0]}.eml").read_bytes()
    assert whole == HEADER + b"\r\n" + BODY
    assert (home / f"{ids[0]}.eml").stat().st_mode & 0o777 == 0o600


def test_export_to_an_mbox(config: Path, ids: list[str], tmp_path: Path) -> None:
    box = tmp_path / "box"
    for queue_id in ids[:2]:
        call(config, "queue", "export", queue_id, "--mbox", str(box))
    content = box.read_bytes()
    assert content.startswith(b"From joe@gonzo.test ")
    assert content.count(b"\n>From here\n>>From there\n.\n\xff no end\n\n") == 2
    assert b"X-Envelope-To: <ann@whizzer.test>\n" in content


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["queue", "export", "--all"], "--directory DIR or --mbox"),
        (["queue", "export", "--mbox", "-"], "or say --all"),
        (["queue", "list", "--state", "asleep"], "asleep"),
        (["queue", "list", "--sender", "!"], "empty text"),
        (["queue", "list", "--recipient", "x" * 1001], "longer than"),
        (["queue", "hold", "--all", "0" * 11], "or say --all"),
        (["trace"], "--since"),
        (["trace", "nonsense"], "no queue id"),
        (["trace", "--since", "1h", "--limit", "0"], "between 1"),
    ],
)
def test_misuse(config: Path, ids: list[str], words: list[str], reason: str) -> None:
    wrong = call(config, *words)
    assert wrong.exit_code == 2
    assert reason in wrong.output


def test_trace_tells_of_orders_without_a_server(config: Path, ids: list[str]) -> None:
    call(config, "queue", "hold", ids[0], "--reason", "odd")
    told = call(config, "trace", ids[0])
    assert told.exit_code == 0
    assert "hold by " in told.output
    assert "still in the queue for joe@whizzer.test" in told.output
    waiting = call(config, "trace", ids[1])  # no history, but it is there
    assert (waiting.exit_code, "still in the queue" in waiting.output) == (0, True)
    nothing = call(config, "trace", "--sender", "nobody")
    assert nothing.exit_code == 1
    assert nothing.output.startswith("postroom: nothing was found; what happens is")
    config.write_text(f"{config.read_text()}[history]\nenabled = false\n")
    off = call(config, "trace", "--sender", "nobody")
    assert off.exit_code == 1
    assert "history.enabled is false" in off.output


@pytest.mark.parametrize(
    ("address", "status"),
    [("nosuch@gonzo.test", 67), ("postmaster@gonzo.test", 0), ("x@[127.0.0.9]", 0)],
)
def test_explain_ends_as_verification_does(
    config: Path, address: str, status: int
) -> None:
    done = call(config, "explain", address)
    assert done.exit_code == status, done.output


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("-bp", []),
        ("-bp -qRjoe", ["--recipient=joe"]),
        ("-q!Sjoe -qIab", ["--sender=!joe", "--id=ab"]),
        ("-bp -qQ", ["--state", "quarantined"]),
        ("-bp -qQodd", ["--state", "quarantined", "--error=odd"]),
        ("-qL", ["--state", "shunted"]),
        ("-qS!x", ["--sender=*!x*"]),
        ("-q30m", []),
    ],
)
def test_mailq_without_a_server(words: str, options: list[str]) -> None:
    assert chosen_from_queue(["mailq", *words.split()]) == options


def test_help_names_everything(config: Path) -> None:
    shown = CliRunner().invoke(main, ["queue", "--help"]).output
    orders = ("hold", "release", "retry", "requeue", "remove", "bounce")
    for command in ("list", "show", "stat", "export", *orders):
        assert f"\n  {command}" in shown
    for act in orders:
        told = CliRunner().invoke(main, ["queue", act, "--help"]).output
        assert "--dry-run" in told


@pytest.mark.parametrize("words", [("list",), ("list", "--mailq"), ("stat",)])
def test_letters_that_no_server_has_taken_in_are_told_of(
    config: Path, words: tuple[str, ...]
) -> None:
    drop = config.parent / "drop"
    drop.mkdir()
    assert call(config, "queue", *words).stderr == ""
    for name in ("1.2.aa", "2.3.bb", "1.1.cc.refused"):
        (drop / name).write_text("")
    told = call(config, "queue", *words)
    assert told.exit_code == 0
    assert told.stderr == f"postroom: 2 messages in {drop} until a server runs\n"


@pytest.mark.parametrize("words", [("list",), ("list", "--mailq"), ("stat",)])
def test_a_damaged_queue_is_not_called_empty(
    config: Path, ids: list[str], words: tuple[str, ...]
) -> None:
    (config.parent / "spool" / "shard-000" / DATABASE).write_bytes(b"x" * 9_999)
    told = call(config, "queue", *words)
    assert told.exit_code == 75
    assert "postroom: shard 0: " in told.stderr
    assert "empty" not in told.stdout
    assert "no messages" not in told.stdout
