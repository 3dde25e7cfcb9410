"""Binding the listening sockets, which the supervisor keeps open for life.

A crash or reload of workers loses no waiting connection. Each worker has its own socket
for each address: the kernel deals connections out evenly, and wakes one worker
for each (SO_REUSEPORT), while a shared socket wakes all and lets the first take most.
What waits on a dead worker's socket is served by its successor. Addresses that the last
workers of a killed server still hold are waited for; anyone else's are an error at
once, which names the address and the remedy.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from postroom.mail.now import SECOND_US
from postroom.mail.units import Duration
from postroom.net.clock import read_mono_us
from postroom.supervise.plan import Listen

BACKLOG = 4096
SUBMIT_SOCKET = "submit.sock"
"""Where the ``sendmail`` command connects; anyone may."""
RETRY_US = SECOND_US // 10


class Bound(NamedTuple):
    """A listener with its sockets: one for each worker, or one that all share."""

    listen: Listen
    sockets: tuple[socket.socket, ...]

    def of_worker(self, number: int) -> socket.socket:
        """Return the socket that a worker accepts on."""
        return self.sockets[number % len(self.sockets)]

    def close(self) -> None:
        """Let go of the address."""
        for sock in self.sockets:
            sock.close()


class BindError(Exception):
    """An address cannot be listened on; the text says which, why, and what to do."""


async def bind_all(
    listens: Sequence[Listen], run_directory: str, patience: Duration, workers: int = 1
) -> list[Bound]:
    """Bind every address, and the submission socket in the run directory.

    Raises:
        BindError: one of them cannot be had; none is kept.
    """
    bound: list[Bound] = []
    try:
        for listen in listens:
            sockets = await _bind_patiently(listen, run_directory, patience, workers)
            bound.append(Bound(listen, sockets))
        path = str(Path(run_directory) / SUBMIT_SOCKET)
        submit = Listen(service="submit", name="submit", ip=path, port=0)
        bound.append(Bound(submit, (bind_unix(path, mode=0o666),)))
    except BaseException:
        for one in bound:
            one.close()
        raise
    return bound


def bind_tcp(listen: Listen, workers: int = 1) -> tuple[socket.socket, ...]:
    """Bind and listen on one TCP address, once for each worker.

    Raises:
        OSError: the address is taken, not ours, or needs root.
    """
    # The kernel would let any process of our user join in: be sure to be alone.
    _bind(listen, shared=False).close()
    sockets: list[socket.socket] = []
    try:
        for _ in range(max(1, workers)):
            sockets.append(_bind(listen, shared=True))
            sockets[-1].listen(BACKLOG)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return tuple(sockets)


def _bind(listen: Listen, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in listen.ip else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind((listen.ip, listen.port))
    except BaseException:
        sock.close()
        raise
    return sock


def bind_unix(path: str, *, mode: int) -> socket.socket:
    """Bind and listen on a Unix socket, replacing what a former server left.

    Raises:
        BindError: the path is too long, or not to be written.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        Path(path).unlink(missing_ok=True)
        sock.setblocking(False)
        sock.bind(path)
        Path(path).chmod(mode)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise BindError(f"cannot listen on {path}: {error}") from error
    return sock


async def _bind_patiently(
    listen: Listen, run_directory: str, patience: Duration, workers: int
) -> tuple[socket.socket, ...]:
    until_us = read_mono_us() + patience
    while True:
        try:
            return bind_tcp(listen, workers)
        except OSError as error:
            is_ours = error.errno == errno.EADDRINUSE and _old_workers(run_directory)
            if not is_ours or read_mono_us() >= until_us:
                raise BindError(_explain(listen, error)) from error
        await asyncio.sleep(RETRY_US / SECOND_US)


def _old_workers(run_directory: str) -> bool:
    """Whether workers of a former server still answer on their control sockets."""
    for path in Path(run_directory).glob("worker-*.sock"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1)
            if probe.connect_ex(str(path)) == 0:
                return True
    return False


def _explain(listen: Listen, error: OSError) -> str:
    where = f"cannot listen on {listen.address} ({listen.name})"
    match error.errno:
        case errno.EADDRINUSE:
            return (
                f"{where}: another program has it; stop that program "
                f'("ss -ltnp sport = :{listen.port}" shows it), or change the address '
                "in the configuration"
            )
        case errno.EACCES | errno.EPERM:
            return (
                f"{where}: ports below 1024 need root; start it as root with a user "
                "to run as, or choose a higher port"
            )
        case errno.EADDRNOTAVAIL:
            return f"{where}: this machine has no such address"
        case _:
            return f"{where}: {os.strerror(error.errno or 0)}"
