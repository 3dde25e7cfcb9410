"""What every scenario works with: places, ports, servers, and programs to run.

Whatever is started here is ended by its own id, also if the bench is interrupted.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.certificate import certificate
from bench.dovecot import Dovecot
from bench.mailboxes import Mailboxes
from bench.measures import OURS
from bench.ours import Postroom
from bench.packages import BenchError, environment
from bench.postfix import Postfix
from bench.servers import Server, wait_for_port
from postroom.testing.host import UNPRIVILEGED, check_free

PROGRAM_S_MAX = 180.0
_SENT = re.compile(rb"stat(?:us)?=sent", re.IGNORECASE)


class Ports(NamedTuple):
    """Where things listen, all on 127.0.0.1."""

    ours: int = 3525
    sink: int = 3526
    postfix: int = 3527
    our_pop3: int = 3110
    dovecot: int = 3111
    our_submission: int = 3528
    postfix_submission: int = 3529


class Wants(NamedTuple):
    """What a scenario wants of a mail server beside its defaults.

    Attributes:
        message_octets_max: the largest message it is to take; 0 for its default.
        is_secure: whether it has a certificate and a port for submission.
    """

    message_octets_max: int = 0
    is_secure: bool = False


PLAIN = Wants()
WARM_UP = 200


class Ground:
    """The place of one run of the bench.

    Args:
        folder: where everything is written.
        root: where the Debian packages are unpacked; None if they cannot be had.
        quick: whether a tenth of the load will do.
    """

    def __init__(self, folder: Path, root: Path | None, *, quick: bool) -> None:
        self.folder = folder
        self.root = root
        self.quick = quick
        self.ports = Ports()

    def count(self, full: int) -> int:
        """Return how many operations to do where ``full`` make a full run."""
        return max(full // 10, 1) if self.quick else full

    def seconds(self, full: float) -> float:
        """The same for a time."""
        return max(full / 5, 1.0) if self.quick else full

    @contextmanager
    def mail_server(
        self, side: str, wants: Wants = PLAIN
    ) -> Iterator[Postroom | Postfix]:
        """Start an SMTP server afresh; it is stopped in the end."""
        server = self._mail_server(side, wants)
        with self._running(server):
            yield server

    @contextmanager
    def pop3_server(
        self, side: str, mailboxes: Mailboxes, *, tuned: bool = False
    ) -> Iterator[tuple[Server, int]]:
        """Start a POP3 server afresh; gives its port too.

        Args:
            side: which.
            mailboxes: what it gives out.
            tuned: whether Dovecot is to keep its processes.
        """
        server: Server
        if side == OURS:
            server = self._postroom(mailboxes)
            port = self.ports.our_pop3
        else:
            port = self.ports.dovecot
            check_free("127.0.0.1", port)
            folder = self.folder / "dovecot"
            server = Dovecot(self._unpacked, folder, port, mailboxes, tuned=tuned)
        with self._running(server):
            yield server, port

    def warm_up(self, server: Postroom | Postfix) -> None:
        """Let a server start all it needs, and wait until it rests again."""
        sent = SentCount(server.log)
        self.smtp_source(server.port, WARM_UP, "b@dst.test")
        sent.wait_for(WARM_UP)

    def _mail_server(self, side: str, wants: Wants) -> Postroom | Postfix:
        server: Postroom | Postfix
        if side == OURS:
            server = self._postroom()
        else:
            check_free("127.0.0.1", self.ports.postfix)
            folder, port = self.folder / "postfix", self.ports.postfix
            server = Postfix(self._unpacked, folder, port, self.ports.sink)
        if wants.message_octets_max:
            server.take_messages_of(wants.message_octets_max)
        if wants.is_secure:
            pair = certificate(self.folder / "keys")
            ports = self.ports
            submission = (
                ports.our_submission if side == OURS else ports.postfix_submission
            )
            server.secure(pair, submission)
        return server

    def _postroom(self, mailboxes: Mailboxes | None = None) -> Postroom:
        ports = (self.ports.ours, self.ports.our_pop3)
        return Postroom(self.folder / "postroom", ports, self.ports.sink, mailboxes)

    @contextmanager
    def _running(self, server: Server) -> Iterator[None]:
        try:
            server.start()
            yield
        finally:
            server.stop()

    @contextmanager
    def sink(self, count: int = 0) -> Iterator["Sink"]:
        """Run ``smtp-sink``; it ends by itself after ``count`` messages, if given."""
        options = ["-4", *(("-M", str(count)) if count else ())]
        if os.geteuid() == 0:
            options += ["-u", UNPRIVILEGED]
        address = f"127.0.0.1:{self.ports.sink}"
        check_free("127.0.0.1", self.ports.sink)
        sink = Sink()
        sink.process = subprocess.Popen(
            [self.program("smtp-sink"), *options, address, "1000"],
            env=environment(self._unpacked),
            stdout=subprocess.DEVNULL,
        )
        try:
            wait_for_port("127.0.0.1", self.ports.sink, sink)
            yield sink
        finally:
            sink.stop()

    def smtp_source(self, port: int, count: int, to: str, *options: str) -> float:
        """Send with 20 sessions; returns the seconds it took."""
        command: list[str | Path] = [
            self.program("smtp-source"),
            "-4",
            "-s",
            "20",
            "-m",
            str(count),
        ]
        command += ["-l", "4096", "-f", "a@src.test", "-t", to, *options]
        begin = time.perf_counter()
        run([*command, f"127.0.0.1:{port}"], environment(self._unpacked))
        return time.perf_counter() - begin

    def load(self, module: str, **options: object) -> dict[str, float]:
        """Run one of the bench's own load makers; returns what it printed."""
        command = [sys.executable, "-m", f"bench.{module}"]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        printed: dict[str, float] = json.loads(run(command, os.environ))
        return printed

    def program(self, name: str) -> Path:
        """Return the path of an unpacked program."""
        return self._unpacked / "usr/sbin" / name

    @property
    def _unpacked(self) -> Path:
        if self.root is None:
            raise BenchError("the Debian packages are not here")
        return self.root

    def clear(self) -> None:
        """Remove what servers left."""
        for name in ("postroom", "postfix", "dovecot"):
            shutil.rmtree(self.folder / name, ignore_errors=True)


