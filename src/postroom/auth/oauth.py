"""OAUTHBEARER (RFC 7628) and XOAUTH2: mechanisms that show a bearer token. Pure.

Whose the token is, others say (``CheckToken``). A failure is told to the client as
JSON in a challenge, which it acknowledges, and only then does the exchange fail
(RFC 7628 §3.2.3). The name that the client gives beside the token proves nothing: it
only has to be the token's own user.
"""

import json
import re

import msgspec

from postroom.auth.sasl import (
    CheckToken,
    Exchange,
    Failed,
    Known,
    Lost,
    Unavailable,
    ask,
    authorized,
    failed,
    first_of,
    say,
    to_name,
)

TOKEN_OCTETS_MAX = 8192
"""Longest token; a longer one is refused unread."""


class Shown(msgspec.Struct, frozen=True):
    """What a client showed: a token, and whom it says it acts as (or nothing)."""

    token: str
    acts_as: str = ""


class Hints(msgspec.Struct, frozen=True):
    """What clients are told to get a token that is taken (RFC 7628 §3.2.2)."""

    scope: str = ""
    openid_configuration: str = ""


# RFC 7628 §3.1: client-resp = gs2-header kvsep *kvpair kvsep
_BEARER = re.compile(
    r"(?P<flag>[ny]),(?:a=(?P<name>[^,\x01]+))?,\x01"
    r"(?P<pairs>(?:[A-Za-z]+=[\x20-\x7e\t\r\n]*\x01)*)\x01"
)
# https://developers.google.com/gmail/imap/xoauth2-protocol
_XOAUTH2 = re.compile(r"user=(?P<name>[^\x01]+)\x01auth=(?P<auth>[^\x01]+)\x01\x01")
# RFC 6750 §2.1: credentials = "Bearer" 1*SP b64token
_AUTH = re.compile(r"Bearer +([A-Za-z0-9\-._~+/]+=*)", re.IGNORECASE)


def oauthbearer(initial: bytes | None, hints: Hints) -> Exchange:
    """OAUTHBEARER."""
    shown = read_bearer((yield from first_of(initial)))
    told = {"status": "invalid_token"}
    if hints.scope:
        told["scope"] = hints.scope
    if hints.openid_configuration:
        told["openid-configuration"] = hints.openid_configuration
    return (yield from _check(shown, told))


def xoauth2(initial: bytes | None, hints: Hints) -> Exchange:
    """XOAUTH2, as Google and Microsoft have it."""
    shown = read_xoauth2((yield from first_of(initial)))
    told = {"status": "401", "schemes": "bearer"}
    if hints.scope:
        told["scope"] = hints.scope
    return (yield from _check(shown, told))


def read_bearer(message: bytes) -> Shown | Failed:
    """Read the client's message of OAUTHBEARER."""
    match = _BEARER.fullmatch(_text(message))
    if not match:
        return Failed("not a message of OAUTHBEARER", "malformed")
    pairs = [pair.partition("=") for pair in match["pairs"].split("\x01") if pair]
    given = [value for key, _, value in pairs if key == "auth"]
    if len(given) > 1:  # which of them would be meant?
        return Failed("several auth values", "malformed")
    # RFC 5801 §4: "," and "=" in the name come as =2C and =3D
    name = (match["name"] or "").replace("=2C", ",").replace("=3D", "=")
    return _shown(given[0] if given else "", name)


def read_xoauth2(message: bytes) -> Shown | Failed:
    """Read the client's message of XOAUTH2."""
    match = _XOAUTH2.fullmatch(_text(message))
    if not match:
        return Failed("not a message of XOAUTH2", "malformed")
    return _shown(match["auth"], match["name"])


def _shown(auth: str, name: str) -> Shown | Failed:
    acts_as = to_name(name.encode()) if name else ""
    if acts_as is None:
        return Failed("a name that is none", "malformed")
    match = _AUTH.fullmatch(auth)
    # RFC 7628 §4.3: without a token the client wants to know where to get one.
    return Shown(match[1] if match else "", acts_as)


def _check(shown: Shown | Failed, told: dict[str, str]) -> Exchange:
    if isinstance(shown, Failed):
        return shown
    if shown.token:
        ended = yield from _judge(shown)
    else:
        ended = Failed("no bearer token", "wrong", shown.acts_as)
    if not isinstance(ended, Failed) or ended.kind == "later":
        return ended
    # RFC 7628 §3.2.3: whatever the client answers, it has failed.
    yield Lost(ended)
    yield from say(json.dumps(told).encode())
    return ended


def _judge(shown: Shown) -> Exchange:
    verdict = yield from ask(CheckToken(shown.token))
    if isinstance(verdict, Known):
        return (yield from authorized(verdict.user, shown.acts_as))
    if isinstance(verdict, Unavailable):
        return failed(verdict, shown.acts_as)
    return Failed(verdict.reason, "wrong", shown.acts_as)


def _text(message: bytes) -> str:
    if len(message) > TOKEN_OCTETS_MAX + 1024:
        return ""
    try:
        return message.decode()
    except UnicodeDecodeError:
        return ""
