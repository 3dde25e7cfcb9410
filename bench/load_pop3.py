"""A POP3 client that makes load: ``python -m bench.load_pop3``.

Each user has a connection of its own. ``--mode session``: log in, STAT, UIDL, LIST,
QUIT, ``--times`` times. ``--mode fetch``: log in, wait until all have, then RETR of all
messages, ``--times`` times. Commands go one by one, as real clients send them. The
result is printed as JSON; an answer that is not ``+OK`` ends the program with 1.
"""

import argparse
import asyncio
import json
import resource
import sys
import time
from typing import NamedTuple

import uvloop

from bench.mailboxes import LETTERS

SHORT, LONG = b"\r\n", b"\r\n.\r\n"


class Client(asyncio.Protocol):
    """One connection; one command at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._got: list[bytes] = []
        self._octets = 0
        self._end = SHORT
        self._answer: asyncio.Future[int] = self._loop.create_future()
        self._lost = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._got.append(data)
        self._octets += len(data)
        tail = data if len(data) >= 5 else b"".join(self._got)
        refused = self._got[0].startswith(b"-")
        if self._answer.done() or not tail.endswith(SHORT if refused else self._end):
            return
        if refused:
            self._answer.set_exception(ConnectionError(self._got[0][:80].decode()))
        else:
            self._answer.set_result(self._octets)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set_result(None)
        if not self._answer.done():
            self._answer.set_exception(ConnectionError("connection lost"))

    async def greeting(self) -> int:
        return await self._answer

    async def command(self, line: bytes, end: bytes = SHORT) -> int:
        """Send a command; returns the octets of its answer."""
        assert self._transport is not None
        self._got.clear()
        self._octets = 0
        self._end = end
        self._answer = self._loop.create_future()
        self._transport.write(line)
        return await self._answer

    async def login(self, user: str, password: str) -> None:
        await self.greeting()
        await self.command(b"USER %s\r\n" % user.encode())
        await self.command(b"PASS %s\r\n" % password.encode())

    async def quit(self) -> None:
        await self.command(b"QUIT\r\n")
        assert self._transport is not None
        self._transport.close()
        await self._lost


class Job(NamedTuple):
    """What is asked for."""

    port: int
    password: str
    times: int


async def sessions(job: Job, users: list[str]) -> list[float]:
    """Check the mail of each of the users in turn; returns how long each took."""
    took = []
    for user in users * job.times:
        begin = time.perf_counter()
        client = await _connect(job)
        await client.login(user, job.password)
        await client.command(b"STAT\r\n")
        await client.command(b"UIDL\r\n", LONG)
        await client.command(b"LIST\r\n", LONG)
        await client.quit()
        took.append(time.perf_counter() - begin)
    return took


async def fetch(job: Job, user: str, barrier: asyncio.Barrier) -> list[float]:
    """Fetch all messages; returns how long each took."""
    client = await _connect(job)
    await client.login(user, job.password)
    await barrier.wait()
    took = []
    for _ in range(job.times):
        for number in range(1, LETTERS + 1):
            begin = time.perf_counter()
            octets = await client.command(b"RETR %d\r\n" % number, LONG)
            took.append(time.perf_counter() - begin)
            assert octets > 4000, octets
    await barrier.wait()
    await client.quit()
    return took


async def run(given: argparse.Namespace) -> dict[str, float]:
    """Do it all; returns the result."""
    job = Job(given.port, given.password, given.times)
    users = given.users.split(",")
    begin, cpu = time.perf_counter(), _cpu_s()
    marks: list[tuple[float, float]] = []
    if given.mode == "session":
        share = [users[n :: given.connections] for n in range(given.connections)]
        work = [sessions(job, some) for some in share if some]
        took = await asyncio.gather(*work)
    else:
        barrier = asyncio.Barrier(len(users) + 1)
        work = [fetch(job, user, barrier) for user in users]
        running = asyncio.gather(*work)
        for _ in range(2):
            await asyncio.wait(
                (running, asyncio.ensure_future(barrier.wait())),
                return_when=asyncio.FIRST_COMPLETED,
            )
            marks.append((time.perf_counter(), _cpu_s()))
        took = await running
        begin, cpu = marks[0]
    end, cpu_end = marks[1] if marks else (time.perf_counter(), _cpu_s())
    flat = sorted(one for some in took for one in some)
    return {
        "count": len(flat),
        "wall_s": end - begin,
        "p50_ms": flat[len(flat) // 2] * 1e3,
        "p99_ms": flat[len(flat) * 99 // 100] * 1e3,
        "client_cpu_share": (cpu_end - cpu) / (end - begin),
    }


async def _connect(job: Job) -> Client:
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(Client, "127.0.0.1", job.port)
    return client


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--mode", choices=("session", "fetch"), required=True)
    parser.add_argument("--users", required=True, help="names, with commas")
    parser.add_argument("--password", required=True)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--connections", type=int, default=4)
    try:
        result = uvloop.run(run(parser.parse_args()))
    except (OSError, AssertionError) as error:
        print(f"POP3 load: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
