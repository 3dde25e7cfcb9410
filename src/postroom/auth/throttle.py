"""Password checks: few at a time, a bounded queue, and a short memory of successes.

A check costs tens of milliseconds of a core and much memory, on purpose; so a flood of
logins may neither take all cores nor all memory, and who logs in again within minutes
is not hashed again. What is remembered is a keyed hash over user, stored credentials
and password, with a key that lives in this process only: a changed entry has another
hash, and the memory is worthless to a thief.
"""

import asyncio
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec

from postroom.auth.file import User
from postroom.auth.settings import PASSWORD_OCTETS_MAX, AuthSettings
from postroom.auth.users import Users
from postroom.mail.now import Now
from postroom.observe.events import AnyEvent, TableRefused

LOGIN_LENGTH_MAX = 320

Emit = Callable[[AnyEvent], None]


class Ok(msgspec.Struct, frozen=True):
    """The password is right; ``user`` is the name as it stands in the file."""

    user: str


class Wrong(msgspec.Struct, frozen=True):
    """No such user, or not the password: nobody is told which."""


class Busy(msgspec.Struct, frozen=True):
    """Too many checks wait; the client may come back later."""


CheckResult = Ok | Wrong | Busy


class PasswordChecks:
    """Checks passwords for one worker; to be used on its event loop.

    Args:
        users: the users in force.
        settings: bounds and times.
        threads: checks at a time; see ``threads_for``.
        emit: takes ``TableRefused`` when the users file has an error.
        clock: reads the time.
    """

    def __init__(
        self,
        users: Users,
        settings: AuthSettings,
        threads: int,
        emit: Emit,
        clock: Callable[[], Now],
    ) -> None:
        self._users = users
        self._settings = settings
        self._emit = emit
        self._clock = clock
        self._pending = 0
        self._pending_max = threads + settings.waiting_max
        self._pool = ThreadPoolExecutor(threads, "postroom-password")
        # Apart, so that a changed file is seen while checks are queued.
        self._reader = ThreadPoolExecutor(1, "postroom-users")
        self._reading: asyncio.Task[None] | None = None
        self._key = os.urandom(32)
        self._remembered: dict[bytes, int] = {}  # hash to its end, oldest first

    async def check(self, login: str, password: bytes) -> CheckResult:
        """Say whether the password is the user's.

        Args:
            login: as the client gave it.
            password: its octets as sent.
        """
        if not 0 < len(password) <= PASSWORD_OCTETS_MAX:
            return Wrong()
        if not 0 < len(login) <= LOGIN_LENGTH_MAX:
            return Wrong()
        await self.refresh()
        user = self._users.find(login)
        if user and self._is_remembered(self._hash(user, password)):
            return Ok(user.name)
        result = await self._verified(login, password)
        if isinstance(result, Wrong) and await self._has_changed(login, user):
            result = await self._verified(login, password)
        return result

    async def _verified(self, login: str, password: bytes) -> CheckResult:
        if self._pending >= self._pending_max:
            return Busy()
        self._pending += 1
        try:
            loop = asyncio.get_running_loop()
            proven = await loop.run_in_executor(
                self._pool, self._users.verify, login, password
            )
        finally:
            self._pending -= 1
        if proven is None:
            return Wrong()
        self._remember(self._hash(proven, password))
        return Ok(proven.name)

    async def _has_changed(self, login: str, before: User | None) -> bool:
        """Look at the file once more: a new password is good as soon as it is set."""
        if self._reading is not None:  # that look may have come too early
            await asyncio.shield(self._reading)
        await self._look()
        return self._users.find(login) != before

    async def refresh(self) -> None:
        """Look whether the users file has changed, if the last look is too old."""
        if not self._users.is_older_than(self._settings.refresh):
            return
        await self._look()

    async def _look(self) -> None:
        if self._reading is None:  # one look serves all who wait for it
            self._reading = asyncio.create_task(self._read())
        await asyncio.shield(self._reading)

    def close(self) -> None:
        """End the threads, without waiting for checks in hand."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._reader.shutdown(wait=False, cancel_futures=True)

    async def _read(self) -> None:
        try:
            loop = asyncio.get_running_loop()
            problem = await loop.run_in_executor(self._reader, self._users.refresh)
        finally:
            self._reading = None
        if problem:
            now = self._clock().utc_us
            told = problem.path, problem.line, problem.reason
            self._emit(TableRefused(now, *told, in_force=not self._users.fault))

    def _hash(self, user: User, password: bytes) -> bytes:
        stored = " ".join(one.to_text() for one in user.credentials)
        # No part can run into the next: names and credentials have no NUL.
        data = b"\0".join((user.name.encode(), stored.encode(), password))
        return hashlib.blake2b(data, key=self._key, digest_size=32).digest()

    def _is_remembered(self, digest: bytes) -> bool:
        until_us = self._remembered.get(digest)
        if until_us is None:
            return False
        if until_us > self._clock().mono_us:
            return True
        del self._remembered[digest]
        return False

    def _remember(self, digest: bytes) -> None:
        if not (self._settings.remember and self._settings.remembered_max):
            return
        self._remembered.pop(digest, None)
        if len(self._remembered) >= self._settings.remembered_max:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[digest] = self._clock().mono_us + self._settings.remember


def threads_for(settings: AuthSettings, cores: int, workers: int) -> int:
    """Return how many checks one worker may run at a time.

    All workers together have at most one per core, unless the setting says otherwise
    or there are more workers than cores.
    """
    return settings.threads or max(1, cores // max(1, workers))
