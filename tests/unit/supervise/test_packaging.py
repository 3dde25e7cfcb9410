"""The unit files: systemd understands them, they fit the server."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from postroom.admin.settings import ProcessSettings
from postroom.config.settings import Config, Listen

PACKAGING = Path(__file__).parents[3] / "packaging"
EXPOSURE_MAX = 25
"""As ``systemd-analyze security`` counts it, in tenths; 100 is a naked service."""

needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="NOT TESTED: unit files need systemd-analyze (Debian package systemd)",
)


def values(unit: str, key: str) -> list[str]:
    text = (PACKAGING / unit).read_text()
    return re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """The units, with a program that exists in the place of ours."""
    made = []
    for name in ("postroom.service", "postroom.socket"):
        text = (PACKAGING / name).read_text()
        made.append(tmp_path / name)
        made[-1].write_text(text.replace("/usr/bin/postroom", "/bin/true"))
    return made


@needs_analyze
def test_systemd_understands_them(units: list[Path]) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@needs_analyze
def test_they_leave_little_open(units: list[Path]) -> None:
    done = subprocess.run(
        [
            *("systemd-analyze", "security", "--offline=true", "--no-pager"),
            *(f"--threshold={EXPOSURE_MAX}", units[0]),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_times_fit_those_of_the_server() -> None:
    process = ProcessSettings()
    (stop_s,) = values("postroom.service", "TimeoutStopSec")
    assert int(stop_s) > process.drain_s_max
    (start_s,) = values("postroom.service", "TimeoutStartSec")
    assert int(start_s) > process.bind_timeout.seconds
    # The supervisor has time to kill a hung worker before systemd steps in.
    (watchdog_s,) = values("postroom.service", "WatchdogSec")
    assert int(watchdog_s) > 2 * process.heartbeat_timeout.seconds


def test_directories_are_those_of_the_defaults() -> None:
    config = Config(hostname="gonzo.test", listen=(Listen(address="127.0.0.1:25"),))
    (state,) = values("postroom.service", "StateDirectory")
    (run,) = values("postroom.service", "RuntimeDirectory")
    assert config.run_directory == f"/run/{run}"
    for path in (config.drop_directory, config.mailbox.path):
        assert path.startswith(f"/var/lib/{state}/")
    assert values("postroom.service", "ReadWritePaths") == [config.spool.directory]
    (make,) = values("postroom.service", "ExecStartPre")
    assert make.endswith(f" {config.spool.directory}")
    assert (
        f"d {config.drop_directory} 3733"
        in (PACKAGING / "postroom.tmpfiles").read_text()
    )


def test_what_cannot_get_better_is_not_tried_again() -> None:
    """The statuses of a wrong configuration; see docs/operations.md."""
    assert values("postroom.service", "RestartPreventExitStatus") == ["77 78"]


def test_a_turned_log_is_in_the_directory_of_the_unit() -> None:
    text = (PACKAGING / "postroom.logrotate").read_text()
    (logs,) = values("postroom.service", "LogsDirectory")
    assert f"\n/var/log/{logs}/*.log {{\n" in text
    # The server hears of it by USR1, goes on in the old file until then.
    for line in ("--signal=USR1 postroom.service", "delaycompress", "nocreate"):
        assert f" {line}\n" in text


def test_the_page_on_installing_names_what_is_there() -> None:
    page = (PACKAGING.parent / "docs" / "install.md").read_text()
    (program,) = values("postroom.service", "ExecStart")
    assert f"sed 's|{program.split()[0]}|" in page
    for name in re.findall(r"packaging/([\w.]+)", page):
        assert (PACKAGING / name).exists(), name


def test_every_file_says_where_it_goes() -> None:
    for path in PACKAGING.iterdir():
        assert re.search(r"^# .*[Ii]nstall", path.read_text(), re.MULTILINE), path.name
