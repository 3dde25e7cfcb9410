"""A certificate authority for tests: keys and certificates made in a moment.

They are valid from 2020 to 2120, so that no test depends on the day, and use EC keys,
which cost next to nothing. They have all that a strict reader wants (RFC 5280 §4.2.1),
as Python's own is since 3.13.
"""

import ssl
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_SIGNS = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)
_FROM, _UNTIL = datetime(2020, 1, 1, tzinfo=UTC), datetime(2120, 1, 1, tzinfo=UTC)


class Authority:
    """Issues certificates into a directory.

    Args:
        directory: where files are made.
        name: what the authority is called.

    Attributes:
        ca_file: PEM file with the certificate to trust.
    """

    def __init__(self, directory: Path, name: str = "Test CA") -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        self._serial = 1
        made = (
            self._begin(self._name, self._key)
            .add_extension(
                x509.BasicConstraints(ca=True, path_length=None), critical=True
            )
            .add_extension(_SIGNS, critical=True)
        )
        certificate = made.sign(self._key, hashes.SHA256())
        self.ca_file = str(directory / f"{name.replace(' ', '-')}.crt")
        Path(self.ca_file).write_bytes(_pem(certificate))
        Path(self.ca_file).chmod(0o644)  # whatever the umask: hosts run as others

    def issue(self, *names: str, expired: bool = False, common_name: str = "") -> str:
        """Issue a certificate for host names and addresses.

        Args:
            names: the names in it; none: only the common name.
            expired: it ended in 2021.
            common_name: its subject.

        Returns:
            The PEM file with the key and the certificate.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._begin(_named(common_name or "a host"), key, expired=expired)
        if names:
            found = x509.SubjectAlternativeName([_general(name) for name in names])
            made = made.add_extension(found, critical=False)
        path = self._directory / f"{self._serial}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        path.write_bytes(private + _pem(made.sign(self._key, hashes.SHA256())))
        path.chmod(0o600)
        return str(path)

    def server_context(
        self, *names: str, expired: bool = False, common_name: str = ""
    ) -> ssl.SSLContext:
        """Return what a server of these names needs."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made = self.issue(*names, expired=expired, common_name=common_name)
        context.load_cert_chain(made)
        return context

    def _begin(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        *,
        expired: bool = False,
    ) -> x509.CertificateBuilder:
        self._serial += 1
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(self._serial)
            .not_valid_before(_FROM)
            .not_valid_after(datetime(2021, 1, 1, tzinfo=UTC) if expired else _UNTIL)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(
                    self._key.public_key()
                ),
                critical=False,
            )
        )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
