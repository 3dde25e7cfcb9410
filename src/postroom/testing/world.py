"""Hosts, names and addresses for tests of the whole system.

One ``World`` has a name server and as many hosts as a test wants, each on a loopback
address of its own; all use the same ports, as hosts on the Internet do. Worlds of
processes that run at the same time differ in their ports. What root starts must be
reached by ``nobody``, so a world lies in a directory that others can enter.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from postroom.testing.background import Background
from postroom.testing.faulty_peer import FaultyPeer
from postroom.testing.host import UNPRIVILEGED, Host, login_of
from postroom.testing.nameserver import NameServer
from postroom.testing.zone import Zone

FIRST_PORT = 2525
PORTS_PER_WORLD = 10
NETWORK = "127.0.5"
PATIENCE_S = 30.0
_POLL_S = 0.02

QUICK: Mapping[str, Mapping[str, object]] = {
    "process": {"restart_wait_max": "250ms", "drain_s_max": 5},
    "schedule": {"backoff_start": "300ms", "backoff_max": "1s"},
    "schedule.retry": {"first_wait": "1s", "longest_wait": "1s"},
    "deliver": {"scan_interval": "1s"},
}
"""Settings of a host that loses no time between tries and restarts."""

Section = Mapping[str, object]
T = TypeVar("T")


class World:
    """Everything around the hosts under test; use it as a context manager.

    Args:
        number: which of the worlds that exist at the same time; it chooses the ports.
        network: the first three numbers of all addresses.

    Attributes:
        zone: what the name server says; may be changed at any time.
        directory: where the hosts have their directories.
    """

    def __init__(self, number: int = 0, network: str = NETWORK) -> None:
        first = int(os.environ.get("POSTROOM_TEST_PORT", FIRST_PORT))
        self.smtp_port = first + number * PORTS_PER_WORLD
        self.pop3_port = self.smtp_port + 1
        self.dns_port = self.smtp_port + 2
        self._network = network
        self.background = Background()
        self.zone = Zone()
        self.directory = Path(tempfile.mkdtemp(prefix="postroom-test-"))
        self.directory.chmod(0o755)
        self._users: dict[str, bytes] = {}
        self._server = NameServer(self.zone, f"{self.ip(1)}:{self.dns_port}")

    def __enter__(self) -> "World":
        self.background.__enter__()
        self.background.run(self._server.start())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.background.run(self._server.aclose())
        self.background.__exit__(kind, error, trace)
        if kind is None and "POSTROOM_TEST_KEEP" not in os.environ:
            shutil.rmtree(self.directory)

    def ip(self, number: int) -> str:
        """Return an address: 1 and up for hosts, 200 and up for clients."""
        return f"{self._network}.{number}"

    def name(self, domain: str, number: int) -> None:
        """Let the name server say that mail for a domain goes to an address."""
        self.zone.add(f"{domain} MX 10 mx.{domain}")
        self.zone.add(f"mx.{domain} A {self.ip(number)}")

    def peer(self, number: int) -> FaultyPeer:
        """Return a host that can be told to misbehave."""
        return FaultyPeer(self.background, self.ip(number), self.smtp_port)

    def host(
        self,
        domain: str,
        number: int,
        settings: Mapping[str, Section] | None = None,
        *,
        users: tuple[str, ...] = ("betty", "joe"),
        aliases: str = "postmaster: betty\n",
    ) -> Host:
        """Make a host for a domain, with two workers; it is still to be started.

        ``settings`` are sections that are added to or stand in for those it has; the
        section ``""`` holds the settings without one. The password of each user is
        the user's name and ``-secret``.
        """
        directory = self.directory / f"{domain}-{number}"
        ports = [(self.ip(number), p) for p in (self.smtp_port, self.pop3_port)]
        text = self.config(domain, number, settings)
        host = Host(directory, text, ports)
        host.prepare()
        (directory / "aliases").write_text(aliases)
        for user in users:
            self._add_user(host, user)
        host.give_away()
        return host

    def config(
        self, domain: str, number: int, settings: Mapping[str, Section] | None = None
    ) -> str:
        """Return the configuration of a host as text."""
        sections = self._sections(domain)
        for name, section in (settings or {}).items():
            sections[name] = {**sections.get(name, {}), **section}
        lines = _lines(sections.pop(""))
        for service, port in (("smtp", self.smtp_port), ("pop3", self.pop3_port)):
            address = f"{self.ip(number)}:{port}"
            lines += ["[[listen]]", *_lines({"address": address, "service": service})]
        for name, section in sections.items():
            lines += [f"[{name}]", *_lines(section)]
        return "\n".join(lines) + "\n"

    def _sections(self, domain: str) -> dict[str, dict[str, object]]:
        return {
            "": {
                "hostname": domain,
                "run_directory": "run",
                "drop_directory": "drop",
                "users_file": "users",
            },
            "process": {"workers": 2},
            "spool": {"directory": "spool", "reserve_octets": "1MiB"},
            "mailbox": {"path": "mail/{user}"},
            "route": {"aliases": "aliases"},
            "policy": {"relay_networks": ["127.0.0.1/32"]},
            "outbound": {"port": self.smtp_port, "addresses": "ipv4-only"},
            "dns": {
                "nameservers": [f"{self.ip(1)}:{self.dns_port}"],
                "timeout": "300ms",
                "tries": 2,
                "failure_ttl": "1s",
            },
            "auth": {"argon2_memory": "1MiB", "scram": False},
            "submission": {
                "users": dict.fromkeys(
                    ("root", UNPRIVILEGED, login_of(os.geteuid())), "betty"
                ),
                "drop_scan_interval": "1s",
            },
            "log": {"to": "log", "sessions": True},
        }

    def _add_user(self, host: Host, user: str) -> None:
        line = self._users.get(user)
        path = host.directory / "users"
        if line is None:
            before = path.read_bytes() if path.exists() else b""
            host.add_user(user, f"{user}-secret")
            self._users[user] = path.read_bytes()[len(before) :]
        elif not path.exists() or line not in path.read_bytes():
            with path.open("ab") as file:
                file.write(line)
            path.chmod(0o600)


def workers_of(host: Host) -> list[int]:
    """Return the process ids of a running host's workers."""
    if host.process is None:
        return []
    pid = host.process.pid
    try:
        return [int(w) for w in _children(pid).read_text().split()]
    except OSError:
        return []


def _children(pid: int) -> Path:
    return Path(f"/proc/{pid}/task/{pid}/children")


def _lines(section: Section) -> list[str]:
    return [f"{key} = {_toml(value)}" for key, value in section.items()]


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(_lines(value)) + " }"
    return json.dumps(value)


def until(
    what: str,
    look: Callable[[], T],
    host: Host | None = None,
    s_max: float = PATIENCE_S,
) -> T:
    """Look again and again until there is something, and return it.

    Raises:
        AssertionError: it did not come in time; shows the end of the host's log.
    """
    end = time.monotonic() + s_max
    while not (found := look()):
        if time.monotonic() > end:
            log = f"\n{host.log[-4000:]}" if host else ""
            raise AssertionError(f"{what}: not within {s_max:.0f} s{log}")
        time.sleep(_POLL_S)
    return found
