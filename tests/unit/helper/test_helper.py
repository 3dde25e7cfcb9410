"""The root helper: PAM itself, the process that asks it, and the worker's side."""

import asyncio
import ctypes
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest

from postroom.auth.sasl import Known, Unavailable, Unknown, Verdict
from postroom.auth.settings import AuthSettings
from postroom.helper.client import PamAccounts
from postroom.helper.pam import LIBRARY, check
from postroom.helper.requests import (
    HEAD_OCTETS,
    REQUEST_OCTETS_MAX,
    Answer,
    Broken,
    Denied,
    FrameError,
    Granted,
    Request,
    Start,
    length_in,
    read_answer,
    read_request,
    to_frame,
)
from postroom.mail.now import SECOND_US
from postroom.mail.units import Duration

# PAM itself


def has_pam() -> bool:
    try:
        return hasattr(ctypes.CDLL(LIBRARY), "pam_start_confdir")
    except OSError:
        return False


needs_pam = pytest.mark.skipif(not has_pam(), reason=f"{LIBRARY} is not there")

SCRIPT = """#!/bin/sh
read -r password
test "$PAM_USER:$password:$PAM_RHOST" = "betty:pa ss:192.0.2.7"
"""


def services(directory: Path) -> str:
    script = directory / "judge.sh"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    asks = f"pam_exec.so expose_authtok quiet {script}"
    for name, auth, account in [
        ("permit", "pam_permit.so", "pam_permit.so"),
        ("deny", "pam_deny.so", "pam_permit.so"),
        ("expired", "pam_permit.so", "pam_deny.so"),
        ("script", asks, "pam_permit.so"),
        ("nowhere", "pam_that_is_not_there.so", "pam_permit.so"),
    ]:
        text = f"auth required {auth}\naccount required {account}\n"
        (directory / name).write_text(text)
    return str(directory)


BETTY = Request("betty", b"pa ss", "192.0.2.7")
PAM: dict[str, tuple[str, Request, type[Answer]]] = {
    "all may": ("permit", BETTY, Granted),
    "nobody may": ("deny", BETTY, Denied),
    "the account may not": ("expired", BETTY, Denied),
    "the password is given on": ("script", BETTY, Granted),
    "another password": ("script", Request("betty", b"x", "192.0.2.7"), Denied),
    "another host": ("script", Request("betty", b"pa ss"), Denied),
    "another user": ("script", Request("joe", b"pa ss", "192.0.2.7"), Denied),
    "a NUL in the password": ("permit", Request("betty", b"pa\0ss"), Denied),
    "a NUL in the name": ("permit", Request("bet\0ty", b"x"), Denied),
    "no name": ("permit", Request("", b"x"), Denied),
}


@needs_pam
@pytest.mark.parametrize("name", PAM)
def test_what_pam_says(name: str, tmp_path: Path) -> None:
    service, request, expected = PAM[name]
    answer = check(request, service, services(tmp_path))
    assert isinstance(answer, expected), answer
    if isinstance(answer, Granted):
        assert answer.user == "betty"


@needs_pam
@pytest.mark.parametrize("service", ["nowhere", "not-even-a-file"])
def test_pam_that_is_not_set_up_lets_nobody_in(service: str, tmp_path: Path) -> None:
    assert not isinstance(check(BETTY, service, services(tmp_path)), Granted)


