"""As whom workers run, and what directories and limits they find.

Workers never run as root: started as root the supervisor needs a user to change to,
started as anyone else it stays that.
"""

import ctypes
import grp
import os
import pwd
import resource
from pathlib import Path

import msgspec

from postroom.admin.settings import ProcessSettings

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
    return RunAs(entry.pw_name, entry.pw_uid, gid, groups)


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
    if run_as is not None:
        os.chown(directory, run_as.uid, run_as.gid)
    directory.chmod(mode)


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
