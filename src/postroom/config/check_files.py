"""Checks the directories and files that a configuration names, as they are now."""

import os
import pwd
import stat
import sys
from operator import attrgetter
from pathlib import Path

from postroom.auth.file import UsersError, read_users
from postroom.config.findings import Findings, problem, warning
from postroom.config.settings import NO_PATHS, Config
from postroom.policy.loader import SiteError, load_site

_Who = tuple[int, frozenset[int]]
"""A user id and the groups it is in."""

_CHECK_GENERATION = 0
"""Generations in force are numbered from 1."""
_MODES = {"run_directory": "755", "drop_directory": "3733"}
"""Others than 700: users have to reach what is in them."""
_PRIVATE = ("spool.directory", "run_directory", "history.directory")
_LONGEST_SOCKET = "worker-999.sock"
_SOCKET_OCTETS_MAX = 107
"""As unix(7) has it, without the NUL."""


def unsafe_file(path: str) -> Findings:
    """Say whether strangers could change a file that the server believes."""
    try:
        found = os.stat(path)
    except OSError:
        return
    if found.st_mode & stat.S_IWOTH:
        yield warning(f"{path}: anybody may change it: chmod o-w {path}")
    elif found.st_mode & stat.S_IWGRP and found.st_gid != 0:
        yield warning(f"{path}: a group may change it: chmod g-w {path}")


def site_findings(config: Config) -> Findings:
    """Load the policy module as the server would."""
    module = config.policy.module
    if not module:
        return
    yield from unsafe_file(module)
    try:
        site = load_site(module, _CHECK_GENERATION)
    except SiteError as error:
        yield problem(f"policy.module: {error}")
        return
    site.forget()
    if not site.hooks:
        yield warning(f"policy.module: {module} declares no hook")


def users_findings(config: Config) -> Findings:
    """Read the users file; it holds password hashes, so nobody else should."""
    path = config.users_file
    try:
        found = os.stat(path)
    except FileNotFoundError:
        yield warning(f"users_file: {path} does not exist: postroom user add NAME")
        return
    except OSError as error:
        yield problem(f"users_file: {path} cannot be read: {error.strerror}")
        return
    if found.st_mode & 0o077:
        yield warning(
            f"users_file: {path} holds password hashes and others may read or change "
            f"it: chmod 600 {path}"
        )
    try:
        users = read_users(path)
    except UsersError as error:
        yield problem(f"users_file: {error}")
        return
    if not users:
        yield warning(f"users_file: {path} has no users: postroom user add NAME")


_READ_BY_WORKERS = (
    ("users_file",),
    ("policy", "module"),
    ("route", "aliases"),
    ("route", "routes"),
    ("submission", "senders"),
    ("auth", "module"),
    ("auth", "tokens", "jwks_file"),
    ("auth", "tokens", "client_secret_file"),
    ("auth", "tokens", "ca_file"),
    ("outbound", "logins_file"),
    ("outbound", "ca_file"),
    ("outbound", "certificate"),
    ("outbound", "certificate_key"),
)


def reading_findings(config: Config) -> Findings:
    """Whether workers can read what root can: they are another user."""
    who = worker(config)
    if who is None:
        return
    user = config.process.user
    yield from _program_findings(who, user)
    for keys in _READ_BY_WORKERS:
        path = attrgetter(".".join(keys))(config)
        if path in NO_PATHS or not Path(path).exists():
            continue  # told of elsewhere
        if closed := _closed_to(who, Path(path)):
            yield problem(
                f"{'.'.join(keys)}: {path} cannot be reached by {user}, who may not "
                f"enter {closed}: chmod o+x {closed}"
            )
        elif not _allows(os.stat(path), who, 4):
            yield problem(
                f"{'.'.join(keys)}: {path} cannot be read by {user}: "
                f"chown {user} {path}"
            )


def _program_findings(who: _Who, user: str) -> Findings:
    """Workers are started with this Python and this package, as their user."""
    for path in (Path(sys.executable), Path(__file__)):
        if closed := _closed_to(who, path):
            yield problem(
                f"process.user: {path}, a part of the program, cannot be reached by "
                f"{user}, who may not enter {closed}: install where everybody may "
                f"read (/opt), with a Python of the system, or chmod o+x {closed}"
            )


def _closed_to(who: _Who, path: Path) -> Path | None:
    """Return the directory on the way that a user may not enter."""
    places = {*path.absolute().parents, *path.resolve().parents}
    for place in sorted(places):
        if not _allows(place.stat(), who, 1):
            return place
    return None