class Sink(Server):
    """Takes mail and throws it away."""

    name = "smtp-sink"

    def wait(self) -> float:
        """Wait until it has ended by itself; returns the CPU time it took.

        Raises:
            BenchError: it did not end in time.
        """
        process = self.process
        assert process is not None
        end = time.monotonic() + PROGRAM_S_MAX
        while time.monotonic() < end:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                self.process = None
                return usage.ru_utime + usage.ru_stime
            time.sleep(0.005)
        raise BenchError("not all messages arrived at the sink in time")


class SentCount:
    """Counts in a log how many messages have left since it was made."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._position = log.stat().st_size
        self._rest = b""
        self.count = 0

    def wait_for(self, count: int) -> None:
        """Wait until so many have.

        Raises:
            BenchError: it takes too long: mail was lost or is stuck.
        """
        end = time.monotonic() + PROGRAM_S_MAX
        while self._look() < count:
            if time.monotonic() > end:
                raise BenchError(f"{self.count} of {count} were sent: see {self._log}")
            time.sleep(0.1)

    def _look(self) -> int:
        with self._log.open("rb") as file:
            file.seek(self._position)
            read = file.read()
        self._position += len(read)
        lines, _, self._rest = (self._rest + read).rpartition(b"\n")
        self.count += len(_SENT.findall(lines))
        return self.count


def run(
    command: Sequence[str | Path], environment: Mapping[str, str], stdin: bytes = b""
) -> bytes:
    """Run a program to its end; returns what it printed.

    Raises:
        BenchError: it failed or took too long.
    """
    try:
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            env=environment,
            timeout=PROGRAM_S_MAX,
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"{command[0]} took over {PROGRAM_S_MAX:.0f} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise BenchError(f"{command[0]} ended with {done.returncode}: {said[-500:]}")
    return done.stdout
