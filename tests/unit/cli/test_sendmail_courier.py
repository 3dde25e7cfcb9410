"""The sendmail command as programs run it: the launcher, in a process of its own."""

import asyncio
import contextlib
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from postroom.cli import drop, sendmail
from postroom.config.settings import Config
from postroom.mail.outcome import Say
from postroom.services import frames
from postroom.services.people import look_up
from postroom.services.settings import SubmissionSettings
from postroom.testing.submitter import PostOffice

ROOT = Path(__file__).parents[3]
USER = look_up(os.getuid()).login
FORBIDDEN = {
    *("re", "socket", "ssl", "asyncio", "dataclasses", "typing", "msgspec", "enum"),
    *("os", "site", "pathlib", "collections", "functools", "subprocess", "struct"),
}


class Command:
    """Runs the launchers against one socket and one drop directory."""

    def __init__(self, home: Path) -> None:
        self.socket = home / "submit.sock"
        self.drop = home / "drop"
        self.drop.mkdir()
        self.environment = {
            "POSTROOM_SUBMIT": str(self.socket),
            "POSTROOM_DROP": str(self.drop),
        }

    def argv(self, line: str) -> list[str]:
        name, *arguments = line.split(" ")
        return [sys.executable, "-IS", str(ROOT / "bin" / name), *arguments]

    async def start(self, line: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self.argv(line),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
        )

    async def run(self, line: str, data: bytes = b"") -> tuple[int, bytes, bytes]:
        process = await self.start(line)
        out, err = await talk(process, data)
        assert process.returncode is not None
        return process.returncode, out, err

    @property
    def dropped(self) -> list[Path]:
        return sorted(self.drop.iterdir())


async def talk(process: asyncio.subprocess.Process, data: bytes) -> tuple[bytes, bytes]:
    """Give it input, return what it says, leave nothing behind.

    Who ends before it reads leaves a broken pipe. Python 3.11.2 tells of it when it
    next collects garbage, in the middle of whatever test that is.
    """
    out, err = await process.communicate(data)
    assert process.stdin
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        await process.stdin.wait_closed()
    return out, err


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path)


@pytest.fixture
async def office(command: Command) -> AsyncIterator[PostOffice]:
    settings = SubmissionSettings(users={USER: "betty"})
    async with PostOffice(str(command.socket), settings) as office:
        yield office


async def test_a_letter_goes_to_the_server(
    command: Command, office: PostOffice
) -> None:
    result = await command.run("sendmail -i joe bob@x.test", b"\nbody\n.\n\xff\x00\n")
    assert result == (0, b"", b"")
    (letter,) = office.submitter.letters
    assert letter.to == ["joe@gonzo.test", "bob@x.test"]
    assert letter.content.endswith(b"\r\n\r\nbody\r\n.\r\n\xff\x00\r\n")
    assert command.dropped == []


async def test_a_large_letter_arrives_whole(
    command: Command, office: PostOffice
) -> None:
    body = b"".join(b"%079d\n" % number for number in range(20_000))
    assert (await command.run("sendmail joe", b"\n" + body))[0] == 0
    (letter,) = office.submitter.letters
    content = letter.content.partition(b"\r\n\r\n")[2]
    assert content == body.replace(b"\n", b"\r\n")


async def test_names_and_exit_codes(command: Command, office: PostOffice) -> None:
    office.queue = ("one", "two")
    assert await command.run("mailq") == (0, b"one\ntwo\n", b"")
    assert await command.run("newaliases") == (0, b"/etc/aliases: 2 aliases\n", b"")
    unknown = await command.run("sendmail nosuch", b"\nbody\n")
    assert unknown == (67, b"nosuch... User unknown\n", b"")
    usage = await command.run("sendmail")
    assert usage == (64, b"Recipient names must be specified\n", b"")


