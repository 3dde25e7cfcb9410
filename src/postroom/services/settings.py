"""Settings of the loops: how many sessions, how long they may take, what is in hand."""

import msgspec

from postroom.mail.units import Duration, Size
from postroom.services.lanes import LANES_MAX
from postroom.services.report_settings import ReportSettings


class ReceiveSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """What the SMTP service allows its clients, for the whole system."""

    sessions_max: int = 1000
    """Sessions at a time over all workers; further ones get 421 4.3.2."""
    sessions_per_client_max: int = 100
    """Sessions at a time from one address; further ones get 421 4.7.0."""
    command_timeout: Duration = Duration.from_text("5m")
    """How long a client may think between commands (RFC 5321 §4.5.3.2.7); 421 4.4.2."""
    data_timeout: Duration = Duration.from_text("3m")
    """How long a client may pause within DATA (RFC 5321 §4.5.3.2.5); 421 4.4.2."""
    transaction_memory_max: Size = Size.from_text("64MiB")
    """Octets of messages being received that one worker holds in memory; at the
    bound it stops reading, it does not refuse."""
    header_octets_max: Size = Size.from_text("128KiB")
    """Longest header block; 552 5.3.4."""
    banner: str = "ESMTP Postroom"
    """What follows the host name in the greeting."""

    def __post_init__(self) -> None:
        """Check what the types do not."""
        _at_least_one(self, "sessions_max", "sessions_per_client_max")


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


class SubmissionSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """Letters that local programs hand in with the ``sendmail`` command."""

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
    drop_scan_interval: Duration = Duration.from_text("10s")
    """How often the drop directory is searched for letters that were handed in while
    no server ran."""
    drop_warn_after: Duration = Duration.from_text("1d")
    """A letter in the drop directory without an end is told of after this time."""

    def __post_init__(self) -> None:
        """Check what the types do not."""
        _at_least_one(self, "sessions_max", "drop_scan_interval")


def _at_least_one(settings: msgspec.Struct, *names: str) -> None:
    for name in names:
        if getattr(settings, name) < 1:
            raise ValueError(f"{name} must be at least 1")
