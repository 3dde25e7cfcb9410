"""Certificates and tokens of a run: an authority, whom it vouches for, a token."""

import base64
import datetime
import ipaddress
import json
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.x509.oid import NameOID

ISSUER, AUDIENCE = "https://login.interop.test", "postroom"
_FOREVER = datetime.timedelta(days=365)


class Authority:
    """Who certifies; its own certificate lies in ``ca.pem``."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        self.folder = folder
        self.ca = folder / "ca.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("Interop authority")
        key = self._key.public_key()
        usage = x509.KeyUsage(
            *(True, False, False, False, False), *(True, True, False, False)
        )
        certificate = (
            _builder(self._name, self._name, key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
            .add_extension(usage, True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), False)
            .sign(self._key, hashes.SHA256())
        )
        self.ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def certify(self, name: str, *more: str, is_rsa: bool = False) -> tuple[Path, Path]:
        """Certify a host, a network address or a user; returns certificate and key."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [_general_name(one) for one in (name, *more)]
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(
            self._key.public_key()
        )
        certificate = (
            _builder(_name(name), self._name, key.public_key())
            .add_extension(x509.SubjectAlternativeName(names), False)
            .add_extension(issuer, False)
            .sign(self._key, hashes.SHA256())
        )
        paths = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(_pem(key))
        paths[1].chmod(0o600)
        return paths


def make_token(folder: Path, user: str, now_s: int) -> str:
    """Sign a token for a user; its public key is written to ``jwks.json``."""
    key = ec.generate_private_key(ec.SECP256R1())
    numbers = key.public_key().public_numbers()
    jwk = {
        **{"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "1", "use": "sig"},
        "x": _base64(numbers.x.to_bytes(32, "big")),
        "y": _base64(numbers.y.to_bytes(32, "big")),
    }
    (folder / "jwks.json").write_text(json.dumps({"keys": [jwk]}))
    claims = {
        **{"iss": ISSUER, "aud": AUDIENCE, "email": user, "sub": user},
        **{"iat": now_s, "exp": now_s + 86400},
    }
    header = {"alg": "ES256", "typ": "JWT", "kid": "1"}
    signed = ".".join(_base64(json.dumps(one).encode()) for one in (header, claims))
    r, s = utils.decode_dss_signature(
        key.sign(signed.encode(), ec.ECDSA(hashes.SHA256()))
    )
    return f"{signed}.{_base64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _base64(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(text: str) -> x509.GeneralName:
    if "@" in text:
        mailbox: type[x509.GeneralName] = getattr(x509, "RFC" + "822Name")
        return mailbox(text)
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + _FOREVER)
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
