"""Idle and trickling connections: ``make bench-slow``.

Two thousand clients say EHLO and then nothing, five hundred send a message by one octet
a second; meanwhile a new client is greeted, again and again. In the end as many come
as may, and one more. Ends with 1 if a goal is missed, by itself within two minutes.
"""

import argparse
import asyncio
import resource
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import uvloop
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.packages import BenchError
from bench.servers import MemoryWatch, Server
from postroom.testing.host import Host, HostError

PORT = 3525
IDLE, TRICKLING, SPARE = 2_000, 500, 20
GREETING_S_MAX = 1.0
MEMORY_MAX = 300_000_000
TOTAL_S_MAX = 110.0
WORKERS = 2
SOURCES = tuple(f"127.0.6.{n}" for n in range(1, 101))
"""Whence connections come: there is a limit on those from one address."""
_DATA = b"MAIL FROM:<a@src.test>\r\nRCPT TO:<joe@slow.test>\r\nDATA\r\n"
_CONFIG = """\
hostname = "slow.test"
run_directory = "run"
drop_directory = "drop"
users_file = "users"

[[listen]]
address = "127.0.0.1:{port}"
[process]
workers = {workers}
[receive]
sessions_max = {sessions_max}
[policy]
sender_domain_real = false
[spool]
directory = "spool"
[mailbox]
path = "mail/{{user}}"
[log]
to = "log"
"""


class Finding(NamedTuple):
    """One goal and what was measured."""

    what: str
    wanted: str
    found: str
    is_met: bool


class Client(asyncio.Protocol):
    """A connection that says what it is told and keeps what it hears."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.transport: asyncio.Transport | None = None
        self.is_lost = False
        self._news = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.heard += data
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._news.set()

    def say(self, octets: bytes) -> None:
        if self.transport is not None and not self.is_lost:
            self.transport.write(octets)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    async def hear(self, mark: bytes, s_max: float = 30.0) -> None:
        """Wait until a mark was heard.

        Raises:
            ConnectionError: the server hung up.
            TimeoutError: it did not say it in time.
        """
        async with asyncio.timeout(s_max):
            while mark not in self.heard:
                if self.is_lost:
                    raise ConnectionError(f"hung up after {bytes(self.heard[-200:])!r}")
                self._news.clear()
                await self._news.wait()


async def call(port: int, number: int) -> Client:
    """Connect, from one address after the other."""
    loop = asyncio.get_running_loop()
    source = (SOURCES[number % len(SOURCES)], 0)
    _, client = await loop.create_connection(
        Client, "127.0.0.1", port, local_addr=source
    )
    return client


class Crowd:
    """All connections of the run."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.idle: list[Client] = []
        self.trickling: list[Client] = []

    async def gather(self) -> None:
        """Open all connections, fifty at a time."""
        for begin in range(0, IDLE, 50):
            batch = range(begin, min(begin + 50, IDLE))
            self.idle += await asyncio.gather(*map(self._idle, batch))
        for begin in range(0, TRICKLING, 50):
            batch = range(begin, min(begin + 50, TRICKLING))
            self.trickling += await asyncio.gather(*map(self._trickling, batch))

    async def _idle(self, number: int) -> Client:
        client = await call(self._port, number)
        await client.hear(b"220 ")
        client.say(b"EHLO idle.test\r\n")
        await client.hear(b"250 ")
        return client

    async def _trickling(self, number: int) -> Client:
        client = await self._idle(number)
        client.say(_DATA)
        await client.hear(b"354 ")
        return client

    async def trickle(self) -> None:
        """Send an octet on each such connection, every second, until cancelled."""
        letter = b"Subject: slow\r\n\r\n" + b"word " * 1_000
        for octet in letter:
            for client in self.trickling:
                client.say(bytes((octet,)))
            await asyncio.sleep(1.0)

    @property
    def lost(self) -> int:
        """How many the server has closed."""
        return sum(one.is_lost for one in (*self.idle, *self.trickling))

    def close(self) -> None:
        for client in (*self.idle, *self.trickling):
            client.close()


async def greeted(port: int, count: int) -> list[float]:
    """Return how long new clients, one after another, waited for their greeting."""
    took: list[float] = []
    for number in range(count):
        begin = time.perf_counter()
        client = await call(port, number)
        await client.hear(b"220 ")
        took.append(time.perf_counter() - begin)
        client.say(b"QUIT\r\n")
        await client.hear(b"221 ")
        client.close()
        await asyncio.sleep(0.2)
    return took


