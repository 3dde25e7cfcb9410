"""Settings of encryption, and of the proxies in front of us."""

from ipaddress import ip_network
from typing import Literal

import msgspec

from postroom.mail.units import Duration

ClientCertificates = Literal["off", "ask", "require"]


class CertificateSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """One ``[[tls.certificate]]``: files in PEM, read by the supervisor."""

    cert: str
    """The certificate, followed by those of its issuers (``fullchain.pem``)."""

    key: str = ""
    """Its private key; empty: in the same file."""

    names: tuple[str, ...] = ()
    """For which names clients get it (SNI); empty: those it was issued for."""


class TlsSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """Encryption of the connections that come in."""

    certificate: tuple[CertificateSettings, ...] = ()
    """The certificates. Clients that name none of their names get the first."""

    self_signed: bool = False
    """With no certificate of your own: make one that nobody trusts, for trials."""

    minimum_version: Literal["1.2", "1.3"] = "1.2"
    """The oldest version of TLS that is spoken."""

    ciphers: str = ""
    """Cipher suites of TLS 1.2, as ``openssl ciphers`` takes them; empty: as the
    library has them. Those of TLS 1.3 are always the library's."""

    session_tickets: int = 2
    """With how many tickets a client can resume its session; 0: not at all."""

    handshake_timeout: Duration = Duration.from_text("30s")
    """How long a client may take for its handshake; then the connection is closed."""

    client_certificates: ClientCertificates = "off"
    """Whether clients show a certificate: ``require`` one, ``ask`` for one. One that
    ``client_ca`` has not issued ends the handshake, in both cases."""

    client_certificate_services: tuple[
        Literal["smtp", "submission", "lmtp", "pop3"], ...
    ] = ("submission", "lmtp")
    """Where it is asked for. Think twice before adding ``smtp``: mail servers show
    whatever certificate they have."""

    client_ca: str = ""
    """A file with the certificates (PEM) of those who issue them to clients."""

    expiry_warning: Duration = Duration.from_text("14d")
    """From when on the log says, daily, that a certificate is about to expire."""

    @property
    def is_available(self) -> bool:
        """Whether there is, or will be, a certificate."""
        return bool(self.certificate) or self.self_signed

    def __post_init__(self) -> None:
        """Check what the types do not."""
        if not 0 <= self.session_tickets <= 8:
            raise ValueError("session_tickets must be between 0 and 8")
        if self.handshake_timeout < 1:
            raise ValueError("handshake_timeout must be longer than nothing")
        if self.client_certificates != "off" and not self.client_ca:
            raise ValueError(
                f'client_certificates = "{self.client_certificates}" needs client_ca: '
                "the file with the certificates of who issues them"
            )
        if self.self_signed and self.certificate:
            raise ValueError("self_signed is for trials without any certificate")


class ProxySettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """Load balancers in front of listeners with ``proxy = true``."""

    networks: tuple[str, ...] = ()
    """Who may say for whom it speaks: ``"192.0.2.7"``, ``"2001:db8::/64"``. Others are
    turned away there."""

    timeout: Duration = Duration.from_text("5s")
    """How long the PROXY header may take; then the connection is closed."""

    def __post_init__(self) -> None:
        """Check what the types do not."""
        if self.timeout < 1:
            raise ValueError("timeout must be longer than nothing")
        for text in self.networks:
            try:
                ip_network(text)
            except ValueError as error:
                raise ValueError(
                    f'{error}: write "192.0.2.0/24", "2001:db8::/32" or one address'
                ) from None
