"""What a client is asked to do, and the cases of the inbound direction."""

from pathlib import Path
from typing import NamedTuple

from interop.letters import Kind, Letter

HOST = "home.test"
USER, PASSWORD = "betty", "a word, of betty's: 100 % secret"
WRONG = "not the password"


class Case(NamedTuple):
    """One thing to try with every client.

    Attributes:
        title: what it is called.
        port: where.
        tls: "off", "starttls" or "implicit".
        mechanism: how to log in; empty: not at all.
        kind: what letter is sent.
        is_refused: whether it has to fail, because the password is wrong.
        protocol: how our Received field has to call it (RFC 3848, RFC 6531), a pattern.
    """

    title: str
    port: int = 25
    tls: str = "off"
    mechanism: str = ""
    kind: Kind = Kind.PLAIN
    is_refused: bool = False
    protocol: str = "ESMTP"


def _login(mechanism: str) -> Case:
    return Case(f"AUTH {mechanism}", 587, "starttls", mechanism, protocol="ESMTPSA")


CASES = (
    Case("plain", protocol="E?SMTP"),
    Case("STARTTLS", 25, "starttls", protocol="ESMTPS"),
    Case("implicit TLS, login", 465, "implicit", "PLAIN", protocol="ESMTPSA"),
    _login("PLAIN"),
    _login("LOGIN"),
    _login("CRAM-MD5"),
    _login("SCRAM-SHA-256"),
    _login("SCRAM-SHA-256-PLUS"),
    _login("XOAUTH2"),
    _login("OAUTHBEARER"),
    _login("EXTERNAL"),
    Case("wrong password", 587, "starttls", "PLAIN", is_refused=True),
    Case("20 MB", 25, "starttls", kind=Kind.BIG, protocol="ESMTPS"),
    Case("8-bit", kind=Kind.EIGHT_BIT, protocol="E?SMTP"),
    Case("SMTPUTF8", kind=Kind.UTF8, protocol="UTF8SMTP"),
)


class Keys(NamedTuple):
    """Files that clients use."""

    ca: Path
    client_certificate: Path
    client_key: Path
    token: str


class Job(NamedTuple):
    """A case as one client gets it."""

    case: Case
    letter: Letter
    folder: Path
    """Its own, to write to."""
    keys: Keys

    @property
    def password(self) -> str:
        """What the client believes to be the password."""
        return WRONG if self.case.is_refused else PASSWORD

    def file(self, name: str, octets: bytes) -> Path:
        """Write a file for the client; returns its path."""
        path = self.folder / name
        path.write_bytes(octets)
        path.chmod(0o600)
        return path

    def letter_file(self) -> Path:
        """Write the letter with CRLF; returns its path."""
        return self.file("letter", self.letter.content)

    def plain(self) -> dict[str, object]:
        """Return all of it as a script of another language wants it."""
        case, letter = self.case, self.letter
        return {
            "host": HOST,
            "port": case.port,
            "tls": case.tls,
            "mechanism": case.mechanism,
            "user": USER,
            "password": self.password,
            "token": self.keys.token,
            "ca": str(self.keys.ca),
            "certificate": str(self.keys.client_certificate),
            "key": str(self.keys.client_key),
            "sender": letter.sender,
            "recipient": letter.recipient,
            "subject": letter.subject,
            "text": letter.text,
            "content": str(self.letter_file()),
            "eight_bit": case.kind in (Kind.EIGHT_BIT, Kind.UTF8),
            "utf8": case.kind is Kind.UTF8,
        }


class Call(NamedTuple):
    """How a client is run for a job."""

    arguments: list[str | Path]
    stdin: bytes = b""
    environment: dict[str, str] = {}  # noqa: RUF012 - never changed


class NotOffered(Exception):
    """The client cannot do it; the text says why."""
