"""Carries one DNS question to one server and brings back what answers it.

UDP goes from a fresh socket each time: the kernel picks a random source port and,
since the socket is connected, drops what comes from another address. Octets that do
not answer the question are ignored and waiting goes on (RFC 5452 §9.1). A truncated
answer is fetched by TCP, or counts as none. Failures are values: ``Refused``.
"""

import asyncio

import msgspec

from postroom.dns.answer import (
    Answer,
    Continues,
    NotOurs,
    Query,
    Refused,
    Truncated,
    TtlLimits,
    read_reply,
)
from postroom.dns.nameserver import Nameserver
from postroom.mail.units import Duration

Carried = Answer | Continues | Refused
"""What asking one server once can come to."""


class Limits(msgspec.Struct, frozen=True):
    """How long to wait for one server, and how long to believe it."""

    timeout: Duration
    ttl: TtlLimits


async def ask(
    server: Nameserver, query: Query, limits: Limits, seen: frozenset[str]
) -> Carried:
    """Ask one server once, by UDP and then, if the answer is truncated, by TCP.

    ``seen`` is the alias chain so far. Never raises for what servers or networks do.
    """
    wait = f"no answer in {limits.timeout.to_text()}"
    try:
        async with asyncio.timeout(limits.timeout.seconds):
            judged = await _ask_udp(server, query, limits, seen)
    except TimeoutError:
        return Refused(wait, answered=False)
    except OSError as error:
        return Refused(_why(error), answered=False)
    if not isinstance(judged, Truncated):
        return judged
    try:
        async with asyncio.timeout(limits.timeout.seconds):
            return await _ask_tcp(server, query, limits, seen)
    except TimeoutError:
        return Refused(f"truncated answer, and {wait} by TCP")
    except (OSError, asyncio.IncompleteReadError) as error:
        return Refused(f"truncated answer, and by TCP: {_why(error)}")


class _Waiting(asyncio.DatagramProtocol):
    """Judges each datagram; the first that answers the question ends the wait."""

    def __init__(self, query: Query, limits: Limits, seen: frozenset[str]) -> None:
        self._question = query, limits.ttl, seen
        loop = asyncio.get_running_loop()
        self.judged: asyncio.Future[Carried | Truncated] = loop.create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:
        judged = read_reply(data, *self._question)
        if not isinstance(judged, NotOurs) and not self.judged.done():
            self.judged.set_result(judged)

    def error_received(self, exc: Exception) -> None:
        """An ICMP error: nobody listens there."""
        if not self.judged.done():
            self.judged.set_result(Refused(_why(exc), answered=False))


async def _ask_udp(
    server: Nameserver, query: Query, limits: Limits, seen: frozenset[str]
) -> Carried | Truncated:
    transport, waiting = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Waiting(query, limits, seen), remote_addr=(server.ip, server.port)
    )
    try:
        transport.sendto(query.wire)
        return await waiting.judged
    finally:
        transport.abort()


async def _ask_tcp(
    server: Nameserver, query: Query, limits: Limits, seen: frozenset[str]
) -> Carried:
    reader, writer = await asyncio.open_connection(server.ip, server.port)
    try:
        writer.write(len(query.wire).to_bytes(2, "big") + query.wire)
        while True:  # RFC 1035 §4.2.2: each message after its length in two octets
            size = int.from_bytes(await reader.readexactly(2), "big")
            wire = await reader.readexactly(size)
            judged = read_reply(wire, query, limits.ttl, seen)
            if isinstance(judged, Truncated):
                return Refused("truncated answer, even by TCP")
            if not isinstance(judged, NotOurs):
                return judged
    finally:
        writer.transport.abort()


def _why(error: Exception) -> str:
    if isinstance(error, asyncio.IncompleteReadError):
        return "connection closed"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
