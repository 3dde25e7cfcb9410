"""Postroom on a spool with a backlog, and what is seen of it from outside.

The workers' memory, the length of the queue and what has been sent are looked at while
it runs: the length in the database (its counters, read only), the rest in /proc and in
the log.
"""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import apsw
import msgspec

from bench.backlog_fill import SHARDS
from bench.packages import BenchError
from bench.servers import Server, processes_under, pss_octets
from postroom.testing.host import Host, HostError, check_free, command

DIFFERENCES = """\
Postroom runs with its defaults and two workers, apart from
  paths, ports, host name, and the user nobody when root starts it;
  relay_networks = 127.0.0.0/8; routes: dst.test is discarded, and so is what is queued
  for live domains, each under a hop of its own."""
FIRST_S_MAX = 300.0
_SENT = re.compile(rb"stat=sent", re.IGNORECASE)
_POLL_S = 0.02
LOOK_S = 1.0


class Loaded(Server):
    """One Postroom instance whose spool is kept from start to start."""

    name = "Postroom"

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__()
        self.folder = folder
        self.port = port
        self._host = Host(folder, self._configuration())

    @property
    def spool(self) -> Path:
        """Where its shards lie."""
        return self.folder / "spool"

    def start(self) -> None:
        """Start it; returns when it takes connections."""
        check_free("127.0.0.1", self.port)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "route.routes").write_text("dst.test discard:\n")
        (self.folder / "users").write_text("joe\n")
        (self.folder / "users").chmod(0o600)
        (self.folder / "log").unlink(missing_ok=True)
        try:
            self._host.start()
        except HostError as error:
            raise BenchError(str(error)) from error
        self.process = self._host.process

    def stop(self) -> None:
        """End it as an administrator would."""
        self.process = None
        self._host.stop()

    def first_delivery_s(self) -> float:
        """Start it; returns how long it took until the first message had left.

        Raises:
            BenchError: none left.
        """
        begin = time.perf_counter()
        self.start()
        log = Log(self.folder / "log", at=0)
        while not log.sent():
            if time.perf_counter() - begin > FIRST_S_MAX:
                raise BenchError(f"nothing was delivered: see {log.path}")
            time.sleep(_POLL_S)
        return time.perf_counter() - begin

    def retry(self, queue_ids: Sequence[str]) -> None:
        """Have messages tried now; their destinations rest no longer."""
        done = subprocess.run(
            [command("postroom"), "queue", "retry", *queue_ids],
            env=self._host.environment,
            capture_output=True,
            timeout=120,
        )
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()
            raise BenchError(f"postroom queue retry failed: {said}")

    def workers(self) -> list[int]:
        """Return the process ids of the workers."""
        if self.process is None:
            return []
        return [pid for pid in processes_under(self.process.pid) if _is_worker(pid)]

    def queue_stat_s(self) -> float:
        """Run ``postroom queue stat``; returns how long it took."""
        begin = time.perf_counter()
        done = subprocess.run(
            [command("postroom"), "queue", "stat", "--json"],
            env=self._host.environment,
            capture_output=True,
            timeout=120,
        )
        took_s = time.perf_counter() - begin
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()
            raise BenchError(f"postroom queue stat failed: {said}")
        return took_s

    def _configuration(self) -> str:
        return f"""\
hostname = "postroom.test"
run_directory = "run"
drop_directory = "drop"
users_file = "users"

[[listen]]
address = "127.0.0.1:{self.port}"

[policy]
relay_networks = ["127.0.0.0/8"]
[route]
routes = "route.routes"
[spool]
directory = "spool"
[mailbox]
path = "mail/{{user}}"
[process]
workers = {SHARDS}
[log]
to = "log"
"""


class Log:
    """Reads on in a log that grows, and counts what was sent."""

    def __init__(self, path: Path, *, at: int | None = None) -> None:
        self.path = path
        self._position = path.stat().st_size if at is None else at
        self._rest = b""
        self._sent = 0

    def sent(self) -> int:
        """Return how many deliveries the log has told of."""
        with self.path.open("rb") as file:
            file.seek(self._position)
            read = file.read()
        self._position += len(read)
        lines, _, self._rest = (self._rest + read).rpartition(b"\n")
        self._sent += len(_SENT.findall(lines))
        return self._sent


class Look(msgspec.Struct, frozen=True):
    """What was seen at one moment.

    ``memory`` is the PSS of each worker in octets, ``sent`` counts since the start.
    """

    at_s: float
    queued: int
    sent: int
    memory: tuple[int, ...]
    phase: str


class Watcher:
    """Looks once in a while at a server, in a thread, until it is left."""

    def __init__(self, server: Loaded, began_s: float, phase: str) -> None:
        self._server = server
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._began_s = began_s
        self.phase = phase
        self.looks: list[Look] = []

    def __enter__(self) -> "Watcher":
        self._log = Log(self._server.folder / "log", at=0)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def peak_octets(self) -> int:
        """The largest memory that a worker had."""
        return max((max(look.memory, default=0) for look in self.looks), default=0)

    def _run(self) -> None:
        while not self._ended.wait(LOOK_S):
            try:
                self.looks.append(self._look())
            except (OSError, apsw.Error) as error:
                print(f"looking at the server: {error}", file=sys.stderr)

    def _look(self) -> Look:
        memory = tuple(pss_octets(pid) for pid in self._server.workers())
        return Look(
            at_s=time.perf_counter() - self._began_s,
            queued=queued(self._server.spool),
            sent=self._log.sent(),
            memory=memory,
            phase=self.phase,
        )


def queued(spool: Path) -> int:
    """Return how many messages a spool holds, as its own counters say."""
    total = 0
    for path in sorted(spool.glob("shard-*/queue.db")):
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            total += int(connection.execute("SELECT messages FROM counters").get)
        finally:
            connection.close()
    return total


def _is_worker(pid: int) -> bool:
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"postroom.app" in line
