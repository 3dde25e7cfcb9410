"""SCRAM-SHA-256 (RFC 5802, RFC 7677): verifiers, and the server's side of the exchange.

Pure: nonces, salts and channel bindings are given. A client that breaks the rules gets
a ``ScramError`` value with the word of RFC 5802 §7; nothing raises on what a client
sends.
"""

import base64
import binascii
import hashlib
import hmac
import re
import stringprep
import unicodedata
from collections.abc import Mapping

import msgspec

SCHEME = "SCRAM-SHA-256"
SALT_OCTETS_MIN = 16
_MESSAGE_OCTETS_MAX = 4096


class Verifier(msgspec.Struct, frozen=True, gc=False):
    """What the server stores in place of the password (RFC 5802 §3)."""

    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes

    @classmethod
    def from_text(cls, text: str) -> "Verifier":
        """Read ``iterations:salt$stored:server``, base64 but for the number (RFC 5803).

        Raises:
            ValueError: the text is no verifier.
        """
        match = _VERIFIER.fullmatch(text)
        if not match:
            raise ValueError("is no SCRAM verifier")
        salt, stored, server = (
            base64.b64decode(part, validate=True) for part in match.groups()[1:]
        )
        if len(stored) != 32 or len(server) != 32 or not salt:
            raise ValueError("is no SCRAM-SHA-256 verifier: keys of a wrong length")
        return cls(int(match[1]), salt, stored, server)

    def to_text(self) -> str:
        """Write it as ``from_text`` reads it."""
        return (
            f"{self.iterations}:{_b64(self.salt)}"
            f"${_b64(self.stored_key)}:{_b64(self.server_key)}"
        )

    def matches(self, password: bytes) -> bool:
        """Whether this is the password (already prepared); takes as long as a login."""
        made = derive(password, self.salt, self.iterations)
        return hmac.compare_digest(made.stored_key, self.stored_key)


_VERIFIER = re.compile(
    r"(\d{1,8}):([A-Za-z0-9+/=]{4,172})\$([A-Za-z0-9+/=]{4,64}):([A-Za-z0-9+/=]{4,64})"
)


def derive(password: bytes, salt: bytes, iterations: int) -> Verifier:
    """Make the verifier of a prepared password (RFC 5802 §3)."""
    salted = hashlib.pbkdf2_hmac("sha256", password, salt, iterations)
    client_key = _hmac(salted, b"Client Key")
    stored_key = hashlib.sha256(client_key).digest()
    return Verifier(iterations, salt, stored_key, _hmac(salted, b"Server Key"))


def prepare(password: bytes) -> bytes:
    """Bring a password into the one form that is hashed: SASLprep (RFC 4013).

    Octets that are no UTF-8, or text that SASLprep forbids, are used as they are, the
    same at each login.
    """
    if password.isascii():
        return password
    try:
        prepared = saslprep(password.decode())
    except ValueError:
        return password
    return prepared.encode() or password


def saslprep(text: str) -> str:
    """Return the text as RFC 4013 §2 prepares it; unassigned code points are allowed.

    Raises:
        ValueError: it has characters that are prohibited there.
    """
    # RFC 4013 §2.1: map; §2.2: normalise.
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char
        for char in text
        if not stringprep.in_table_b1(char)
    )
    out = unicodedata.normalize("NFKC", mapped)
    for char in out:
        if any(prohibited(char) for prohibited in _PROHIBITED):
            raise ValueError(
                f"has the character U+{ord(char):04X}, which is prohibited"
            )
    # RFC 3454 §6: a text from right to left begins and ends so, with nothing else.
    if any(stringprep.in_table_d1(char) for char in out) and not (
        stringprep.in_table_d1(out[0])
        and stringprep.in_table_d1(out[-1])
        and not any(stringprep.in_table_d2(char) for char in out)
    ):
        raise ValueError("mixes directions of writing")
    return out


# RFC 4013 §2.3
_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


class ScramError(msgspec.Struct, frozen=True):
    """The exchange failed. ``word`` is of RFC 5802 §7, such as ``invalid-proof``."""

    word: str

    def to_wire(self) -> bytes:
        """Return the server's last message (RFC 5802 §7: ``server-error``)."""
        return f"e={self.word}".encode()


class ClientFirst(msgspec.Struct, frozen=True):
    """The client's first message. ``user`` still has to be looked up.

    ``acts_as`` is the authorization identity, empty for the user's own. ``binding`` is
    what the client has to say of the TLS channel, empty where it binds to none.
    """

    user: str
    acts_as: str
    nonce: str
    header: str
    bare: str
    binding: bytes = b""


class Challenge(msgspec.Struct, frozen=True):
    """What is sent to the client, and all that is needed to judge its answer."""

    first: ClientFirst
    verifier: Verifier
    nonce: str

    def to_wire(self) -> bytes:
        """Return ``server-first-message``."""
        salt = _b64(self.verifier.salt)
        return f"r={self.nonce},s={salt},i={self.verifier.iterations}".encode()


class ScramSuccess(msgspec.Struct, frozen=True):
    """The client knows the password; ``proof`` shows it that we know the verifier."""

    user: str
    acts_as: str
    proof: bytes

    def to_wire(self) -> bytes:
        """Return ``server-final-message``."""
        return f"v={_b64(self.proof)}".encode()


