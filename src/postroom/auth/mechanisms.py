"""The SASL mechanisms: which can be offered now, and how each begins. Pure."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Literal

import msgspec

from postroom.auth.cram import cram_md5
from postroom.auth.external import external
from postroom.auth.oauth import Hints, oauthbearer, xoauth2
from postroom.auth.plain import login, plain
from postroom.auth.sasl import Exchange
from postroom.auth.scram_login import scram_sha_256

Mechanism = Literal[
    "SCRAM-SHA-256-PLUS",
    "SCRAM-SHA-256",
    "EXTERNAL",
    "OAUTHBEARER",
    "XOAUTH2",
    "PLAIN",
    "LOGIN",
    "CRAM-MD5",
]
"""All that are known, in the order in which they are offered."""

Ability = Literal["password", "scram", "cram", "token"]
"""What a site's accounts can judge."""


class Circumstances(msgspec.Struct, frozen=True):
    """What an exchange needs to know of the connection and the site.

    ``nonce`` and ``challenge`` are new for each exchange; ``bindings`` are the channel
    bindings of the TLS connection by type; ``names`` are those of the verified
    certificate of the client.
    """

    nonce: str = ""
    challenge: bytes = b""
    bindings: Mapping[str, bytes] = {}
    names: tuple[str, ...] = ()
    hints: Hints = Hints()


Begin = Callable[[bytes | None, Circumstances], Exchange]


class _Traits(msgspec.Struct, frozen=True):
    """What a mechanism needs. ``secret``: what is sent must not be overheard."""

    begin: Begin
    ability: Ability | None
    secret: bool = False


_TRAITS: dict[Mechanism, _Traits] = {
    "SCRAM-SHA-256-PLUS": _Traits(
        lambda initial, now: scram_sha_256(initial, now.nonce, now.bindings, plus=True),
        "scram",
    ),
    "SCRAM-SHA-256": _Traits(
        lambda initial, now: scram_sha_256(initial, now.nonce, now.bindings), "scram"
    ),
    "EXTERNAL": _Traits(lambda initial, now: external(initial, now.names), None),
    # RFC 7628 §3: TLS MUST be used
    "OAUTHBEARER": _Traits(
        lambda initial, now: oauthbearer(initial, now.hints), "token", secret=True
    ),
    "XOAUTH2": _Traits(
        lambda initial, now: xoauth2(initial, now.hints), "token", secret=True
    ),
    "PLAIN": _Traits(lambda initial, _: plain(initial), "password", secret=True),
    "LOGIN": _Traits(lambda initial, _: login(initial), "password", secret=True),
    "CRAM-MD5": _Traits(lambda initial, now: cram_md5(initial, now.challenge), "cram"),
}

MECHANISMS: tuple[Mechanism, ...] = tuple(_TRAITS)


def begin(
    mechanism: Mechanism, initial: bytes | None, circumstances: Circumstances
) -> Exchange:
    """Begin an exchange; ``initial`` is the response that came with the command."""
    return _TRAITS[mechanism].begin(initial, circumstances)


def offered(
    wanted: Iterable[str],
    abilities: Collection[Ability],
    *,
    secrecy: bool,
    binds: bool,
    named: bool,
) -> tuple[Mechanism, ...]:
    """Return what works now, in the order of ``MECHANISMS``.

    Args:
        wanted: what the listener may offer.
        abilities: what the accounts can judge.
        secrecy: whether passwords and tokens may be sent: TLS, or the site says so.
        binds: whether the TLS channel can be bound to.
        named: whether the client has shown a good certificate that names somebody.
    """
    asked = frozenset(wanted)
    return tuple(
        name
        for name, traits in _TRAITS.items()
        if name in asked
        and (traits.ability is None or traits.ability in abilities)
        and (secrecy or not traits.secret)
        and (binds or name != "SCRAM-SHA-256-PLUS")
        and (named or name != "EXTERNAL")
    )


def needs_secrecy(mechanism: str) -> bool:
    """Whether a mechanism lets listeners learn a password or token."""
    return any(name == mechanism and one.secret for name, one in _TRAITS.items())