def test_a_system_without_pam(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postroom.helper.pam.LIBRARY", "libpam-not-there.so.0")
    answer = check(BETTY, "permit")
    assert isinstance(answer, Broken)
    assert "install libpam" in answer.reason


# Frames


@pytest.mark.parametrize("value", [BETTY, Request("a", b"", ""), Request("a", b"\xff")])
def test_requests_are_written_and_read(value: Request) -> None:
    frame = to_frame(value)
    assert length_in(frame[:HEAD_OCTETS], 4096) == len(frame) - HEAD_OCTETS
    assert read_request(frame[HEAD_OCTETS:]) == value
    assert "ss" not in repr(value)


@pytest.mark.parametrize("value", [Granted("betty"), Denied("no"), Broken("x")])
def test_answers_are_written_and_read(value: Answer) -> None:
    assert read_answer(to_frame(value)[HEAD_OCTETS:]) == value


NO_FRAMES = [b"", b"\0\0\0", b"\0\0\0\0", b"\0\1\0\1", b"\xff\xff\xff\xff"]


@pytest.mark.parametrize("head", NO_FRAMES)
def test_heads_that_are_none(head: bytes) -> None:
    with pytest.raises(FrameError):
        length_in(head, REQUEST_OCTETS_MAX)


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"x",
        b"\x91\xa1a",
        b"\x92\xa1\xff\xc4\x01a",  # no UTF-8
        b"\x82\xa4type\xa6Denied\xa6reason\xa1\xff",
        msgspec.msgpack.encode({"user": "a"}),
    ],
)
def test_values_that_are_none(octets: bytes) -> None:
    with pytest.raises(FrameError):
        read_request(octets)
    with pytest.raises(FrameError):
        read_answer(octets)


# The process

HELPER = """
import os, signal, sys, time
import msgspec
from postroom.helper.requests import Broken, Denied, Granted, Start
from postroom.helper.root import serve

def judge(request, service):
    match request.user:
        case "slow":
            time.sleep(600)
        case "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        case "odd":
            return Granted("not/a/name")
        case "far":
            return Denied(f"not from {request.client_ip}")
        case "broken":
            return Broken("no PAM")
    right = request.password == b"right" and service == "postroom"
    return Granted(request.user) if right else Denied("no")

serve(msgspec.json.decode(sys.argv[1], type=Start), judge)
"""


class Helper:
    """A helper that asks no PAM, and the socket it listens on."""

    def __init__(self, path: str, process: "subprocess.Popen[bytes]") -> None:
        self.path = path
        self.process = process


@contextmanager
def helper(
    directory: Path, *, uid: int | None = None, timeout_s: float = 60
) -> Iterator[Helper]:
    path = str(directory / "helper.sock")
    read_end, write_end = os.pipe()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        start = Start(
            listener=listener.fileno(),
            lifeline=read_end,
            uid=os.geteuid() if uid is None else uid,
            service="postroom",
            timeout=int(timeout_s * SECOND_US),
        )
        process = subprocess.Popen(
            [sys.executable, "-c", HELPER, json.dumps(msgspec.to_builtins(start))],
            pass_fds=(listener.fileno(), read_end),
            stderr=subprocess.DEVNULL,
        )
    os.close(read_end)
    try:
        yield Helper(path, process)
    finally:
        with suppress(OSError):
            os.close(write_end)
        assert process.wait(60) == 0  # it ends when its supervisor does


def accounts(path: str, **more: Duration | int) -> PamAccounts:
    settings = msgspec.structs.replace(AuthSettings(), **more)
    return PamAccounts(path, settings, lambda: ("whizzer.test",))


ASKED: dict[str, tuple[str, bytes, Verdict]] = {
    "right": ("betty", b"right", Known("betty")),
    "in capitals, with our domain": ("Betty@Whizzer.Test", b"right", Known("betty")),
    "another's domain": (
        "betty@x.test",
        b"right",
        Unknown("not the name of a user"),
    ),
    "wrong": ("betty", b"wrong", Unknown("no")),
    "no name of a user": ("../betty", b"right", Unknown("not the name of a user")),
    "PAM is broken": ("broken", b"right", Unavailable("no PAM")),
    "it dies": (
        "crash",
        b"right",
        Unavailable("the PAM helper does not answer: it ended before its answer"),
    ),
}


