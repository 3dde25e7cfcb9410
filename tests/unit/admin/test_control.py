import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from postroom.admin import control
from postroom.admin.client import (
    RequestRefused,
    WorkerGone,
    ask,
    ask_stream,
    find_workers,
)
from postroom.admin.control import (
    Access,
    Caller,
    ControlError,
    ControlServer,
    control_path,
    identify,
    serve_control,
)
from postroom.net.connect import connect_unix
from postroom.net.stream import PeerCredentials


async def count(caller: Caller, arguments: msgspec.Raw) -> AsyncIterator[int]:
    for number in range(msgspec.json.decode(arguments, type=int)):
        yield number


async def whoami(caller: Caller, arguments: msgspec.Raw) -> AsyncIterator[str]:
    yield f"{caller.uid} {caller.access.value}"


async def refuse(caller: Caller, arguments: msgspec.Raw) -> AsyncIterator[int]:
    yield 1
    raise ControlError("not today")


async def break_down(caller: Caller, arguments: msgspec.Raw) -> AsyncIterator[int]:
    yield 1
    raise ZeroDivisionError("bug")


HANDLERS = {
    "count": count,
    "whoami": whoami,
    "queue.list": whoami,
    "refuse": refuse,
    "break_down": break_down,
}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ControlServer]:
    made = await serve_control(control_path(str(tmp_path), 0), HANDLERS)
    yield made
    await made.aclose()


@pytest.fixture
def path(server: ControlServer, tmp_path: Path) -> Path:
    return control_path(str(tmp_path), 0)


async def test_answers_in_parts(path: Path) -> None:
    assert await ask(path, "count", 3, int) == [0, 1, 2]
    assert await ask(path, "count", 100_000, int) == list(range(100_000))
    assert await ask(path, "whoami", {}, str) == [f"{os.getuid()} full"]


@pytest.mark.parametrize(
    ("method", "why"),
    [
        ("refuse", "not today"),
        ("break_down", "failed: ZeroDivisionError: bug"),
        ("fly", 'unknown method "fly"'),
        ("count", "malformed request"),
    ],
)
async def test_refusals_name_the_reason(path: Path, method: str, why: str) -> None:
    with pytest.raises(RequestRefused, match=why):
        await ask(path, method, {}, int)
    assert await ask(path, "count", 1, int) == [0]


@pytest.mark.parametrize(
    "garbage",
    [b"\n", b"{\n", b"[]\n", b'{"method": 7}\n', b'{"method":"x","extra":1}\n'],
)
async def test_garbage_is_refused(path: Path, garbage: bytes) -> None:
    stream = await connect_unix(str(path))
    stream.write(garbage)
    assert b"refused" in await stream.read()
    stream.abort()


async def test_endless_request_is_cut_off(path: Path) -> None:
    stream = await connect_unix(str(path))
    stream.write(b"x" * (control.REQUEST_OCTETS_MAX + 10))
    assert b"request too long" in await stream.read()
    assert await stream.read() == b""
    stream.abort()


async def test_several_requests_on_one_connection(path: Path) -> None:
    stream = await connect_unix(str(path))
    stream.write(b'{"method":"count","arguments":1}\n' * 2)
    got = b""
    while got.count(b"end") < 2:
        got += await stream.read()
    assert got.count(b"item") == 2
    stream.abort()


async def test_others_may_only_list(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_other(credentials: PeerCredentials, operators: int | None) -> Caller:
        return Caller(1234, "betty", Access.OWN)

    monkeypatch.setattr(control, "identify", as_other)
    assert await ask(path, "queue.list", {}, str) == ["1234 own"]
    with pytest.raises(RequestRefused, match=r"user betty may not do this"):
        await ask(path, "whoami", {}, str)


def test_who_is_who() -> None:
    nobody = PeerCredentials(1, 65534, 65534)
    assert identify(nobody, None).access is Access.OWN
    assert identify(nobody, 65534).access is Access.FULL
    assert identify(PeerCredentials(1, 0, 0), None).access is Access.FULL
    stranger = identify(PeerCredentials(1, 4_000_000, 4_000_000), 0)
    # As their own mail names them, so that they may see it.
    assert (stranger.name, stranger.access) == ("uid4000000", Access.OWN)


async def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(WorkerGone):
        await ask(tmp_path / "worker-0.sock", "count", 1, int)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "worker-1.sock"))
    with pytest.raises(WorkerGone):
        await ask(tmp_path / "worker-1.sock", "count", 1, int)
    (tmp_path / "worker-x.sock").touch()
    assert list(find_workers(str(tmp_path))) == [1]
    assert find_workers(str(tmp_path / "missing")) == {}


async def test_worker_that_goes_away_in_the_middle(
    server: ControlServer, path: Path
) -> None:
    stream = ask_stream(path, "count", 10_000_000, int)
    assert await anext(stream) == 0
    await server.aclose()
    with pytest.raises(WorkerGone):
        async for _ in stream:
            pass


async def test_successor_takes_the_place_and_keeps_it(
    server: ControlServer, path: Path
) -> None:
    successor = await serve_control(path, {"count": count})
    await server.aclose()
    assert await ask(path, "count", 1, int) == [0]
    await successor.aclose()
    assert path.name not in os.listdir(path.parent)


async def test_socket_is_for_the_owner_only(path: Path) -> None:
    assert os.stat(path).st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to change a group")
async def test_operator_group_may_connect(tmp_path: Path) -> None:
    made = await serve_control(tmp_path / "s", {}, operator_group="nogroup")
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o660
    await made.aclose()


@pytest.mark.parametrize(
    ("group", "why"),
    [("nogroup", "is not in the group"), ("no-such-group", "there is no group")],
)
async def test_operators_who_cannot_be_let_in_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str, why: str
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "chown", refuse)
    made = await serve_control(tmp_path / "s", {}, operator_group=group)
    assert why in made.operators_problem
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
    await made.aclose()


async def test_slow_caller_is_cut_off(
    server: ControlServer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postroom.net.sweeper.SWEEP_US", 1_000)
    stream = await connect_unix(str(path))
    stream.write(b'{"method":"count","arguments":100000000}\n')
    async with asyncio.timeout(60):
        await stream.read()  # the request is read: only then may it be in a hurry
        monkeypatch.setattr(control, "IDLE_US", 1_000)
        stream._transport.pause_reading()  # type: ignore[union-attr]
        assert server._listener is not None
        await server._listener.drained()
        stream._transport.resume_reading()  # type: ignore[union-attr]
        octets = 0
        while piece := await stream.read():
            octets += len(piece)
    assert octets < 100_000_000, "it was told everything, however slow"
    stream.abort()
