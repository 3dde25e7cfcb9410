"""Started as by systemd: passed sockets, readiness, reloads, hung workers seen."""

import asyncio
import itertools
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from postroom.testing.caller import Caller
from postroom.testing.host import UNPRIVILEGED, Host
from postroom.testing.ledger import Ledger, Load, audit_at_rest
from postroom.testing.systemd import Open, PlayedSystemd, capabilities_of, listening
from postroom.testing.world import QUICK, World, until, workers_of

NUMBER = 41
NAMES = (f"systemd{n}.test" for n in itertools.count())
HANG = {
    **QUICK,
    "process": {
        **QUICK["process"],
        "heartbeat": "100ms",
        "heartbeat_timeout": "3s",
    },
}
WATCHDOG_US = 600_000


@pytest.fixture
def domain(world: World) -> str:
    name = next(NAMES)
    world.name(name, NUMBER)
    return name


@pytest.fixture
def host(world: World, domain: str) -> Iterator[Host]:
    made = world.host(domain, NUMBER, HANG)
    yield made
    made.stop()


@contextmanager
def played(world: World, watchdog_us: int = 0) -> Iterator[PlayedSystemd]:
    path = world.directory / "notify"
    path.unlink(missing_ok=True)
    with PlayedSystemd(str(path), watchdog_us) as systemd:
        yield systemd


@contextmanager
def bound(*places: tuple[str, int, int]) -> Iterator[list[tuple[str, socket.socket]]]:
    """Listen on each address so many times, as a socket unit that names it so often."""
    with ExitStack() as open_ones:
        yield [
            (f"port{port}", open_ones.enter_context(sock))
            for ip, port, count in places
            for sock in listening((ip, port), count)
        ]


def await_ready(systemd: PlayedSystemd, host: Host, times: int = 1) -> None:
    until("READY=1", lambda: len(systemd.values("READY")) >= times, host)


def send(world: World, ledger: Ledger, name: str, domain: str) -> None:
    load = Load(ledger, world.ip(NUMBER), world.smtp_port)
    asyncio.run(load.send([name], [f"betty@{domain}"]))


def test_from_start_to_stop(world: World, host: Host, domain: str) -> None:
    ip = world.ip(NUMBER)
    ledger = Ledger()
    sockets = bound((ip, world.smtp_port, 2), (ip, world.pop3_port, 1))
    with played(world) as systemd, sockets as passed:
        systemd.launch(host, passed)
        await_ready(systemd, host)
        (status,) = [t.fields["STATUS"] for t in systemd.told if "READY" in t.fields]
        assert status == "2 of 2 workers accept and deliver"
        assert f"smtp {ip}:{world.smtp_port} (bound by systemd)" in host.log
        assert f"pop3 {ip}:{world.pop3_port} (bound by systemd)" in host.log
        # One passed for two, and only that, is told.
        assert f"{ip}:{world.pop3_port}: 1 passed for 2 workers" in host.log
        assert f"{ip}:{world.smtp_port}: 2 passed" not in host.log
        send(world, ledger, "first", domain)
        pids = workers_of(host)

        before_us = time.monotonic_ns() // 1000
        assert host.process is not None
        host.process.send_signal(signal.SIGHUP)
        await_ready(systemd, host, 2)
        (reloading_us,) = systemd.values("MONOTONIC_USEC")
        assert before_us < int(reloading_us) < time.monotonic_ns() // 1000
        states = [name for one in systemd.told for name in one.fields]
        states = [name for name in states if name in ("READY", "RELOADING")]
        assert states == ["READY", "RELOADING", "READY"]

        good = host.config_path.read_text()
        host.config_path.write_text("nonsense")
        host.process.send_signal(signal.SIGHUP)
        await_ready(systemd, host, 3)
        assert "refused" in systemd.values("STATUS")[-1]
        assert len(systemd.values("RELOADING")) == 2
        host.config_path.write_text(good)
        assert workers_of(host) == pids

        assert host.stop() == 0
        assert systemd.values("STOPPING") == ["1"]
        assert int(systemd.values("EXTEND_TIMEOUT_USEC")[0]) > 5_000_000
        # systemd holds the addresses: who calls meanwhile waits for the next server.
        with Caller(ip, world.smtp_port) as caller:
            systemd.launch(host, passed)
            assert caller.reply().code == 220
        await_ready(systemd, host, 4)
        send(world, ledger, "second", domain)
        assert audit_at_rest(ledger, {domain: host}).duplicates == 0


