"""What the supervisor and its workers say to each other, and the worker's end of it.

A worker is started as ``python -m postroom.app --job FD``; ``FD`` holds a ``Job`` as
JSON (``read_job``). From then on both sides speak over a socket pair, one JSON object
a line. A worker whose supervisor is gone learns it by the end of the stream
(``SupervisorLink`` ends its iteration): it has to stop accepting, settle, and end.
"""

import asyncio
import fcntl
import os
import socket
from collections.abc import AsyncIterator

import msgspec

from postroom.mail.now import SECOND_US
from postroom.mail.units import Duration
from postroom.net.connect import wrap
from postroom.net.keys import NO_KEYS, Keys
from postroom.net.stream import Stream, StreamError

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK

LINE_OCTETS_MAX = 4 * 1024 * 1024
"""Longest message on the link; a longer one means a broken peer."""


class ListenFd(msgspec.Struct, frozen=True):
    """A listening socket that the supervisor has bound and hands on.

    ``service`` is what it serves (``smtp``, ``pop3``, ``submit``), ``name`` the
    listener's name in the configuration, ``address`` what it is bound to, as text.
    """

    service: str
    name: str
    address: str
    fd: int


class Job(msgspec.Struct, frozen=True):
    """What a worker is started with.

    Attributes:
        worker: its number, 0 to ``workers`` - 1: its row in the counters, its control
            socket, and its shard.
        workers: how many there are. Shards with numbers beyond belong to nobody: a
            worker adopts those with ``number % workers == worker``.
        generation: grows with every start of any worker, also over restarts of the
            supervisor: the fence of its leases.
        config_path: the configuration file, absolute.
        config_text: its text when it was last found good, which is what is in force:
            the file itself may have been broken since.
        listeners: the sockets to accept on; they stay the supervisor's.
        link_fd: the worker's end of the socket pair; -1 without a supervisor.
        counters_fd: the memory shared by all workers for limits; -1 for none.
        heartbeat: how often to give a sign of life.
        crashes: how often in a row this worker has ended badly before.
        keys: certificates and keys, which the supervisor has read.
    """

    worker: int
    workers: int
    generation: int
    config_path: str
    config_text: str
    listeners: tuple[ListenFd, ...]
    link_fd: int = -1
    counters_fd: int = -1
    heartbeat: Duration = Duration(2 * SECOND_US)
    crashes: int = 0
    keys: Keys = NO_KEYS

    @property
    def shard(self) -> int:
        """The number of the spool shard it holds."""
        return self.worker


class Prepare(msgspec.Struct, frozen=True, tag="prepare"):
    """Build a new generation from this configuration; answer, do not swap."""

    generation: int
    config_text: str
    keys: Keys = NO_KEYS


class Renew(msgspec.Struct, frozen=True, tag="renew"):
    """Certificates have changed: use these for handshakes from now on."""

    keys: Keys


class Commit(msgspec.Struct, frozen=True, tag="commit"):
    """All workers are prepared: swap now."""

    generation: int


class Abort(msgspec.Struct, frozen=True, tag="abort"):
    """Some worker cannot: throw the prepared generation away."""

    generation: int


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Stop accepting, finish what is in hand, then end with 0."""


class ReopenLogs(msgspec.Struct, frozen=True, tag="reopen_logs"):
    """The log file was moved away: make a new one."""


ToWorker = Prepare | Renew | Commit | Abort | Drain | ReopenLogs


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The worker accepts and delivers."""

    pid: int


class Heartbeat(msgspec.Struct, frozen=True, tag="heartbeat"):
    """The worker's loop still turns."""


class Prepared(msgspec.Struct, frozen=True, tag="prepared"):
    """The generation is built and waits for ``Commit`` or ``Abort``."""

    generation: int


class Cannot(msgspec.Struct, frozen=True, tag="cannot"):
    """The generation cannot be built; ``why`` is fit for a person."""

    generation: int
    why: str


