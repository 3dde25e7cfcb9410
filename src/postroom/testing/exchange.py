"""Plays a client against a SASL exchange, with accounts that a test writes down."""

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import msgspec

from postroom.auth import cram, scram
from postroom.auth.mechanisms import Circumstances, Mechanism, begin
from postroom.auth.sasl import (
    Answer,
    Challenge,
    CheckPassword,
    CheckToken,
    Ended,
    Exchange,
    FindSecret,
    FindUser,
    FindVerifier,
    Known,
    Lost,
    Question,
    Unavailable,
    Unknown,
    Verdict,
)

SALT = b"0123456789abcdef"
ITERATIONS = 4096
STRANGERS = b"what strangers get is made of this"

Reaction = bytes | Callable[[bytes], bytes]
"""What a client answers to a challenge, perhaps depending on it."""


class Book:
    """Accounts: passwords by user, users by other names, tokens.

    ``asked`` are the questions so far. While ``is_down`` nobody can say anything.
    """

    def __init__(
        self,
        passwords: Mapping[str, str],
        *,
        names: Mapping[str, str] | None = None,
        tokens: Mapping[str, str] | None = None,
    ) -> None:
        self.passwords = dict(passwords)
        self.names = dict(names or {})
        self.tokens = dict(tokens or {})
        self.asked: list[Question] = []
        self.is_down = False
        self.salt = SALT

    def answer(self, question: Question) -> Answer:
        """Answer a question as a backend would."""
        self.asked.append(question)
        if self.is_down:
            return Unavailable("down")
        match question:
            case CheckPassword(login, password):
                user = self.names.get(login, login)
                good = self.passwords.get(user, "").encode() == password
                return Known(user) if good else Unknown("wrong user or password")
            case FindVerifier(login):
                user = self.names.get(login, login)
                if user not in self.passwords:
                    return scram.stand_in(user, STRANGERS, ITERATIONS)
                password = scram.prepare(self.passwords[user].encode())
                return scram.derive(password, self.salt, ITERATIONS)
            case FindSecret(login):
                if login not in self.passwords:
                    return cram.stand_in(login, STRANGERS)
                return cram.make_secret(self.passwords[login].encode())
            case FindUser(names):
                return self._find(names)
            case CheckToken(token):
                found = self.tokens.get(token)
                return Known(found) if found else Unknown("no such token")

    def _find(self, names: Sequence[str]) -> Verdict:
        for name in names:
            user = self.names.get(name, name)
            if user in self.passwords:
                return Known(user)
        return Unknown("no such user")


class Played:
    """What came of an exchange: its end, and the challenges that were sent.

    ``lost`` is what was told to have failed before the end.
    """

    def __init__(self) -> None:
        self.ended: Ended | None = None
        self.challenges: list[bytes] = []
        self.lost: list[Ended] = []


def play(
    mechanism: Mechanism,
    book: Book,
    *said: Reaction,
    initial: bytes | None = None,
    circumstances: Circumstances | None = None,
) -> Played:
    """Run an exchange until it ends or the client has nothing more to say."""
    played = Played()
    exchange = begin(mechanism, initial, circumstances or Circumstances())
    reactions = list(said)
    given: Answer = None
    while True:
        try:
            step = exchange.send(given)
        except StopIteration as end:
            played.ended = end.value
            return played
        match step:
            case Challenge(octets):
                played.challenges.append(octets)
                if not reactions:
                    return played
                reaction = reactions.pop(0)
                given = reaction if isinstance(reaction, bytes) else reaction(octets)
            case Lost(failed):
                played.lost.append(failed)
                given = None
            case question:
                given = book.answer(question)


class ScramClient:
    """The client's side of SCRAM-SHA-256 (RFC 5802 §3), as RFC 5802 writes it."""

    def __init__(
        self, user: str, password: str, *, header: str = "n,,", binding: bytes = b""
    ) -> None:
        self._password = scram.prepare(password.encode())
        self._header = header
        self._binding = binding
        self._bare = f"n={user},r=clientnonce"
        self.echoed = ""  # in place of the nonce that the server gave
        self.first = f"{header}{self._bare}".encode()

    def final(self, challenge: bytes) -> bytes:
        """Answer the server's first message."""
        text = challenge.decode()
        parts = dict(part.split("=", 1) for part in text.split(","))
        salted = hashlib.pbkdf2_hmac(
            "sha256", self._password, base64.b64decode(parts["s"]), int(parts["i"])
        )
        bound = base64.b64encode(self._header.encode() + self._binding).decode()
        unproven = f"c={bound},{self.echoed or 'r=' + parts['r']}"
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        stored_key = hashlib.sha256(client_key).digest()
        signed = f"{self._bare},{text},{unproven}".encode()
        signature = hmac.digest(stored_key, signed, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        return f"{unproven},p={base64.b64encode(proof).decode()}".encode()


class Door:
    """The login of a make-believe site: the real exchanges, judged by a book.

    At first only ``tim`` with the password ``secret`` gets in.
    """

    def __init__(self) -> None:
        self.book = Book({"tim": "secret"})
        self.circumstances = Circumstances(nonce="servernonce", challenge=b"<1@mx>")
        self._exchange: Exchange | None = None

    def rule(self, name: str, argument: str) -> bool:
        """Add a rule of a transcript; False: there is no such rule here."""
        first, _, second = argument.partition(" ")
        match name:
            case "account":
                self.book.passwords[first] = second
            case "token":
                self.book.tokens[first] = second
            case "salt":
                self.book.salt = base64.b64decode(argument)
            case "nonce":
                self._is_now(nonce=argument)
            case "challenge":
                self._is_now(challenge=argument.encode())
            case "certificate":
                self._is_now(names=(argument,))
            case "end-point":
                self._is_now(bindings={"tls-server-end-point": argument.encode()})
            case _:
                return False
        return True

    def answer(self, mechanism: str, said: bytes | None) -> Challenge | Ended:
        """Go on with the exchange; with a ``mechanism`` a new one begins."""
        given: Answer = said
        if mechanism:
            known = cast("Mechanism", mechanism)
            self._exchange, given = begin(known, said, self.circumstances), None
        assert self._exchange is not None
        while True:
            try:
                step = self._exchange.send(given)
            except StopIteration as end:
                ended: Ended = end.value
                return ended
            match step:
                case Challenge():
                    return step
                case Lost():
                    given = None
                case question:
                    given = self.book.answer(question)

    def _is_now(self, **changes: object) -> None:
        self.circumstances = msgspec.structs.replace(self.circumstances, **changes)
