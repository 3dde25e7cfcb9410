"""The users file: one user a line, a name and then its credentials.

::

    # Mail users; change them with "postroom user".
    betty argon2id$v=19$m=19456,t=2,p=1$... SCRAM-SHA-256$15000:...
    joe argon2id$v=19$m=19456,t=2,p=1$...
    sales

A user without credentials gets mail and cannot log in. Names are compared without
regard to case and are written in lower case. The file is replaced as a whole (written
aside, synced, renamed; mode 0600), under a lock, and comments survive.
"""

import fcntl
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from postroom.auth.credentials import Credential

NAME_LENGTH_MAX = 64  # RFC 5321 §4.5.3.1.1: a local part
CREDENTIALS_MAX = 8
FILE_OCTETS_MAX = 256 << 20

_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_-])?")
_HEADER = '# Mail users: a name, then credentials. Change them with "postroom user".\n'


class UsersError(Exception):
    """The users file cannot be used or changed; the text names file and line."""

    def __init__(self, path: str, reason: str, line: int = 0) -> None:
        self.path = path
        self.line = line
        self.reason = reason
        super().__init__(f"{path}:{line}: {reason}" if line else f"{path}: {reason}")


class User(msgspec.Struct, frozen=True):
    """One user; ``credentials`` are all the ways to prove it is them."""

    name: str
    credentials: tuple[Credential, ...] = ()


def check_name(name: str) -> str:
    """Return a user's name in lower case.

    Raises:
        ValueError: it cannot be a user's name; the message says what can.
    """
    lowered = name.lower()
    if len(lowered) > NAME_LENGTH_MAX:
        raise ValueError(f"a user's name has at most {NAME_LENGTH_MAX} characters")
    # Not after lower(): some letters outside ASCII have ASCII small letters.
    if not (name.isascii() and _NAME.fullmatch(lowered)) or ".." in lowered:
        raise ValueError(
            f"{name!r} is no user's name: use letters a-z, digits, and . _ - within"
        )
    return lowered


def read_users(path: str) -> dict[str, User]:
    """Read the whole file.

    Raises:
        UsersError: it cannot be read, or a line is no user.
    """
    return _parse(path, _read(path))


def add_user(path: str, user: User, owner: tuple[int, int] | None = None) -> None:
    """Add a user; the file is made if need be.

    Args:
        path: the users file.
        user: whom to add.
        owner: user and group id that a new file is given to.

    Raises:
        UsersError: there is such a user already, or the file cannot be changed.
    """

    def add(users: dict[str, User], lines: list[str]) -> None:
        if user.name in users:
            raise UsersError(path, f'there is a user "{user.name}" already')
        lines.append(_line(user))

    _edit(path, add, owner)


def change_user(path: str, user: User) -> None:
    """Give a user these credentials in place of the old ones.

    Raises:
        UsersError: there is no such user, or the file cannot be changed.
    """
    _replace(path, user.name, [_line(user)])


def remove_user(path: str, name: str) -> None:
    """Remove a user and all its credentials; its mailbox is left alone.

    Raises:
        UsersError: there is no such user, or the file cannot be changed.
    """
    _replace(path, name, [])


def _replace(path: str, name: str, instead: list[str]) -> None:
    def replace(users: dict[str, User], lines: list[str]) -> None:
        if name not in users:
            raise UsersError(path, f'there is no user "{name}"')
        lines[:] = [
            new
            for line in lines
            for new in (instead if _name_of(line) == name else [line])
        ]

    _edit(path, replace, None)


def _name_of(line: str) -> str:
    words = line.split(None, 1)
    return words[0].lower() if words and not words[0].startswith("#") else ""


def _line(user: User) -> str:
    return " ".join((user.name, *(one.to_text() for one in user.credentials)))


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_OCTETS_MAX + 1)
        if len(data) > FILE_OCTETS_MAX:
            raise UsersError(path, "is larger than 256 MiB")
        return data.decode()
    except OSError as error:
        raise UsersError(path, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsersError(path, "is not UTF-8", line) from None


def _parse(path: str, text: str) -> dict[str, User]:
    users: dict[str, User] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not _name_of(line):
            continue
        word, *rest = line.split()
        try:
            name = check_name(word)
            if len(rest) > CREDENTIALS_MAX:
                raise ValueError(f"has more than {CREDENTIALS_MAX} credentials")
            if name in users:
                raise ValueError(f'the user "{name}" is there twice')
            credentials = tuple(Credential.from_text(one) for one in rest)
        except ValueError as error:
            raise UsersError(path, str(error), number) from None
        users[name] = User(name, credentials)
    return users


def _edit(
    path: str,
    change: Callable[[dict[str, User], list[str]], None],
    owner: tuple[int, int] | None,
) -> None:
    """Change the file's lines under the lock, and put it in place at once."""
    try:
        with _locked(path):
            text = _read(path) if os.path.exists(path) else _HEADER
            lines = text.splitlines()
            change(_parse(path, text), lines)
            _write(Path(path), "".join(f"{line}\n" for line in lines), owner)
    except OSError as error:
        reason = f"cannot be changed: {error.strerror} ({error.filename or path})"
        raise UsersError(path, reason) from None


@contextmanager
def _locked(path: str) -> Iterator[None]:
    """Hold the lock beside the file: the file itself is replaced."""
    # No link: root may be led elsewhere by whom the directory belongs to.
    how = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    lock = os.open(f"{path}.lock", how, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _write(path: Path, text: str, owner: tuple[int, int] | None) -> None:
    """Write aside, sync, rename, sync the directory: a crash leaves old or new."""
    try:
        before = path.stat()
        owner = (before.st_uid, before.st_gid)
    except FileNotFoundError:
        pass
    # mkstemp makes it mode 0600
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "w", encoding="utf-8") as file:
            if owner and owner != (os.geteuid(), os.getegid()):
                os.fchown(handle, *owner)
            file.write(text)
            file.flush()
            os.fsync(handle)
        os.rename(aside, path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
