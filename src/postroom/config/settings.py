"""The whole configuration: the top-level keys, and one section per stage.

A section's settings are the stage's own (its ``settings.py``); here are only those that
belong to no stage. Sizes and times carry units; relative paths are taken from the
directory of the file.
"""

from ipaddress import ip_address
from typing import Literal

import msgspec

from postroom.admin.settings import ProcessSettings
from postroom.agents.settings import SmtpAgentSettings
from postroom.auth.settings import AuthSettings
from postroom.dns.settings import ResolverSettings
from postroom.mailbox.settings import MailboxSettings
from postroom.net.settings import ProxySettings, TlsSettings
from postroom.observe.settings import HistorySettings, LogSettings
from postroom.policy.settings import PolicySettings
from postroom.pop3.settings import Pop3Settings
from postroom.route.settings import RouteSettings
from postroom.schedule.settings import ScheduleSettings
from postroom.services.settings import (
    DeliverSettings,
    ReceiveSettings,
    SubmissionSettings,
)
from postroom.smtp.settings import ClientSettings, ServerSettings
from postroom.spool.settings import SpoolSettings
from postroom.tables.settings import TableSettings

DEFAULT_PATH = "/etc/postroom/postroom.toml"
"""Where the commands look if neither ``--config`` nor ``POSTROOM_CONFIG`` says."""

Service = Literal["smtp", "submission", "lmtp", "pop3"]
SMTP_SERVICES = ("smtp", "submission", "lmtp")
"""The services that take mail."""

IMPLICIT_TLS_PORTS = (465, 995)
"""Where clients begin with TLS (RFC 8314 §3)."""

ListenTls = Literal["auto", "off", "starttls", "required", "implicit"]
ListenLogin = Literal["auto", "off", "offered", "required"]


class Listen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One ``[[listen]]``: an address, and what is served there."""

    address: str
    """``"192.0.2.1:25"``, ``"[2001:db8::1]:25"``, or ``"0.0.0.0:25"`` for all."""

    service: Service = "smtp"
    """``smtp`` takes mail from other hosts, ``submission`` from users who log in,
    ``lmtp`` from a server that has the queue; ``pop3`` gives mail out."""

    tls: ListenTls = "auto"
    """``starttls`` offers it, ``required`` insists on it, ``implicit`` begins with it
    (ports 465 and 995), ``off`` has none. ``auto``: where there is a certificate,
    ``implicit`` on those ports, else ``starttls``; for ``pop3`` elsewhere ``off``."""

    login: ListenLogin = "auto"
    """Whether clients log in: ``required`` before they send, ``offered``, or ``off``.
    ``auto``: required for ``submission``, else off."""

    proxy: bool = False
    """Expect the PROXY protocol (versions 1, 2) first, as a load balancer says it."""

    name: str = ""
    """What policy and logs call the listener; service and address if empty."""

    def __post_init__(self) -> None:
        """Check the address."""
        split_address(self.address)

    @property
    def ip(self) -> str:
        """The address without the port."""
        return split_address(self.address)[0]

    @property
    def port(self) -> int:
        """The port."""
        return split_address(self.address)[1]

    @property
    def label(self) -> str:
        """Its name, or one made of service and address."""
        return self.name or f"{self.service} {self.address}"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that can be set. The defaults are a server that listens nowhere."""

    hostname: str = ""
    """The name this host goes by: in greetings, HELO, Received, Message-Id. Empty for
    what the system calls itself."""

    listen: tuple[Listen, ...] = ()
    """Where to listen: ``[[listen]]`` with ``address`` and ``service``."""

    run_directory: str = "/run/postroom"
    """Sockets of the commands: ``submit.sock`` and those for control."""

    drop_directory: str = "/var/lib/postroom/drop"
    """Where ``sendmail`` leaves mail while the server is down. Any user must be able
    to reach it, so it cannot lie within the spool; it is made with mode 3733."""

    users_file: str = "/etc/postroom/users"
    """Mail users and their passwords; see ``postroom user``."""

    process: ProcessSettings = ProcessSettings()
    """Workers, and the user they run as."""

    smtp: ServerSettings = ServerSettings()
    """What the SMTP server puts up with."""

    tls: TlsSettings = TlsSettings()
    """Encryption: certificates, and what clients may ask for."""

    proxy: ProxySettings = ProxySettings()
    """Load balancers that say for whom they connect (``proxy = true``)."""

    receive: ReceiveSettings = ReceiveSettings()
    """How many may send at once, and how long they may take."""

    policy: PolicySettings = PolicySettings()
    """The site's hooks and the built-in guards."""

    route: RouteSettings = RouteSettings()
    """Which domains are ours, and where the rest goes."""

    spool: SpoolSettings = SpoolSettings()
    """Where mail waits."""

    schedule: ScheduleSettings = ScheduleSettings()
    """What goes out when, and how often it is tried."""

    deliver: DeliverSettings = DeliverSettings()
    """The delivery loop."""

    outbound: SmtpAgentSettings = SmtpAgentSettings()
    """How mail is handed to other hosts."""

    client: ClientSettings = ClientSettings()
    """What is borne from the servers that mail is handed to."""

    submission: SubmissionSettings = SubmissionSettings()
    """Mail from users, who log in or call ``sendmail``."""

    dns: ResolverSettings = ResolverSettings()
    """How names are looked up."""

    tables: TableSettings = TableSettings()
    """Bounds on table files."""

    pop3: Pop3Settings = Pop3Settings()
    """How users fetch their mail."""

    mailbox: MailboxSettings = MailboxSettings()
    """Where users' mail is kept."""

    auth: AuthSettings = AuthSettings()
    """Passwords."""

    log: LogSettings = LogSettings()
    """What is told, where, and how."""

    history: HistorySettings = HistorySettings()
    """What is kept of messages that have left, for ``postroom trace``."""

    @property
    def history_directory(self) -> str:
        """Where the history is kept."""
        return self.history.directory or f"{self.spool.directory}/history"

    def __post_init__(self) -> None:
        """Refuse what is said in another place.

        Raises:
            ValueError: the text names that place.
        """
        if self.smtp.starttls:
            raise ValueError(
                'smtp.starttls: each listener says it: [[listen]] with tls = "starttls"'
            )
        if self.smtp.auth_mechanisms:
            raise ValueError(
                "smtp.auth_mechanisms: say mechanisms in [auth], and in each "
                '[[listen]] whether clients log in: login = "offered" or "required"'
            )
        for one in self.listen:
            self._check_listen(one)
        names = [one.label for one in self.listen]
        if twice := {one.name for one in self.listen if names.count(one.label) > 1}:
            self._refuse_twice(twice)

    def tls_of(self, listen: Listen) -> ListenTls:
        """Return when sessions of a listener are encrypted: never ``auto``."""
        if listen.tls != "auto":
            return listen.tls
        if not self.tls.is_available:
            return "off"
        if listen.port in IMPLICIT_TLS_PORTS:
            return "implicit"
        return "off" if listen.service == "pop3" else "starttls"

    def _refuse_twice(self, names: set[str]) -> None:
        """Refuse to take one listener for another; an address is told by the check."""
        for name in sorted(names - {""}):
            raise ValueError(
                f'listen: two listeners are called "{name}": give each a name of its '
                "own, or none"
            )

    def _check_listen(self, listen: Listen) -> None:
        where = f"listen: {listen.address}"
        if listen.tls not in ("auto", "off") and not self.tls.is_available:
            raise ValueError(
                f'{where} has tls = "{listen.tls}", but there is no certificate: name '
                "one in [[tls.certificate]] or, for trials, write self_signed = true "
                "in [tls]"
            )
        if listen.service == "pop3" and listen.tls in ("starttls", "required"):
            raise ValueError(
                f"{where}: pop3 is encrypted from the start or not at all: write tls = "
                '"implicit", as a rule on port 995'
            )
        if listen.proxy and not self.proxy.networks:
            raise ValueError(
                f"{where} has proxy = true, but nobody may use it: name your load "
                'balancers in [proxy], networks = ["192.0.2.7"]'
            )


