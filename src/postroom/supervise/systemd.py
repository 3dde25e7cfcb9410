"""What we and systemd say to each other: passed sockets, and how we are.

Without systemd (no such variables in the environment) there are no sockets and nobody
to tell. What cannot be told is dropped: a server never waits for its supervisor's
supervisor. The protocols are those of sd_listen_fds(3) and sd_notify(3).
"""

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress

import msgspec

from postroom.mail.now import SECOND_US

FIRST_FD = 3
PINGS_PER_WATCHDOG = 3
"""How often we give a sign of life within the time that systemd waits for one."""
_SOCKETS = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
_WATCHDOG = ("WATCHDOG_PID", "WATCHDOG_USEC")

Environment = MutableMapping[str, str]


class PassedError(Exception):
    """What systemd passed is of no use; the text says what to change."""


class Passed(msgspec.Struct, frozen=True):
    """A listening socket that systemd has bound. ``name`` is from its unit."""

    sock: socket.socket
    name: str

    @property
    def place(self) -> tuple[str, int]:
        """The address and the port; for a Unix socket its path and 0."""
        where = self.sock.getsockname()
        if self.sock.family == socket.AF_UNIX:
            return os.fsdecode(where), 0
        return str(where[0]).partition("%")[0], int(where[1])

    @property
    def address(self) -> str:
        """The address as people write it."""
        ip, port = self.place
        if self.sock.family == socket.AF_UNIX:
            return ip
        return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def take_sockets(environment: Environment, pid: int) -> list[Passed]:
    """Take the sockets that were passed to this process, and only to it.

    The variables are removed, so that no child takes the sockets for its own.

    Raises:
        PassedError: one of them is no listening stream socket.
    """
    values = {name: environment.pop(name, "") for name in _SOCKETS}
    if values["LISTEN_PID"] != str(pid) or not values["LISTEN_FDS"].isdigit():
        return []
    names = values["LISTEN_FDNAMES"].split(":")
    passed = []
    for number in range(int(values["LISTEN_FDS"])):
        name = names[number] if number < len(names) else ""
        passed.append(Passed(_listening(FIRST_FD + number, name), name))
    return passed


def _listening(fd: int, name: str) -> socket.socket:
    what = f'file {fd} ("{name}") that systemd passed'
    try:
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise PassedError(f"the {what} is no socket: {error.strerror}") from error
    listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    known = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
    if sock.family not in known or sock.type != socket.SOCK_STREAM or not listens:
        sock.close()
        raise PassedError(
            f"the {what} does not listen for connections: in its socket unit use "
            "ListenStream= and Accept=no"
        )
    sock.setblocking(False)
    return sock


class Notifier:
    """Tells systemd how we are. Made by ``notifier_from``; may be used by any thread.

    Attributes:
        watchdog_us: how long systemd waits for a sign of life; 0 if it does not.
    """

    def __init__(self, address: str = "", watchdog_us: int = 0) -> None:
        self.watchdog_us = watchdog_us
        self._address = address
        self._sock: socket.socket | None = None
        if address:
            kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
            self._sock = socket.socket(socket.AF_UNIX, kind)

    @property
    def ping_us(self) -> int:
        """How often to call ``alive``; 0 for never."""
        return self.watchdog_us // PINGS_PER_WATCHDOG

    def ready(self, status: str) -> None:
        """We accept mail, for the first time or again after ``reloading``."""
        self._send("READY=1", _status(status))

    def reloading(self, mono_us: int) -> None:
        """A new configuration is being put in force, as of this moment."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={mono_us}")

    def stopping(self, status: str, seconds: int) -> None:
        """We end, within so many seconds."""
        extend = f"EXTEND_TIMEOUT_USEC={seconds * SECOND_US}"
        self._send("STOPPING=1", _status(status), extend)

    def status(self, status: str) -> None:
        """How we are, for ``systemctl status``."""
        self._send(_status(status))

    def alive(self) -> None:
        """We are well: a sign of life."""
        self._send("WATCHDOG=1")

    def close(self) -> None:
        """Tell nothing any more."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _send(self, *lines: str) -> None:
        if self._sock is None:
            return
        # An address that begins with @ is in the abstract name space.
        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]
        with suppress(OSError):
            self._sock.sendto("\n".join(lines).encode(), socket.MSG_DONTWAIT, address)


def notifier_from(environment: Environment, pid: int) -> Notifier:
    """Return whom to tell, and remove the variables that say so.

    Other than Unix sockets (systemd on the far side of a virtual machine) are left.
    """
    address = environment.pop("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        address = ""
    values = {name: environment.pop(name, "") for name in _WATCHDOG}
    is_meant = values["WATCHDOG_PID"] in ("", str(pid))
    if not (address and is_meant and values["WATCHDOG_USEC"].isdigit()):
        return Notifier(address)
    return Notifier(address, int(values["WATCHDOG_USEC"]))


def _status(text: str) -> str:
    return "STATUS=" + " ".join(text.split())