async def at_the_limit(port: int, crowd: Crowd, sessions_max: int) -> Finding:
    """Fill what is left and come once more."""
    more: list[Client] = []
    answers = {b"220": 0, b"421": 0}
    for number in range(sessions_max - IDLE - TRICKLING + SPARE):
        client = await call(port, number)
        more.append(client)
        await client.hear(b"\r\n")
        answers[bytes(client.heard[:3])] += 1
    refused = answers[b"421"]
    for client in more:
        client.close()
    return Finding(
        f"{SPARE} connections over sessions_max = {sessions_max}",
        f"421 for {SPARE}",
        f"421 for {refused}, the {answers[b'220']} before them are greeted",
        refused == SPARE,
    )


async def measure(
    port: int, server: Server, sessions_max: int, seconds: float
) -> list[Finding]:
    """Do it all; returns the findings."""
    crowd = Crowd(port)
    began = time.perf_counter()
    with MemoryWatch(server) as memory:
        await crowd.gather()
        gathered_s = time.perf_counter() - began
        trickle = asyncio.create_task(crowd.trickle())
        cpu_s, begin = server.cpu_s(), time.perf_counter()
        took = sorted(await greeted(port, int(seconds / 0.2)))
        cpu_share = (server.cpu_s() - cpu_s) / (time.perf_counter() - begin)
        limit = await at_the_limit(port, crowd, sessions_max)
        trickle.cancel()
        lost = crowd.lost
    crowd.close()
    middle_ms, slowest_ms = took[len(took) // 2] * 1e3, took[-1] * 1e3
    return [
        Finding(
            f"{IDLE:,} idle and {TRICKLING} trickling connections",
            "none closed",
            f"{lost} closed; all open after {gathered_s:.1f} s",
            lost == 0,
        ),
        Finding(
            f"a new client waits for its greeting, {len(took)} times",
            f"under {GREETING_S_MAX:g} s",
            f"median {middle_ms:.1f} ms, longest {slowest_ms:.1f} ms",
            took[-1] < GREETING_S_MAX,
        ),
        Finding(
            "memory of all our processes (PSS)",
            f"under {MEMORY_MAX / 1e6:.0f} MB",
            f"{memory.peak_octets / 1e6:.0f} MB; {cpu_share:.2f} of a core",
            memory.peak_octets < MEMORY_MAX,
        ),
        limit,
    ]


class _Slow(Server):
    """Our server, as the memory watch wants it."""

    name = "Postroom"

    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host
        self.process = host.process


def _allow_files(count: int) -> None:
    """Let this process, and the server it starts, open so many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= count:
        return
    if hard < count:
        raise BenchError(
            f"{count} open files are needed, {hard} are allowed: ulimit -n"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def main() -> int:
    """Run it; returns the exit status."""
    given = _arguments()
    console = Console(width=None if sys.stdout.isatty() else 120)
    folder = given.directory.resolve() / "slow"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    sessions_max = IDLE + TRICKLING + SPARE
    config = _CONFIG.format(port=given.port, workers=WORKERS, sessions_max=sessions_max)
    host = Host(folder, config, [("127.0.0.1", given.port)])
    (folder / "users").write_text("joe\n")
    (folder / "users").chmod(0o600)
    began = time.monotonic()
    try:
        _allow_files(2 * sessions_max + 200)
        host.start()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            work = measure(given.port, _Slow(host), sessions_max, given.seconds)
            findings = runner.run(asyncio.wait_for(work, TOTAL_S_MAX))
    except (BenchError, HostError, OSError) as error:
        console.print(f"The bench cannot go on: {error}", style="red", markup=False)
        return 69
    finally:
        host.stop()
    return _conclude(console, findings, time.monotonic() - began)


def _conclude(console: Console, findings: Sequence[Finding], took_s: float) -> int:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("", "goal", "measured", ""):
        table.add_column(title)
    for one in findings:
        word = Text("met", "green") if one.is_met else Text("MISSED", "bold red")
        table.add_row(one.what, one.wanted, one.found, word)
    console.print(table)
    missed = sum(not one.is_met for one in findings)
    text = f"{missed} goals missed" if missed else "All goals are met"
    console.print(f"{text}; {WORKERS} workers, {took_s:.0f} s.", highlight=False)
    return 1 if missed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.slow", description=__doc__)
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--seconds", type=float, default=30.0, help="of greeting")
    parser.add_argument("--directory", type=Path, default=Path(".bench"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
