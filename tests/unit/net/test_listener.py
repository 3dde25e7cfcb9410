import asyncio
import os
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from postroom.mail.units import Duration
from postroom.net.connect import connect, connect_unix
from postroom.net.listener import Listener, listen, notice_loss
from postroom.net.stream import Stream, StreamInterrupted, StreamLost

SOON = Duration.from_text("5s")


def bound() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        stream.write(data)
        await stream.drain()


async def call(port: int) -> Stream:
    return await connect("127.0.0.1", port, timeout=SOON)


async def until_sessions(listener: Listener, count: int) -> None:
    async with asyncio.timeout(60):
        while listener.sessions != count:  # noqa: ASYNC110 - nothing to wait on
            await asyncio.sleep(0.001)


async def test_serves_and_counts_sessions() -> None:
    sock = bound()
    port = sock.getsockname()[1]
    listener = await listen(sock, echo)
    streams = [await call(port) for _ in range(3)]
    for number, stream in enumerate(streams):
        stream.write(b"%d" % number)
        assert await stream.read() == b"%d" % number
    assert listener.sessions == 3
    for stream in streams:
        stream.close()
    async with asyncio.timeout(60):
        await listener.drained()
    assert listener.sessions == 0
    listener.close()


async def test_two_listeners_share_one_socket() -> None:
    sock = bound()
    port = sock.getsockname()[1]
    one = await listen(sock.dup(), echo)
    other = await listen(sock.dup(), echo)
    one.close()
    stream = await call(port)
    stream.write(b"x")
    assert await stream.read() == b"x"
    assert other.sessions == 1
    stream.abort()
    await other.drained()
    other.close()
    sock.close()


async def test_paused_it_leaves_callers_with_the_kernel() -> None:
    sock = bound()
    port = sock.getsockname()[1]
    listener = await listen(sock, echo)
    listener.pause()
    stream = await call(port)
    stream.write(b"patient")
    for _ in range(20):
        await asyncio.sleep(0)
    assert listener.sessions == 0
    listener.resume()
    assert await stream.read() == b"patient"
    stream.abort()
    await listener.drained()
    listener.close()


async def test_resume_undone_at_once_stays_paused() -> None:
    sock = bound()
    listener = await listen(sock, echo)
    listener.pause()
    listener.resume()
    listener.pause()
    await asyncio.sleep(0.01)
    assert listener._server is None
    listener.close()


async def test_full_it_waits_for_sessions_to_end() -> None:
    sock = bound()
    port = sock.getsockname()[1]
    listener = await listen(sock, echo, sessions_max=2)
    first, second = await call(port), await call(port)
    await until_sessions(listener, 2)
    third = await call(port)
    third.write(b"third")
    for _ in range(20):
        await asyncio.sleep(0)
    assert listener.sessions <= 3  # one may have been accepted with the second
    first.close()
    second.close()
    assert await third.read() == b"third"
    third.abort()
    await listener.drained()
    listener.close()


async def test_accepting_goes_on_once_there_are_descriptors_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What failed but once left a worker deaf until its next start."""
    monkeypatch.setattr("postroom.net.listener.RETRY_S", 0.01)
    seen: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: seen.append(context))
    failures = [OSError(24, "Too many open files")] * 3
    real = os.dup

    def dup(fd: int) -> int:
        if failures:
            raise failures.pop()
        return real(fd)

    sock = bound()
    port = sock.getsockname()[1]
    listener = await listen(sock, echo, sessions_max=1)
    monkeypatch.setattr(os, "dup", dup)
    first = await call(port)
    await until_sessions(listener, 1)
    first.close()
    second = await call(port)
    second.write(b"second")
    async with asyncio.timeout(60):
        assert await second.read() == b"second"
    second.abort()
    await listener.drained()
    listener.close()
    assert [context["message"] for context in seen] == ["accepting has to wait"] * 3


async def test_handler_that_raises_is_reported_and_cut_off() -> None:
    seen: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: seen.append(context))

    async def broken(stream: Stream) -> None:
        raise ZeroDivisionError("bug")

    sock = bound()
    port = sock.getsockname()[1]
    listener = await listen(sock, broken)
    stream = await call(port)
    with suppress(StreamLost):
        assert await stream.read() == b""
    stream.abort()
    assert isinstance(seen[0]["exception"], ZeroDivisionError)
    await listener.drained()
    listener.close()


async def test_interrupt_wakes_idle_sessions() -> None:
    async def polite(stream: Stream) -> None:
        try:
            await stream.read()
        except StreamInterrupted:
            stream.write(b"421 closing\r\n")

    sock = bound()
    port = sock.getsockname()[1]
    listener = await listen(sock, polite)
    stream = await call(port)
    await until_sessions(listener, 1)
    listener.interrupt()
    assert await stream.read() == b"421 closing\r\n"
    assert await stream.read() == b""
    stream.abort()
    await listener.drained()
    listener.close()


async def test_sessions_can_be_broken_off() -> None:
    sock = bound()
    port = sock.getsockname()[1]
    listener = await listen(sock, echo)
    stream = await call(port)
    await until_sessions(listener, 1)
    async with asyncio.timeout(60):
        await listener.abort_sessions()
    assert listener.sessions == 0
    stream.abort()
    listener.close()


async def test_unix_socket_file_outlives_pause_and_close(tmp_path: Path) -> None:
    path = tmp_path / "submit.sock"
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    kept = sock.dup()
    listener = await listen(sock, echo)
    listener.pause()
    await asyncio.sleep(0)
    listener.resume()
    stream = await connect_unix(str(path))
    stream.write(b"hello")
    assert await stream.read() == b"hello"
    stream.abort()
    await listener.drained()
    listener.close()
    await asyncio.sleep(0)
    assert path.exists()
    kept.close()


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_who_is_gone_before_being_accepted_is_nobody_not_a_local_caller(
    new_loop: Any,
) -> None:
    """Its octets can still be read, but not its address: it is served to nobody."""

    async def served_from() -> list[str]:
        sock = bound()
        port = sock.getsockname()[1]
        served: list[str] = []

        async def note(stream: Stream) -> None:
            served.append(stream.peer_ip)
            await stream.read()

        listener = await listen(sock, note)
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port)) as caller:
                caller.send(b"MAIL")
                reset = struct.pack("ii", 1, 0)
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        stream = await call(port)  # accepted after all of them
        stream.write(b"x")
        assert await stream.read() == b""
        await stream.aclose()
        listener.close()
        async with asyncio.timeout(60):
            await listener.drained()
        return served

    with asyncio.Runner(loop_factory=new_loop) as runner:
        served = runner.run(served_from())
    assert served[-1] == "127.0.0.1"
    assert "" not in served


async def test_accepted_connections_notice_the_loss_of_their_clients() -> None:
    options = {
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE): 1,
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE): 60,
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL): 15,
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT): 4,
    }
    with socket.create_server(("127.0.0.1", 0)) as server:
        notice_loss(server, 120_000_000)
        with socket.create_connection(server.getsockname()):
            accepted, _ = server.accept()
            with accepted:
                found = {key: accepted.getsockopt(*key) for key in options}
    assert found == options
    ours, theirs = socket.socketpair()
    with ours, theirs:
        notice_loss(ours, 120_000_000)  # nobody is lost on the same machine
