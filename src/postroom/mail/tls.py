"""What is known of an encrypted connection, for trace fields, logs and policy. Pure."""

import msgspec


class TlsFacts(msgspec.Struct, frozen=True):
    """One connection's TLS.

    Attributes:
        version: as the library names it, ``TLSv1.3``.
        cipher: the cipher suite's name, ``TLS_AES_256_GCM_SHA384``.
        bits: the strength of the cipher.
        resumed: whether an earlier session was taken up again (RFC 8446 §2.2).
        server_name: what name the client asked for (RFC 6066 §3), empty if none.
        verify: of the client's certificate, in sendmail's words: ``NOT`` asked for,
            ``NO``: none came, ``OK``: verified.
        subject: of a verified certificate, ``/O=Example/CN=client.example``.
        issuer: likewise.
        hosts: the host names it was issued for (RFC 5280 §4.2.1.6).
        emails: the mail addresses, likewise.
        common_names: those of its subject.
        fingerprint: SHA-256 of the certificate, in hexadecimal.
    """

    version: str
    cipher: str
    bits: int
    resumed: bool = False
    server_name: str = ""
    verify: str = "NOT"
    subject: str = ""
    issuer: str = ""
    hosts: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    common_names: tuple[str, ...] = ()
    fingerprint: str = ""
