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


def test_every_file_says_where_it_goes() -> None:
    for path in PACKAGING.iterdir():
        assert re.search(r"^# .*[Ii]nstall", path.read_text(), re.MULTILINE), path.name
