"""The logins at other hosts: a file of names and passwords or tokens, read as needed.

::

    [relay]
    user = "betty@relay.test"
    password = "..."

    [cloud]
    user = "betty@cloud.test"
    token_file = "cloud.token"     # renewed by another program

The file and the token files must belong to root or to whoever runs the server, and
nobody else may read them (mode 0600). A file that has changed is read again; one that
cannot be used raises ``LoginsError``, and mail that needs it waits.
"""

import os
import stat
import tomllib
from pathlib import Path

import msgspec

from postroom.auth.sasl_client import Secrets

FILE_OCTETS_MAX = 256 * 1024
TOKEN_OCTETS_MAX = 16 * 1024

_Version = tuple[int, int, int, int, int]


class LoginsError(Exception):
    """A login cannot be had; the text names the file and what to do."""


class _Login(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One table of the file."""

    user: str = ""
    password: str = ""
    token_file: str = ""
    authorize_as: str = ""

    def __repr__(self) -> str:
        return f"_Login({self.user!r}, ***)"


class Logins:
    """The logins of one file.

    Args:
        path: the file; empty: there is none.
        owners: the users, by number, who may own it; None: root and ourselves.
    """

    def __init__(self, path: str, owners: frozenset[int] | None = None) -> None:
        self._path = path
        self._owners = owners or frozenset({0, os.geteuid()})
        self._version: _Version | None = None
        self._logins: dict[str, _Login] = {}

    def names(self) -> frozenset[str]:
        """Return the names of all logins.

        Raises:
            LoginsError: the file cannot be used.
        """
        self._renew()
        return frozenset(self._logins)

    def find(self, name: str) -> Secrets:
        """Return a login; a token is read anew each time.

        Raises:
            LoginsError: there is none of this name, or a file cannot be used.
        """
        self._renew()
        login = self._logins.get(name)
        if login is None:
            raise LoginsError(f'{self._path}: there is no login "{name}"')
        token = ""
        if login.token_file:
            path = str(Path(self._path).parent / login.token_file)
            token = _read_text(path, TOKEN_OCTETS_MAX, self._owners).strip()
            if not token.isprintable() or not token.isascii() or not token:
                raise LoginsError(f"{path}: holds no token")
        return Secrets(login.user, login.password, token, login.authorize_as)

    def _renew(self) -> None:
        if not self._path:
            raise LoginsError("outbound.logins_file: none is set")
        version = _version_of(self._path)
        if version == self._version:
            return
        text = _read_text(self._path, FILE_OCTETS_MAX, self._owners)
        self._logins = _parse(self._path, text)
        self._version = version


def _version_of(path: str) -> _Version:
    try:
        at = os.stat(path)
    except OSError as error:
        raise LoginsError(f"{path}: cannot be read: {error.strerror}") from None
    return at.st_ino, at.st_mtime_ns, at.st_size, at.st_mode, at.st_uid


def _read_text(path: str, octets_max: int, owners: frozenset[int]) -> str:
    """Read a file of secrets, if it is safe.

    Raises:
        LoginsError: it is not, or cannot be read.
    """
    try:
        # What is checked is what is read, whoever moves files meanwhile.
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(number, "rb") as file:
            _check_safe(path, os.fstat(file.fileno()), owners)
            data = file.read(octets_max + 1)
    except OSError as error:
        raise LoginsError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > octets_max:
        raise LoginsError(f"{path}: is larger than {octets_max} octets")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise LoginsError(f"{path}: is not UTF-8") from None


def _check_safe(path: str, at: os.stat_result, owners: frozenset[int]) -> None:
    if not stat.S_ISREG(at.st_mode):
        raise LoginsError(f"{path}: is no regular file")
    if at.st_uid not in owners:
        raise LoginsError(
            f"{path}: holds secrets, but belongs to user id {at.st_uid}: chown it to "
            "the user that the server runs as"
        )
    if at.st_mode & 0o077:
        raise LoginsError(
            f"{path}: holds secrets, but others may read or change it: chmod 600 {path}"
        )


def _parse(path: str, text: str) -> dict[str, _Login]:
    try:
        found = msgspec.convert(tomllib.loads(text), dict[str, _Login])
    except tomllib.TOMLDecodeError as error:
        # Its text names only the place, never what stands there.
        raise LoginsError(f"{path}: is no TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise LoginsError(f"{path}: {error}") from None
    for name, login in found.items():
        if login.password and login.token_file:
            raise LoginsError(
                f'{path}: login "{name}" has a password and a token_file: keep one'
            )
        if not login.user and (login.password or login.token_file):
            raise LoginsError(f'{path}: login "{name}" has no user')
    return found
