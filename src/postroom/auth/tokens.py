"""What verifies bearer tokens by their signature, with the issuer's keys in a file.

The file is read when it has changed, in a thread; one with an error is refused, told of
once, and the keys before it stay in force.
"""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

from postroom.auth.jwt import Claims, Key, Rules, judge, read_keys
from postroom.auth.sasl import Known, Unavailable, Unknown, Verdict
from postroom.auth.settings import TokenSettings
from postroom.mail.now import SECOND_US, Now
from postroom.observe.events import AnyEvent, TableRefused

JWKS_OCTETS_MAX = 1 << 20
LOOK_AGAIN_US = SECOND_US
"""How old the last look at the file may be."""


class SignedTokens:
    """Verifies JSON Web Tokens (RFC 7519).

    Args:
        settings: what a token has to say, and where the keys are.
        pool: a thread to read the file in when it has changed.
        emit: takes ``TableRefused`` when the file has an error.
        clock: reads the time.
    """

    def __init__(
        self,
        settings: TokenSettings,
        pool: Executor,
        emit: Callable[[AnyEvent], None],
        clock: Callable[[], Now],
    ) -> None:
        self._settings = settings
        self._rules = rules_of(settings)
        self._pool = pool
        self._emit = emit
        self._clock = clock
        self._keys: tuple[Key, ...] = ()
        self._mark: tuple[int, int, int] | None = None
        self._looked_us = -LOOK_AGAIN_US
        self._problem = ""
        self._tell(self.refresh())

    async def verify(self, token: str) -> Verdict:
        """Say whom the token is for."""
        now = self._clock()
        if now.mono_us - self._looked_us >= LOOK_AGAIN_US:
            self._looked_us = now.mono_us
            loop = asyncio.get_running_loop()
            self._tell(await loop.run_in_executor(self._pool, self.refresh))
        if not self._keys:
            return Unavailable(f"no keys: {self._problem}")
        judged = judge(token, self._keys, self._rules, now.utc_us // SECOND_US)
        if isinstance(judged, str):
            return Unknown(f"the token {judged}")
        return user_in(judged, self._settings.user_claim)

    def refresh(self) -> str:
        """Read the file if it has changed; returns what is wrong with it."""
        path = self._settings.jwks_file
        try:
            found = os.stat(path)
            mark = (found.st_ino, found.st_mtime_ns, found.st_size)
            if mark == self._mark:
                return self._problem
            if found.st_size > JWKS_OCTETS_MAX:
                raise ValueError("is larger than 1 MiB")
            self._keys = read_keys(Path(path).read_bytes())
            self._mark = mark
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        except ValueError as error:
            return str(error)
        return ""

    def _tell(self, problem: str) -> None:
        if problem and problem != self._problem:
            path = self._settings.jwks_file
            now_us, in_force = self._clock().utc_us, bool(self._keys)
            self._emit(TableRefused(now_us, path, 0, problem, in_force))
        self._problem = problem


def rules_of(settings: TokenSettings) -> Rules:
    """Return what a token has to say."""
    leeway_s = int(settings.leeway) // SECOND_US
    return Rules(settings.issuer, settings.audience, settings.scope, leeway_s)


def user_in(claims: Claims, name: str) -> Verdict:
    """Return the user that a claim names."""
    user = claims.get(name)
    if not isinstance(user, str) or not user:
        return Unknown(f"the token has no {name}")
    # An address that the issuer has not seen proven is a mere assertion.
    # (Some issuers write the claim as a text.)
    is_verified = str(claims.get("email_verified", True)).lower()
    if name == "email" and is_verified == "false":
        return Unknown("the token's address is not verified")
    return Known(user)
