"""A small name server for tests and the demo: UDP and TCP, true answers and lies.

In a test::

    async with NameServer(Zone(["gonzo.test MX 10 mx.gonzo.test"])) as server:
        ResolverSettings(nameservers=(server.address,))

As a program: ``python -m postroom.testing.nameserver --listen 127.0.0.1:5300 --zone
FILE``; it prints one line when it listens, and runs until TERM or Ctrl-C. A zone
that cannot be read, or a port that is taken, ends it with status 1 and a message.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import cast

from postroom.dns.nameserver import Nameserver
from postroom.testing.lies import replies
from postroom.testing.zone import Zone

_PORT_TRIES = 20
_TCP_IDLE_S = 10.0


class NameServer:
    """Answers from a zone; use it as an asynchronous context manager.

    ``udp_questions`` and ``tcp_questions`` count what was asked.

    Args:
        zone: what it knows; may be changed while it runs.
        listen: address and port; port 0 takes a free one.

    Raises:
        ValueError: ``listen`` is no address with a port.
    """

    def __init__(self, zone: Zone, listen: str = "127.0.0.1:0") -> None:
        self.zone = zone
        self.udp_questions = 0
        self.tcp_questions = 0
        self._ip, self._port = _place(listen)
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def address(self) -> str:
        """Where it listens, as the resolver's settings want it."""
        return str(Nameserver(self._ip, self._port))

    async def start(self) -> None:
        """Listen. Raises ``OSError`` if the port is taken."""
        for tries_left in reversed(range(_PORT_TRIES if not self._port else 1)):
            self._tcp = await asyncio.start_server(self._serve, self._ip, self._port)
            port = self._tcp.sockets[0].getsockname()[1]
            try:
                self._udp = await self._listen_udp(port)
            except OSError:
                self._tcp.close()
                if not tries_left:
                    raise
            else:
                self._port = port
                return

    async def aclose(self) -> None:
        """Stop listening and drop connections."""
        if self._udp:
            self._udp.abort()
        if self._tcp:
            self._tcp.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)  # lets the transports close their sockets

    async def __aenter__(self) -> "NameServer":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _listen_udp(self, port: int) -> asyncio.DatagramTransport:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self), local_addr=(self._ip, port)
        )
        return transport

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._writers.add(writer)
        try:
            while await self._serve_one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass  # the client has gone
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _serve_one(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        async with asyncio.timeout(_TCP_IDLE_S):
            size = int.from_bytes(await reader.readexactly(2), "big")
            wire = await reader.readexactly(size)
        self.tcp_questions += 1
        answers = replies(self.zone, wire, tcp=True)
        for answer in answers:
            writer.write(len(answer).to_bytes(2, "big") + answer)
        await writer.drain()
        return bool(answers)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._server.udp_questions += 1
        assert self._transport is not None
        for answer in replies(self._server.zone, data, tcp=False):
            self._transport.sendto(answer, addr)


def _place(listen: str) -> tuple[str, int]:
    ip, _, port = listen.rpartition(":")
    if port == "0":
        return ip.strip("[]"), 0
    server = Nameserver.from_text(listen)
    return server.ip, server.port


async def _run(server: NameServer, ready_fd: int | None) -> int:
    try:
        await server.start()
    except OSError as error:
        why = f"cannot listen on {server.address}: {error.strerror}"
        print(f"nameserver: {why}; choose another port with --listen", file=sys.stderr)
        return 1
    line = f"nameserver: listening on {server.address}\n"
    print(line, end="", flush=True)
    if ready_fd is not None:
        os.write(ready_fd, line.encode())
        os.close(ready_fd)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await ended.wait()
    await server.aclose()
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run as a program; returns the exit status."""
    parser = argparse.ArgumentParser(prog="nameserver", description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:5300", metavar="IP:PORT")
    parser.add_argument("--zone", required=True, metavar="FILE")
    parser.add_argument("--ready-fd", type=int, metavar="FD")
    options = parser.parse_args(arguments)
    try:
        zone = Zone.from_text(Path(options.zone).read_text("utf-8"))
        server = NameServer(zone, options.listen)
    except (OSError, ValueError) as error:
        print(f"nameserver: {error}", file=sys.stderr)
        return 1
    with contextlib.suppress(KeyboardInterrupt):
        return asyncio.run(_run(server, options.ready_fd))
    return 0


if __name__ == "__main__":
    sys.exit(main())
