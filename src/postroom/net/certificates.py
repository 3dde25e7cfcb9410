"""Reads certificates and keys, judges them, and makes a self-signed one for trials.

What cannot be used is a ``CertificateError``, which names the file and the remedy. A
certificate that has expired is used all the same: mail that is encrypted with it is
better off than mail that is not. Only here the ``cryptography`` library is used.
"""

import os
import stat
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtensionOID, NameOID

from postroom.mail.now import DAY_US, SECOND_US
from postroom.net.keys import KeyPair
from postroom.net.settings import CertificateSettings

FILE_OCTETS_MAX = 1 << 20
SELF_SIGNED_DAYS = 365
SELF_SIGNED_RENEW_US = 30 * DAY_US
"""A self-signed certificate is made anew so long before it expires."""


class CertificateError(Exception):
    """A certificate or key is of no use; the text names the file and the remedy."""


def read_pair(settings: CertificateSettings, owners: Collection[int]) -> KeyPair:
    """Read a certificate and its key.

    Args:
        settings: the files.
        owners: the users, by number, who may own the key.

    Raises:
        CertificateError: they cannot be read, or do not belong together.
    """
    chain_pem = _read(settings.cert)
    key_path = settings.key or settings.cert
    key_pem = _read(key_path, owners)
    chain = _certificates(settings.cert, chain_pem)
    leaf, key = chain[0], _private_key(key_path, key_pem)
    if key.public_key() != leaf.public_key():
        raise CertificateError(
            f"{key_path} is not the key of {settings.cert}: its public key is another; "
            "name the key that the certificate was issued for (the server's own "
            "certificate has to come first in the file)"
        )
    return KeyPair(
        path=settings.cert,
        names=tuple(name.lower() for name in settings.names) or names_of(leaf),
        kind=_kind(key),
        chain="".join(map(_pem, chain)),
        key=_key_pem(key),
        end_point=_end_point(leaf),
        until_us=_us(leaf.not_valid_after_utc),
    )