ToSupervisor = Ready | Heartbeat | Prepared | Cannot


def encode_unit(value: object) -> object:
    """Write durations and sizes as the plain numbers they are (``enc_hook``)."""
    if isinstance(value, int):
        return int(value)
    raise NotImplementedError(type(value))


def decode_unit(kind: type, value: object) -> object:
    """Read durations back from plain numbers (``dec_hook``)."""
    if kind is Duration and isinstance(value, int):
        return Duration(value)
    raise NotImplementedError(kind)


_to_line = msgspec.json.Encoder(enc_hook=encode_unit).encode
_job = msgspec.json.Decoder(Job, dec_hook=decode_unit)
_to_worker: msgspec.json.Decoder[ToWorker] = msgspec.json.Decoder(ToWorker)
_to_supervisor: msgspec.json.Decoder[ToSupervisor] = msgspec.json.Decoder(ToSupervisor)


def write_job(job: Job) -> int:
    """Put a job where the worker can read it; returns an inheritable descriptor."""
    fd = os.memfd_create("postroom-job", os.MFD_ALLOW_SEALING)
    os.write(fd, _to_line(job))
    os.lseek(fd, 0, os.SEEK_SET)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)  # it holds keys: nobody changes it
    return fd


def read_job(fd: int) -> Job:
    """Read the job that ``write_job`` left, and close its descriptor.

    Raises:
        ValueError: it is no job: the program was not started by a supervisor.
        OSError: the descriptor is not there.
    """
    with os.fdopen(fd, "rb") as file:
        return _job.decode(file.read())


def encode_message(message: ToWorker | ToSupervisor) -> bytes:
    """Return a message as a line."""
    return _to_line(message) + b"\n"


def decode_to_supervisor(line: bytes) -> ToSupervisor:
    """Read a worker's line.

    Raises:
        ValueError: it is none.
    """
    return _to_supervisor.decode(line)


def decode_to_worker(line: bytes) -> ToWorker:
    """Read the supervisor's line.

    Raises:
        ValueError: it is none.
    """
    return _to_worker.decode(line)


async def read_lines(stream: Stream) -> AsyncIterator[bytes]:
    """Yield lines without their ends until the peer is gone.

    Raises:
        ValueError: a line is longer than ``LINE_OCTETS_MAX``.
    """
    rest = b""
    while True:
        try:
            data = await stream.read()
        except StreamError:
            return
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line
        if len(rest) > LINE_OCTETS_MAX:
            raise ValueError(f"line longer than {LINE_OCTETS_MAX} octets")


class SupervisorLink:
    """The worker's end of the link. Made by ``open_link`` on the worker's loop.

    Iterate over it for what the supervisor wants; the iteration ends when the
    supervisor is gone. Signs of life are sent by themselves while the loop turns.
    """

    def __init__(self, stream: Stream, heartbeat: Duration) -> None:
        self._stream = stream
        self._heartbeat_s = heartbeat.seconds
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._beat()

    def send(self, message: ToSupervisor) -> None:
        """Tell the supervisor. Does nothing when it is gone."""
        self._stream.write(encode_message(message))

    def ready(self) -> None:
        """Tell that the worker accepts and delivers."""
        self.send(Ready(os.getpid()))

    async def __aiter__(self) -> AsyncIterator[ToWorker]:
        async for line in read_lines(self._stream):
            yield decode_to_worker(line)

    def close(self) -> None:
        """Give no more signs of life and close."""
        if self._timer is not None:
            self._timer.cancel()
        self._stream.close()

    def _beat(self) -> None:
        self.send(Heartbeat())
        self._timer = self._loop.call_later(self._heartbeat_s, self._beat)


async def open_link(job: Job) -> SupervisorLink:
    """Take up the link that the job names.

    Raises:
        OSError: there is none.
    """
    return SupervisorLink(await wrap(socket.socket(fileno=job.link_fd)), job.heartbeat)