async def test_only_letters_take_from_standard_input(
    command: Command, office: PostOffice
) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"not yours\n")
    process = await asyncio.create_subprocess_exec(
        *command.argv("mailq"),
        stdin=reading,
        stdout=subprocess.DEVNULL,
        env=command.environment,
    )
    assert await process.wait() == 0
    assert os.read(reading, 100) == b"not yours\n"
    os.close(reading)
    os.close(writing)


async def test_a_lone_dot_ends_it_while_input_is_open(
    command: Command, office: PostOffice
) -> None:
    process = await command.start("sendmail joe")
    assert process.stdin
    process.stdin.write(b"\nbody\n.\n")
    assert await process.wait() == 0  # nobody closed standard input
    assert office.submitter.letters[0].content.endswith(b"\r\n\r\nbody\r\n")
    process.stdin.close()


async def test_smtp_both_ways(command: Command, office: PostOffice) -> None:
    process = await command.start("sendmail -bs")
    assert process.stdin
    assert process.stdout
    assert await process.stdout.readline() == f"220 hello {USER}\r\n".encode()
    process.stdin.write(b"helo\r\n")
    assert await process.stdout.readline() == b"HELO\r\n"
    process.stdin.close()
    assert await process.wait() == 0


async def test_verbose_is_live_and_leaving_keeps_the_letter(
    command: Command, office: PostOffice
) -> None:
    may_end = asyncio.Event()

    async def narrate(say: Say) -> None:
        say("joe... Connecting to local...")
        await may_end.wait()

    office.submitter.narrate = narrate
    process = await command.start("sendmail -v joe")
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"\nbody\n")
    process.stdin.close()
    line = await process.stdout.readline()
    assert line == b"joe... Connecting to local...\n"
    process.send_signal(2)
    assert await process.wait() == 130
    assert len(office.submitter.letters) == 1
    may_end.set()
    await asyncio.gather(*office.submitter.telling)


async def test_closed_descriptors_are_no_harm(
    command: Command, office: PostOffice
) -> None:
    process = await asyncio.create_subprocess_exec(
        *("/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"),
        *command.argv("sendmail joe"),
        env=command.environment,
    )
    assert await process.wait() == 0
    assert office.submitter.letters[0].to == ["joe@gonzo.test"]


@pytest.mark.parametrize("name", ["sendmail", "mailq", "newaliases"])
def test_help_needs_no_server(name: str, command: Command) -> None:
    done = subprocess.run(
        command.argv(f"{name} --help"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=command.environment,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(f"Usage: {name}".encode())
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    assert command.dropped == []


def test_it_imports_next_to_nothing() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r})\n"
        "import postroom.cli.sendmail, postroom.cli.drop\nprint(*sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-ISc", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not FORBIDDEN & set(found)
    ours = {name for name in found if name.startswith("postroom")}
    assert ours == {
        *("postroom", "postroom.cli", "postroom.cli.sendmail", "postroom.cli.drop"),
    }


def test_both_sides_agree() -> None:
    assert sendmail.GREETING == frames.GREETING
    config = Config()
    assert f"{config.run_directory}/submit.sock" == sendmail.SOCKET
    assert config.drop_directory == drop.DIRECTORY


def test_the_launchers_are_one() -> None:
    texts = {(ROOT / "bin" / name).read_bytes() for name in os.listdir(ROOT / "bin")}
    assert len(texts) == 1
    assert texts.pop().startswith(b"#!python -IS\n")


# Servers that fail


async def lying(
    command: Command,
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> asyncio.Server:
    return await asyncio.start_unix_server(serve, str(command.socket))


async def test_broken_off_before_anything_was_handed_over(command: Command) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await lying(command, serve):
        assert (await command.run("sendmail joe", b"\nbody\n"))[0] == 0
    assert len(command.dropped) == 1


async def test_broken_off_in_the_middle(command: Command) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"G\0\0\0\0")
        await reader.readexactly(40)
        writer.close()

    async with await lying(command, serve):
        code, out, err = await command.run("sendmail joe", b"\nbody\n")
    assert (code, out) == (75, b"")
    assert b"it is not known whether the mail was sent" in err
    assert command.dropped == []


