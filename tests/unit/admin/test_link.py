import asyncio
import os
import socket

import pytest

from postroom.admin import link
from postroom.admin.link import (
    Cannot,
    Commit,
    Drain,
    Heartbeat,
    Job,
    ListenFd,
    Prepare,
    Ready,
    decode_to_supervisor,
    decode_to_worker,
    encode_message,
    open_link,
    read_job,
    write_job,
)
from postroom.mail.units import Duration

JOB = Job(
    worker=1,
    workers=2,
    generation=1_795_361_682_000_000,
    config_path="/etc/postroom.toml",
    config_text='hostname = "gonzo.test"\n',
    listeners=(ListenFd("smtp", "smtp", "127.0.0.1:25", 7),),
    heartbeat=Duration(1_000),
)


def test_job_crosses() -> None:
    found = read_job(write_job(JOB))
    assert found == JOB
    assert found.heartbeat.seconds == 0.001
    assert found.shard == 1


def test_broken_job_is_refused() -> None:
    fd = os.memfd_create("x")
    os.write(fd, b'{"worker": "one"}')
    os.lseek(fd, 0, os.SEEK_SET)
    with pytest.raises(ValueError, match="worker"):
        read_job(fd)


@pytest.mark.parametrize(
    "message", [Prepare(7, "a = 1\n# \u2028"), Commit(7), Drain()], ids=repr
)
def test_orders_cross_as_one_line(message: link.ToWorker) -> None:
    line = encode_message(message)
    assert line.count(b"\n") == 1
    assert decode_to_worker(line) == message


def test_a_worker_cannot_give_orders() -> None:
    with pytest.raises(ValueError, match="drain"):
        decode_to_supervisor(encode_message(Drain()))


async def test_worker_hears_tells_and_learns_of_the_end() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    loop = asyncio.get_running_loop()
    job = Job(1, 2, 3, "", "", (), link_fd=theirs.detach(), heartbeat=Duration(1_000))
    opened = await open_link(job)
    opened.ready()
    opened.send(Cannot(3, "why"))
    said: list[object] = []
    rest = b""
    async with asyncio.timeout(60):
        while said.count(Heartbeat()) < 3:
            rest += await loop.sock_recv(ours, 1000)
            *lines, rest = rest.split(b"\n")
            said += map(decode_to_supervisor, lines)
        assert Ready(os.getpid()) in said
        assert Cannot(3, "why") in said
        await loop.sock_sendall(ours, encode_message(Commit(3)) + b'{"type":"dra')
        orders = aiter(opened)
        assert await anext(orders) == Commit(3)
        await loop.sock_sendall(ours, b'in"}\n')
        assert await anext(orders) == Drain()
        ours.close()
        assert [order async for order in orders] == []
    opened.close()


async def test_endless_line_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "LINE_OCTETS_MAX", 100)
    ours, theirs = socket.socketpair()
    opened = await open_link(Job(0, 1, 1, "", "", (), link_fd=theirs.detach()))
    ours.sendall(b"x" * 200)
    with pytest.raises(ValueError, match="longer than 100"):
        await anext(aiter(opened))
    opened.close()
    ours.close()