# RFC 5802 §7. gs2-header = gs2-cbind-flag "," [ authzid ] ","
# client-first-message-bare = [reserved-mext ","] username "," nonce ["," extensions]
_CLIENT_FIRST = re.compile(
    r"(?P<header>(?P<flag>[ny]|p=[A-Za-z0-9.-]+),(?:a=(?P<authzid>[^,]+))?,)"
    r"(?P<bare>(?P<mext>m=[^,]*,)?n=(?P<user>[^,]+),r=(?P<nonce>[!-+\--~]+)(?:,.*)?)",
    re.DOTALL,
)
# client-final-message = channel-binding "," nonce ["," extensions] "," proof
_CLIENT_FINAL = re.compile(
    r"(?P<bare>c=(?P<binding>[A-Za-z0-9+/=]+),r=(?P<nonce>[!-+\--~]+)(?:,.*)?)"
    r",p=(?P<proof>[A-Za-z0-9+/=]+)",
    re.DOTALL,
)


NO_BINDINGS: Mapping[str, bytes] = {}


def read_client_first(
    data: bytes, bindings: Mapping[str, bytes] = NO_BINDINGS, *, plus: bool = False
) -> ClientFirst | ScramError:
    """Read ``client-first-message``.

    Args:
        data: the message.
        bindings: the channel bindings of this connection by type; where there are any
            the -PLUS mechanism was offered.
        plus: whether the client chose the -PLUS mechanism.
    """
    match = _CLIENT_FIRST.fullmatch(_text(data))
    if not match:
        return ScramError("other-error")
    if match["mext"]:
        return ScramError("extensions-not-supported")
    word = _flag_error(match["flag"], bindings, plus)
    if word:
        return ScramError(word)
    user, acts_as = _name(match["user"]), _name(match["authzid"] or "")
    if user is None or acts_as is None:
        return ScramError("invalid-username-encoding")
    binding = bindings.get(match["flag"][2:], b"")
    return ClientFirst(
        user, acts_as, match["nonce"], match["header"], match["bare"], binding
    )


def _flag_error(flag: str, bindings: Mapping[str, bytes], plus: bool) -> str:
    """Return what is wrong with the client's wish to bind to the channel."""
    if flag.startswith("p="):
        if not plus:  # RFC 5802 §6: the flag has to go with the mechanism
            return "channel-binding-not-supported"
        return "" if flag[2:] in bindings else "unsupported-channel-binding-type"
    if plus:  # RFC 5802 §6: -PLUS is used with a binding or not at all
        return "other-error"
    # RFC 5802 §6: we offered -PLUS, and the client did not see it: somebody between
    # us took it out.
    if flag == "y" and bindings:
        return "server-does-support-channel-binding"
    return ""


def challenge(first: ClientFirst, verifier: Verifier, server_nonce: str) -> Challenge:
    """Make the server's first message; the nonce must never have been used before."""
    return Challenge(first, verifier, first.nonce + server_nonce)


def stand_in(user: str, secret: bytes, iterations: int) -> Verifier:
    """Make the verifier of a user who does not exist: the same salt each time.

    Without it a client could tell from the challenge who exists (RFC 5802 §9).
    """
    made = hmac.digest(secret, user.encode("utf-8", "replace"), "sha512")
    return Verifier(iterations, made[:SALT_OCTETS_MIN], made[32:], made[:32])


def judge(given: Challenge, data: bytes) -> ScramSuccess | ScramError:
    """Judge ``client-final-message``."""
    match = _CLIENT_FINAL.fullmatch(_text(data))
    if not match:
        return ScramError("other-error")
    try:
        binding = base64.b64decode(match["binding"], validate=True)
        proof = base64.b64decode(match["proof"], validate=True)
    except binascii.Error:
        return ScramError("invalid-encoding")
    expected = given.first.header.encode() + given.first.binding
    if not hmac.compare_digest(binding, expected):
        return ScramError("channel-bindings-dont-match")
    if match["nonce"] != given.nonce or len(proof) != 32:
        return ScramError("invalid-proof")
    verifier = given.verifier
    signed = ",".join((given.first.bare, given.to_wire().decode(), match["bare"]))
    signature = _hmac(verifier.stored_key, signed.encode())
    # RFC 5802 §3: ClientKey = ClientProof XOR ClientSignature
    client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
    if not hmac.compare_digest(
        hashlib.sha256(client_key).digest(), verifier.stored_key
    ):
        return ScramError("invalid-proof")
    server_proof = _hmac(verifier.server_key, signed.encode())
    return ScramSuccess(given.first.user, given.first.acts_as, server_proof)


def _name(text: str) -> str | None:
    """Undo ``=2C`` and ``=3D``; any other ``=`` is an error (RFC 5802 §5.1)."""
    if re.search(r"=(?!2C|3D)", text):
        return None
    return text.replace("=2C", ",").replace("=3D", "=")


def _text(data: bytes) -> str:
    try:
        return data.decode() if len(data) <= _MESSAGE_OCTETS_MAX else ""
    except UnicodeDecodeError:
        return ""


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
