"""Binding the listening sockets, which the supervisor keeps open for life.

A crash or reload of workers loses no waiting connection. Each worker has its own socket
for each address: the kernel deals connections out evenly, and wakes one worker
for each (SO_REUSEPORT), while a shared socket wakes all and lets the first take most.
What waits on a dead worker's socket is served by its successor. Addresses that the last
workers of a killed server still hold are waited for; anyone else's are an error at
once, which names the address and the remedy.

Sockets that systemd has bound are used in the place of our own. They are dealt out to
the workers like cards; where there are fewer than workers, some share one.
"""

import asyncio
import errno
import ipaddress
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from postroom.mail.now import SECOND_US
from postroom.net.clock import read_mono_us
from postroom.observe.owner import acting_as
from postroom.supervise.identity import RunAs
from postroom.supervise.plan import Listen, Plan
from postroom.supervise.systemd import Passed

BACKLOG = 4096
SUBMIT_SOCKET = "submit.sock"
"""Where the ``sendmail`` command connects; anyone may."""
RETRY_US = SECOND_US // 10


class Bound(NamedTuple):
    """A listener with its sockets; ``is_passed`` where systemd made them."""

    listen: Listen
    sockets: tuple[socket.socket, ...]
    is_passed: bool = False

    def of_worker(self, number: int, workers: int) -> tuple[socket.socket, ...]:
        """Return the sockets that one of so many workers accepts on.

        Each socket is some worker's, or what the kernel deals out to it would wait for
        ever; each worker has one, if need be one that others have too.
        """
        own = self.sockets[number :: max(1, workers)]
        return own or (self.sockets[number % len(self.sockets)],)

    def close(self) -> None:
        """Let go of the address."""
        for sock in self.sockets:
            sock.close()


class BindError(Exception):
    """An address cannot be listened on; the text says which, why, and what to do."""


async def bind_all(
    plan: Plan,
    passed: Sequence[Passed] = (),
    others_live: Callable[[], bool] = lambda: False,
    run_as: RunAs | None = None,
) -> list[Bound]:
    """Bind every address, and the submission socket in the run directory.

    Args:
        plan: says which, and how many workers want one each.
        passed: what systemd has bound already.
        others_live: whether workers of a former server may still have an address.
        run_as: whose the run directory is, if not our own.

    Raises:
        BindError: one of them cannot be had, or one that was passed has no use; none
            is kept.
    """
    bound: list[Bound] = []
    waiting = _Patience(plan, others_live)
    try:
        listens = [*plan.listens, submit_listen(plan.run_directory)]
        found = match_passed(listens, passed)
        for listen in listens:
            if listen in found:
                bound.append(Bound(listen, found[listen], is_passed=True))
            elif listen.port:
                bound.append(Bound(listen, await waiting.bind(listen)))
            else:
                sock = bind_unix(listen.ip, mode=0o666, run_as=run_as)
                bound.append(Bound(listen, (sock,)))
    except BaseException:
        for one in bound:
            one.close()
        raise
    return bound


def submit_listen(run_directory: str) -> Listen:
    """Return where the ``sendmail`` command connects, as a listener."""
    path = str(Path(run_directory) / SUBMIT_SOCKET)
    return Listen(service="submit", name="submit", ip=path, port=0)


def match_passed(
    listens: Sequence[Listen], passed: Sequence[Passed]
) -> dict[Listen, tuple[socket.socket, ...]]:
    """Find the listener of each socket that systemd has passed, by its address.

    Raises:
        BindError: the configuration does not listen there.
    """
    places = {_place(listen.ip, listen.port): listen for listen in listens}
    found: dict[Listen, tuple[socket.socket, ...]] = {}
    for one in passed:
        listen = places.get(_place(*one.place))
        if listen is None:
            known = ", ".join(listen.address for listen in listens if listen.port)
            raise BindError(
                f'systemd passed a socket on {one.address} ("{one.name}"), where the '
                f"configuration does not listen: it names {known or 'no address'}; "
                "make ListenStream= of the socket unit and [[listen]] the same"
            )
        found[listen] = (*found.get(listen, ()), one.sock)
    return found


def _place(ip: str, port: int) -> tuple[str, int]:
    """Write one address in one way only."""
    return (ip if not port else ipaddress.ip_address(ip).compressed), port


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


def bind_unix(
    path: str, *, mode: int, run_as: RunAs | None, backlog: int = BACKLOG
) -> socket.socket:
    """Bind and listen on a Unix socket, replacing what a former server left.

    It has its mode and its owner from its first moment on, and nothing is changed by
    name: that could be a link by then.

    Raises:
        BindError: the path is too long, or not to be written.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o777 & ~mode)
    try:
        with acting_as(run_as.uid, run_as.gid) if run_as else nullcontext():
            Path(path).unlink(missing_ok=True)
            sock.setblocking(False)
            sock.bind(path)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        why = f"cannot listen on {path}: {error.strerror or error}"
        if run_as is not None and error.errno == errno.EACCES:
            why += f": {Path(path).parent} has to belong to {run_as.name}"
        raise BindError(why) from error
    finally:
        os.umask(before)
    return sock


class _Patience(NamedTuple):
    """Binds addresses that the last workers of a killed server may still have."""

    plan: Plan
    others_live: Callable[[], bool]

    async def bind(self, listen: Listen) -> tuple[socket.socket, ...]:
        until_us = read_mono_us() + self.plan.process.bind_timeout
        is_theirs = True
        while True:
            try:
                return bind_tcp(listen, self.plan.workers)
            except OSError as error:
                # Once more after the last was seen: it may just have ended.
                may_end = error.errno == errno.EADDRINUSE and is_theirs
                if not may_end:
                    raise BindError(_explain(listen, error)) from error
                if read_mono_us() >= until_us:
                    raise BindError(self._still_there(listen)) from error
            is_theirs = self.others_live()
            await asyncio.sleep(RETRY_US / SECOND_US)

    def _still_there(self, listen: Listen) -> str:
        return (
            f"cannot listen on {listen.address} ({listen.name}): workers of a former "
            f"server still have it after {self.plan.process.bind_timeout.seconds:g} s; "
            f"their process ids are in {self.plan.spool_directory}/shard-*/lock"
        )


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
