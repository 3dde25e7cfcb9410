"""One worker in this process, from start to end, with a supervisor's link."""

import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from postroom.admin.link import (
    Abort,
    Cannot,
    Commit,
    Drain,
    Heartbeat,
    Job,
    ListenFd,
    Prepare,
    Prepared,
    Ready,
    ReopenLogs,
    ToSupervisor,
    ToWorker,
    decode_to_supervisor,
    encode_message,
    read_lines,
)
from postroom.app.assembly import Built, build
from postroom.app.worker import (
    EX_CONFIG,
    EX_TEMPFAIL,
    LINGER_S,
    _Worker,
    run_worker,
)
from postroom.mail.units import Duration
from postroom.net.connect import connect, wrap
from postroom.net.stream import Stream
from postroom.spool.engine import open_shard
from postroom.testing.spool import QUICK, Letters
from postroom.testing.workbench import JumpingClock

BASE = """
hostname = "gonzo.test"
run_directory = "run"
drop_directory = "drop"
users_file = "users"
[spool]
directory = "spool"
reserve_octets = "1KiB"
reserve_inodes = 0
[mailbox]
path = "mail/{user}"
[auth]
argon2_memory = "1MiB"
[route]
aliases = "aliases"
[log]
to = "log"
[receive]
"""
LETTER = "Subject: s\r\n\r\nhello\r\n.\r\n"


class Office:
    """The supervisor of one worker."""

    def __init__(self, directory: Path, link: Stream, port: int) -> None:
        self.directory = directory
        self.port = port
        self._link = link
        self._streams: list[Stream] = []
        self._lines = read_lines(link)

    async def hear(self) -> ToSupervisor:
        """Return what the worker says next, signs of life apart."""
        async for line in self._lines:
            said = decode_to_supervisor(line)
            if not isinstance(said, Heartbeat):
                return said
        raise EOFError

    def say(self, order: ToWorker) -> None:
        self._link.write(encode_message(order))

    async def call(self) -> Stream:
        timeout = Duration(1_000_000)
        stream = await connect("127.0.0.1", self.port, timeout=timeout)
        self._streams.append(stream)
        return stream

    def hang_up(self) -> None:
        self._link.abort()
        for stream in self._streams:
            stream.abort()


def prepare(directory: Path) -> None:
    for name in ("run", "drop"):
        (directory / name).mkdir(exist_ok=True)
    (directory / "users").write_text("joe\n")
    (directory / "aliases").write_text("postmaster: joe\n")


def job(directory: Path, text: str = BASE, **more: object) -> Job:
    named: dict[str, object] = {"listeners": (), **more}
    return Job(
        worker=0,
        workers=1,
        generation=1,
        config_path=str(directory / "postroom.toml"),
        config_text=text,
        **named,  # type: ignore[arg-type]
    )


@asynccontextmanager
async def working(
    directory: Path, text: str = BASE
) -> AsyncIterator[tuple[Office, asyncio.Task[int]]]:
    prepare(directory)
    ours, theirs = socket.socketpair()
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    given = ListenFd("smtp", "in", "", listening.detach())
    asked = job(directory, text, listeners=(given,), link_fd=theirs.detach())
    task = asyncio.create_task(_Worker(asked).run())
    office = Office(directory, await wrap(ours), port)
    said = await office.hear()
    assert isinstance(said, Ready)
    try:
        yield office, task
    finally:
        office.hang_up()
        await asyncio.wait([task], timeout=60)
        gc.unfreeze()


async def said(stream: Stream, until: str) -> str:
    text = ""
    while until not in text:
        async with asyncio.timeout(60):
            data = await stream.read()
        assert data, text
        text += data.decode()
    return text


async def send(stream: Stream, to: str) -> None:
    stream.write(
        f"EHLO c\r\nMAIL FROM:<a@c.test>\r\nRCPT TO:<{to}>\r\nDATA\r\n".encode()
    )
    await said(stream, "354 ")
    stream.write(LETTER.encode())
    await said(stream, "accepted for delivery")


async def delivered(directory: Path, count: int) -> None:
    new = directory / "mail" / "joe" / "new"
    for _ in range(2_000):
        if new.exists() and len(list(new.iterdir())) >= count:
            return
        await asyncio.sleep(0.001)
    raise AssertionError((directory / "log").read_text())


async def test_a_letter_is_delivered_and_the_worker_drains(tmp_path: Path) -> None:
    async with working(tmp_path) as (office, task):
        stream = await office.call()
        await send(stream, "joe@gonzo.test")
        await delivered(tmp_path, 1)
        office.say(Drain())
        assert "421 4.3.2" in await said(stream, "421")
        assert await task == 0
        assert "stat=" in (tmp_path / "log").read_text()


async def test_a_worker_whose_supervisor_is_gone_ends(tmp_path: Path) -> None:
    async with working(tmp_path) as (office, task):
        office.hang_up()
        assert await task == 0