def directory_findings(config: Config) -> Findings:
    """Whether the server can write where it has to."""
    if config.process.user not in ("", _own_name()) and os.geteuid() != 0:
        yield warning(
            f"process.user: whether {config.process.user} can write its directories "
            "only root can tell: run the check as root"
        )
        return
    yield from _log_findings(config)
    yield from _run_findings(config)
    who = worker(config)
    for name, path in _directories(config):
        existing = Path(path)
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
        if not existing.is_dir():
            yield problem(f"{name}: {existing} is no directory")
            continue
        missing = str(existing) != path
        below = existing / "it" if missing else existing
        if who and (closed := _closed_to(who, below)):
            yield problem(
                f"{name}: {path} cannot be reached by {config.process.user}, who may "
                f"not enter {closed}: chmod o+x {closed}"
            )
            continue
        if missing and os.geteuid() == 0:
            continue  # made at the start, by root for the workers
        if not _may_write(existing, config):
            user = config.process.user or _own_name()
            if missing:
                what = "does not exist and cannot be made"
                mode = _MODES.get(name, "700")
                remedy = f'"install -d -o {user} -m {mode} {path}" as root makes it'
            else:
                what = "is not writable"
                remedy = (
                    f'"chown {user} {path}" if it is for nothing else, or name a '
                    "directory of its own"
                )
            yield problem(f"{name}: {path} {what} by {user}: {remedy}")
        elif not missing and name in _PRIVATE:
            yield from _stranger_findings(name, existing, config)


def _stranger_findings(name: str, directory: Path, config: Config) -> Findings:
    """Whoever can change these directories can read mail, or play the server."""
    found = directory.stat()
    who = worker(config)
    if found.st_uid not in (0, who[0] if who else os.getuid()):
        yield warning(
            f"{name}: {directory} belongs to user {found.st_uid}, who can change what "
            f"is in it: chown {config.process.user or _own_name()} {directory}"
        )
    if found.st_mode & stat.S_IWOTH:
        yield warning(
            f"{name}: anybody may write in {directory}: chmod o-w {directory}, or take "
            "a directory of its own"
        )


def _directories(config: Config) -> list[tuple[str, str]]:
    own = config.history.directory  # else within the spool
    return [
        ("spool.directory", config.spool.directory),
        ("run_directory", config.run_directory),
        ("drop_directory", config.drop_directory),
        ("mailbox.path", config.mailbox.directory),
        *[("history.directory", own)] * bool(own and config.history.enabled),
    ]


def _run_findings(config: Config) -> Findings:
    """Sockets are in the run directory, and their names are short."""
    longest = os.fsencode(f"{config.run_directory}/{_LONGEST_SOCKET}")
    if (over := len(longest) - _SOCKET_OCTETS_MAX) > 0:
        yield problem(
            f"run_directory: {config.run_directory} is {over} octets too long for the "
            "sockets in it: take a shorter one"
        )


def _log_findings(config: Config) -> Findings:
    """The log's directory is not made; root makes the file, for the workers."""
    if config.log.to in NO_PATHS:
        return
    directory = Path(config.log.to).parent
    who = worker(config)
    if not directory.is_dir():
        yield problem(f"log.to: {directory} is no directory: make it")
    elif Path(config.log.to).is_dir():
        yield problem(f"log.to: {config.log.to} is a directory: name a file in it")
    elif who is None and not os.access(directory, os.W_OK | os.X_OK):
        yield problem(f"log.to: {directory} is not writable by {_own_name()}")
    elif who is not None and not _allows(directory.stat(), who, 1):
        user = config.process.user
        yield problem(f"log.to: {directory} cannot be entered by {user}: chmod +x it")


def worker(config: Config) -> _Who | None:
    """Return whom the workers run as, if root starts them."""
    if os.geteuid() != 0 or not config.process.user:
        return None
    try:
        found = pwd.getpwnam(config.process.user)
    except KeyError:
        return None
    return found.pw_uid, frozenset(os.getgrouplist(found.pw_name, found.pw_gid))


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container's user without an entry
        return str(os.geteuid())


def _may_write(directory: Path, config: Config) -> bool:
    who = worker(config)
    if who is None:
        return os.access(directory, os.W_OK | os.X_OK)
    return _allows(directory.stat(), who, 3)


def _allows(found: os.stat_result, who: _Who, wanted: int) -> bool:
    """Whether the mode bits give a user these rights (4 read, 2 write, 1 enter)."""
    user, groups = who
    group_shift = 3 if found.st_gid in groups else 0
    shift = 6 if found.st_uid == user else group_shift
    return (found.st_mode >> shift) & wanted == wanted
