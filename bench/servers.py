"""A server under test: started, measured from outside, and stopped by its own id."""

import itertools
import os
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress

from bench.packages import BenchError

_TICKS = os.sysconf("SC_CLK_TCK")
START_S_MAX = 30.0
MEMORY_PAUSE_S = 0.25
FAMILY_TURNS = 2


class Server:
    """Something that serves until it is stopped."""

    name = ""
    port = 0

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        raise NotImplementedError(self.name)

    def stop(self) -> None:
        """End it and what it started."""
        process, self.process = self.process, None
        if process is None:
            return
        family = {pid: _started(pid) for pid in processes_under(process.pid)}
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pid, started in family.items():
            # A number may be somebody else's by now.
            if started and _started(pid) == started:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def cpu_s(self) -> float:
        """Return the CPU time of the whole family of processes so far.

        Children that have ended are in their parents' account.
        """
        assert self.process is not None
        return sum(_cpu_s(pid) for pid in processes_under(self.process.pid))


class MemoryWatch:
    """Looks again and again at the memory of a server; keeps the peak.

    A process started by the server is noticed within half a second.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.peak_octets = 0

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        pids: list[int] = []
        for turn in itertools.count():
            process = self._server.process
            if process is None:
                return
            if turn % FAMILY_TURNS == 0:
                pids = processes_under(process.pid)
            sum_octets = sum(pss_octets(pid) for pid in pids)
            self.peak_octets = max(self.peak_octets, sum_octets)
            if self._ended.wait(MEMORY_PAUSE_S):
                return


def processes_under(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _stat(int(entry))):
            children.setdefault(int(fields[1]), []).append(int(entry))
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        todo.extend(children.get(one, ()))
    return found


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on; none if it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def _started(pid: int) -> str:
    return fields[19] if (fields := _stat(pid)) else ""


def _cpu_s(pid: int) -> float:
    """Return the time of a process and of those it has waited for."""
    return sum(map(int, _stat(pid)[11:15])) / _TICKS


def pss_octets(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            for line in file:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def wait_for_port(ip: str, port: int, server: Server) -> None:
    """Wait until somebody listens there.

    Raises:
        BenchError: the server ended, or it took too long.
    """
    end = time.monotonic() + START_S_MAX
    while time.monotonic() < end:
        if server.process is not None and server.process.poll() is not None:
            raise BenchError(
                f"{server.name} ended at start: {server.process.returncode}"
            )
        with socket.socket() as probe:
            if probe.connect_ex((ip, port)) == 0:
                return
        time.sleep(0.05)
    raise BenchError(f"{server.name} does not listen on {ip}:{port}")