async def test_clients_are_turned_away_while_the_log_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each session would be told of: so many would fill the memory, too."""
    full = BASE.replace('to = "log"', 'to = "/dev/full"\nwaiting_max = 2')
    async with working(tmp_path, full) as (office, _):
        greeting = ""
        async with asyncio.timeout(60):
            while not greeting.startswith("421 "):
                stream = await office.call()
                greeting = await said(stream, "\n")
                stream.abort()
    assert greeting == "421 4.3.2 System not accepting mail, try again later\r\n"
    assert "/dev/full: [Errno 28]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("postroom.app.adoption.shards_in", "adopting shards"),
        ("postroom.app.worker._Worker._reload_tables", "looking at users and tables"),
        ("postroom.services.drop.DropDirectory.scan", "taking letters from the drop"),
    ],
)
async def test_what_breaks_off_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, what: str
) -> None:
    """Exhausted descriptors at the wrong moment ended it until the next start."""
    monkeypatch.setattr("postroom.app.worker.WATCH_S", 0.01)
    monkeypatch.setattr("postroom.app.worker.GO_ON_S", 0.01)

    def fail(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(place, fail)
    told = f"worker 0: {what}: OSError(24, 'Too many open files'); going on in"
    async with working(tmp_path) as (office, task):
        async with asyncio.timeout(60):
            while (tmp_path / "log").read_text().count(told) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        office.say(Drain())
        assert await task == 0


BANNER = 'banner = "ESMTP Second"\n'


async def test_a_reload_changes_new_sessions_and_leaves_old_ones(
    tmp_path: Path,
) -> None:
    async with working(tmp_path) as (office, _):
        old = await office.call()
        assert "ESMTP Postroom" in await said(old, "220")
        office.say(Prepare(2, BASE + BANNER))
        assert await office.hear() == Prepared(2)
        between = await office.call()
        assert "ESMTP Postroom" in await said(between, "220")
        office.say(Commit(2))
        office.say(ReopenLogs())
        office.say(Prepare(3, BASE))  # answered once the swap is done
        assert await office.hear() == Prepared(3)
        new = await office.call()
        assert "ESMTP Second" in await said(new, "220")
        await send(old, "joe@gonzo.test")
        await send(new, "joe@gonzo.test")
        await delivered(tmp_path, 2)


async def test_a_reload_that_is_aborted_changes_nothing(tmp_path: Path) -> None:
    async with working(tmp_path) as (office, _):
        office.say(Prepare(2, BASE + BANNER))
        assert await office.hear() == Prepared(2)
        office.say(Abort(2))
        office.say(Commit(2))  # of nothing
        office.say(Prepare(3, "nonsense"))
        assert isinstance(await office.hear(), Cannot)
        stream = await office.call()
        assert "ESMTP Postroom" in await said(stream, "220")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param(BASE + "nosuch = 1\n", "nosuch", id="unknown-key"),
        pytest.param(BASE.replace('"spool"', '"other"'), "restart", id="fixed"),
        pytest.param(
            BASE + '[policy]\nmodule = "nosuch.py"\n', "nosuch.py", id="no-site"
        ),
        pytest.param(BASE.replace("gonzo.test", "x"), "restart", id="hostname"),
    ],
)
async def test_what_cannot_be_in_force_is_refused_and_nothing_stops(
    tmp_path: Path, text: str, why: str
) -> None:
    async with working(tmp_path) as (office, task):
        office.say(Prepare(2, text))
        answer = await office.hear()
        assert isinstance(answer, Cannot)
        assert why in answer.why
        stream = await office.call()
        await said(stream, "220")
        assert not task.done()


async def test_a_bug_while_preparing_ends_no_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with working(tmp_path) as (office, task):

        def broken(*_: object) -> None:
            raise KeyError("bug")

        monkeypatch.setattr("postroom.app.worker.build", broken)
        office.say(Prepare(2, BASE))
        answer = await office.hear()
        assert isinstance(answer, Cannot)
        assert "bug" in answer.why
        assert not task.done()


@asynccontextmanager
async def slow_to_build(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Let generations be built only after this, as if a policy module were stuck."""
    go_on = threading.Event()

    def build_late(*arguments: Any) -> Built:
        assert go_on.wait(60)
        return build(*arguments)

    monkeypatch.setattr("postroom.app.worker.build", build_late)
    try:
        yield
    finally:
        monkeypatch.setattr("postroom.app.worker.build", build)
        go_on.set()


async def test_a_worker_that_prepares_for_ever_still_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for is_told in (True, False):
        async with (
            working(tmp_path) as (office, task),
            slow_to_build(monkeypatch),
        ):
            stream = await office.call()
            await said(stream, "220")
            office.say(Prepare(2, BASE))
            if is_told:
                office.say(Drain())
            else:
                office.hang_up()
            async with asyncio.timeout(60):
                assert await task == 0