def test_every_passed_socket_is_served(world: World, host: Host) -> None:
    """More of them than workers: what the kernel gives to each gets an answer."""
    ip = world.ip(NUMBER)
    with played(world) as systemd, bound((ip, world.smtp_port, 5)) as passed:
        systemd.launch(host, passed)
        await_ready(systemd, host)
        for _ in range(40):
            with Caller(ip, world.smtp_port) as caller:
                caller.hello()
        assert host.stop() == 0


def test_hung_workers_stop_the_pings(world: World, host: Host, domain: str) -> None:
    ip = world.ip(NUMBER)
    ledger = Ledger()
    with (
        played(world, WATCHDOG_US) as systemd,
        bound((ip, world.smtp_port, 2)) as passed,
    ):
        systemd.launch(host, passed)
        await_ready(systemd, host)
        send(world, ledger, "before", domain)
        until("pings", lambda: len(systemd.times("WATCHDOG")) > 3, host)
        hung = workers_of(host)[0]
        os.kill(hung, signal.SIGSTOP)
        stopped_s = time.monotonic()
        until("kill", lambda: "killed: no sign of life" in host.log, host)
        killed_s = time.monotonic()
        # Overdue at half the time after which it is killed; a ping may be under way.
        deaf = [t for t in systemd.times("WATCHDOG") if stopped_s + 2 < t]
        assert all(t > killed_s - 0.5 for t in deaf), (stopped_s, killed_s, deaf)
        assert killed_s - stopped_s > 2.5
        until("pings", lambda: systemd.times("WATCHDOG")[-1] > killed_s, host)
        until("another", lambda: hung not in workers_of(host), host)
        until(
            "status",
            lambda: systemd.values("STATUS")[-1].startswith("2 of 2"),
            host,
        )
        assert any(one.startswith("1 of 2") for one in systemd.values("STATUS"))
        send(world, ledger, "after", domain)
        audit_at_rest(ledger, {domain: host})


def test_one_process_tells_the_same(world: World, domain: str) -> None:
    """``workers = 0``: it serves all passed sockets, and its own loop is watched."""
    process = {**HANG["process"], "workers": 0}
    host = world.host(domain, NUMBER, {**HANG, "process": process})
    ledger = Ledger()
    with (
        played(world, WATCHDOG_US) as systemd,
        bound((world.ip(NUMBER), world.smtp_port, 3)) as passed,
    ):
        systemd.launch(host, passed)
        await_ready(systemd, host)
        for number in range(9):
            send(world, ledger, f"single{number}", domain)
        assert host.process is not None
        host.process.send_signal(signal.SIGHUP)
        await_ready(systemd, host, 2)
        until("pings", lambda: len(systemd.times("WATCHDOG")) > 3, host)
        assert host.stop() == 0
        assert len(systemd.values("RELOADING")) == len(systemd.values("STOPPING")) == 1
        audit_at_rest(ledger, {domain: host})


def refused(world: World, host: Host, passed: Sequence[tuple[str, Open]]) -> str:
    with played(world) as systemd:
        systemd.launch(host, passed)
        assert host.process is not None
        assert host.process.wait(20) == 69
        host.process = None
        assert systemd.values("READY") == []
    return (host.directory / "errors").read_text()


def test_a_socket_that_nobody_asked_for(world: World, host: Host) -> None:
    with bound((world.ip(NUMBER), world.smtp_port + 5, 1)) as passed:
        said = refused(world, host, passed)
    assert f"a socket on {world.ip(NUMBER)}:{world.smtp_port + 5}" in said
    assert f'("port{world.smtp_port + 5}")' in said
    assert f"it names {world.ip(NUMBER)}:{world.smtp_port}" in said


def test_sockets_of_another_kind(world: World, host: Host) -> None:
    ip = world.ip(NUMBER)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        datagram.bind((ip, world.smtp_port))
        assert "use ListenStream=" in refused(world, host, [("smtp", datagram)])
    with socket.socket() as deaf:
        deaf.bind((ip, world.smtp_port))
        assert "use ListenStream=" in refused(world, host, [("smtp", deaf)])
    with Path("/dev/null").open() as file:
        assert "is no socket" in refused(world, host, [("smtp", file)])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give capabilities away")
def test_workers_do_not_inherit_the_right_to_low_ports(
    world: World, host: Host
) -> None:
    host.prepare()
    host.give_away()
    host.launch(
        wrapper=(
            *("/usr/bin/setpriv", "--reuid", UNPRIVILEGED, "--clear-groups"),
            *("--inh-caps", "+net_bind_service"),
            *("--ambient-caps", "+net_bind_service"),
        )
    )
    until("ready", lambda: "]: ready" in host.log, host)
    assert host.process is not None
    effective, ambient = capabilities_of(host.process.pid)
    assert (bool(effective), ambient) == (True, 0)
    assert {capabilities_of(pid) for pid in workers_of(host)} == {(0, 0)}
