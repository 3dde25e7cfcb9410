"""JSON Web Tokens (RFC 7519): whether one is good, and what it says. Pure.

Only public keys are known here: a token that is not signed (``none``) or is signed
with a shared secret (``HS256``) is refused before anything is computed, and each key
only checks the one algorithm that goes with its type (RFC 8725 §3.1). A bad token is a
``str`` that says why, for the log.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

Algorithm = Literal["RS256", "ES256", "EdDSA"]
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

TOKEN_OCTETS_MAX = 8192
KEYS_MAX = 64
_TRIED_MAX = 8
RSA_BITS_MIN = 2048
_PART = re.compile(r"[A-Za-z0-9_-]+")


class Key(msgspec.Struct, frozen=True):
    """One public key of the issuer, and the algorithm that it is for."""

    id: str
    algorithm: Algorithm
    public: PublicKey


class Rules(msgspec.Struct, frozen=True):
    """What a token has to say to be taken. Empty: it need not say so."""

    issuer: str
    audience: str
    scope: str = ""
    leeway_s: int = 30


Claims = dict[str, Any]


def judge(token: str, keys: Sequence[Key], rules: Rules, utc_s: int) -> Claims | str:
    """Judge a token; return its claims, or why it is not taken."""
    parts = token.split(".")
    if len(token) > TOKEN_OCTETS_MAX or len(parts) != 3:
        return "not a signed token"
    header, claims = _object(parts[0]), _object(parts[1])
    signature = _octets(parts[2])
    if header is None or claims is None or signature is None:
        return "not a signed token"
    if "crit" in header:  # RFC 7515 §4.1.11: we understand no such extension
        return "has extensions that are not understood"
    problem = _check_signature(header, token.rpartition(".")[0], signature, keys)
    return problem or check_claims(claims, rules, utc_s) or claims


def check_claims(claims: Claims, rules: Rules, utc_s: int) -> str:
    """Return what is wrong with the claims of a token that is authentic."""
    if not _is_time(claims.get("exp")):
        return "has no time of expiry"
    if claims["exp"] + rules.leeway_s <= utc_s:  # RFC 7519 §4.1.4
        return "has expired"
    for name in ("nbf", "iat"):
        if name in claims and not _is_time(claims[name]):
            return f"has a malformed {name}"
    if claims.get("nbf", 0) - rules.leeway_s > utc_s:  # RFC 7519 §4.1.5
        return "is not valid yet"
    if rules.issuer and claims.get("iss") != rules.issuer:
        return "is of another issuer"
    if rules.audience and rules.audience not in _texts(claims.get("aud")):
        return "is for another audience"
    if rules.scope and rules.scope not in _scopes(claims):
        return f"lacks the scope {rules.scope}"
    return ""


def read_keys(text: bytes) -> tuple[Key, ...]:
    """Read a JSON Web Key Set (RFC 7517 §5).

    Keys of other kinds and for other uses are passed over.

    Raises:
        ValueError: it is no key set, or no key in it can be used.
    """
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ValueError(f"is no JSON: {error}") from None
    listed = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise ValueError('is no JSON Web Key Set: it has no "keys"')
    if len(listed) > KEYS_MAX:
        raise ValueError(f"has more than {KEYS_MAX} keys")
    keys = [_key(one) for one in listed if isinstance(one, dict)]
    usable = tuple(key for key in keys if key is not None)
    if not usable:
        raise ValueError("has no public key for RS256, ES256 or EdDSA")
    return usable


def _check_signature(
    header: Claims, signed: str, signature: bytes, keys: Sequence[Key]
) -> str:
    algorithm, key_id = header.get("alg"), header.get("kid")
    fitting = [key for key in keys if key.algorithm == algorithm]
    if not fitting:
        return "is signed with an algorithm that no key of ours is for"
    if key_id is not None:
        fitting = [key for key in fitting if key.id == key_id]
        if not fitting:
            return "is signed with a key that we do not know"
    for key in fitting[:_TRIED_MAX]:
        if _is_signed(key, signed.encode(), signature):
            return ""
    return "has a wrong signature"


def _is_signed(key: Key, signed: bytes, signature: bytes) -> bool:
    try:
        match key.public:
            case rsa.RSAPublicKey():
                pkcs = padding.PKCS1v15()
                key.public.verify(signature, signed, pkcs, hashes.SHA256())
            case ec.EllipticCurvePublicKey():
                if len(signature) != 64:  # RFC 7518 §3.4: R and S
                    return False
                r, s = signature[:32], signature[32:]
                both = int.from_bytes(r, "big"), int.from_bytes(s, "big")
                der = encode_dss_signature(*both)
                key.public.verify(der, signed, ec.ECDSA(hashes.SHA256()))
            case _:
                key.public.verify(signature, signed)
    except InvalidSignature:
        return False
    return True


def _key(given: Claims) -> Key | None:
    if given.get("use", "sig") != "sig":
        return None
    try:
        match given.get("kty"), given.get("crv"):
            case "RSA", _:
                algorithm: Algorithm = "RS256"
                modulus = _number(given, "n")
                if modulus.bit_length() < RSA_BITS_MIN:
                    return None
                public: PublicKey = rsa.RSAPublicNumbers(
                    _number(given, "e"), modulus
                ).public_key()
            case "EC", "P-256":
                algorithm = "ES256"
                public = ec.EllipticCurvePublicNumbers(
                    _number(given, "x"), _number(given, "y"), ec.SECP256R1()
                ).public_key()
            case "OKP", "Ed25519":
                algorithm = "EdDSA"
                octets = _octets(str(given.get("x", ""))) or b""
                public = ed25519.Ed25519PublicKey.from_public_bytes(octets)
            case _:
                return None
    except ValueError:
        return None
    if given.get("alg", algorithm) != algorithm:
        return None
    return Key(str(given.get("kid", "")), algorithm, public)


def _number(given: Claims, name: str) -> int:
    octets = _octets(str(given.get(name, "")))
    if not octets:
        raise ValueError(f"no {name}")
    return int.from_bytes(octets, "big")


def _object(part: str) -> Claims | None:
    octets = _octets(part)
    if octets is None:
        return None
    try:
        found = msgspec.json.decode(octets)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _octets(part: str) -> bytes | None:
    """Decode base64url without padding (RFC 7515 §2)."""
    if not _PART.fullmatch(part):
        return None
    try:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except binascii.Error:
        return None


def _is_time(found: object) -> bool:
    """Whether it is a NumericDate; true and false are no numbers."""
    return isinstance(found, int | float) and not isinstance(found, bool)


def _texts(found: object) -> list[str]:
    listed = found if isinstance(found, list) else [found]
    return [one for one in listed if isinstance(one, str)]


def _scopes(claims: Claims) -> list[str]:
    """Return the scopes: ``scope`` (RFC 8693 §4.2), or ``scp`` as Microsoft has it."""
    found = _texts(claims.get("scope")) + _texts(claims.get("scp"))
    return [scope for one in found for scope in one.split()]
