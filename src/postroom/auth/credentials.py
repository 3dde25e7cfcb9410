"""Stored credentials: ``scheme$value``, several per user, and how they are made.

argon2id is what passwords are checked against; a SCRAM-SHA-256 verifier beside it lets
clients prove the password without sending it. A user who has only a verifier can still
log in with the password. A secret for CRAM-MD5 is kept only where the site wants it.
"""

import hmac
import os
from typing import Literal, assert_never

import msgspec
from argon2.exceptions import Argon2Error, InvalidHashError
from argon2.low_level import Type, hash_secret, verify_secret

from postroom.auth import cram, scram
from postroom.auth.settings import PASSWORD_OCTETS_MAX, AuthSettings

ARGON2ID = "argon2id"
_SALT_OCTETS = 16
_HASH_OCTETS = 32

Scheme = Literal["argon2id", "SCRAM-SHA-256", "CRAM-MD5"]


class Credential(msgspec.Struct, frozen=True, gc=False):
    """One way for one user to prove who they are."""

    scheme: Scheme
    value: str

    @classmethod
    def from_text(cls, text: str) -> "Credential":
        """Read ``scheme$value``.

        Raises:
            ValueError: the scheme is unknown or the value is none of it.
        """
        scheme, _, value = text.partition("$")
        match scheme:
            case "argon2id":
                _check_argon2(value)
                return cls("argon2id", value)
            case "SCRAM-SHA-256":
                scram.Verifier.from_text(value)
                return cls("SCRAM-SHA-256", value)
            case "CRAM-MD5":
                cram.from_text(value)
                return cls("CRAM-MD5", value)
            case _:
                raise ValueError(
                    f'has a credential of the unknown scheme "{scheme[:20]}": '
                    f"known are {ARGON2ID}, {scram.SCHEME} and {cram.SCHEME}"
                )

    def to_text(self) -> str:
        """Write it as ``from_text`` reads it."""
        return f"{self.scheme}${self.value}"

    @property
    def cost(self) -> str:
        """What a check costs, in a text that is the same for the same cost."""
        match self.scheme:
            case "argon2id":
                return self.value.split("$")[1]  # v=19$m=...,t=...,p=...$salt$hash
            case "SCRAM-SHA-256":
                return self.value.partition(":")[0]
            case "CRAM-MD5":
                return ""
            case _:
                assert_never(self.scheme)

    def matches(self, password: bytes) -> bool:
        """Whether this is the password, prepared; takes milliseconds on purpose."""
        match self.scheme:
            case "argon2id":
                stored = f"${ARGON2ID}${self.value}".encode()
                try:
                    return verify_secret(stored, password, Type.ID)
                except (Argon2Error, InvalidHashError):
                    return False
            case "SCRAM-SHA-256":
                return scram.Verifier.from_text(self.value).matches(password)
            case "CRAM-MD5":
                made = cram.to_text(cram.make_secret(password))
                return hmac.compare_digest(made, self.value)
            case _:
                assert_never(self.scheme)


def make_credentials(password: bytes, settings: AuthSettings) -> tuple[Credential, ...]:
    """Make what is stored for a new password.

    Raises:
        ValueError: the password is empty, too long, or cannot be typed into POP3.
    """
    check_password(password)
    prepared = scram.prepare(password)
    made = [make_argon2(prepared, settings)]
    if settings.scram:
        salt = os.urandom(scram.SALT_OCTETS_MIN)
        verifier = scram.derive(prepared, salt, settings.scram_iterations)
        made.append(Credential("SCRAM-SHA-256", verifier.to_text()))
    if settings.cram_md5:
        secret = cram.to_text(cram.make_secret(prepared))
        made.append(Credential("CRAM-MD5", secret))
    return tuple(made)


def make_argon2(prepared: bytes, settings: AuthSettings) -> Credential:
    """Hash a prepared password with argon2id (RFC 9106) as the settings say."""
    encoded = hash_secret(
        prepared,
        os.urandom(_SALT_OCTETS),
        time_cost=settings.argon2_passes,
        memory_cost=settings.argon2_memory // 1024,
        parallelism=settings.argon2_lanes,
        hash_len=_HASH_OCTETS,
        type=Type.ID,
    )
    return Credential("argon2id", encoded.decode().removeprefix(f"${ARGON2ID}$"))


def check_password(password: bytes) -> None:
    """Refuse passwords that no client could send.

    Raises:
        ValueError: it is empty, too long, or has control characters.
    """
    if not password:
        raise ValueError("the password is empty")
    if len(password) > PASSWORD_OCTETS_MAX:
        raise ValueError(f"the password is longer than {PASSWORD_OCTETS_MAX} octets")
    if any(octet < 32 or octet == 127 for octet in password):
        raise ValueError("the password has a control character")


def _check_argon2(value: str) -> None:
    """Bound what a stored hash may cost before it is ever computed."""
    parts = value.split("$")
    try:
        version, costs, salt, digest = parts
        memory, passes, lanes = (
            int(part.removeprefix(name))
            for part, name in zip(costs.split(","), ("m=", "t=", "p="), strict=True)
        )
    except ValueError:
        raise ValueError("has an argon2id credential that is malformed") from None
    if not (version == "v=19" and salt and digest):
        raise ValueError("has an argon2id credential that is malformed")
    if not (8 <= memory <= 1 << 20 and 1 <= passes <= 64 and 1 <= lanes <= 16):
        raise ValueError("has an argon2id credential that costs too much")
