"""Accounts of a bench: what its sessions log in with, without files or threads."""

from postroom.auth.backend import Accounts
from postroom.auth.external import Certificate
from postroom.auth.mechanisms import Ability
from postroom.auth.penalties import Penalties
from postroom.auth.sasl import (
    CheckPassword,
    CheckToken,
    FindSecret,
    FindUser,
    FindVerifier,
    Secret,
    Unavailable,
    Verdict,
)
from postroom.auth.scram import Verifier
from postroom.auth.settings import AuthSettings
from postroom.limits.shared import SharedCounters
from postroom.services.logins import Logins
from postroom.testing.exchange import Book

ABILITIES: frozenset[Ability] = frozenset(("password", "scram", "cram"))


class BookBackend:
    """A ``Book`` as a backend, and as what verifies tokens."""

    def __init__(self, book: Book, abilities: frozenset[Ability] = ABILITIES) -> None:
        self.book = book
        self._abilities = abilities

    @property
    def abilities(self) -> frozenset[Ability]:
        """As told."""
        return self._abilities

    async def check_password(
        self, login: str, password: bytes, client_ip: str = ""
    ) -> Verdict:
        """Ask the book."""
        return self._verdict(CheckPassword(login, password))

    async def find_user(self, name: str) -> Verdict:
        """Ask the book."""
        return self._verdict(FindUser((name,)))

    async def verify(self, token: str) -> Verdict:
        """Ask the book."""
        return self._verdict(CheckToken(token))

    async def find_verifier(self, login: str) -> Verifier | Unavailable:
        """Ask the book."""
        found = self.book.answer(FindVerifier(login))
        assert isinstance(found, Verifier | Unavailable)
        return found

    async def find_secret(self, login: str) -> Secret | Unavailable:
        """Ask the book."""
        found = self.book.answer(FindSecret(login))
        assert isinstance(found, Secret | Unavailable)
        return found

    def _verdict(self, question: CheckPassword | FindUser | CheckToken) -> Verdict:
        found = self.book.answer(question)
        assert not isinstance(found, bytes | Verifier | Secret | None)
        return found


def logins_of(book: Book, settings: AuthSettings, counters: SharedCounters) -> Logins:
    """Return what sessions log in with, by a book."""
    backend = BookBackend(book)
    tokens = backend if book.tokens else None
    penalties = Penalties(settings, counters)
    return Logins(Accounts(backend, tokens), settings, penalties, "gonzo.test")


TIMS_CERTIFICATE = Certificate(("tim@whizzer.test",), ("tim",), "ab" * 32)
