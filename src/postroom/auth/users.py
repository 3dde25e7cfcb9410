"""The users in force: who exists, and whether a password is theirs.

The file is read by ``refresh`` only, from a thread; all else answers from memory. A
file with an error is refused and the version before stays in force. Where there is
none before, as when the server has just started, nobody can say who exists (``fault``):
mail waits, and logins are told to come back. A file that is not there has no users.
"""

import os
import time
from collections import Counter
from collections.abc import Collection

import msgspec

from postroom.auth import cram, scram
from postroom.auth.credentials import Credential, Scheme, make_argon2
from postroom.auth.file import User, UsersError, read_users
from postroom.auth.sasl import Secret
from postroom.auth.settings import AuthSettings
from postroom.mail.units import Duration

_Mark = tuple[int, int, int]
"""What tells a changed file: inode, modification time in nanoseconds, size."""

_NO_MARK: _Mark = (0, 0, 0)


class _Version(msgspec.Struct, frozen=True):
    """One reading of the file.

    ``rounds`` is the cost of a failed check in hashes; ``iterations`` is what most
    SCRAM verifiers have, 0 if there are none. ``usual`` is a credential that costs what
    most do, None if nobody has one.
    """

    users: dict[str, User]
    rounds: int = 1
    schemes: frozenset[Scheme] = frozenset()
    iterations: int = 0
    usual: Credential | None = None


class Users:
    """The users file, held in memory.

    Attributes:
        fault: why nobody can say who exists; empty if all is well.

    Args:
        path: the file.
        settings: how passwords are hashed.
        domains: our own domains, in lower case; a login ``joe@whizzer.test`` in one of
            them is ``joe``.
        secret: what strangers' salts are made of; the same in all workers, or else
            they could be told from users. Empty: one of its own.
    """

    def __init__(
        self,
        path: str,
        settings: AuthSettings,
        domains: Collection[str] = (),
        secret: bytes = b"",
    ) -> None:
        self.path = path
        self._settings = settings
        self._domains = frozenset(domains)
        self._version = _Version({})
        self._mark = _NO_MARK
        self._problem: UsersError | None = None
        self.fault = ""
        self._has_version = False
        self._read_ns = -1
        self._secret = secret or os.urandom(32)
        # Unknown users are checked against this, so that they cost the same.
        self._nobody = make_argon2(os.urandom(16), settings)

    def serve(self, domains: Collection[str]) -> None:
        """Let logins be in these domains from now on; they are in lower case."""
        self._domains = frozenset(domains)

    @property
    def domains(self) -> frozenset[str]:
        """The domains that logins may be in."""
        return self._domains

    def refresh(self) -> UsersError | None:
        """Read the file if it has changed; to be called from a thread.

        Returns:
            What is wrong with it, once for each state of the file; the version before
            is in force then.
        """
        self._read_ns = time.monotonic_ns()
        try:
            mark = _mark_of(self.path)
            if mark == self._mark:
                return None
            self._mark = mark
            users = read_users(self.path)
        except OSError as error:
            self._mark = _NO_MARK
            problem = UsersError(self.path, f"cannot be read: {error.strerror}")
            is_there = not isinstance(error, FileNotFoundError)
        except UsersError as error:
            problem, is_there = error, True
        else:
            self._version, self._problem = _version(users), None
            self._has_version, self.fault = True, ""
            return None
        if not self._has_version:
            self.fault = str(problem) if is_there else ""
        if self.fault:
            why = f"{problem.reason}; until it is mended, mail for users waits"
            problem = UsersError(self.path, why, problem.line)
        told = str(problem) == str(self._problem)
        self._problem = problem
        return None if told else problem

    def is_older_than(self, age: Duration) -> bool:
        """Whether the last look at the file was longer ago than this."""
        return time.monotonic_ns() - self._read_ns > age * 1000 or self._read_ns < 0

    def exists(self, name: str) -> bool:
        """Whether mail for this local name has a mailbox.

        Raises:
            OSError: nobody can say, because the file could not be read yet.
        """
        if name.lower() in self._version.users:
            return True
        if self.fault:
            raise OSError(self.fault)
        return False

    def find(self, login: str) -> User | None:
        """Return the user that a login name means."""
        return self._version.users.get(self._name(login))

    def _name(self, login: str) -> str:
        """Return the one spelling of a name, whoever it means."""
        name = login.lower()
        local, at, domain = name.rpartition("@")
        return local if at and domain in self._domains else name

    @property
    def schemes(self) -> frozenset[Scheme]:
        """The kinds of credentials that some user has."""
        return self._version.schemes

    def names(self) -> tuple[str, ...]:
        """Return all names, sorted."""
        return tuple(sorted(self._version.users))

    def verify(self, login: str, password: bytes) -> User | None:
        """Return the user if the password is theirs.

        Takes milliseconds and much memory on purpose: call it from a thread, few at a
        time. A user who does not exist, or cannot log in, takes as long.
        """
        version, prepared = self._version, scram.prepare(password)
        user = self.find(login)
        candidates = _password_credentials(user.credentials) if user else ()
        for credential in candidates:
            if credential.matches(prepared):
                return user
        # As most have it, or else strangers stood out once the settings change. What
        # comes of it counts for nothing, though somebody may have this password.
        nobody = version.usual or self._nobody
        for _ in range(version.rounds - len(candidates)):
            nobody.matches(prepared)
        return None

    def scram_verifier(self, login: str) -> scram.Verifier:
        """Return the user's verifier, or one that no password fits.

        The latter is the same each time, and under each of a name's spellings, as a
        user's is: so nobody learns who exists.
        """
        user = self.find(login)
        for credential in user.credentials if user else ():
            if credential.scheme == scram.SCHEME:
                return scram.Verifier.from_text(credential.value)
        # As most have it, or else strangers stood out once the setting changes.
        iterations = self._version.iterations or self._settings.scram_iterations
        return scram.stand_in(self._name(login), self._secret, iterations)

    def cram_secret(self, login: str) -> Secret:
        """Return the user's secret for CRAM-MD5, or one that no password fits."""
        user = self.find(login)
        for credential in user.credentials if user else ():
            if credential.scheme == cram.SCHEME:
                return cram.from_text(credential.value)
        return cram.stand_in(self._name(login), self._secret)


