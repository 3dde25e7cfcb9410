"""A server under test: started, measured from outside, and stopped by its own id."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from bench.packages import BenchError

_TICKS = os.sysconf("SC_CLK_TCK")
START_S_MAX = 30.0


class Usage(NamedTuple):
    """What a server and all processes under it used so far."""

    cpu_s: float
    pss_octets: int


class Server:
    """Something that serves until it is stopped."""

    name = ""
    port = 0

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._gone_cpu_s: dict[int, float] = {}

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        raise NotImplementedError(self.name)

    def stop(self) -> None:
        """End it and what it started."""
        process, self.process = self.process, None
        if process is None:
            return
        family = processes_under(process.pid)
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pid in family:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def usage(self) -> Usage:
        """Return CPU time and memory of the whole family of processes."""
        assert self.process is not None
        pss = 0
        for pid in processes_under(self.process.pid):
            cpu_s, waited_s = _cpu_s(pid)
            # Children that ended are in their parent's account; keep the larger.
            self._gone_cpu_s[pid] = max(self._gone_cpu_s.get(pid, 0.0), cpu_s)
            if pid == self.process.pid:
                self._gone_cpu_s[-1] = waited_s
            pss += _pss(pid)
        return Usage(sum(self._gone_cpu_s.values()), pss)


def processes_under(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path("/proc", entry, "stat").read_text()
            except OSError:
                continue
            parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(
                int(entry)
            )
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        todo.extend(parents.get(one, ()))
    return found


def _cpu_s(pid: int) -> tuple[float, float]:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0, 0.0
    own = (int(fields[11]) + int(fields[12])) / _TICKS
    waited = (int(fields[13]) + int(fields[14])) / _TICKS
    return own, waited


def _pss(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
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
