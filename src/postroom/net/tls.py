"""TLS of one connection without I/O: ciphertext in, plaintext out, and back.

The stream reads and writes; here is only what the TLS library makes of it. Measured, a
handshake takes a seventh less of the processor this way than by the loop's own
``start_tls``, a resumed one a quarter, and octets that came behind a PROXY header
are not lost. What the library refuses is a ``TlsError`` with a sentence for the log.
"""

import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from hashlib import sha256
from typing import Any, Final

import msgspec

from postroom.mail.tls import TlsFacts

RECORD_OCTETS = 16 * 1024
"""The most that one record holds (RFC 8446 §5.1)."""

_NOT_TLS: Final = frozenset(
    {
        "HTTP_REQUEST",
        "HTTPS_PROXY_REQUEST",
        "UNKNOWN_PROTOCOL",
        "WRONG_VERSION_NUMBER",
    }
)
_OLD = "the peer speaks only older versions of TLS"
_REFUSED = "the peer refuses our certificate"
_TEXTS: Final = {
    **dict.fromkeys(_NOT_TLS, "the peer does not speak TLS"),
    "UNSUPPORTED_PROTOCOL": _OLD,
    "TLSV1_ALERT_PROTOCOL_VERSION": _OLD,
    "VERSION_TOO_LOW": _OLD,
    "CALLBACK_FAILED": "the client asks for a server by a name that is none",
    "NO_SHARED_CIPHER": "no cipher in common",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client has no certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "the peer does not know our certificate's issuer",
    "SSLV3_ALERT_BAD_CERTIFICATE": _REFUSED,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the peer says our certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _REFUSED,
}


class TlsError(Exception):
    """TLS cannot begin or go on; the text says why.

    Attributes:
        is_plain: the peer does not speak TLS at all.
        certificate: whether it is about the peer's certificate.
    """

    def __init__(
        self, text: str, *, is_plain: bool = False, certificate: bool = False
    ) -> None:
        super().__init__(text)
        self.is_plain = is_plain
        self.certificate = certificate


class TlsLayer:
    """One side of a TLS connection.

    Feed it with ``handshake`` until that is true, then with ``decrypt``; after each
    call send what ``data_to_send`` gives, also after an error: it holds the alert.

    Attributes:
        session: the library's object, to ask for version, cipher and certificates.
        at_end: whether the peer has ended its side in proper form.
        failure: why nothing more can be read.
    """

    __slots__ = (
        "_incoming",
        "_outgoing",
        "_read",
        "_write",
        "at_end",
        "failure",
        "session",
    )

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None = None,
    ) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.at_end = False
        self.failure: TlsError | None = None
        self.session = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_side,
            server_hostname=server_hostname,
        )
        self._read: Callable[[int], bytes] = self.session.read
        self._write = self.session.write

    def handshake(self, data: bytes) -> bool:
        """Take what came from the peer; true once the handshake is complete.

        Raises:
            TlsError: it has failed.
        """
        if data:
            self._incoming.write(data)
        try:
            self.session.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except (ssl.SSLError, ValueError) as error:
            raise _explained(error) from error
        return True

    def decrypt(self, data: bytes) -> bytes:
        """Take what came from the peer; returns the plaintext that is complete.

        A peer that breaks the protocol is told of by ``failure``: what came before
        that is whole.
        """
        if data:
            self._incoming.write(data)
        read = self._read
        pieces = []
        try:
            while piece := read(RECORD_OCTETS):
                pieces.append(piece)
            self.at_end = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.failure = _explained(error)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def put(self, data: bytes) -> int:
        """Encrypt what is to be sent; returns how much ``data_to_send`` would give.

        Raises:
            TlsError: nothing more can be sent.
        """
        if data:
            try:
                self._write(data)
            except ssl.SSLError as error:
                raise _explained(error) from error
        return self._outgoing.pending

    def encrypt(self, data: bytes) -> bytes:
        """Return the ciphertext of what is to be sent.

        Raises:
            TlsError: nothing more can be sent.
        """
        self.put(data)
        return self._outgoing.read()

    def close(self) -> bytes:
        """Return the octets that end our side in proper form (RFC 8446 §6.1)."""
        with suppress(ssl.SSLError):  # the peer has not ended its side, nor need it
            self.session.unwrap()
        return self._outgoing.read()

    def data_to_send(self) -> bytes:
        """Return what the handshake, or an error, wants to say to the peer."""
        return self._outgoing.read() if self._outgoing.pending else b""


async def shake_hands(
    layer: TlsLayer,
    read: Callable[[], Awaitable[bytes]],
    write: Callable[[bytes], None],
) -> None:
    """Do a handshake with a peer; the last octets of our side are left to be sent.

    Args:
        layer: our side.
        read: returns what comes, nothing at the end.
        write: sends.

    Raises:
        TlsError: it has failed; the peer has been told.
    """
    data = b""
    while True:
        done = False
        try:
            done = layer.handshake(data)
        finally:
            if not done and (out := layer.data_to_send()):
                write(out)
        if done:
            return
        data = await read()
        if not data:
            raise TlsError("the peer has gone amid the handshake")


def facts_of(session: ssl.SSLObject) -> TlsFacts:
    """Return what is known of a connection whose handshake is complete."""
    name, _, bits = session.cipher() or ("", "", 0)
    facts = TlsFacts(
        version=session.version() or "",
        cipher=name,
        bits=bits,
        resumed=bool(session.session_reused),
        server_name=getattr(session, "server_name", ""),
    )
    if session.context.verify_mode is ssl.CERT_NONE or not session.server_side:
        return facts
    return _with_certificate(facts, session)


def _with_certificate(facts: TlsFacts, session: ssl.SSLObject) -> TlsFacts:
    der = session.getpeercert(binary_form=True)
    if der is None:
        return msgspec.structs.replace(facts, verify="NO")
    try:
        found: Any = session.getpeercert() or {}
    except ValueError:  # a name in it is no text: it names nobody
        return msgspec.structs.replace(facts, verify="NO")
    names = found.get("subjectAltName", ())
    subject = found.get("subject", ())
    return msgspec.structs.replace(
        facts,
        verify="OK",  # else the handshake had failed
        subject=_name_text(subject),
        issuer=_name_text(found.get("issuer", ())),
        hosts=tuple(value for kind, value in names if kind == "DNS"),
        emails=tuple(value for kind, value in names if kind == "email"),
        common_names=tuple(
            value for part in subject for kind, value in part if kind == "commonName"
        ),
        fingerprint=sha256(der).hexdigest(),
    )


_SHORT: Final = {
    "commonName": "CN",
    "countryName": "C",
    "emailAddress": "emailAddress",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
}


def _name_text(name: tuple[tuple[tuple[str, str], ...], ...]) -> str:
    """Write a distinguished name as sendmail's ``{cert_subject}`` has it."""
    return "".join(
        f"/{_SHORT.get(key, key)}={value}"
        for relative in name
        for key, value in relative
    )


def _explained(error: Exception) -> TlsError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return TlsError(
            f"certificate not verified: {error.verify_message}", certificate=True
        )
    reason = str(getattr(error, "reason", "") or "")
    text = _TEXTS.get(reason) or reason.replace("_", " ").lower()
    return TlsError(
        text or "protocol violation",
        is_plain=reason in _NOT_TLS,
        certificate="CERTIFICATE" in reason,
    )