PATHS: tuple[tuple[str, ...], ...] = (
    ("run_directory",),
    ("drop_directory",),
    ("users_file",),
    ("policy", "module"),
    ("route", "aliases"),
    ("route", "routes"),
    ("submission", "senders"),
    ("spool", "directory"),
    ("dns", "resolv_conf"),
    ("mailbox", "path"),
    ("auth", "module"),
    ("auth", "tokens", "jwks_file"),
    ("auth", "tokens", "client_secret_file"),
    ("auth", "tokens", "ca_file"),
    ("log", "to"),
    ("history", "directory"),
    ("tls", "certificate", "cert"),
    ("tls", "certificate", "key"),
    ("tls", "client_ca"),
    ("outbound", "logins_file"),
    ("outbound", "ca_file"),
    ("outbound", "certificate"),
    ("outbound", "certificate_key"),
    ("outbound", "destination", "ca_file"),
    ("outbound", "destination", "certificate"),
    ("outbound", "destination", "certificate_key"),
)
"""The settings that are paths; relative ones are taken from the file's directory."""

NO_PATHS = frozenset((None, "", "stdout", "stderr"))
"""Values of those that are no path."""


def split_address(text: str) -> tuple[str, int]:
    """Read ``"127.0.0.1:25"`` or ``"[::1]:25"``.

    Raises:
        ValueError: it is no address with a port; the message says what is expected.
    """
    host, colon, port = text.rpartition(":")
    wanted = 'write "127.0.0.1:25", "[::1]:25" or "0.0.0.0:25"'
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        raise ValueError(
            f'"{text}" has no IP address before the port: {wanted}'
        ) from None
    if not colon or bracketed != (address.version == 6):
        raise ValueError(f'"{text}" is no address with a port: {wanted}')
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(f'"{text}" has no port between 1 and 65535: {wanted}')
    return str(address), int(port)