async def test_what_workers_are_told(tmp_path: Path) -> None:
    with helper(tmp_path) as running:
        pam = accounts(running.path)
        for name, (login, password, expected) in ASKED.items():
            assert await pam.check_password(login, password) == expected, name
        far = await pam.check_password("far", b"right", "192.0.2.7")
        assert far == Unknown("not from 192.0.2.7")
        odd = await pam.check_password("odd", b"right")
        assert isinstance(odd, Unavailable)
        assert pam.abilities == {"password"}


async def test_a_check_that_hangs_is_cut_off_and_holds_up_nobody(
    tmp_path: Path,
) -> None:
    with helper(tmp_path, timeout_s=3) as running:  # enough for betty on a busy machine
        pam = accounts(running.path)
        slow = [
            asyncio.create_task(pam.check_password("slow", b"right")) for _ in range(3)
        ]
        assert await pam.check_password("betty", b"right") == Known("betty")
        for found in await asyncio.gather(*slow):  # the helper's doing, not ours
            assert isinstance(found, Unavailable)
            assert "ended before its answer" in found.reason


async def test_many_at_a_time(tmp_path: Path) -> None:
    with helper(tmp_path) as running:
        pam = accounts(running.path)
        asked = [pam.check_password("betty", b"right") for _ in range(40)]
        assert await asyncio.gather(*asked) == [Known("betty")] * 40
        full = accounts(running.path, waiting_max=0)
        asked = [full.check_password("betty", b"right") for _ in range(9)]
        found = await asyncio.gather(*asked)
        assert found[:8] == [Known("betty")] * 8
        assert isinstance(found[8], Unavailable)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_strangers_are_not_heard() -> None:
    ask = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_UNIX); s.settimeout(60)\n"
        "s.connect(sys.argv[1]); s.sendall(bytes.fromhex(sys.argv[2]))\n"
        "print(len(s.recv(100)))"
    )
    frame = to_frame(Request("betty", b"right")).hex()
    python = Path("/usr/bin/python3")  # one that strangers can reach, if there is one
    python = python if python.exists() else Path(sys.executable).resolve()
    with (
        TemporaryDirectory(dir="/tmp") as directory,
        helper(Path(directory), uid=65533) as running,
    ):
        os.chmod(directory, 0o755)
        os.chmod(running.path, 0o666)
        for uid, heard in [(65534, False), (65533, True)]:
            done = subprocess.run(
                [python, "-c", ask, running.path, frame],
                user=uid,
                group=uid,
                extra_groups=(),
                capture_output=True,
                text=True,
                check=False,
            )
            # who is not heard may see an end, a reset or a broken pipe
            was_heard = done.stdout.strip() not in ("", "0")
            assert was_heard == heard, done.stdout + done.stderr


NONSENSE = [
    b"",
    b"\0",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\0\0\0\5hello",
    b"\0\0\0\5he",
    to_frame(BETTY)[:-1],
]


def test_nonsense_ends_the_connection_and_nothing_else(tmp_path: Path) -> None:
    with helper(tmp_path) as running:
        for octets in NONSENSE:
            with socket.socket(socket.AF_UNIX) as asking:
                asking.settimeout(60)
                asking.connect(running.path)
                with suppress(OSError):  # it may have hung up already
                    asking.sendall(octets)
                    asking.shutdown(socket.SHUT_WR)
                with suppress(ConnectionResetError):
                    assert asking.recv(100) == b""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(60)
            asking.connect(running.path)
            asking.sendall(to_frame(Request("betty", b"right")))
            octets = asking.recv(4096)
            assert read_answer(octets[HEAD_OCTETS:]) == Granted("betty")


async def test_no_helper(tmp_path: Path) -> None:
    found = await accounts(str(tmp_path / "none")).check_password("betty", b"x")
    assert isinstance(found, Unavailable)
    assert "does not answer" in found.reason


async def test_users_of_the_system(tmp_path: Path) -> None:
    pam = accounts(str(tmp_path / "none"))
    assert await pam.find_user("root@whizzer.test") == Known("root")
    assert isinstance(await pam.find_user("no-such-user-here"), Unknown)
    assert isinstance(await pam.find_user("no/name"), Unknown)
