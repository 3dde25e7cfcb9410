"""What one listener shows to its clients: decided per generation, not per session."""

from enum import StrEnum

import msgspec

from postroom.smtp.settings import ServerSettings


class Kind(StrEnum):
    """What a listener is for."""

    SMTP = "smtp"
    """Mail from other hosts, port 25 (RFC 5321)."""
    SUBMISSION = "submission"
    """Mail from users, ports 587 and 465 (RFC 6409, RFC 8314)."""
    LMTP = "lmtp"
    """Mail from another server that has the queue (RFC 2033)."""
    LOCAL = "local"
    """``sendmail -bs``: the caller is known."""


class Tls(StrEnum):
    """When a session is encrypted."""

    OFF = "off"
    """Never: STARTTLS is not offered."""
    STARTTLS = "starttls"
    """When the client asks (RFC 3207)."""
    REQUIRED = "required"
    """The client has to ask before MAIL, else 530 5.7.0 (RFC 3207 §4)."""
    IMPLICIT = "implicit"
    """From the first octet (RFC 8314 §3)."""


class Login(StrEnum):
    """Whether clients log in (RFC 4954)."""

    OFF = "off"
    """AUTH is not offered."""
    OFFERED = "offered"
    """Those who like; a login is leave to relay."""
    REQUIRED = "required"
    """Before MAIL, else 530 5.7.0 (RFC 4954 §6)."""


class Face(msgspec.Struct, frozen=True):
    """One listener as its clients see it.

    Attributes:
        server: what the protocol core offers there, and its limits.
        kind: what the listener is for.
        tls: when its sessions are encrypted.
        login: whether its clients log in.
    """

    server: ServerSettings
    kind: Kind = Kind.SMTP
    tls: Tls = Tls.OFF
    login: Login = Login.OFF

    @property
    def is_lmtp(self) -> bool:
        """Whether each recipient gets a reply of its own after the content."""
        return self.kind is Kind.LMTP
