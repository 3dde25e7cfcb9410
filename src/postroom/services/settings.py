"""Settings of the loops: how many sessions, how long they may take, what is in hand."""

from typing import Literal

import msgspec

from postroom.mail.units import Duration, Size
from postroom.policy.session import parse_network
from postroom.policy.settings import parse_rate
from postroom.services.lanes import LANES_MAX
from postroom.services.report_settings import ReportSettings

_NOT_NEGATIVE = (
    "sessions_per_ipv6_64_max",
    "sessions_per_ipv6_48_max",
    "sessions_per_ipv4_24_max",
    "data_rate_min",
    "sessions_for_users",
    "bad_recipients_free",
    "idle_commands_max",
    "bad_recipients_max",
)


class ReceiveSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """What the SMTP service allows its clients, for the whole system."""

    sessions_max: int = 1000
    """Sessions at a time over all workers; further ones get 421 4.3.2."""
    sessions_for_users: int = 50
    """How many of them are kept for users (listeners with ``service = "submission"``,
    if there are any), though no more than half: a flood on port 25 must not keep them
    out."""
    sessions_per_client_max: int = 100
    """Sessions at a time from one address; further ones get 421 4.7.0."""
    sessions_per_ipv6_64_max: int = 100
    """Sessions at a time from one IPv6 /64, the least that one customer has; further
    ones get 421 4.7.0. 0: no limit."""
    sessions_per_ipv6_48_max: int = 300
    """Sessions at a time from one IPv6 /48; further ones get 421 4.7.0. 0: no limit."""
    sessions_per_ipv4_24_max: int = 0
    """Sessions at a time from one IPv4 /24; further ones get 421 4.7.0. 0: no limit,
    because strangers share such a network."""
    exempt_networks: tuple[str, ...] = ()
    """Clients for whom the limits per client and the tempo do not apply: no bound but
    ``sessions_max``, no greet pause, no delays. Not for relaying: see
    ``policy.relay_networks``."""
    greet_pause: Duration = Duration(0)
    """How long a client has to wait for the greeting. One that talks before it gets
    554 5.5.1: real servers wait, many that send junk do not. 0: no pause."""
    pipelining_ahead: Literal["allow", "refuse"] = "allow"
    """Whether a client may send commands behind HELO or EHLO without waiting for the
    answer; ``refuse``: 421 4.7.0. RFC 2920 §3.1 forbids it, some real clients do."""
    idle_commands_max: int = 100
    """Commands of a session that move no mail (NOOP, RSET, VRFY, EXPN, HELP, ETRN, a
    hello, a refused MAIL or AUTH, DATA for nobody) without a message accepted between
    them; one more is answered by 421 4.7.0 and the session ends. 0: no limit."""
    session_timeout: Duration = Duration.from_text("2h")
    """How long a session may last in all; then 421 4.4.2. 0: as long as it likes."""
    data_rate_min: int = 100
    """Octets a second that a client has to send in DATA, on average while it is waited
    for; a slower one gets 421 4.4.2. 0: as slowly as ``data_timeout`` allows."""
    data_rate_window: Duration = Duration.from_text("5m")
    """The time over which that average is taken."""
    bad_recipients_free: int = 5
    """Refused recipients of a session before its answers slow down."""
    bad_recipient_delay: Duration = Duration.from_text("1s")
    """By how much each further refused recipient makes the client wait longer for the
    next answer. 0: never."""
    bad_recipient_delay_max: Duration = Duration.from_text("10s")
    """The longest such wait."""
    bad_recipients_max: int = 100
    """Refused recipients (5yz) of a session; one more is answered by 421 4.7.0 and the
    session ends. 0: no limit."""
    command_timeout: Duration = Duration.from_text("5m")
    """How long a client may think between commands (RFC 5321 §4.5.3.2.7); 421 4.4.2."""
    data_timeout: Duration = Duration.from_text("3m")
    """How long a client may pause within DATA (RFC 5321 §4.5.3.2.5); 421 4.4.2."""
    transaction_memory_max: Size = Size.from_text("128MiB")
    """Octets of messages being received that one worker holds in memory; at the
    bound it stops reading, it does not refuse. Each message on its way in counts as
    ``spool.body_memory_octets_max``: there has to be room for ``sessions_max`` of them,
    or so many slow senders make all others wait."""
    header_octets_max: Size = Size.from_text("128KiB")
    """Longest header block; 552 5.3.4."""
    banner: str = "ESMTP Postroom"
    """What follows the host name in the greeting."""

    def __post_init__(self) -> None:
        """Check what the types do not."""
        _at_least_one(self, "sessions_max", "sessions_per_client_max")
        _at_least_one(self, "data_rate_window")
        for network in self.exempt_networks:
            parse_network(network)
        for name in _NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0 (0: no limit)")


class DeliverSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """How the delivery loop works through what is due."""

    attempts_max: int = 200
    """Attempts in hand up to which one worker tries new mail at once; more waits in
    the queue for its turn (``schedule`` bounds what is in hand)."""
    lanes: int = 16
    """Into how many lanes the senders of a hop are dealt: one cannot fill it alone."""
    scan_interval: Duration = Duration.from_text("30s")
    """How often the spool is searched for due mail that no hint told of."""
    attempt_timeout: Duration = Duration.from_text("1h")
    """After this an attempt is given up and deferred, whatever the agent says."""
    reports: ReportSettings = ReportSettings()
    """What senders are told."""

    def __post_init__(self) -> None:
        """Check what the types do not."""
        _at_least_one(self, "attempts_max", "lanes", "scan_interval")
        if self.lanes > LANES_MAX:
            raise ValueError(f"lanes must be at most {LANES_MAX}")


DROP_REFUSED = ".refused"
"""Behind the name of a file in the drop directory that could neither be sent nor
returned."""


class SubmissionSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """Mail from users: by SMTP with a login, and by the ``sendmail`` command."""

    users: dict[str, str] = msgspec.field(default_factory=dict)
    """In whose name a user of this machine sends: login to account, such as
    ``root = "betty"``; users not named here send in their own."""
    trusted_users: tuple[str, ...] = ("root",)
    """Logins that may name any sender with ``-f`` without a warning in the header,
    and may have the queue run with ``-q``."""
    sessions_max: int = 200
    """Calls of ``sendmail`` served at a time by one worker; others wait in line."""
    header_octets_max: Size = Size.from_text("128KiB")
    """Longest header block; the caller is told, exit code 65."""
    own_senders: bool = True
    """Who logs in by SMTP may send only from addresses of their own: their name in one
    of our domains, an alias that stands for them alone, or what ``senders`` gives
    them; else 553 5.7.1. The null sender is everybody's."""
    own_from: bool = False
    """The addresses in From and Sender have to be the user's own as well, whatever the
    program at the other end lets people write; else 550 5.7.1 after the content."""
    senders: str = ""
    """A table of further addresses that users may send from: an address, a local name
    or ``@domain``, then the logins, as ``sales@gonzo.test  betty, joe``."""
    message_rate: str = "1000/1h"
    """Messages of one login, over all workers; more get 450 4.7.1. Empty for no
    limit."""
    recipient_rate: str = "5000/1h"
    """Recipients of one login, over all workers; more get 450 4.7.1."""
    hide_client: bool = False
    """Leave the name and the address of users' machines out of the Received field."""
    drop_scan_interval: Duration = Duration.from_text("10s")
    """How often the drop directory is searched for letters that were handed in while
    no server ran."""
    drop_warn_after: Duration = Duration.from_text("1d")
    """A letter in the drop directory without an end is told of after this time."""

    def __post_init__(self) -> None:
        """Check what the types do not."""
        _at_least_one(self, "sessions_max", "drop_scan_interval")
        for rate in (self.message_rate, self.recipient_rate):
            parse_rate(rate)


def _at_least_one(settings: msgspec.Struct, *names: str) -> None:
    for name in names:
        if getattr(settings, name) < 1:
            raise ValueError(f"{name} must be at least 1")
