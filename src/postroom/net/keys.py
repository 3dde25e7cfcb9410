"""Certificates and keys as workers get them, and the TLS contexts made of them.

Contexts are made once, not per connection. ``ServerTls.renew`` puts new keys in force
by one assignment: sessions under way keep theirs. Keys that the library refuses raise
``ValueError`` with the reason, and those in force stay.
"""

import fcntl
import os
import ssl
import sys
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import msgspec

from postroom.net.settings import TlsSettings

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK


class KeyPair(msgspec.Struct, frozen=True):
    """A certificate with its issuers, and its key.

    Attributes:
        path: where the certificate was read, for people.
        names: in lower case, ``*.`` for any one label; the first is no better.
        kind: of key, ``RSA``, ``EC`` or another; a context has one of each.
        chain: the certificates, PEM.
        key: the private key, PEM.
        end_point: what logins are bound to, in hexadecimal (RFC 5929 §4); empty if
            the certificate's signature defines none.
        until_us: when the certificate expires, UTC.
    """

    path: str
    names: tuple[str, ...]
    kind: str
    chain: str
    key: str
    end_point: str = ""
    until_us: int = 0

    def __repr__(self) -> str:
        """Keep the key out of logs and tracebacks."""
        return f"KeyPair({self.path!r})"


class Keys(msgspec.Struct, frozen=True):
    """All that the ``[tls]`` section names, read. ``client_ca`` is PEM."""

    pairs: tuple[KeyPair, ...] = ()
    client_ca: str = ""


NO_KEYS = Keys()


class TlsSession(ssl.SSLObject):
    """The server's side of a connection; ``server_name`` is what was asked for."""

    server_name = ""


_EndPoints = WeakKeyDictionary[ssl.SSLContext, bytes]


class _Contexts:
    """The contexts of one way to treat clients, by the name that they ask for."""

    def __init__(
        self, settings: TlsSettings, keys: Keys, end_points: _EndPoints, *, ask: bool
    ) -> None:
        self._settings, self._keys, self._ask = settings, keys, ask
        self._made: dict[tuple[int, ...], ssl.SSLContext] = {}
        self._by_name = {
            name: self._of(chosen) for name, chosen in by_name(keys.pairs).items()
        }
        self.default = self._of(_defaults(keys.pairs))
        if len(self._made) > 1:
            # The handshake begins with the default; its library object is asked once
            # the client has said its name.
            self.default.sni_callback = self._choose
        else:
            self.default.sni_callback = _note
        for chosen, made in self._made.items():
            if len(chosen) == 1:  # else nobody knows which of them was shown
                end_points[made] = bytes.fromhex(keys.pairs[chosen[0]].end_point)

    def _of(self, chosen: tuple[int, ...]) -> ssl.SSLContext:
        if chosen not in self._made:
            pairs = [self._keys.pairs[index] for index in chosen]
            self._made[chosen] = _context(
                self._settings, pairs, self._keys.client_ca if self._ask else ""
            )
        return self._made[chosen]

    def _choose(
        self, session: ssl.SSLObject, name: str | None, context: ssl.SSLContext
    ) -> None:
        if name is None:
            return
        _note(session, name, context)
        name = name.lower()
        found = self._by_name.get(name)
        if found is None:  # RFC 6125 §6.4.3: a star stands for one label
            found = self._by_name.get("*." + name.partition(".")[2])
        if found is not None and found is not context:
            session.context = found


class ServerTls:
    """TLS for those who connect to us.

    Raises:
        ValueError: the library refuses a certificate, a key or the ciphers.
    """

    def __init__(self, settings: TlsSettings, keys: Keys) -> None:
        self.settings = settings
        self.keys = NO_KEYS
        self._plain: _Contexts | None = None
        self._asking: _Contexts | None = None
        self._end_points: _EndPoints = WeakKeyDictionary()
        self.renew(keys)

    def renew(self, keys: Keys) -> None:
        """Put other keys in force, for handshakes from now on.

        Raises:
            ValueError: the library refuses them; those before stay in force.
        """
        plain = asking = None
        if keys.pairs:
            known = self._end_points
            plain = _Contexts(self.settings, keys, known, ask=False)
            if self.settings.client_certificates != "off":
                asking = _Contexts(self.settings, keys, known, ask=True)
        self.keys, self._plain, self._asking = keys, plain, asking

    def context(self, service: str) -> ssl.SSLContext | None:
        """Return the context for a handshake at a service; None without keys."""
        contexts = self._plain
        if self._asking and service in self.settings.client_certificate_services:
            contexts = self._asking
        return contexts.default if contexts else None

    def end_point(self, session: ssl.SSLObject) -> bytes:
        """Return what a login over this connection is bound to (RFC 5929 §4).

        Empty where that cannot be told.
        """
        return self._end_points.get(session.context, b"")


def by_name(pairs: Sequence[KeyPair]) -> dict[str, tuple[int, ...]]:
    """Say which pairs serve a name: the first one, and the first of other kinds."""
    found: dict[str, dict[str, int]] = {}
    for index, pair in enumerate(pairs):
        for name in pair.names:
            found.setdefault(name.lower(), {}).setdefault(pair.kind, index)
    return {name: tuple(kinds.values()) for name, kinds in found.items()}


def _defaults(pairs: Sequence[KeyPair]) -> tuple[int, ...]:
    names = pairs[0].names
    return by_name(pairs)[names[0].lower()] if names else (0,)


def _note(session: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
    if name and isinstance(session, TlsSession):
        session.server_name = name


def hush_bad_server_names() -> None:
    """Have nothing written to standard error for a server name that is no ASCII.

    Python turns the name into text before our callback is asked, and prints a
    traceback where it cannot: any stranger could fill the journal with them. The
    handshake fails all the same (RFC 6066 §3 wants ASCII), and is told as an event.
    """
    before = sys.unraisablehook

    def hook(found: "sys.UnraisableHookArgs") -> None:
        # The name is the object; from Python 3.14 on it stands in the message.
        is_name = isinstance(found.object, bytes) or "servername" in str(found.err_msg)
        if not (is_name and isinstance(found.exc_value, UnicodeDecodeError)):
            before(found)

    sys.unraisablehook = hook


def _context(
    settings: TlsSettings, pairs: Sequence[KeyPair], client_ca: str
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = TlsSession
    context.minimum_version = _VERSIONS[settings.minimum_version]
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = settings.session_tickets
    if not settings.session_tickets:
        context.options |= ssl.OP_NO_TICKET
    if settings.ciphers:
        _refusable("tls.ciphers", lambda: context.set_ciphers(settings.ciphers))
    for pair in pairs:
        _load(context, pair)
    if client_ca:
        required = settings.client_certificates == "require"
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
        _refusable(
            "tls.client_ca", lambda: context.load_verify_locations(cadata=client_ca)
        )
    return context


def _load(context: ssl.SSLContext, pair: KeyPair) -> None:
    """Load a pair by way of memory that has a name: the library reads files only."""
    fd = os.memfd_create("postroom-key", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.write(fd, f"{pair.chain}\n{pair.key}\n".encode())
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        _refusable(pair.path, lambda: context.load_cert_chain(f"/proc/self/fd/{fd}"))
    finally:
        os.close(fd)


def _refusable(what: str, act: Callable[[], None]) -> None:
    try:
        act()
    except ssl.SSLError as error:
        reason = getattr(error, "reason", None) or str(error.args[0])
        reason = reason.replace("_", " ").rstrip(".").lower()
        raise ValueError(f"{what}: the TLS library refuses it: {reason}") from error
