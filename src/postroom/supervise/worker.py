"""One worker's process: starting it, hearing from it, ending it.

A worker is alive as long as it gives signs of life on its link. One that is silent for
too long, or does not come up in time, is killed. Its process has been reaped before
anything of it (row of counters, shard, control socket) is given on.
"""

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress

import msgspec

from postroom.admin.link import (
    Heartbeat,
    Job,
    Ready,
    ToSupervisor,
    ToWorker,
    decode_to_supervisor,
    encode_message,
    read_lines,
    write_job,
)
from postroom.admin.settings import ProcessSettings
from postroom.mail.now import SECOND_US
from postroom.net.clock import read_mono_us
from postroom.net.connect import wrap
from postroom.net.stream import Stream
from postroom.supervise.identity import RunAs

WATCH_S = 0.25
"""How often signs of life are looked at."""
LATE_US = SECOND_US // 4
"""So much later than that, the supervisor has been held up (stopped, swapped out)."""


class Ended(msgspec.Struct, frozen=True):
    """How a worker's process ended.

    ``code`` is its exit status, negative for a signal. ``killed`` says why we killed
    it, empty if we did not. ``lived_us`` is how long it lived.
    """

    code: int
    killed: str
    lived_us: int

    @property
    def text(self) -> str:
        """The end in words."""
        if self.killed:
            return f"killed: {self.killed}"
        if self.code < 0:
            return f"died of signal {_signal_name(-self.code)}"
        return f"ended with status {self.code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return str(number)


class Worker:
    """A started process. Made by ``start_worker``; ``wait`` has to be awaited.

    Attributes:
        number: which worker it is.
        pid: its process.
        is_ready: whether it said that it accepts and delivers.
    """

    def __init__(
        self,
        number: int,
        process: subprocess.Popen[bytes],
        link: Stream,
        settings: ProcessSettings,
    ) -> None:
        self.number = number
        self.pid = process.pid
        self.is_ready = False
        self._process = process
        self._link = link
        self._settings = settings
        self._started_us = self._heard_us = read_mono_us()
        self._killed = ""
        self._gone = asyncio.get_running_loop().create_future()

    @property
    def is_overdue(self) -> bool:
        """Whether it works and should have given a sign of life long ago."""
        silent_us = read_mono_us() - self._heard_us
        return self.is_ready and silent_us > self._settings.heartbeat_timeout // 2

    def send(self, message: ToWorker) -> None:
        """Tell it something; lost if it is gone."""
        self._link.write(encode_message(message))

    def kill(self, why: str) -> None:
        """End it at once; what it had not settled is still in its shard."""
        if not self._gone.done():
            self._killed = self._killed or why
            self._process.kill()

    async def wait(self, heard: Callable[["Worker", ToSupervisor], None]) -> Ended:
        """Listen to it and watch over it until its process has been reaped.

        Args:
            heard: is told all that it says, apart from signs of life.
        """
        pidfd = os.pidfd_open(self.pid)
        loop = asyncio.get_running_loop()
        loop.add_reader(pidfd, self._note_gone, pidfd)
        listening = asyncio.create_task(self._listen(heard))
        try:
            while not self._gone.done():
                began_us = read_mono_us()
                await asyncio.wait([self._gone], timeout=WATCH_S)
                self._forgive(read_mono_us() - began_us)
                self._judge()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            if not self._gone.done():
                self._process.kill()
            self._end_programs()
            code = self._process.wait()
            # What it said last may still be unread.
            with suppress(TimeoutError):
                await asyncio.wait_for(listening, WATCH_S)
            self._link.abort()
        return Ended(code, self._killed, read_mono_us() - self._started_us)

    def _end_programs(self) -> None:
        """End what its policy hooks have started and left behind, in its group.

        To be called before it is reaped: until then nobody else has its number.
        """
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def _note_gone(self, pidfd: int) -> None:
        asyncio.get_running_loop().remove_reader(pidfd)
        if not self._gone.done():
            self._gone.set_result(None)

    async def _listen(self, heard: Callable[["Worker", ToSupervisor], None]) -> None:
        try:
            async for line in read_lines(self._link):
                self._heard_us = read_mono_us()
                message = decode_to_supervisor(line)
                if isinstance(message, Ready):
                    self.is_ready = True
                if not isinstance(message, Heartbeat):
                    heard(self, message)
        except ValueError as error:
            self.kill(f"it talks nonsense: {error}")

    def _forgive(self, waited_us: int) -> None:
        """Do not count as silence the time for which we stood still ourselves."""
        late_us = waited_us - round(WATCH_S * SECOND_US)
        if late_us > LATE_US:
            self._heard_us += late_us
            self._started_us += late_us

    def _judge(self) -> None:
        now_us = read_mono_us()
        silent_us = now_us - self._heard_us
        if self.is_ready and silent_us > self._settings.heartbeat_timeout:
            self.kill(f"no sign of life for {silent_us // 1_000_000} s")
        elif (
            not self.is_ready
            and now_us - self._started_us > self._settings.start_timeout
        ):
            self.kill("it did not come up in time")


async def start_worker(
    command: tuple[str, ...],
    job: Job,
    settings: ProcessSettings,
    run_as: RunAs | None,
    held_fd: int = -1,
) -> Worker:
    """Start a worker by exec of a fresh interpreter, as the user it has to run as.

    Args:
        command: the program; ``--job FD`` is put behind it.
        job: what it has to do; its ``link_fd`` is filled in here.
        settings: how it is watched.
        run_as: the identity to change to before the exec; None to stay.
        held_fd: an open file that it keeps, and never looks at; -1 for none.

    Raises:
        OSError: the program cannot be started as that user.
    """
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            job = msgspec.structs.replace(job, link_fd=theirs.fileno())
            process = _spawn(command, job, run_as, held_fd)
    except OSError:
        ours.close()
        raise
    return Worker(job.worker, process, await wrap(ours), settings)


def _spawn(
    command: tuple[str, ...], job: Job, run_as: RunAs | None, held_fd: int
) -> subprocess.Popen[bytes]:
    job_fd = write_job(job)
    kept = [job_fd, job.link_fd, *(one.fd for one in job.listeners)]
    kept += [fd for fd in (job.counters_fd, held_fd) if fd >= 0]
    try:
        return subprocess.Popen(  # noqa: S603 - our own program
            [*command, "--job", str(job_fd)],
            stdin=subprocess.DEVNULL,
            pass_fds=kept,
            process_group=0,  # Ctrl-C is for the supervisor only
            umask=0o077,
            env={**os.environ, **(run_as.environment if run_as else {})},
            user=run_as.uid if run_as else None,
            group=run_as.gid if run_as else None,
            extra_groups=run_as.groups if run_as else None,
        )
    finally:
        os.close(job_fd)
