import os
from pathlib import Path

import msgspec
import pytest

from postroom.admin.settings import ProcessSettings
from postroom.config.problems import ConfigError
from postroom.limits.shared import SharedCounters, map_octets
from postroom.mail.reply import Reply
from postroom.services.admission import Admission, Admitted, TurnedAway
from postroom.services.settings import ReceiveSettings
from postroom.supervise.identity import IdentityError, choose_identity, make_directory
from postroom.supervise.lock import AlreadyRunning, take_lock
from postroom.supervise.plan import Plan, changed_in_place, load_plan
from postroom.supervise.worker import Ended

TEXT = """
hostname = "gonzo.test"
[[listen]]
address = "127.0.0.1:2525"
[[listen]]
address = "[::1]:1110"
service = "pop3"
name = "pop"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "postroom.toml"
    made.write_text(TEXT)
    return made


def test_plan_is_read_from_the_configuration(path: Path) -> None:
    plan = load_plan(str(path))
    assert plan.hostname == "gonzo.test"
    assert plan.config_text == TEXT
    assert plan.workers == len(os.sched_getaffinity(0))
    assert plan.mailbox_directory == "/var/lib/postroom/mail"
    assert [(one.service, one.name, one.address) for one in plan.listens] == [
        ("smtp", "smtp 127.0.0.1:2525", "127.0.0.1:2525"),
        ("pop3", "pop", "[::1]:1110"),
    ]


@pytest.mark.parametrize(
    ("sessions_max", "network"),
    [
        (1_000, "2001:db8:{:x}::1"),
        (1_000, "10.{}.{}.1"),
        (5_000, "2001:{:x}::1"),
        (20_000, "10.{}.{}.1"),
    ],
)
def test_all_sessions_can_be_counted_though_each_is_of_another_network(
    path: Path, sessions_max: int, network: str
) -> None:
    path.write_text(f"{TEXT}[receive]\nsessions_max = {sessions_max}\n")
    slots = load_plan(str(path)).counter_slots
    # Of a single worker: the worst case. With a secret that is always the same.
    counters = SharedCounters(bytearray(map_octets(1, slots)), 1, 0)
    admission = Admission(ReceiveSettings(sessions_max=sessions_max))
    for number in range(sessions_max):
        parts = (number,) if ":" in network else divmod(number, 256)
        found = admission.enter(counters, network.format(*parts))
        assert isinstance(found, Admitted), (number, found)
    assert admission.enter(counters, "192.0.2.1") == TurnedAway(
        Reply.of(421, "4.3.2", "too many sessions, try again later"), "sessions_max"
    )


def test_wrong_configuration_is_no_plan(path: Path) -> None:
    path.write_text("hostnam = 1\n")
    with pytest.raises(ConfigError, match="hostname"):
        load_plan(str(path))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"workers": 99}, "the number of workers"),
        ({"spool_directory": "/else"}, "the spool directory"),
        ({"run_directory": "/else"}, "the run directory"),
        ({"hostname": "else"}, "the host name"),
        ({"listens": ()}, "the listening addresses"),
        ({"process": ProcessSettings(user="else")}, "the users and groups"),
    ],
)
def test_what_cannot_change_in_place_is_named(
    path: Path, change: dict[str, object], named: str
) -> None:
    plan = load_plan(str(path))
    assert changed_in_place(plan, plan) == []
    assert changed_in_place(plan, _changed(plan, change)) == [named]


def test_order_of_addresses_does_not_matter(path: Path) -> None:
    plan = load_plan(str(path))
    turned = _changed(plan, {"listens": tuple(reversed(plan.listens))})
    assert changed_in_place(plan, turned) == []


def _changed(plan: Plan, change: dict[str, object]) -> Plan:
    return msgspec.structs.replace(plan, **change)


def test_lock_names_its_holder_and_can_be_taken_again(tmp_path: Path) -> None:
    lock = take_lock(str(tmp_path))
    with pytest.raises(AlreadyRunning, match=f"process {os.getpid()}") as refused:
        take_lock(str(tmp_path))
    assert refused.value.pid == os.getpid()
    lock.release()
    take_lock(str(tmp_path)).release()


@pytest.mark.parametrize(
    ("settings", "euid", "why"),
    [
        (ProcessSettings(), 0, "names no user"),
        (ProcessSettings(user="root"), 0, "never run as root"),
        (ProcessSettings(user="no-such-user"), 0, "does not exist"),
        (ProcessSettings(user="nobody", group="no-such-group"), 0, "does not exist"),
        (ProcessSettings(user="nobody"), 1234, "only root can change"),
    ],
)
def test_identities_that_are_refused(
    settings: ProcessSettings, euid: int, why: str
) -> None:
    with pytest.raises(IdentityError, match=why):
        choose_identity(settings, euid)


def test_identities_that_work() -> None:
    assert choose_identity(ProcessSettings(), 1234) is None
    assert choose_identity(ProcessSettings(user="nobody"), 65534) is None
    chosen = choose_identity(ProcessSettings(user="nobody"), 0)
    assert chosen is not None
    assert (chosen.name, chosen.uid) == ("nobody", 65534)
    assert chosen.gid in chosen.groups


def test_directories_are_made_once(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    make_directory(str(path), 0o755, None)
    assert path.stat().st_mode & 0o777 == 0o755
    path.chmod(0o700)
    make_directory(str(path), 0o755, None)
    assert path.stat().st_mode & 0o777 == 0o700


def test_a_directory_that_another_server_makes_at_that_moment_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several supervisors start at once: each finds nothing, one is the first."""
    path = tmp_path / "a" / "b"
    mkdir = Path.mkdir

    def late(directory: Path, mode: int = 0o777) -> None:
        mkdir(directory)
        directory.chmod(0o711)  # whatever the umask
        mkdir(directory, mode)

    monkeypatch.setattr(Path, "mkdir", late)
    make_directory(str(path), 0o755, None)
    assert path.stat().st_mode & 0o777 == 0o711


def test_a_file_in_a_directorys_place_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    path.write_text("")
    with pytest.raises(FileExistsError):
        make_directory(str(path), 0o755, None)


@pytest.mark.parametrize(
    ("ended", "text"),
    [
        (Ended(3, "", 0), "ended with status 3"),
        (Ended(-9, "", 0), "died of signal SIGKILL"),
        (Ended(-9, "no sign of life", 0), "killed: no sign of life"),
    ],
)
def test_ends_in_words(ended: Ended, text: str) -> None:
    assert ended.text == text
