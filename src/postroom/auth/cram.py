"""CRAM-MD5 (RFC 2195): an old challenge and response; off unless wanted. Pure.

The server has to keep more than a hash of the password: the two states of MD5 that
HMAC begins with. They are not the password, but whoever steals them can log in by
CRAM-MD5, and can test guesses very fast. ``hashlib`` cannot begin at a state, so the
one function of MD5 that is needed stands here (RFC 1321 §3.4).
"""

import base64
import hashlib
import hmac
import re
import struct
from math import floor, sin

from postroom.auth.sasl import (
    Exchange,
    Failed,
    FindSecret,
    FindUser,
    Known,
    Secret,
    Unavailable,
    ask,
    authorized,
    failed,
    say,
    to_name,
)

SCHEME = "CRAM-MD5"
_STATE_OCTETS = 16
_BLOCK_OCTETS = 64
_RESPONSE = re.compile(rb"(.+) ([0-9a-f]{32})", re.DOTALL)


def cram_md5(initial: bytes | None, challenge: bytes) -> Exchange:
    """CRAM-MD5; the challenge ``<octets@host>`` must never have been used before."""
    if initial is not None:  # RFC 4954 §4: the server speaks first
        return Failed("an initial response", "unwanted")
    response = yield from say(challenge)
    match = _RESPONSE.fullmatch(response)
    name = to_name(match[1]) if match else None
    if match is None or name is None:
        return Failed("not a name and a digest", "malformed")
    secret = yield FindSecret(name)
    if isinstance(secret, Unavailable):
        return failed(secret, name)
    assert isinstance(secret, Secret)
    digest = answer(secret, challenge)
    # Looked up before the comparison, so that strangers cost the same.
    verdict = yield from ask(FindUser((name,)))
    if not hmac.compare_digest(digest, match[2]):
        return Failed("wrong digest", "wrong", name)
    if not isinstance(verdict, Known):
        return failed(verdict, name)
    return (yield from authorized(verdict.user, ""))


def make_secret(password: bytes) -> Secret:
    """Make what is stored for a prepared password (RFC 2104 §4)."""
    key = password
    if len(key) > _BLOCK_OCTETS:
        key = hashlib.md5(key, usedforsecurity=False).digest()
    key = key.ljust(_BLOCK_OCTETS, b"\0")
    return Secret(
        _compress(_START, bytes(octet ^ 0x36 for octet in key)),
        _compress(_START, bytes(octet ^ 0x5C for octet in key)),
    )


def answer(secret: Secret, challenge: bytes) -> bytes:
    """Return the digest, in hexadecimal digits, that the client has to send."""
    inner = _finish(secret.inner, challenge)
    return _finish(secret.outer, inner).hex().encode()


def stand_in(login: str, key: bytes) -> Secret:
    """Make the secret of a user who does not exist."""
    made = hmac.digest(key, b"CRAM-MD5 " + login.encode("utf-8", "replace"), "sha256")
    return Secret(made[:_STATE_OCTETS], made[_STATE_OCTETS:])


def to_text(secret: Secret) -> str:
    """Write a secret for the users file."""
    return base64.b64encode(secret.inner + secret.outer).decode()


def from_text(text: str) -> Secret:
    """Read it.

    Raises:
        ValueError: the text is no secret.
    """
    try:
        octets = base64.b64decode(text, validate=True)
    except ValueError:
        octets = b""
    if len(octets) != 2 * _STATE_OCTETS:
        raise ValueError("has a CRAM-MD5 credential that is malformed")
    return Secret(octets[:_STATE_OCTETS], octets[_STATE_OCTETS:])


# RFC 1321 §3.3, §3.4
_START = struct.pack("<4I", 0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
_SINES = tuple(floor(abs(sin(i + 1)) * 2**32) for i in range(64))
_TURNS = (
    *((7, 12, 17, 22) * 4),
    *((5, 9, 14, 20) * 4),
    *((4, 11, 16, 23) * 4),
    *((6, 10, 15, 21) * 4),
)


def _finish(state: bytes, message: bytes) -> bytes:
    """Go on from a state that has taken one block, to the digest."""
    bits = (_BLOCK_OCTETS + len(message)) * 8
    padding = b"\x80" + bytes(-(len(message) + 9) % _BLOCK_OCTETS)
    data = message + padding + struct.pack("<Q", bits)
    for start in range(0, len(data), _BLOCK_OCTETS):
        state = _compress(state, data[start : start + _BLOCK_OCTETS])
    return state


def _compress(state: bytes, block: bytes) -> bytes:
    """One block of MD5 (RFC 1321 §3.4)."""
    words, before = struct.unpack("<16I", block), struct.unpack("<4I", state)
    a, b, c, d = before
    for i in range(64):
        if i < 16:
            mixed, word = (b & c) | (~b & d), i
        elif i < 32:
            mixed, word = (d & b) | (~d & c), (5 * i + 1) % 16
        elif i < 48:
            mixed, word = b ^ c ^ d, (3 * i + 5) % 16
        else:
            mixed, word = c ^ (b | (~d & 0xFFFFFFFF)), (7 * i) % 16
        total = (a + mixed + _SINES[i] + words[word]) & 0xFFFFFFFF
        turned = (total << _TURNS[i] | total >> (32 - _TURNS[i])) & 0xFFFFFFFF
        a, d, c, b = d, c, b, (b + turned) & 0xFFFFFFFF
    added = ((x + y) & 0xFFFFFFFF for x, y in zip(before, (a, b, c, d), strict=True))
    return struct.pack("<4I", *added)
