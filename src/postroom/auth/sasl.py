"""SASL, the server's side (RFC 4422): what an exchange asks, and how it ends. Pure.

An exchange is a generator. It yields what is to be said to the client (``Challenge``)
or a question to whoever keeps the accounts, and is sent the answer; it returns
``Proven`` or ``Failed``. It never raises for what a client sends, and what it failed
of is for the log: the client hears the same whatever was wrong.
"""

from collections.abc import Generator
from typing import Literal

import msgspec

from postroom.auth.scram import Verifier, saslprep

NAME_OCTETS_MAX = 320
"""Longest name of a user in an exchange; RFC 4616 §2 wants 255 to be taken."""


class Challenge(msgspec.Struct, frozen=True, gc=False):
    """To be sent to the client; the answer is its response, decoded."""

    octets: bytes


class CheckPassword(msgspec.Struct, frozen=True, gc=False):
    """Is this the password of that login? ``Known``, ``Unknown`` or ``Unavailable``."""

    login: str
    password: bytes


class FindVerifier(msgspec.Struct, frozen=True, gc=False):
    """Which SCRAM verifier has that login? One is given to strangers, too."""

    login: str


class FindSecret(msgspec.Struct, frozen=True, gc=False):
    """Which CRAM-MD5 secret has that login? One is given to strangers, too."""

    login: str


class CheckToken(msgspec.Struct, frozen=True, gc=False):
    """Whose is this bearer token? ``Known``, ``Unknown`` or ``Unavailable``."""

    token: str


class FindUser(msgspec.Struct, frozen=True):
    """Which user do these names mean: the first that means one?

    ``Known``, ``Unknown`` or ``Unavailable``.
    """

    names: tuple[str, ...]


class Lost(msgspec.Struct, frozen=True, gc=False):
    """The exchange has failed already, though the client is to be heard once more.

    Told so that a failure counts even if the client breaks off now; the answer is
    ``None``.
    """

    failed: "Failed"


Question = CheckPassword | FindVerifier | FindSecret | CheckToken | FindUser
Step = Challenge | Lost | Question


class Secret(msgspec.Struct, frozen=True, gc=False):
    """The two states of MD5 that HMAC-MD5 begins with (RFC 2195, RFC 2104)."""

    inner: bytes
    outer: bytes


class Known(msgspec.Struct, frozen=True, gc=False):
    """Yes: the user's own name, as the accounts have it."""

    user: str


class Unknown(msgspec.Struct, frozen=True, gc=False):
    """No; ``reason`` is for the log."""

    reason: str


class Unavailable(msgspec.Struct, frozen=True, gc=False):
    """Nobody can say just now; ``reason`` is for the log."""

    reason: str


Verdict = Known | Unknown | Unavailable
Answer = bytes | Verdict | Verifier | Secret | None


class Proven(msgspec.Struct, frozen=True, gc=False):
    """The client is this user; what they may do is for others to say."""

    user: str


class Failed(msgspec.Struct, frozen=True, gc=False):
    """The client has not proven to be anybody.

    ``kind`` is ``wrong`` (not proven), ``malformed`` (against the rules of the
    mechanism), ``unwanted`` (an initial response where the server speaks first) or
    ``later`` (nobody could say). ``login`` is the name it gave, for the log.
    """

    reason: str
    kind: Literal["wrong", "malformed", "unwanted", "later"] = "wrong"
    login: str = ""


Ended = Proven | Failed
Exchange = Generator[Step, Answer, Ended]


def say(octets: bytes) -> Generator[Step, Answer, bytes]:
    """Send a challenge; gives the client's response."""
    response = yield Challenge(octets)
    assert isinstance(response, bytes)
    return response


def first_of(initial: bytes | None) -> Generator[Step, Answer, bytes]:
    """Get the first message of a client that speaks first (RFC 4422 §5)."""
    if initial is not None:
        return initial
    return (yield from say(b""))


def ask(question: Question) -> Generator[Step, Answer, Verdict]:
    """Ask a question that is answered by yes, no or later."""
    answer = yield question
    assert isinstance(answer, Known | Unknown | Unavailable)
    return answer


def failed(verdict: Unknown | Unavailable, login: str) -> Failed:
    """Turn a no into the end of an exchange."""
    kind: Literal["wrong", "later"] = "wrong"
    if isinstance(verdict, Unavailable):
        kind = "later"
    return Failed(verdict.reason, kind, login)


def authorized(user: str, acts_as: str) -> Exchange:
    """End with success if the client may act as whom it names (RFC 4422 §3.4.1).

    Everybody may act as themselves, under any name that means them, and as nobody
    else.
    """
    if not acts_as:
        return Proven(user)
    match (yield from ask(FindUser((acts_as,)))):
        case Known(name) if name == user:
            return Proven(user)
        case Unavailable() as verdict:
            return failed(verdict, user)
        case _:
            return Failed(f"may not act as {acts_as}", "wrong", user)


def to_name(octets: bytes) -> str | None:
    """Read the name of a user; None if it is none.

    RFC 4954 §4: it is prepared with SASLprep, and may not come out empty.
    """
    if len(octets) > NAME_OCTETS_MAX:
        return None
    try:
        return saslprep(octets.decode()) or None
    except ValueError:  # no UTF-8, too
        return None