def _mark_of(path: str) -> _Mark:
    found = os.stat(path)
    return found.st_ino, found.st_mtime_ns, found.st_size


def _password_credentials(all_: tuple[Credential, ...]) -> tuple[Credential, ...]:
    """Return those a password is checked against: argon2id if there is any."""
    hashes = tuple(one for one in all_ if one.scheme == "argon2id")
    return hashes or all_


def _version(users: dict[str, User]) -> _Version:
    credentials = [one for user in users.values() for one in user.credentials]
    schemes = frozenset(one.scheme for one in credentials)
    iterations = Counter(
        one.value.partition(":")[0] for one in credentials if one.scheme == scram.SCHEME
    )
    most = iterations.most_common(1)
    return _Version(
        users,
        _rounds(users),
        schemes,
        int(most[0][0]) if most else 0,
        _usual(users),
    )


def _usual(users: dict[str, User]) -> Credential | None:
    """Return one of those that cost what most passwords cost to check."""
    checked = [
        one
        for user in users.values()
        for one in _password_credentials(user.credentials)
    ]
    costs = Counter(one.cost for one in checked).most_common(1)
    return next(one for one in checked if one.cost == costs[0][0]) if costs else None


def _rounds(users: dict[str, User]) -> int:
    """Return how many hashes the user with the most of them costs."""
    counts = (len(_password_credentials(user.credentials)) for user in users.values())
    return max(1, max(counts, default=1))
