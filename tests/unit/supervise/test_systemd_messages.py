"""What systemd passes and is told, without systemd: sockets, messages, addresses."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from postroom.supervise import systemd
from postroom.supervise.plan import Listen
from postroom.supervise.sockets import BindError, Bound, match_passed, submit_listen
from postroom.supervise.systemd import (
    Notifier,
    Passed,
    PassedError,
    notifier_from,
    take_sockets,
)

FIRST_FD = 230
PID = os.getpid()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[ExitStack]:
    """Passed files begin where this process has none."""
    monkeypatch.setattr(systemd, "FIRST_FD", FIRST_FD)
    with ExitStack() as stack:
        yield stack


def passing(held: ExitStack, *socks: socket.socket) -> dict[str, str]:
    """Put sockets where systemd would, and return the environment."""
    for number, sock in enumerate(socks):
        os.dup2(sock.fileno(), FIRST_FD + number, inheritable=True)
        sock.close()
    return {"LISTEN_PID": str(PID), "LISTEN_FDS": str(len(socks)), "PATH": "/bin"}


def listener(ip: str = "127.0.0.1") -> socket.socket:
    return socket.create_server((ip, 0))


def test_sockets_are_taken_with_their_names(held: ExitStack, tmp_path: Path) -> None:
    local = socket.socket(socket.AF_UNIX)
    local.bind(str(tmp_path / "sock"))
    local.listen()
    first = listener()
    port = first.getsockname()[1]
    environment = passing(held, first, local)
    environment["LISTEN_FDNAMES"] = "smtp"
    passed = take_sockets(environment, PID)
    for one in passed:
        held.enter_context(one.sock)
    assert [one.name for one in passed] == ["smtp", ""]
    assert [one.place for one in passed] == [
        ("127.0.0.1", port),
        (str(tmp_path / "sock"), 0),
    ]
    assert [one.address for one in passed] == [
        f"127.0.0.1:{port}",
        str(tmp_path / "sock"),
    ]
    assert not any(one.sock.get_inheritable() for one in passed)
    assert not any(one.sock.getblocking() for one in passed)
    assert environment == {"PATH": "/bin"}


NOT_OURS = {
    "nothing": {},
    "another process": {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
    "no process": {"LISTEN_FDS": "1"},
    "no number": {"LISTEN_PID": str(PID), "LISTEN_FDS": "many"},
    "negative": {"LISTEN_PID": str(PID), "LISTEN_FDS": "-1"},
    "none": {"LISTEN_PID": str(PID), "LISTEN_FDS": "0"},
}


@pytest.mark.parametrize("case", NOT_OURS)
def test_what_is_not_passed_to_us_is_left_alone(case: str, held: ExitStack) -> None:
    sock = listener()
    passing(held, sock)
    try:
        environment = dict(NOT_OURS[case])
        assert take_sockets(environment, PID) == []
        assert environment == {}
        os.fstat(FIRST_FD)
    finally:
        os.close(FIRST_FD)


def test_what_does_not_listen_is_refused(held: ExitStack) -> None:
    environment = passing(held, socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    environment["LISTEN_FDNAMES"] = "dns"
    with pytest.raises(PassedError, match=rf'file {FIRST_FD} \("dns"\).*Accept=no'):
        take_sockets(environment, PID)


def test_what_is_not_there_is_refused(held: ExitStack) -> None:
    environment = {"LISTEN_PID": str(PID), "LISTEN_FDS": "1"}
    with pytest.raises(PassedError, match="is no socket: Bad file descriptor"):
        take_sockets(environment, PID)


def passed(sock: socket.socket, name: str = "x") -> Passed:
    return Passed(sock, name)


def test_sockets_find_their_listeners() -> None:
    with listener() as one, socket.socket(socket.AF_INET6) as other:
        other.bind(("::1", 0))
        places = [one.getsockname()[1], other.getsockname()[1]]
        listens = [
            Listen("smtp", "in", "127.0.0.1", places[0]),
            Listen("pop3", "pop", "0:0:0:0:0:0:0:1", places[1]),
            Listen("smtp", "unused", "127.0.0.1", 9),
        ]
        found = match_passed(listens, [passed(one), passed(other), passed(one)])
        assert found == {listens[0]: (one, one), listens[1]: (other,)}


def test_the_submission_socket_may_be_passed(tmp_path: Path) -> None:
    submit = submit_listen(str(tmp_path))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(submit.ip)
        assert match_passed([submit], [passed(sock)]) == {submit: (sock,)}


def test_a_socket_without_a_listener_is_an_error() -> None:
    listens = [Listen("smtp", "in", "127.0.0.1", 25), submit_listen("/run/x")]
    with listener() as sock, pytest.raises(BindError) as refused:
        match_passed(listens, [passed(sock, "postroom.socket")])
    said = str(refused.value)
    assert "systemd passed a socket on 127.0.0.1:" in said
    assert '("postroom.socket")' in said
    assert "it names 127.0.0.1:25; make" in said


DEALT = {
    (1, 1): [[0]],
    (1, 3): [[0], [0], [0]],
    (2, 3): [[0], [1], [0]],
    (3, 3): [[0], [1], [2]],
    (5, 2): [[0, 2, 4], [1, 3]],
    (3, 1): [[0, 1, 2]],
}


@pytest.mark.parametrize(("sockets", "workers"), DEALT)
def test_sockets_are_dealt_out(sockets: int, workers: int) -> None:
    """Each worker has one, and each is some worker's."""
    with ExitStack() as stack:
        made = tuple(
            stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(sockets)
        )
        bound = Bound(Listen("smtp", "in", "127.0.0.1", 25), made)
        dealt = [
            [made.index(one) for one in bound.of_worker(number, workers)]
            for number in range(workers)
        ]
    assert dealt == DEALT[sockets, workers]