# No server


async def test_without_a_server_the_letter_is_kept(command: Command) -> None:
    code, out, err = await command.run("sendmail -v joe", b"Subject: s\n\nbody\n")
    assert (code, err) == (0, b"")
    assert out.startswith(b"joe... queued: the mail server is not running")
    (path,) = command.dropped
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    data = path.read_bytes()
    start = sendmail.GREETING + b"A"
    assert data.startswith(start)
    assert b"\0-v\0joe" in data
    body = sendmail.frame(b"I", b"Subject: s\n\nbody\n") + sendmail.frame(b"E", b"")
    end = sendmail.frame(b"Z", (len(data) - 13).to_bytes(8, "big"))
    assert data.endswith(body + end)


async def test_a_dead_socket_is_no_server(command: Command, office: PostOffice) -> None:
    command.environment["POSTROOM_SUBMIT"] = str(command.drop)  # no socket at all
    assert (await command.run("sendmail -t", b"To: joe\n\n"))[0] == 0
    assert len(command.dropped) == 1
    assert office.submitter.letters == []


NO_SERVER = {
    "no recipients": ("sendmail", 64, b"Recipient names must be specified\n", b""),
    "empty one": ("sendmail -i ", 64, b"Recipient names must be specified\n", b""),
    "aliases": (
        "newaliases",
        0,
        b"the mail server is not running; it reads the aliases when it starts\n",
        b"",
    ),
    "smtp": (
        "sendmail -bs",
        75,
        b"421 4.3.2 the mail server is not running, try again later\r\n",
        b"",
    ),
    "verify": (
        "sendmail -bv joe",
        75,
        b"",
        b"sendmail: the mail server is not running (",
    ),
    "queue run": (
        "sendmail -q",
        75,
        b"",
        b"sendmail: the mail server is not running (",
    ),
}


@pytest.mark.parametrize("case", NO_SERVER.values(), ids=NO_SERVER.keys())
async def test_without_a_server(
    command: Command, case: tuple[str, int, bytes, bytes]
) -> None:
    line, exit_code, out, err = case
    result = await command.run(line, b"Subject: s\n\n")
    assert result[:2] == (exit_code, out)
    assert result[2].startswith(err)
    assert command.dropped == []


async def test_what_cannot_be_kept_is_said(command: Command) -> None:
    command.drop.rmdir()
    code, out, err = await command.run("sendmail joe", b"\nbody\n")
    assert (code, out) == (75, b"")
    assert b"the mail cannot be kept in" in err
    assert b"No such file or directory. Nothing was sent" in err


async def test_a_drop_that_fills_up_leaves_nothing_behind(command: Command) -> None:
    limited = ("/bin/sh", "-c", 'ulimit -f 8; exec "$@"', "sh")
    python, flags, *argv = command.argv("sendmail joe")
    process = await asyncio.create_subprocess_exec(
        *limited,
        *(python, f"{flags}B", *argv),  # no byte code: it would be cut off as well
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=command.environment,
    )
    _, err = await talk(process, b"x" * 1_000_000)
    assert process.returncode == 75
    assert b"File too large. Nothing was sent" in err
    assert command.dropped == []


async def test_the_server_takes_what_the_command_left(
    command: Command, tmp_path: Path
) -> None:
    from postroom.services.drop import DropDirectory
    from postroom.services.people import People

    await command.run("sendmail -f ann joe", b"Subject: s\n\nbody\n.\n")
    office = PostOffice(str(tmp_path / "unused"), SubmissionSettings())
    directory = DropDirectory(
        str(command.drop), office.desk, People(), office.events.append
    )
    assert await directory.scan() == 1
    (letter,) = office.submitter.letters
    assert letter.envelope.sender.to_text() == "ann@gonzo.test"
    assert letter.content.endswith(b"Subject: s\r\n\r\nbody\r\n")
    assert command.dropped == []
