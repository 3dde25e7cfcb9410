"""Keys, read by the supervisor: it may be root, workers never are.

Workers get them in memory: with their job, and over the link when a file has changed.
A new certificate that cannot be used (its key is not there yet, say) is tried again
every few seconds; until then the one before stays in force.
"""

import os
from collections.abc import Callable

import msgspec

from postroom.mail.now import DAY_US
from postroom.net.clock import read_now
from postroom.net.keys import NO_KEYS, Keys, ServerTls
from postroom.net.settings import CertificateSettings, TlsSettings
from postroom.supervise.identity import RunAs
from postroom.supervise.plan import Plan

SELF_SIGNED = "self-signed.pem"
"""The file in the spool directory with the certificate made for trials."""
WATCH_S = 2.0
"""How often the files are looked at."""


class KeysError(Exception):
    """The ``[tls]`` section cannot be put in force; the text says what to do."""


class Wanted(msgspec.Struct, frozen=True):
    """What a configuration says of keys.

    Attributes:
        settings: the ``[tls]`` section.
        hostname: for whom a self-signed certificate is made.
        self_signed_path: where it is kept.
        run_as: the workers' identity, who may own keys, too.
    """

    settings: TlsSettings = TlsSettings()
    hostname: str = ""
    self_signed_path: str = ""
    run_as: RunAs | None = None

    @property
    def certificates(self) -> tuple[CertificateSettings, ...]:
        """The certificates, or else the one made for trials."""
        if self.settings.self_signed:
            return (CertificateSettings(cert=self.self_signed_path),)
        return self.settings.certificate

    @property
    def paths(self) -> tuple[str, ...]:
        """All files that are read."""
        found = [path for one in self.certificates for path in (one.cert, one.key)]
        return tuple(path for path in (*found, self.settings.client_ca) if path)


def wanted_of(plan: Plan, run_as: RunAs | None) -> Wanted:
    """Return what a configuration says of keys."""
    path = f"{plan.spool_directory}/{SELF_SIGNED}"
    return Wanted(plan.tls, plan.hostname, path, run_as)


def read_keys(wanted: Wanted) -> Keys:
    """Read and check all keys.

    Raises:
        KeysError: one of them cannot be used.
    """
    settings = wanted.settings
    if not settings.is_available:
        return NO_KEYS
    # Loading that library takes a while, and memory: not where nothing is encrypted.
    from postroom.net.certificates import CertificateError, read_client_ca, read_pair

    owners = {0, os.geteuid()} | ({wanted.run_as.uid} if wanted.run_as else set())
    try:
        if settings.self_signed:
            _make_self_signed(wanted)
        asks = settings.client_certificates != "off"
        keys = Keys(
            tuple(read_pair(one, owners) for one in wanted.certificates),
            read_client_ca(settings.client_ca) if asks else "",
        )
        ServerTls(settings, keys)  # the library has its own opinion
    except (CertificateError, ValueError) as error:
        raise KeysError(f"tls: {error}") from error
    return keys


def _make_self_signed(wanted: Wanted) -> None:
    from postroom.net.certificates import CertificateError, make_self_signed

    path, run_as = wanted.self_signed_path, wanted.run_as
    uid, gid = (run_as.uid, run_as.gid) if run_as else (-1, -1)
    try:
        make_self_signed(path, wanted.hostname, read_now().utc_us, uid, gid)
    except OSError as error:
        raise CertificateError(
            f"cannot write the self-signed certificate {path}: {error.strerror}"
        ) from error


def warnings_of(wanted: Wanted, keys: Keys, now_us: int) -> list[str]:
    """Say what is wrong with keys that are used all the same."""
    from postroom.net.certificates import covers, expiry_text

    settings = wanted.settings
    found = []
    if settings.self_signed:
        found.append(
            f"tls: the certificate {wanted.self_signed_path} is self-signed: clients "
            "cannot know that we are who we say; get a real one and name it in "
            "[[tls.certificate]]"
        )
    texts = (expiry_text(one, now_us, settings.expiry_warning) for one in keys.pairs)
    found.extend(f"tls: {text}" for text in texts if text)
    names = [name for pair in keys.pairs for name in pair.names]
    if keys.pairs and not covers(names, wanted.hostname):
        found.append(f"tls: no certificate is for this host's name {wanted.hostname}")
    return found


class Keyring:
    """The keys in force, and a look-out for changed files.

    Args:
        wanted: what the configuration says.
        keys: as ``read_keys`` gave them.
        tell: takes a sentence for the log and its level.
    """

    def __init__(
        self, wanted: Wanted, keys: Keys, tell: Callable[[str, str], None]
    ) -> None:
        self.keys = keys
        self._wanted = wanted
        self._tell = tell
        self._seen = _state(wanted.paths)
        self._problem = ""
        self._told = ""
        self._warned_us = 0

    def take(self, wanted: Wanted, keys: Keys) -> None:
        """Put other keys in force, which a new configuration wants."""
        self._wanted, self.keys = wanted, keys
        self._seen = _state(wanted.paths)
        self._problem = self._told = ""
        self._warned_us = 0

    def warn(self) -> None:
        """Tell what is wrong with the keys in force, once a day."""
        now_us = read_now().utc_us
        if self.keys.pairs and now_us - self._warned_us >= DAY_US:
            self._warned_us = now_us
            for text in warnings_of(self._wanted, self.keys, now_us):
                self._tell(text, "warning")

    def look(self) -> Keys | None:
        """Return new keys if files have changed and can be used; reads files.

        What cannot be used is told once it was seen twice: certificate and key are
        rarely written at the same moment.
        """
        state = _state(self._wanted.paths)
        if state == self._seen and not self._problem:
            self.warn()
            return None
        self._seen = state
        wanted = self._wanted
        try:
            keys = read_keys(wanted)
        except KeysError as error:
            if str(error) == self._problem and self._told != self._problem:
                self._told = self._problem
                self._tell(f"{error}; the certificates before stay in force", "error")
            self._problem = str(error)
            return None
        self._problem = self._told = ""
        if keys == self.keys or wanted is not self._wanted:
            return None
        self.keys = keys
        self._tell("tls: changed certificates are in force", "info")
        self._warned_us = 0
        self.warn()
        return keys


def _state(paths: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    """Return what changes when one of the files does."""
    return tuple(_state_of(path) for path in paths)


def _state_of(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
