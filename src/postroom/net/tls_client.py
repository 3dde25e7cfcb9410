"""TLS as a client: contexts by what is demanded, names in certificates, resumption.

Contexts are made in a thread, since a trust store takes milliseconds to read, kept,
and made anew when one of their files has changed. The protocol is TLS 1.2 or later. A
file that cannot be used raises ``TlsFilesError``; whether a peer's certificate will do
is for the caller to ask: the library checks the chain, ``matching_name`` the name.
"""

import asyncio
import os
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

CONTEXTS_MAX: Final = 64
"""Contexts that are kept; each is made of the files of one configuration entry."""
SESSIONS_MAX: Final = 2_000
"""Sessions that are kept of one context, to be resumed."""
_SHOWN_CHARS_MAX: Final = 100


class TlsFilesError(Exception):
    """A trust store, certificate or key cannot be used; the text names the file."""


class TlsDemand(msgspec.Struct, frozen=True):
    """What a context is made of.

    Attributes:
        verify: check the chain of the peer's certificate.
        ca_file: whom to trust: a PEM file or a directory of hashed ones; empty: whom
            the system trusts.
        certificate: PEM file with our own certificate and its chain; empty: none.
        key: PEM file with its key; empty: it is in the same file.
    """

    verify: bool = False
    ca_file: str = ""
    certificate: str = ""
    key: str = ""


class TlsFacts(msgspec.Struct, frozen=True):
    """What a handshake has come to: ``TLSv1.3``, the cipher's name and its bits."""

    version: str
    cipher: str
    bits: int
    resumed: bool = False

    @classmethod
    def of(cls, tls: ssl.SSLObject) -> "TlsFacts":
        """Read them from a finished handshake."""
        name, _, bits = tls.cipher() or ("", "", 0)
        return cls(tls.version() or "", name, bits, bool(tls.session_reused))


class _Resuming(ssl.SSLContext):
    """A context that offers a host the session it had there before."""

    def __new__(cls) -> "_Resuming":
        made = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        made.sessions = {}
        return made

    sessions: dict[str, ssl.SSLSession]

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Begin a session; a kept one is used once (RFC 8446, appendix C.4)."""
        if session is None and isinstance(server_hostname, str):
            session = self.sessions.pop(server_hostname, None)
        return super().wrap_bio(
            incoming, outgoing, server_side, server_hostname, session
        )

    def keep(self, tls: ssl.SSLObject) -> None:
        """Keep a session that is at its end, if the host allows it."""
        name, session = tls.server_hostname, tls.session
        if not isinstance(name, str) or session is None or not session.has_ticket:
            return
        if len(self.sessions) >= SESSIONS_MAX:
            del self.sessions[next(iter(self.sessions))]
        self.sessions[name] = session


def keep_session(tls: ssl.SSLObject | None) -> None:
    """Keep a session of a host for its next connection; called before it is closed."""
    if tls is not None and isinstance(tls.context, _Resuming):
        tls.context.keep(tls)


class ClientTls:
    """The contexts of one generation, by what is demanded."""

    def __init__(self) -> None:
        self._contexts: dict[tuple[TlsDemand, tuple[object, ...]], ssl.SSLContext] = {}

    async def context(self, demand: TlsDemand) -> ssl.SSLContext:
        """Return the context for a demand.

        Raises:
            TlsFilesError: one of its files cannot be used.
        """
        key = (demand, _versions(demand))
        found = self._contexts.get(key)
        if found is None:
            found = await asyncio.to_thread(make_context, demand)
            if len(self._contexts) >= CONTEXTS_MAX:
                del self._contexts[next(iter(self._contexts))]
            self._contexts[key] = found
        return found


def make_context(demand: TlsDemand) -> ssl.SSLContext:
    """Make a context; reads files.

    Raises:
        TlsFilesError: one of them cannot be used.
    """
    context = _Resuming()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Which names will do is the caller's to say: see matching_name.
    context.check_hostname = False
    if demand.verify:
        _trust(context, demand.ca_file)
    else:
        context.verify_mode = ssl.CERT_NONE
    if demand.certificate:
        try:
            context.load_cert_chain(demand.certificate, demand.key or None)
        except (OSError, ssl.SSLError) as error:
            files = " and ".join(filter(None, (demand.certificate, demand.key)))
            raise TlsFilesError(
                f"{files} cannot be used as a certificate with its key: {_why(error)}"
            ) from error
    return context


def _trust(context: ssl.SSLContext, ca_file: str) -> None:
    if not ca_file:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        return
    try:
        if os.path.isdir(ca_file):
            context.load_verify_locations(capath=ca_file)
        else:
            context.load_verify_locations(ca_file)
    except (OSError, ssl.SSLError) as error:
        raise TlsFilesError(
            f"{ca_file} cannot be used as a trust store: {_why(error)}"
        ) from error


def has_system_trust() -> bool:
    """Whether the system has a trust store that certificates can be checked with."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile:
        return True
    return bool(paths.capath) and any(Path(str(paths.capath)).iterdir())


