"""What root makes where the workers' user may write: no link leads it elsewhere."""

import os
import pwd
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from postroom.mail.ids import QueueId
from postroom.observe.events import MessageShunted
from postroom.observe.history import HistoryWriter
from postroom.observe.owner import acting_as
from postroom.observe.settings import HistorySettings
from postroom.spool.lock import ShardLock
from postroom.supervise.identity import (
    RunAs,
    could_change,
    make_directory,
    open_log_file,
)
from postroom.supervise.sockets import BindError, bind_unix

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root is led astray")


@pytest.fixture
def nobody() -> RunAs:
    entry = pwd.getpwnam("nobody")
    return RunAs("nobody", entry.pw_uid, entry.pw_gid, (entry.pw_gid,))


@pytest.fixture
def place(nobody: RunAs) -> Iterator[Path]:
    """A directory of root's with one of the workers', ``theirs``, and a secret."""
    with tempfile.TemporaryDirectory(prefix="files-") as name:
        made = Path(name)
        made.chmod(0o755)
        (made / "secret").write_text("root's")
        (made / "secret").chmod(0o600)
        (made / "theirs").mkdir()
        os.chown(made / "theirs", nobody.uid, nobody.gid)
        yield made


SHUNTED = MessageShunted(1_795_348_800_000_000, QueueId("04Vt8S7x9U1"), "torn")


def untouched(secret: Path) -> bool:
    found = secret.stat()
    return found.st_uid == 0 and secret.read_text() == "root's"


def test_a_log_in_their_directory_is_opened_with_their_rights(
    place: Path, nobody: RunAs
) -> None:
    log = place / "theirs" / "log"
    os.close(open_log_file(str(log), nobody))
    assert (log.stat().st_uid, log.stat().st_gid) == (nobody.uid, nobody.gid)
    log.unlink()
    log.symlink_to(place / "secret")
    with pytest.raises(PermissionError):
        open_log_file(str(log), nobody)
    assert untouched(place / "secret")


def test_a_log_in_roots_directory_is_made_for_them(place: Path, nobody: RunAs) -> None:
    log = place / "log"
    os.close(open_log_file(str(log), nobody))
    assert log.stat().st_uid == nobody.uid
    assert stat.S_IMODE(log.stat().st_mode) & 0o027 == 0


def test_a_log_that_is_a_device_stays_roots(nobody: RunAs) -> None:
    os.close(open_log_file("/dev/null", nobody))
    assert os.stat("/dev/null").st_uid == 0


@pytest.mark.parametrize(
    ("path", "is_theirs"),
    [
        pytest.param("log", False, id="roots-directory"),
        pytest.param("theirs/log", True, id="their-directory"),
        pytest.param("theirs/roots/log", True, id="beneath-theirs"),
        pytest.param("link", True, id="roots-link-into-theirs"),
        pytest.param("anybodys/log", True, id="anybodys-directory"),
        pytest.param("anybodys/roots/log", False, id="beneath-anybodys-sticky"),
        pytest.param("groups/log", True, id="directory-of-their-group"),
    ],
)
def test_where_they_could_lay_a_link(
    place: Path, nobody: RunAs, path: str, is_theirs: bool
) -> None:
    for name in ("theirs/roots", "anybodys/roots", "groups"):
        (place / name).mkdir(parents=True)
        (place / name).chmod(0o755)
    (place / "link").symlink_to("theirs/log")
    (place / "anybodys").chmod(0o1777)
    os.chown(place / "groups", 0, nobody.gid)
    (place / "groups").chmod(0o775)
    assert could_change(str(place / path), nobody) is is_theirs


def test_a_socket_is_theirs_from_the_first(place: Path, nobody: RunAs) -> None:
    path = place / "theirs" / "s.sock"
    with bind_unix(str(path), mode=0o666, run_as=nobody):
        found = path.stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (nobody.uid, 0o666)
    with pytest.raises(BindError, match=r"denied: .* has to belong to nobody"):
        bind_unix(str(place / "s.sock"), mode=0o666, run_as=nobody)


def test_a_directory_is_made_theirs(place: Path, nobody: RunAs) -> None:
    made = place / "new" / "spool"
    make_directory(str(made), 0o700, nobody)
    assert (made.stat().st_uid, stat.S_IMODE(made.stat().st_mode)) == (
        nobody.uid,
        0o700,
    )
    assert made.parent.stat().st_uid == 0


def test_history_that_root_writes_goes_nowhere_else(place: Path, nobody: RunAs) -> None:
    directory = place / "theirs" / "history"
    with HistoryWriter(str(directory), HistorySettings()) as writer:
        writer.append([SHUNTED])
    (kept,) = (directory / "commands").iterdir()
    assert kept.stat().st_uid == directory.stat().st_uid == nobody.uid
    kept.unlink()
    kept.symlink_to(place / "secret")
    with (
        HistoryWriter(str(directory), HistorySettings()) as writer,
        pytest.raises(PermissionError),
    ):
        writer.append([SHUNTED])
    assert untouched(place / "secret")


def test_the_lock_of_a_shard_is_no_link(place: Path) -> None:
    (place / "theirs" / "lock").symlink_to(place / "secret")
    with pytest.raises(OSError, match="symbolic links"):
        ShardLock(str(place / "theirs"))
    assert untouched(place / "secret")


def test_rights_come_back(place: Path, nobody: RunAs) -> None:
    with (
        pytest.raises(PermissionError),
        acting_as(nobody.uid, nobody.gid),
    ):
        (place / "secret").read_text()
    assert untouched(place / "secret")
