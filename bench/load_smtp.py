"""An SMTP client that measures commits under load: ``python -m bench.load_smtp``.

``--sessions`` connections send 4 KiB messages: without ``--rate`` each sends the next
as soon as the last is answered, with it all together send so many a second. After
``--messages`` a session ends and connects anew, so that servers that serve fewer at a
time serve them all in turn. What is measured is the time from the final dot to its
250. The first second does not count. The result is printed as JSON.
"""

import argparse
import asyncio
import json
import resource
import sys
import time

import uvloop

WARM_UP_S = 1.0
SOURCES = ("127.0.6.1", "127.0.6.2", "127.0.6.3", "127.0.6.4")
"""Connections come from several addresses: servers limit those from one."""
_LINE = b"What is written here is of no importance, only that there is enough.\r\n"


class Client(asyncio.Protocol):
    """One connection; counts the replies it waits for."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._owed = 1
        self._rest = b""
        self._answer: asyncio.Future[None] = self._loop.create_future()
        self._lost: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        lines = (self._rest + data).split(b"\r\n")
        self._rest = lines.pop()
        for line in lines:
            if line[:1] in b"45":
                return self._fail(line.decode())
            self._owed -= line[3:4] != b"-"
        if self._owed == 0 and not self._answer.done():
            self._answer.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set_result(None)
        self._fail("connection lost")

    def _fail(self, why: str) -> None:
        if not self._answer.done():
            self._answer.set_exception(ConnectionError(why))

    async def greeting(self) -> None:
        await self._answer

    async def send(self, data: bytes, replies: int) -> None:
        """Send octets and wait for so many replies."""
        assert self._transport is not None
        self._owed = replies
        self._answer = self._loop.create_future()
        self._transport.write(data)
        await self._answer

    async def close(self) -> None:
        assert self._transport is not None
        self._transport.close()
        await self._lost


class Load:
    """All sessions and what they measured."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._given = given
        self.begin = time.perf_counter() + WARM_UP_S
        self.end = self.begin + given.seconds
        self.took: list[float] = []
        header = b"From: <a@src.test>\r\nTo: <%s>\r\nSubject: load\r\n\r\n"
        to = given.to.encode()
        body = header % to + _LINE * (4096 // len(_LINE))
        self._envelope = b"MAIL FROM:<a@src.test>\r\nRCPT TO:<%s>\r\nDATA\r\n" % to
        self._body = body + b".\r\n"
        self._pause_s = given.sessions / given.rate if given.rate else 0.0

    async def session(self, number: int) -> None:
        """Send messages over one connection after another."""
        loop = asyncio.get_running_loop()
        due = self.begin - WARM_UP_S + self._pause_s * number / self._given.sessions
        source = (SOURCES[number % len(SOURCES)], 0)
        while time.perf_counter() < self.end:
            _, client = await loop.create_connection(
                Client, "127.0.0.1", self._given.port, local_addr=source
            )
            try:
                async with asyncio.timeout_at(
                    loop.time() + self.end - time.perf_counter() + 1.0
                ):
                    await client.greeting()
                    await client.send(b"EHLO src.test\r\n", 1)
                    for _ in range(self._given.messages):
                        due = await self._wait(due)
                        if time.perf_counter() >= self.end:
                            break
                        await self._message(client)
                    await client.send(b"QUIT\r\n", 1)
            except TimeoutError:
                pass  # it waited for its turn until the end
            await client.close()

    async def _wait(self, due: float) -> float:
        if not self._pause_s:
            return due
        now = time.perf_counter()
        if due > now:
            await asyncio.sleep(min(due, self.end) - now)
            return due + self._pause_s
        return now + self._pause_s

    async def _message(self, client: Client) -> None:
        await client.send(self._envelope, 3)
        dot = time.perf_counter()
        await client.send(self._body, 1)
        now = time.perf_counter()
        if self.begin <= now <= self.end:
            self.took.append(now - dot)


async def run(given: argparse.Namespace) -> dict[str, float]:
    """Do it all; returns the result."""
    load, cpu = Load(given), _cpu_s()
    await asyncio.gather(*(load.session(n) for n in range(given.sessions)))
    took = sorted(load.took)
    if not took:
        raise ConnectionError("no message was answered in time")
    return {
        "count": len(took),
        "wall_s": given.seconds,
        "p50_ms": took[len(took) // 2] * 1e3,
        "p99_ms": took[len(took) * 99 // 100] * 1e3,
        "client_cpu_share": (_cpu_s() - cpu) / (given.seconds + WARM_UP_S),
    }


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--to", required=True)
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--messages", type=int, default=10, help="of one session")
    parser.add_argument("--rate", type=float, default=0.0, help="messages a second")
    parser.add_argument("--seconds", type=float, default=5.0)
    try:
        result = uvloop.run(run(parser.parse_args()))
    except OSError as error:
        print(f"SMTP load: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