def _versions(demand: TlsDemand) -> tuple[object, ...]:
    found: list[object] = []
    for path in (demand.ca_file, demand.certificate, demand.key):
        try:
            at = os.stat(path) if path else None
        except OSError:
            at = None
        found.append(at and (at.st_ino, at.st_mtime_ns, at.st_size))
    return tuple(found)


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "nothing usable in it").replace("_", " ").lower()
    return getattr(error, "strerror", None) or str(error)


# Names in certificates


def matching_name(certificate: Mapping[str, Any], wanted: Sequence[str]) -> str:
    """Return the name of a certificate that is one of those wanted; empty: none.

    Args:
        certificate: as ``SSLObject.getpeercert`` returns it.
        wanted: host names in lower case, ``.partner.test`` for any host beneath it,
            or IP addresses.
    """
    names: Sequence[tuple[str, str]] = certificate.get("subjectAltName", ())
    dns = [value.lower() for kind, value in names if kind == "DNS"]
    if not dns:  # RFC 6125 §6.4.4: the common name only as a last resort
        dns = [value.lower() for value in _common_names(certificate)]
    addresses = [value for kind, value in names if kind == "IP Address"]
    for want in wanted:
        for name in dns:
            if _is_named(name, want):
                return name
        for address in addresses:
            if _plain(address) == _plain(want):
                return address
    return ""


def certificate_of(tls: ssl.SSLObject | None) -> Mapping[str, Any]:
    """Return the peer's certificate, if it was verified; nothing: it names nobody."""
    try:
        return (tls and tls.getpeercert()) or {}
    except ValueError:  # a name in it is no text
        return {}


def names_shown(certificate: Mapping[str, Any]) -> str:
    """Return whom a certificate names, for people: at most five names, none long."""
    names: Sequence[tuple[str, str]] = certificate.get("subjectAltName", ())
    found = [value for _, value in names] or _common_names(certificate)
    shown = [name[:_SHOWN_CHARS_MAX] for name in found[:5]]
    more = ", ..." if len(found) > 5 else ""
    return (", ".join(shown) or "nobody") + more


def _common_names(certificate: Mapping[str, Any]) -> list[str]:
    subject: Sequence[Sequence[tuple[str, str]]] = certificate.get("subject", ())
    return [v for rdn in subject for kind, v in rdn if kind == "commonName"]


def _is_named(name: str, want: str) -> bool:
    """RFC 6125 §6.4.1, §6.4.3: equal, or "*" in place of the whole first label."""
    if want.startswith("."):
        return name.endswith(want) and len(name) > len(want)
    if name == want:
        return True
    star, _, rest = name.partition(".")
    return star == "*" and "." in rest and want.partition(".")[2] == rest


def _plain(address: str) -> str:
    """Bring an IPv6 address of a certificate, which has all zeros, to one form."""
    if ":" not in address:
        return address
    groups = address.split(":")
    if "" in groups:  # shortened: write it out
        at = groups.index("")
        rest = [group for group in groups[at:] if group]
        head = [group for group in groups[:at] if group]
        groups = [*head, *["0"] * (8 - len(head) - len(rest)), *rest]
    return ":".join(group.lstrip("0") or "0" for group in groups).lower()


# Channel binding


def end_point_binding(certificate_der: bytes) -> bytes:
    """Return the tls-server-end-point data of a peer (RFC 5929 §4); empty: none."""
    # Such logins are rare, and loading what reads certificates takes a while.
    from postroom.net.certificates import end_point_of

    return end_point_of(certificate_der)
