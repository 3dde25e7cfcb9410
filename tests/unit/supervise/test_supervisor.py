"""Real processes, but small ones: ``fake_worker.py`` under the real supervisor."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.whole

HERE = Path(__file__).parent
SERVER = """
import sys
from pathlib import Path
from postroom.admin.settings import ProcessSettings
from postroom.mail.units import Duration
from postroom.observe.settings import LogSettings
from postroom.supervise.plan import Listen, Plan
from postroom.supervise.serve import serve
home, port, fake = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
def load():
    text = (home / "conf").read_text()
    if "nonsense" in text:
        raise ValueError("conf: nonsense is no setting")
    if "bug" in text:
        raise KeyError("bug")
    return Plan(str(home / "conf"), text, "gonzo.test", str(home / "spool"),
        str(home / "run"), 3 if "three" in text else 0 if "single" in text else 2,
        (Listen("smtp", "smtp", "127.0.0.1", port),),
        ProcessSettings(heartbeat=Duration(50_000), heartbeat_timeout=Duration(400_000),
            start_timeout=Duration(10_000_000), drain_s_max=1,
            user="" if sys.argv[4:] else "nobody"),
        LogSettings(to=str(home / "log")))
import postroom.supervise.serve as module
if not sys.argv[4:]:
    # Workers stay who we are, so that they can read this test wherever it lies.
    module.choose_identity = lambda process, euid: None
import postroom.supervise.supervisor as supervisor
start_worker, starts = supervisor.start_worker, iter(range(1, 1000))
async def start_some(*arguments):
    number = next(starts)
    if "no-fork" in (home / "conf").read_text() and number in (3, 4):
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return await start_worker(*arguments)
supervisor.start_worker = start_some
def run_here(job):
    import asyncio
    sys.path.insert(0, str(Path(fake).parent))
    import fake_worker
    return asyncio.run(fake_worker.work(job))