@pytest.fixture(params=["path", "abstract"])
def inbox(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[str, socket.socket]]:
    name = f"postroom-test-{PID}-{tmp_path.name}"
    address = str(tmp_path / "notify") if request.param == "path" else f"@{name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + name if request.param == "abstract" else address)
        sock.setblocking(False)
        yield address, sock


def test_messages(inbox: tuple[str, socket.socket]) -> None:
    address, sock = inbox
    notifier = notifier_from({"NOTIFY_SOCKET": address}, PID)
    notifier.reloading(1_234_567)
    notifier.ready("all\nis\twell  ")
    notifier.status("")
    notifier.stopping("ends", 40)
    notifier.alive()
    notifier.close()
    notifier.alive()  # nobody hears that any more
    assert [sock.recv(9999) for _ in range(5)] == [
        b"RELOADING=1\nMONOTONIC_USEC=1234567",
        b"READY=1\nSTATUS=all is well",
        b"STATUS=",
        b"STOPPING=1\nSTATUS=ends\nEXTEND_TIMEOUT_USEC=40000000",
        b"WATCHDOG=1",
    ]
    with pytest.raises(BlockingIOError):
        sock.recv(9999)


def test_a_deaf_or_missing_listener_stops_nothing(
    inbox: tuple[str, socket.socket], tmp_path: Path
) -> None:
    address, _ = inbox
    notifier = Notifier(address)
    for _ in range(10_000):  # its queue is full long before
        notifier.alive()
    notifier.close()
    lost = Notifier(str(tmp_path / "nobody"))
    lost.ready("x")
    lost.close()


WATCHDOGS = {
    "none": ({}, 0, 0),
    "ours": ({"WATCHDOG_USEC": "900000", "WATCHDOG_PID": str(PID)}, 900_000, 300_000),
    "anybody's": ({"WATCHDOG_USEC": "900000"}, 900_000, 300_000),
    "another's": ({"WATCHDOG_USEC": "900000", "WATCHDOG_PID": "1"}, 0, 0),
    "no number": ({"WATCHDOG_USEC": "soon"}, 0, 0),
}


@pytest.mark.parametrize("case", WATCHDOGS)
def test_watchdogs(case: str) -> None:
    more, watchdog_us, ping_us = WATCHDOGS[case]
    environment = {"NOTIFY_SOCKET": "/nowhere", "HOME": "/", **more}
    notifier = notifier_from(environment, PID)
    assert (notifier.watchdog_us, notifier.ping_us) == (watchdog_us, ping_us)
    assert environment == {"HOME": "/"}
    notifier.close()


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "relative/path"])
def test_nobody_to_tell(address: str) -> None:
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000"}
    notifier = notifier_from(environment, PID)
    notifier.ready("x")
    assert notifier.ping_us == 0
    notifier.close()