def read_client_ca(path: str) -> str:
    """Read the certificates of those who issue them to clients; returns PEM.

    Raises:
        CertificateError: there are none.
    """
    return "".join(map(_pem, _certificates(path, _read(path))))


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the host names it was issued for: SAN, else the common name."""
    try:
        found = certificate.extensions.get_extension_for_oid(
            ExtensionOID.SUBJECT_ALTERNATIVE_NAME
        ).value
    except (x509.ExtensionNotFound, ValueError):
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return tuple(str(one.value).lower() for one in common[-1:])
    assert isinstance(found, x509.SubjectAlternativeName)
    return tuple(n.lower() for n in found.get_values_for_type(x509.DNSName))


def expiry_text(pair: KeyPair, now_us: int, warning_us: int) -> str:
    """Say that a certificate has expired or is about to; nothing if neither."""
    left_us = pair.until_us - now_us
    if left_us <= 0:
        return f"{pair.path} has expired {_days(-left_us)} ago: get a new certificate"
    if left_us < warning_us:
        return f"{pair.path} expires in {_days(left_us)}: get a new certificate"
    return ""


def covers(names: Collection[str], hostname: str) -> bool:
    """Whether a certificate with these names is one for a host (RFC 6125 §6.4)."""
    hostname = hostname.lower()
    return hostname in names or f"*.{hostname.partition('.')[2]}" in names


def make_self_signed(path: str, hostname: str, now_us: int, uid: int, gid: int) -> bool:
    """Make a certificate that nobody trusts, unless the file has one for a while yet.

    Args:
        path: certificate and key go there, mode 0600.
        hostname: for whom it is.
        now_us: the present moment, UTC.
        uid: the file's owner, -1 for ourselves.
        gid: the file's group, likewise.

    Returns:
        Whether one was made.

    Raises:
        OSError: the file cannot be written.
    """
    if _is_good(path, hostname, now_us):
        return False
    key = ec.generate_private_key(ec.SECP256R1())
    begin = datetime.fromtimestamp(now_us / SECOND_US, UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:64])])
    names = [x509.DNSName(one) for one in _ascii_names(hostname, "localhost")]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - timedelta(hours=1))
        .not_valid_after(begin + timedelta(days=SELF_SIGNED_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write_private(path, _pem(certificate) + _key_pem(key), uid, gid)
    return True


def _is_good(path: str, hostname: str, now_us: int) -> bool:
    try:
        found = _certificates(path, Path(path).read_bytes())[0]
    except (OSError, CertificateError):
        return False
    left_us = _us(found.not_valid_after_utc) - now_us
    return covers(names_of(found), hostname) and left_us > SELF_SIGNED_RENEW_US


def _ascii_names(*names: str) -> Iterator[str]:
    for name in dict.fromkeys(names):
        if name.isascii() and name:
            yield name


def _write_private(path: str, text: str, uid: int, gid: int) -> None:
    """Put a file in its place whole, so that nobody ever reads half of it."""
    new = f"{path}.new"
    Path(new).unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(new, flags, 0o600)
    with os.fdopen(fd, "w") as file:
        os.fchown(fd, uid, gid)
        file.write(text)
        file.flush()
        os.fsync(fd)
    Path(new).rename(path)


def _read(path: str, owners: Collection[int] | None = None) -> bytes:
    """Read a file; one that must be private, if ``owners`` says whose it may be."""
    try:
        with open(path, "rb") as file:
            if owners is not None:
                _guard(path, os.fstat(file.fileno()), owners)
            data = file.read(FILE_OCTETS_MAX + 1)
    except FileNotFoundError:
        raise CertificateError(f"{path} does not exist") from None
    except OSError as error:
        raise CertificateError(
            f"{path} cannot be read: {error.strerror}: the server reads it as the user "
            "that starts it (root, as a rule), before it becomes another"
        ) from None
    if len(data) > FILE_OCTETS_MAX:
        raise CertificateError(f"{path} is larger than 1 MiB: is it the right file?")
    return data


def _guard(path: str, found: os.stat_result, owners: Collection[int]) -> None:
    if found.st_uid not in owners:
        raise CertificateError(
            f"{path} belongs to user {found.st_uid}, who could put another key there: "
            f"chown root {path}"
        )
    if found.st_mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise CertificateError(
            f"{path} is a private key, and others may read or change it: "
            f"chmod 600 {path}"
        )


def _certificates(path: str, data: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError:
        raise CertificateError(
            f"{path} holds no certificate in PEM (it begins with "
            '"-----BEGIN CERTIFICATE-----"): "openssl x509 -in FILE" shows what it is'
        ) from None


def _private_key(path: str, data: bytes) -> PrivateKeyTypes:
    try:
        key = serialization.load_pem_private_key(data, None)
    except TypeError:
        raise CertificateError(
            f"{path} is encrypted with a passphrase, which nobody could type: store it "
            f'without ("openssl pkey -in {path} -out NEW") and chmod 600'
        ) from None
    except ValueError:
        raise CertificateError(f"{path} holds no private key in PEM") from None
    return key


def _kind(key: object) -> str:
    if isinstance(key, rsa.RSAPrivateKey):
        return "RSA"
    return "EC" if isinstance(key, ec.EllipticCurvePrivateKey) else "Ed"


def end_point_of(certificate_der: bytes) -> bytes:
    """Return what logins are bound to at a peer (RFC 5929 §4.1); empty: nothing."""
    try:
        made = _end_point(x509.load_der_x509_certificate(certificate_der))
    except (ValueError, UnsupportedAlgorithm):
        return b""
    return bytes.fromhex(made)


def _end_point(certificate: x509.Certificate) -> str:
    """Return the hash that logins are bound to (RFC 5929 §4.1), in hexadecimal."""
    used = certificate.signature_hash_algorithm
    if used is None:
        return ""  # left undefined there: more or fewer than one hash function
    if used.name in ("md5", "sha1"):
        used = hashes.SHA256()
    return certificate.fingerprint(used).hex()


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: PrivateKeyTypes) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def _us(moment: datetime) -> int:
    return round(moment.timestamp()) * SECOND_US


def _days(us: int) -> str:
    days = us // DAY_US
    return f"{days} days" if days > 1 else f"{us // (DAY_US // 24)} hours"