async def test_what_is_called_off_while_it_is_prepared_is_not_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with working(tmp_path) as (office, _):
        async with slow_to_build(monkeypatch):
            office.say(Prepare(2, BASE))
            office.say(Abort(2))
            office.say(Prepare(3, BASE + BANNER))
        assert await office.hear() == Prepared(3)
        office.say(Commit(2))  # comes too late
        office.say(Commit(3))
        office.say(Prepare(4, BASE))
        assert await office.hear() == Prepared(4)
        stream = await office.call()
        assert "ESMTP Second" in await said(stream, "220")


async def test_signals_to_a_worker_are_no_crash(tmp_path: Path) -> None:
    """As from ``pkill postroom``, or from a system that goes down."""
    prepare(tmp_path)
    ours, theirs = socket.socketpair()
    worker = _Worker(job(tmp_path, link_fd=theirs.detach()))
    loop = asyncio.get_running_loop()
    worker.take_signals(loop)
    link = await wrap(ours)
    office = Office(tmp_path, link, 0)
    try:
        task = asyncio.create_task(worker.run())
        assert isinstance(await office.hear(), Ready)
        (tmp_path / "log").rename(tmp_path / "log.1")
        for number in (signal.SIGHUP, signal.SIGUSR1):
            os.kill(os.getpid(), number)
        async with asyncio.timeout(60):
            while not (tmp_path / "log").exists():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            assert not task.done()
            os.kill(os.getpid(), signal.SIGTERM)
            assert await task == 0
    finally:
        office.hang_up()
        gc.unfreeze()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            loop.remove_signal_handler(number)


async def test_a_worker_tells_when_it_has_to_be_gone(tmp_path: Path) -> None:
    prepare(tmp_path)
    ours, theirs = socket.socketpair()
    ours.close()
    told: list[float] = []
    text = BASE + "[process]\ndrain_s_max = 7\n"
    asked = job(tmp_path, text, link_fd=theirs.detach())
    assert await _Worker(asked, told.append).run() == 0
    gc.unfreeze()
    assert told == [7 + LINGER_S]


def test_the_kernel_ends_a_process_that_cannot_end() -> None:
    program = """
import threading
from postroom.app.worker import end_within
end_within(0.01)
threading.Event().wait(600)
"""
    ended = subprocess.run((sys.executable, "-c", program), timeout=120, check=False)
    assert ended.returncode == -signal.SIGALRM


async def test_draining_finishes_the_transaction_in_hand(tmp_path: Path) -> None:
    async with working(tmp_path) as (office, task):
        stream = await office.call()
        stream.write(b"EHLO c\r\nMAIL FROM:<a@c.test>\r\nRCPT TO:<joe@gonzo.test>\r\n")
        await said(stream, "2.1.5")
        office.say(Drain())
        await asyncio.sleep(0.01)
        stream.write(b"DATA\r\n")
        await said(stream, "354 ")
        stream.write(LETTER.encode())
        text = await said(stream, "421 4.3.2")
        assert "accepted for delivery" in text
        assert await task == 0
    async with working(tmp_path):  # what was left is delivered by the next
        await delivered(tmp_path, 1)


async def test_a_shard_of_a_worker_that_is_no_more_is_emptied(tmp_path: Path) -> None:
    prepare(tmp_path)
    spool = str(tmp_path / "spool")
    clock = JumpingClock()
    clock.utc_us -= 400 * 86_400 * 1_000_000
    shard = await open_shard(spool, 5, QUICK, clock=clock)
    await shard.accept(Letters(shard).letter("joe"))
    await shard.aclose()
    async with working(tmp_path):
        await delivered(tmp_path, 1)
    assert "adopted shard 5" in (tmp_path / "log").read_text()


def test_a_configuration_that_does_not_work_is_78(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(tmp_path)
    text = BASE + '[policy]\nmodule = "nosuch.py"\n'
    assert run_worker(job(tmp_path, text)) == EX_CONFIG
    assert "nosuch.py" in capsys.readouterr().err


def test_a_shard_that_another_holds_is_75(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(tmp_path)

    async def hold() -> int:
        clock = JumpingClock()
        shard = await open_shard(str(tmp_path / "spool"), 0, QUICK, clock=clock)
        text = BASE + '[process]\nbind_timeout = "150ms"\n'
        try:
            return await asyncio.to_thread(run_worker, job(tmp_path, text))
        finally:
            await shard.aclose()

    assert asyncio.run(hold()) == EX_TEMPFAIL
    assert "in use by process" in capsys.readouterr().err
    log = (tmp_path / "log").read_text()
    assert "ERROR: worker 0 ends: " in log
    assert "stop that server first" in log.rpartition("worker 0 ends: ")[2]
