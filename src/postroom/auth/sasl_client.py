"""SASL, the client's side (RFC 4422, RFC 4954): how we log in at other hosts. Pure.

``exchange`` makes the one for a mechanism. It yields responses and is sent challenges;
it returns nothing when it is satisfied, and ``Distrust`` where the server did not prove
that it knows us, or talks nonsense: then the login counts as failed, whatever the
server says of it. Nothing raises for what a server sends.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Generator, Sequence
from typing import Final

import msgspec

from postroom.auth.scram import prepare

ITERATIONS_MAX: Final = 1_000_000
"""A server that asks for more would have us work for it all day (RFC 5802 §9)."""
_ITERATIONS_MIN: Final = 4096  # RFC 7677 §4
_MESSAGE_OCTETS_MAX: Final = 8192

PLAINTEXT: Final = frozenset({"PLAIN", "LOGIN", "OAUTHBEARER", "XOAUTH2"})
"""Mechanisms that show the secret to whoever listens."""
_WITH_PASSWORD = frozenset(
    {"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN"}
)
_WITH_TOKEN = frozenset({"OAUTHBEARER", "XOAUTH2"})


class Secrets(msgspec.Struct, frozen=True):
    """Who we are at another host, and how we prove it; never shown.

    With a password or a token; with neither, our certificate proves it (EXTERNAL).
    """

    user: str = ""
    password: str = ""
    token: str = ""
    authorize_as: str = ""

    def __repr__(self) -> str:
        """Show the name only: this may stand in a log of an error."""
        return f"Secrets(user={self.user!r}, ...)"


class Link(msgspec.Struct, frozen=True):
    """What the connection offers to a login.

    Attributes:
        offered: mechanisms that the server named, in upper case.
        is_tls: whether it is encrypted.
        has_certificate: whether we showed a certificate of our own.
        binding: the tls-server-end-point data (RFC 5929 §4), empty if there is none.
        host: the server's name, for OAUTHBEARER.
        port: its port, likewise.
    """

    offered: Sequence[str]
    is_tls: bool = False
    has_certificate: bool = False
    binding: bytes = b""
    host: str = ""
    port: int = 0


class Distrust(msgspec.Struct, frozen=True):
    """The server did not do its part; ``why`` is for the log."""

    why: str


Exchange = Generator[bytes, bytes, Distrust | None]
"""Yields responses, is sent challenges.

