"""Plays systemd for a host: passes it sockets, hears what it tells, and its pings.

What systemd itself does with that is not played: nothing is restarted here.
"""

import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol

from postroom.testing.host import Host

_EXEC = """
import os, sys
count, program = int(sys.argv[1]), sys.argv[2:]
fds = [os.dup(int(fd)) for fd in os.environ.pop("PLAYED_FDS").split()]
fds = [fd if fd >= 3 + count else os.dup2(fd, 100 + fd) for fd in fds]
for number, fd in enumerate(fds):
    os.dup2(fd, 3 + number)
os.environ["LISTEN_PID"] = os.environ["WATCHDOG_PID"] = str(os.getpid())
os.execv(program[0], program)
"""


class Open(Protocol):
    """Something open: a socket, a file."""

    def fileno(self) -> int:
        """Return its number."""


class Told(NamedTuple):
    """One message, and when it came (as ``time.monotonic`` counts)."""

    mono_s: float
    fields: Mapping[str, str]


class PlayedSystemd:
    """What a service would find around it; use it as a context manager.

    Args:
        address: the notification socket: a path, or a name that begins with ``@``.
        watchdog_us: how long it waits for a sign of life; 0 for ever.

    Attributes:
        told: what the service has told, in order.
    """

    def __init__(self, address: str, watchdog_us: int = 0) -> None:
        self._address = address
        self._watchdog_us = watchdog_us
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._thread = threading.Thread(target=self._hear, daemon=True)
        self.told: list[Told] = []

    def __enter__(self) -> "PlayedSystemd":
        name = self._address
        self._sock.bind("\0" + name[1:] if name.startswith("@") else name)
        if name.startswith("/"):
            Path(name).chmod(0o666)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._sock.close()

    def launch(self, host: Host, sockets: Sequence[tuple[str, Open]]) -> None:
        """Start a prepared host with named sockets, as files 3, 4, and so on."""
        environment = {
            "NOTIFY_SOCKET": self._address,
            "LISTEN_FDS": str(len(sockets)),
            "LISTEN_FDNAMES": ":".join(name for name, _ in sockets),
            "PLAYED_FDS": " ".join(str(sock.fileno()) for _, sock in sockets),
        }
        if self._watchdog_us:
            environment["WATCHDOG_USEC"] = str(self._watchdog_us)
        host.launch(
            environment,
            [sock.fileno() for _, sock in sockets],
            [sys.executable, "-c", _EXEC, str(len(sockets))],
        )

    def values(self, field: str) -> list[str]:
        """Return what was told under one name, in order."""
        return [one.fields[field] for one in tuple(self.told) if field in one.fields]

    def times(self, field: str) -> list[float]:
        """Return when something was told under one name."""
        return [one.mono_s for one in tuple(self.told) if field in one.fields]

    def _hear(self) -> None:
        while message := self._sock.recv(65536):
            lines = message.decode().split("\n")
            fields = dict(line.split("=", 1) for line in lines)
            self.told.append(Told(time.monotonic(), fields))


def listening(address: tuple[str, int], count: int = 1) -> list[socket.socket]:
    """Bind as a socket unit with ``ReusePort=yes`` does that names an address so often.

    Raises:
        OSError: the address is taken.
    """
    made = []
    for _ in range(count):
        sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        sock.listen(64)
        made.append(sock)
    return made


def capabilities_of(pid: int) -> tuple[int, int]:
    """Return a process's effective and ambient capabilities, as masks."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = dict(line.split(":\t", 1) for line in lines if line.startswith("Cap"))
    return int(found["CapEff"], 16), int(found["CapAmb"], 16)
