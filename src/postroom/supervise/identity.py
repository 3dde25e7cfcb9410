"""As whom workers run, and what directories and limits they find.

Workers never run as root: started as root the supervisor needs a user to change to,
started as anyone else it stays that.
"""

import ctypes
import grp
import os
import pwd
import resource
import stat
from pathlib import Path

import msgspec

from postroom.admin.settings import ProcessSettings
from postroom.observe.owner import acting_as
from postroom.observe.sinks import open_file

PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
"""From the kernel's linux/prctl.h."""


class IdentityError(Exception):
    """Workers cannot run as asked; the text says what to do."""


class RunAs(msgspec.Struct, frozen=True):
    """The identity of workers."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str = "/"

    @property
    def environment(self) -> dict[str, str]:
        """What programs that a policy hook starts have to believe of themselves."""
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name}


def choose_identity(process: ProcessSettings, euid: int) -> RunAs | None:
    """Return whom workers have to change to, None if to nobody.

    Raises:
        IdentityError: root without a user, root as the user, a user unknown to the
            system, or a change that only root could make.
    """
    if not process.user:
        if euid == 0:
            raise IdentityError(
                "started as root, but the configuration names no user to run as: "
                'make one ("adduser --system --group postroom") and set '
                'user = "postroom" in [process], or start it as an ordinary user'
            )
        return None
    try:
        entry = pwd.getpwnam(process.user)
    except KeyError:
        raise IdentityError(
            f'the user "{process.user}" of the configuration does not exist: make it '
            f'("adduser --system --group {process.user}") or name another'
        ) from None
    if euid != 0:
        _stay(entry.pw_name, entry.pw_uid, euid)
        return None
    if entry.pw_uid == 0:
        raise IdentityError("workers never run as root: name another user")
    gid = _group_id(process.group) if process.group else entry.pw_gid
    groups = tuple(os.getgrouplist(entry.pw_name, gid))
    return RunAs(entry.pw_name, entry.pw_uid, gid, groups, entry.pw_dir)


def become(run_as: RunAs | None) -> None:
    """Change this process to another identity, for good; None to stay."""
    if run_as is not None:
        os.setgroups(run_as.groups)
        os.setgid(run_as.gid)
        os.setuid(run_as.uid)


def give_up_capabilities() -> None:
    """Let no program that we start inherit the right to bind low ports.

    Started as an ordinary user with ambient capabilities, as systemd does, the
    supervisor keeps them to itself; where there are none, nothing changes.
    """
    ctypes.CDLL(None).prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)


def raise_file_limit() -> int:
    """Raise the limit of open files as far as allowed; returns what it is now."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def make_directory(path: str, mode: int, run_as: RunAs | None) -> None:
    """Make a directory, with parents, for the workers' use; keep one that exists.

    Raises:
        OSError: it cannot be made, or something else has its name.
    """
    directory = Path(path)
    if directory.is_dir():
        return
    for parent in reversed(directory.parents):
        if not parent.is_dir() and _make(parent):
            parent.chmod(0o755)  # whatever the umask
    if not _make(directory):
        return
    # By a descriptor: who owns the parent could put a link in its place.
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if run_as is not None:
            os.fchown(fd, run_as.uid, run_as.gid)
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def open_log_file(path: str, run_as: RunAs | None) -> int:
    """Open the log to append to; the file belongs to the workers, who do so too.

    Where the workers' user could have laid a link, it is opened with their rights.

    Raises:
        OSError: it cannot be opened.
    """
    if run_as is None:
        return open_file(path)
    if could_change(path, run_as):
        with acting_as(run_as.uid, run_as.gid):
            return open_file(path)
    fd = open_file(path)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        os.fchown(fd, run_as.uid, run_as.gid)
    return fd


def could_change(path: str, run_as: RunAs) -> bool:
    """Whether the workers' user could put something else under this name.

    Raises:
        OSError: its directory cannot be looked at.
    """
    for one in {os.path.abspath(path), os.path.realpath(path)}:
        above = Path(one).parents
        for place in above:
            found = place.stat()
            keeps_names = place != above[0] and found.st_mode & stat.S_ISVTX
            if found.st_uid == run_as.uid:
                return True
            if found.st_mode & stat.S_IWOTH and not keeps_names:
                return True
            if found.st_mode & stat.S_IWGRP and found.st_gid in run_as.groups:
                return True
    return False


def _make(directory: Path) -> bool:
    """Make it; False: somebody, perhaps another server, was quicker."""
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        if not directory.is_dir():
            raise
        return False
    return True


def _stay(name: str, uid: int, euid: int) -> None:
    if uid != euid:
        raise IdentityError(
            f'the configuration says user "{name}", but only root can change to it: '
            f'start it as root or as "{name}", or take the user out'
        )


def _group_id(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise IdentityError(
            f'the group "{name}" of the configuration does not exist'
        ) from None