The first response goes with AUTH itself, or is empty if the server speaks first.
"""


def choose(
    secrets: Secrets, allowed: Sequence[str], link: Link, *, in_clear: bool = False
) -> str:
    """Return the best mechanism that both sides have; empty: none.

    Args:
        secrets: what we have.
        allowed: what we may use, best first.
        link: what the server offers, and over what.
        in_clear: whether plaintext mechanisms may do without TLS (RFC 4954 §4).
    """
    for name in allowed:
        if name not in link.offered:
            continue
        if name in PLAINTEXT and not (link.is_tls or in_clear):
            continue
        if name in _WITH_PASSWORD and not secrets.password:
            continue
        if name in _WITH_TOKEN and not secrets.token:
            continue
        if name == "EXTERNAL" and not link.has_certificate:
            continue
        if name == "SCRAM-SHA-256-PLUS" and not link.binding:
            continue
        return name
    return ""


def speaks_first(mechanism: str) -> bool:
    """Whether the first response goes with AUTH (RFC 4954 §4)."""
    return mechanism not in ("CRAM-MD5", "LOGIN")


def exchange(mechanism: str, secrets: Secrets, link: Link, nonce: str) -> Exchange:
    """Make the exchange of a mechanism.

    Args:
        mechanism: as ``choose`` returned it.
        secrets: who we are.
        link: what the connection offers.
        nonce: printable, without commas, never used before (SCRAM).
    """
    match mechanism:
        case "SCRAM-SHA-256-PLUS" | "SCRAM-SHA-256":
            return _scram(mechanism, secrets, link, nonce)
        case "CRAM-MD5":
            return _cram_md5(secrets)
        case "EXTERNAL":
            return _one(secrets.authorize_as.encode())
        case "OAUTHBEARER":
            return _bearer(_oauthbearer(secrets, link))
        case "XOAUTH2":
            return _bearer(_xoauth2(secrets))
        case "PLAIN":
            return _one(_plain(secrets))
        case "LOGIN":
            return _login(secrets)
        case _:
            raise AssertionError(f"no mechanism {mechanism}")


def _one(response: bytes) -> Exchange:
    yield response
    return None


def _plain(secrets: Secrets) -> bytes:
    # RFC 4616 §2: [authzid] NUL authcid NUL passwd
    parts = (secrets.authorize_as, secrets.user, secrets.password)
    return "\0".join(parts).encode()


def _login(secrets: Secrets) -> Exchange:
    """Answer "Username:" and "Password:", whatever the server calls them."""
    yield b""
    yield secrets.user.encode()
    yield secrets.password.encode()
    return None


def _cram_md5(secrets: Secrets) -> Exchange:
    # RFC 2195 §2: the challenge came before anything was said
    challenge = yield b""
    digest = hmac.new(secrets.password.encode(), challenge, hashlib.md5).hexdigest()
    yield f"{secrets.user} {digest}".encode()
    return None


def _oauthbearer(secrets: Secrets, link: Link) -> bytes:
    # RFC 7628 §3.1: gs2-header kvsep *kvpair kvsep
    name = _saslname(secrets.authorize_as or secrets.user)
    where = f"host={link.host}\1port={link.port}\1" if link.host and link.port else ""
    return f"n,a={name},\1{where}auth=Bearer {secrets.token}\1\1".encode()


def _xoauth2(secrets: Secrets) -> bytes:
    return f"user={secrets.user}\1auth=Bearer {secrets.token}\1\1".encode()


def _bearer(first: bytes) -> Exchange:
    """Answer the challenge that tells why a token is refused, so that 535 follows."""
    error = yield first
    # RFC 7628 §3.2.3: the client answers with a lone %x01 (XOAUTH2: an empty line)
    yield b"\1" if first.startswith(b"n,") else b""
    return Distrust(f"the token was refused: {_shown(error)}")


def _scram(mechanism: str, secrets: Secrets, link: Link, nonce: str) -> Exchange:
    """RFC 5802 §3, with SHA-256 (RFC 7677)."""
    header = _gs2_header(mechanism, secrets, link)
    bare = f"n={_saslname(_prepared(secrets.user))},r={nonce}"
    server_first = yield (header + bare).encode()
    found = _SERVER_FIRST.fullmatch(_text(server_first))
    if not found or not found["nonce"].startswith(nonce) or found["nonce"] == nonce:
        return Distrust(f"no SCRAM challenge: {_shown(server_first)}")
    rounds, salt = int(found["rounds"]), _decoded(found["salt"])
    if salt is None or not _ITERATIONS_MIN <= rounds <= ITERATIONS_MAX:
        return Distrust(f"a SCRAM challenge that cannot be: {_shown(server_first)}")
    binding = header.encode()
    if header.startswith("p="):
        binding += link.binding
    final = f"c={base64.b64encode(binding).decode()},r={found['nonce']}"
    signed = ",".join((bare, _text(server_first), final)).encode()
    salted = hashlib.pbkdf2_hmac(
        "sha256", prepare(secrets.password.encode()), salt, rounds
    )
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    signature = hmac.digest(stored_key, signed, "sha256")
    # RFC 5802 §3: ClientProof = ClientKey XOR ClientSignature
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    server_final = yield f"{final},p={base64.b64encode(proof).decode()}".encode()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    wanted = hmac.digest(server_key, signed, "sha256")
    return (yield from _prove(_text(server_final), wanted))


def _prove(server_final: str, wanted: bytes) -> Exchange:
    """Believe a server only if it knows our verifier (RFC 5802 §5)."""
    said = _decoded(server_final[2:].partition(",")[0])
    if server_final.startswith("v=") and said and hmac.compare_digest(said, wanted):
        yield b""  # RFC 4954 §4: 235 follows an empty response
        return None
    if server_final.startswith("e="):
        return Distrust(f"the server says {_shown(server_final.encode())}")
    return Distrust("the server does not prove that it knows the password")


def needs_proof(mechanism: str) -> bool:
    """Whether the server must have proved itself before its 235 is believed."""
    return mechanism.startswith("SCRAM-")


def _gs2_header(mechanism: str, secrets: Secrets, link: Link) -> str:
    # RFC 5802 §6: "y" says that we could bind, but were not offered it
    if mechanism.endswith("-PLUS"):
        flag = "p=tls-server-end-point"
    elif link.binding and "SCRAM-SHA-256-PLUS" not in link.offered:
        flag = "y"
    else:
        flag = "n"
    name = secrets.authorize_as
    return f"{flag},{f'a={_saslname(name)}' if name else ''},"


# server-first-message = [reserved-mext ","] nonce "," salt "," iteration-count
_SERVER_FIRST = re.compile(
    r"r=(?P<nonce>[!-+\--~]+),s=(?P<salt>[A-Za-z0-9+/=]+),i=(?P<rounds>\d{1,9})"
    r"(?:,.*)?",
    re.DOTALL,
)


def _prepared(name: str) -> str:
    return prepare(name.encode()).decode("utf-8", "replace")


def _saslname(name: str) -> str:
    return name.replace("=", "=3D").replace(",", "=2C")


def _text(data: bytes) -> str:
    try:
        return data.decode() if len(data) <= _MESSAGE_OCTETS_MAX else ""
    except UnicodeDecodeError:
        return ""


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _shown(data: bytes) -> str:
    """Make text for the log of what a server sent; controls become question marks."""
    text = data[:200].decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "?" for c in text)
