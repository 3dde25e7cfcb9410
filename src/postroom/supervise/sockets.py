"""Binding the listening sockets, which the supervisor keeps open for life.

A crash or reload of workers loses no waiting connection. Addresses that the last
workers of a killed server still hold are waited for; anyone else's are an error at
once, which names the address and the remedy.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from postroom.mail.now import SECOND_US
from postroom.mail.units import Duration
from postroom.net.clock import read_mono_us
from postroom.supervise.plan import Listen

BACKLOG = 4096
SUBMIT_SOCKET = "submit.sock"
"""Where the ``sendmail`` command connects; anyone may."""
RETRY_US = SECOND_US // 10


class BindError(Exception):
    """An address cannot be listened on; the text says which, why, and what to do."""


async def bind_all(
    listens: Sequence[Listen], run_directory: str, patience: Duration
) -> list[tuple[Listen, socket.socket]]:
    """Bind every address, and the submission socket in the run directory.

    Raises:
        BindError: one of them cannot be had; none is kept.
    """
    bound: list[tuple[Listen, socket.socket]] = []
    try:
        for listen in listens:
            sock = await _bind_patiently(listen, run_directory, patience)
            bound.append((listen, sock))
        path = str(Path(run_directory) / SUBMIT_SOCKET)
        submit = Listen(service="submit", name="submit", ip=path, port=0)
        bound.append((submit, bind_unix(path, mode=0o666)))
    except BaseException:
        for _, sock in bound:
            sock.close()
        raise
    return bound


def bind_tcp(listen: Listen) -> socket.socket:
    """Bind and listen on one TCP address.

    Raises:
        OSError: the address is taken, not ours, or needs root.
    """
    family = socket.AF_INET6 if ":" in listen.ip else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind((listen.ip, listen.port))
        sock.listen(BACKLOG)
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
    listen: Listen, run_directory: str, patience: Duration
) -> socket.socket:
    until_us = read_mono_us() + patience
    while True:
        try:
            return bind_tcp(listen)
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
