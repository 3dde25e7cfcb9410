"""Who keeps the accounts: the interface, and the users file behind it.

An exchange (``sasl``) asks its questions without knowing who answers. ``Accounts``
passes them on: passwords and verifiers to the one ``Backend`` of the site, tokens to
what verifies tokens. Nothing here raises for what a client sends; what breaks a
backend is ``Unavailable``, and the client is told to come back later.
"""

from typing import Protocol, TypeVar, assert_never

from postroom.auth.mechanisms import Ability
from postroom.auth.sasl import (
    Answer,
    CheckPassword,
    CheckToken,
    FindSecret,
    FindUser,
    FindVerifier,
    Known,
    Question,
    Secret,
    Unavailable,
    Unknown,
    Verdict,
)
from postroom.auth.scram import Verifier
from postroom.auth.throttle import Busy, Ok, PasswordChecks
from postroom.auth.users import Users

_T = TypeVar("_T")

_BUSY = Unavailable("too many password checks wait")
_WRONG = Unknown("wrong user or password")
_NO_SUCH_USER = Unknown("no such user")


class Backend(Protocol):
    """One keeper of accounts, for one worker; to be used on its event loop."""

    @property
    def abilities(self) -> frozenset[Ability]:
        """What it can judge just now."""

    async def check_password(
        self, login: str, password: bytes, client_ip: str = ""
    ) -> Verdict:
        """Say whose login and password these are.

        A login that does not exist must cost as much as a wrong password. Where the
        client is may matter to some; empty for a caller of this machine.
        """

    async def find_user(self, name: str) -> Verdict:
        """Say which user a name means; no password is asked for."""

    async def find_verifier(self, login: str) -> Verifier | Unavailable:
        """Return the SCRAM verifier of a login, or a stand-in: always the same."""

    async def find_secret(self, login: str) -> Secret | Unavailable:
        """Return the CRAM-MD5 secret of a login, or a stand-in."""


class TokenVerifier(Protocol):
    """Says whom a bearer token is for."""

    async def verify(self, token: str) -> Verdict:
        """Return ``Known`` with the name that the token gives its user."""


class Accounts:
    """Answers the questions of exchanges."""

    def __init__(self, backend: Backend, tokens: TokenVerifier | None = None) -> None:
        self._backend = backend
        self._tokens = tokens

    @property
    def abilities(self) -> frozenset[Ability]:
        """What can be judged just now."""
        if self._tokens is None:
            return self._backend.abilities
        return self._backend.abilities | {"token"}

    async def answer(self, question: Question, client_ip: str = "") -> Answer:
        """Answer one question, which came up with a client of that address."""
        match question:
            case CheckPassword(login, password):
                return await self._backend.check_password(login, password, client_ip)
            case FindVerifier(login):
                return await self._backend.find_verifier(login)
            case FindSecret(login):
                return await self._backend.find_secret(login)
            case FindUser(names):
                return await self._find(names)
            case CheckToken(token):
                return await self._check_token(token)
            case _:
                assert_never(question)

    async def _find(self, names: tuple[str, ...]) -> Verdict:
        verdict: Verdict = _NO_SUCH_USER
        for name in names:
            verdict = await self._backend.find_user(name)
            if not isinstance(verdict, Unknown):
                break
        return verdict

    async def _check_token(self, token: str) -> Verdict:
        if self._tokens is None:
            return Unavailable("no tokens are taken here")
        verdict = await self._tokens.verify(token)
        if not isinstance(verdict, Known):
            return verdict
        found = await self._backend.find_user(verdict.user)
        if isinstance(found, Unknown):
            return Unknown(f"the token is for {verdict.user}, who is no user here")
        return found


class UsersFile:
    """The users file as a backend."""

    def __init__(self, users: Users, checks: PasswordChecks) -> None:
        self._users = users
        self._checks = checks

    @property
    def abilities(self) -> frozenset[Ability]:
        """Passwords always; SCRAM and CRAM-MD5 if some user can use them."""
        schemes = self._users.schemes
        found: set[Ability] = {"password"}
        if "SCRAM-SHA-256" in schemes:
            found.add("scram")
        if "CRAM-MD5" in schemes:
            found.add("cram")
        return frozenset(found)

    async def check_password(
        self, login: str, password: bytes, client_ip: str = ""
    ) -> Verdict:
        """Check a password, in a thread; few at a time."""
        match await self._checks.check(login, password):
            case Ok(user):
                return Known(user)
            case Busy():
                return _BUSY
            case _:
                return self._unless_faulty(_WRONG)

    async def find_user(self, name: str) -> Verdict:
        """Look the name up in memory."""
        await self._checks.refresh()
        user = self._users.find(name)
        return Known(user.name) if user else self._unless_faulty(_NO_SUCH_USER)

    async def find_verifier(self, login: str) -> Verifier | Unavailable:
        """Look the verifier up in memory."""
        await self._checks.refresh()
        return self._unless_faulty(self._users.scram_verifier(login))

    async def find_secret(self, login: str) -> Secret | Unavailable:
        """Look the secret up in memory."""
        await self._checks.refresh()
        return self._unless_faulty(self._users.cram_secret(login))

    def _unless_faulty(self, answer: _T) -> _T | Unavailable:
        """Give an answer, unless it is only so because no users are known."""
        return Unavailable(self._users.fault) if self._users.fault else answer


class PasswordsOnly:
    """What those backends share that know nothing but passwords."""

    @property
    def abilities(self) -> frozenset[Ability]:
        """Passwords."""
        return frozenset(("password",))

    async def find_verifier(self, login: str) -> Verifier | Unavailable:
        """Has none; SCRAM is not offered."""
        return Unavailable("SCRAM needs the users file")

    async def find_secret(self, login: str) -> Secret | Unavailable:
        """Has none; CRAM-MD5 is not offered."""
        return Unavailable("CRAM-MD5 needs the users file")
