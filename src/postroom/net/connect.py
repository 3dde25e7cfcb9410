"""Streams that we begin: by TCP, by a Unix socket, or from a connected socket."""

import asyncio
import socket
from typing import NoReturn

from postroom.mail.units import Duration
from postroom.net.stream import Stream, StreamTimeout


async def connect(
    ip: str,
    port: int,
    *,
    timeout: Duration,  # noqa: ASYNC109 - a cap of ours, in our unit
    source_ip: str | None = None,
) -> Stream:
    """Connect by TCP, from ``source_ip`` if given.

    Raises:
        StreamTimeout: no answer within ``timeout``.
        OSError: refused, unreachable, or the source address is not ours.
    """
    loop = asyncio.get_running_loop()
    source = (source_ip, 0) if source_ip else None
    try:
        async with asyncio.timeout(timeout.seconds):
            _, stream = await loop.create_connection(
                Stream, ip, port, local_addr=source
            )
    except TimeoutError as error:
        _raise_timeout(error, f"no answer from {ip} port {port}")
    return stream


async def connect_unix(
    path: str,
    *,
    timeout: Duration | None = None,  # noqa: ASYNC109 - as in connect
) -> Stream:
    """Connect to a Unix socket.

    Raises:
        StreamTimeout: the server did not accept within ``timeout``.
        OSError: nobody listens there, or we may not.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout.seconds if timeout is not None else None):
            _, stream = await loop.create_unix_connection(Stream, path)
    except TimeoutError as error:
        _raise_timeout(error, f"no answer on {path}")
    return stream


async def wrap(sock: socket.socket) -> Stream:
    """Make a stream of a connected socket, which from then on belongs to it."""
    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    if sock.family == socket.AF_UNIX:
        _, stream = await loop.create_unix_connection(Stream, sock=sock)
    else:
        _, stream = await loop.create_connection(Stream, sock=sock)
    return stream


def _raise_timeout(error: Exception, text: str) -> NoReturn:
    if isinstance(error, OSError) and error.errno is not None:
        raise error  # ETIMEDOUT from the kernel is an OSError as any other
    raise StreamTimeout(text) from error