sys.exit(serve(load, run_here, (sys.executable, fake)))
"""


class Server:
    def __init__(self, home: Path) -> None:
        self.home = home
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process: subprocess.Popen[str] | None = None

    def start(self, *more: str) -> subprocess.Popen[str]:
        self.process = self.another(*more)
        return self.process

    def another(self, *more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                sys.executable,
                "-c",
                SERVER,
                str(self.home),
                str(self.port),
                str(HERE / "fake_worker.py"),
                *more,
            ],
            stderr=subprocess.PIPE,
            text=True,
        )

    def configure(self, text: str) -> None:
        (self.home / "conf").write_text(text)

    def log(self) -> str:
        path = self.home / "log"
        return path.read_text() if path.exists() else ""

    def trace(self) -> list[str]:
        path = self.home / "trace"
        return path.read_text().splitlines() if path.exists() else []

    def pids(self, number: int) -> list[int]:
        starts = [
            line for line in self.trace() if line.startswith(f"{number} start pid=")
        ]
        return [int(line.split("pid=")[1].split()[0]) for line in starts]

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def end(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    made.configure("good")
    yield made
    if made.process is not None:
        if made.process.poll() is None:
            made.process.kill()
        made.process.wait()
        assert made.process.stderr is not None
        made.process.stderr.close()


def up(server: Server) -> bool:
    return "]: ready" in server.log()


def test_workers_come_up_share_the_socket_and_drain(server: Server) -> None:
    server.start()
    until(lambda: up(server))
    assert (server.home / "run" / "submit.sock").stat().st_mode & 0o777 == 0o666
    assert (server.home / "spool").stat().st_mode & 0o777 == 0o700
    socket.create_connection(("127.0.0.1", server.port)).close()
    assert server.end() == 0
    assert sorted(server.trace()[-2:]) == ["0 drain", "1 drain"]
    assert "stopped" in server.log()


def test_second_server_is_refused_with_the_pid_of_the_first(server: Server) -> None:
    process = server.start()
    until(lambda: up(server))
    second = server.another()
    _, errors = second.communicate(timeout=10)
    assert second.returncode == 69
    assert f"process {process.pid}" in errors
    assert server.end() == 0


def test_taken_port_is_named_with_the_remedy(server: Server) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", server.port))
        taken.listen()
        process = server.start()
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 69
    assert f"cannot listen on 127.0.0.1:{server.port}" in errors
    assert "ss -ltnp" in errors
    assert server.trace() == []


def test_killed_worker_is_started_anew_with_a_higher_fence(server: Server) -> None:
    server.start()
    until(lambda: up(server))
    os.kill(server.pids(1)[0], signal.SIGKILL)
    until(lambda: len(server.pids(1)) == 2 and "1 ready" in server.trace()[-1])
    fences = [
        int(line.rpartition("gen=")[2]) for line in server.trace() if "gen=" in line
    ]
    assert max(fences[:2]) < fences[2]
    assert "died of signal SIGKILL; starting it anew" in server.log()
    assert server.end() == 0


def test_crashing_worker_is_told_how_often(server: Server) -> None:
    server.configure("crash-at-start")
    server.start()
    until(lambda: up(server))
    starts = [line for line in server.trace() if line.startswith("0 start")]
    assert [line.split("crashes=")[1][0] for line in starts] == ["0", "1", "2"]
    assert server.end() == 0


def test_hung_worker_is_killed_and_replaced(server: Server) -> None:
    server.configure("hang")
    server.start()
    until(lambda: len(server.pids(0)) == 2 and len(server.pids(1)) == 2)
    assert "no sign of life" in server.log()
    first = server.pids(0)[0]
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    until(lambda: server.trace().count("0 ready") == 2)
    until(lambda: server.trace().count("1 ready") == 2)
    assert server.end() == 0


def test_hup_swaps_all_workers(server: Server) -> None:
    server.start()
    until(lambda: up(server))
    server.configure("better")
    server.signal(signal.SIGHUP)
    until(lambda: "the new configuration is in force" in server.log())
    until(lambda: sum("commit" in line for line in server.trace()) == 2)
    assert "0 prepare better" in server.trace()
    assert server.end() == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense", "conf: nonsense is no setting; the configuration in force stays"),
        ("bug", "the new configuration is refused: KeyError('bug'); the configur"),
        ("three", "only a restart can change the number of workers"),
        ("cannot", "a worker cannot take the new configuration: no good"),
    ],
)
def test_hup_with_a_wrong_configuration_changes_nothing(
    server: Server, text: str, words: str
) -> None:
    server.start()
    until(lambda: up(server))
    server.configure(text)
    server.signal(signal.SIGHUP)
    until(lambda: words in server.log())
    assert not any("commit" in line for line in server.trace())
    if text == "cannot":
        until(lambda: sum("abort" in line for line in server.trace()) == 2)
    # A worker that dies now comes back with what is in force, not with the file.
    os.kill(server.pids(0)[0], signal.SIGKILL)
    until(lambda: server.trace().count("0 ready") == 2)
    server.configure("good again")
    server.signal(signal.SIGHUP)
    until(lambda: "the new configuration is in force" in server.log())
    assert server.end() == 0


def test_worker_that_cannot_be_started_again_at_once_does_not_end_the_server(
    server: Server,
) -> None:
    server.configure("no-fork")
    server.start()
    until(lambda: up(server))
    os.kill(server.pids(1)[0], signal.SIGKILL)
    until(lambda: server.trace().count("1 ready") == 2)
    failed = "cannot start a worker: [Errno 11] Resource temporarily unavailable"
    assert server.log().count(f"{failed}; trying again in ") == 2
    assert len(server.pids(0)) == 1
    assert server.end() == 0


def test_worker_that_dies_while_others_prepare_leaves_no_two_configurations(
    server: Server,
) -> None:
    server.start()
    until(lambda: up(server))
    server.configure("dies")
    server.signal(signal.SIGHUP)
    until(lambda: "not all workers are up: try again; the conf" in server.log())
    until(lambda: "1 abort" in server.trace())
    assert not any("commit" in line for line in server.trace())
    assert server.end() == 0


def test_answer_about_an_earlier_generation_is_not_taken_for_the_present_one(
    server: Server,
) -> None:
    server.start()
    until(lambda: up(server))
    refused = "a worker cannot take the new configuration: no good"
    for text in ("late", "late again"):
        server.configure(text)
        server.signal(signal.SIGHUP)
        until(lambda: f"1 prepare {text}" in server.trace())  # noqa: B023
        until(lambda: server.log().count(refused) == len(text.split()))  # noqa: B023
    assert not any("commit" in line for line in server.trace())
    assert server.end() == 0


def test_workers_of_a_killed_supervisor_end_and_a_new_one_takes_over(
    server: Server,
) -> None:
    first = server.start()
    until(lambda: up(server))
    first.kill()
    first.wait()
    assert first.stderr is not None
    first.stderr.close()
    until(lambda: sum("orphaned" in line for line in server.trace()) == 2)
    (server.home / "log").unlink()
    server.start()
    until(lambda: up(server))
    assert server.end() == 0


def test_workers_that_had_not_begun_are_waited_for_too(server: Server) -> None:
    """They have the sockets from their very start, and nothing else that shows them."""
    server.configure("slow")
    first = server.start()
    until(lambda: len(server.trace()) == 2)
    first.kill()
    first.wait()
    assert first.stderr is not None
    first.stderr.close()
    server.configure("good")
    second = server.start()
    lock = server.home / "spool" / "postroom.lock"
    until(lambda: lock.read_text() == f"{second.pid}\n")
    for number in (signal.SIGHUP, signal.SIGUSR1):  # it does not die of them
        server.signal(number)
    until(lambda: up(server))
    assert sum("orphaned" in line for line in server.trace()) == 2
    assert server.end() == 0


def test_deaf_worker_is_killed_when_the_time_to_drain_is_over(server: Server) -> None:
    server.configure("deaf")
    server.start()
    until(lambda: up(server))
    assert server.end() == 0
    with pytest.raises(ProcessLookupError):
        os.kill(server.pids(0)[0], 0)


def test_second_term_does_not_wait(server: Server) -> None:
    server.configure("deaf")
    process = server.start()
    until(lambda: up(server))
    server.signal(signal.SIGTERM)
    until(lambda: sum("drain" in line for line in server.trace()) == 2)
    server.signal(signal.SIGINT)
    assert process.wait(10) == 0


def test_configuration_that_no_worker_can_use_ends_the_start(server: Server) -> None:
    server.configure("config")
    process = server.start()
    assert process.wait(15) == 78
    assert "the configuration does not work" in server.log()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGHUP])
def test_signals_reopen_the_log(server: Server, number: int) -> None:
    server.start()
    until(lambda: up(server))
    (server.home / "log").rename(server.home / "log.1")
    server.signal(number)
    until(lambda: (server.home / "log").exists())
    until(lambda: sum("reopen" in line for line in server.trace()) == 2)
    assert server.end() == 0
    until(lambda: "stopped" in server.log())


def test_unreadable_configuration_is_refused(server: Server) -> None:
    server.configure("nonsense")
    process = server.start()
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 78
    assert errors == "postroom: conf: nonsense is no setting\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is refused")
def test_root_without_a_user_is_refused_with_the_remedy(server: Server) -> None:
    process = server.start("as-root")
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 77
    assert "adduser --system" in errors


def test_no_workers_is_one_process_that_reloads_and_drains(server: Server) -> None:
    server.configure("single")
    process = server.start()
    until(lambda: up(server))
    assert server.pids(0) == [process.pid]
    server.configure("single nonsense")
    server.signal(signal.SIGHUP)
    until(lambda: "nonsense is no setting" in server.log())
    server.configure("two workers now")
    server.signal(signal.SIGHUP)
    until(lambda: "only a restart can change the number of workers" in server.log())
    server.configure("single and better")
    server.signal(signal.SIGHUP)
    until(lambda: "0 commit" in server.trace())
    server.signal(signal.SIGUSR1)
    until(lambda: "0 reopen" in server.trace())
    assert server.end() == 0
    assert server.trace()[-1] == "0 drain"
    assert "stopped" in server.log()
