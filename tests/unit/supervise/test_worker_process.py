"""What a worker's process is given: identity, umask, descriptors."""

import json
import os
import pwd
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from postroom.admin.link import Job, ListenFd, ToSupervisor
from postroom.admin.settings import ProcessSettings
from postroom.supervise.identity import choose_identity
from postroom.supervise.worker import Ended, Worker, start_worker

TELL = """
import json, os, sys
mask = os.umask(0)
open_fds = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))
print(json.dumps({"uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(),
    "home": os.environ.get("HOME"), "user": os.environ.get("USER"),
    "umask": mask, "fds": len(open_fds), "group": os.getpgrp() == os.getpid()}),
    file=open(sys.argv[1], "w"))
"""


def heard_nothing(worker: Worker, message: ToSupervisor) -> None:
    raise AssertionError(message)


@pytest.fixture
def interpreter() -> str:
    """One that other users may run, even if ours lies in a closed home."""
    ours, system = Path(sys.executable).resolve(), Path("/usr/bin/python3")
    if os.geteuid() == 0 and ours.is_relative_to("/root"):
        if not system.exists():
            pytest.skip("no interpreter that others may run")
        return str(system)
    return str(ours)


@pytest.fixture
def out() -> Iterator[Path]:
    """A file that other users may write."""
    with tempfile.TemporaryDirectory(prefix="worker-") as directory:
        Path(directory).chmod(0o777)
        yield Path(directory) / "out"


async def told(
    interpreter: str, out: Path, settings: ProcessSettings
) -> dict[str, object]:
    with socket.socket() as listening:
        listeners = (ListenFd("smtp", "smtp", "x", listening.fileno()),)
        job = Job(0, 1, 1, "", "", listeners)
        command = (interpreter, "-c", TELL, str(out))
        run_as = choose_identity(settings, os.geteuid()) if settings.user else None
        worker = await start_worker(command, job, settings, run_as)
        ended = await worker.wait(heard_nothing)
    assert ended == Ended(0, "", ended.lived_us)
    with open(out) as file:  # noqa: ASYNC230 - what is left when all is over
        found: dict[str, object] = json.load(file)
    return found


async def test_worker_gets_what_it_needs_and_no_more(
    interpreter: str, out: Path
) -> None:
    found = await told(interpreter, out, ProcessSettings())
    assert found["uid"] == os.getuid()
    assert found["umask"] == 0o077
    assert found["group"] is True
    # 0, 1, 2, the job, the link, the socket, the listing itself.
    assert found["fds"] == 7


LEAVE = """
import subprocess, sys
with open(sys.argv[1], "w") as held:
    subprocess.Popen(["sleep", "600"], stdout=held)
"""


async def test_programs_that_a_worker_leaves_behind_end_with_it(
    interpreter: str, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "held")
    reading = os.open(tmp_path / "held", os.O_RDONLY | os.O_NONBLOCK)
    command = (interpreter, "-c", LEAVE, str(tmp_path / "held"))
    worker = await start_worker(
        command, Job(0, 1, 1, "", "", ()), ProcessSettings(), None
    )
    ended = await worker.wait(heard_nothing)
    assert ended.code == 0
    os.set_blocking(reading, True)
    assert os.read(reading, 1) == b""  # who had it open is gone
    os.close(reading)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change to another user")
async def test_root_becomes_the_user_with_its_groups(
    interpreter: str, out: Path
) -> None:
    found = await told(interpreter, out, ProcessSettings(user="nobody"))
    assert (found["uid"], found["gid"]) == (65534, 65534)
    assert found["groups"] == [65534]
    assert (found["user"], found["home"]) == ("nobody", pwd.getpwuid(65534).pw_dir)


async def test_program_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        await start_worker(
            ("/no/such/program",), Job(0, 1, 1, "", "", ()), ProcessSettings(), None
        )


@pytest.mark.parametrize(
    ("ended", "text"),
    [
        (Ended(0, "", 1), "ended with status 0"),
        (Ended(-9, "", 1), "died of signal SIGKILL"),
        (Ended(-40, "", 1), "died of signal 40"),
        (Ended(-9, "it is silent", 1), "killed: it is silent"),
    ],
)
def test_ends_in_words(ended: Ended, text: str) -> None:
    assert ended.text == text
