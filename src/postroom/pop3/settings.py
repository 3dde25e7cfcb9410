"""Settings of the POP3 service."""

from typing import Literal

import msgspec

from postroom.mail.units import Duration, Size


class Pop3Settings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """What the POP3 service allows its clients; counts are for the whole system."""

    command_octets_max: int = 255
    """Longest command line with its CRLF (RFC 2449 §4 wants 255); ``-ERR``."""
    errors_max: int = 20
    """Commands that are wrong, before the session is closed."""
    login_failures_max: int = 3
    """Wrong passwords in one session, before it is closed."""
    login_failure_delay: Duration = Duration.from_text("2s")
    """How long the answer to a wrong password is held back."""
    login_failures_per_client: int = 20
    """Wrong passwords from one address (IPv6: one /64) per ``login_failures_period``;
    further logins from there get ``-ERR [SYS/TEMP]`` without being checked."""
    login_failures_period: Duration = Duration.from_text("10m")
    """See ``login_failures_per_client``."""
    login_failure_delay_max: Duration = Duration.from_text("20s")
    """How long answers to logins wait, good or bad, in the name of a user in whose name
    too many have failed, by SMTP or POP3 (``auth.failures_per_user``)."""
    login_delay: Duration = Duration.from_text("0s")
    """Shortest time between two logins of one user, announced as LOGIN-DELAY
    (RFC 2449 §6.5) and kept to; ``"0s"`` for none."""
    plaintext: Literal["loopback", "always", "never"] = "loopback"
    """Where USER and PASS are taken on connections without TLS."""
    timeout: Duration = Duration.from_text("10m")
    """How long a client may be idle (RFC 1939 §3 wants ten minutes at least)."""
    loss_timeout: Duration = Duration.from_text("2m")
    """After this long without a sign of life from a client's machine (TCP keep-alive)
    its mailbox is free again: a phone that lost its network comes back soon."""
    login_timeout: Duration = Duration.from_text("3m")
    """How long a client may take to log in, whatever it says meanwhile: so strangers
    cannot hold the sessions of users."""
    sessions_max: int = 1000
    """Sessions at a time."""
    sessions_per_client_max: int = 50
    """Sessions at a time from one address (IPv6: one /64)."""
    read_ahead_messages: int = 32
    """How many messages are read at once when a client fetches one after another."""
    read_ahead_octets: Size = Size.from_text("256KiB")
    """How much is read ahead for a session; larger messages are read in pieces."""
    banner: str = "Postroom POP3 ready"
    """What the greeting says."""

    def __post_init__(self) -> None:
        """Check what the types do not.

        Raises:
            ValueError: a number is too small to serve anybody.
        """
        if self.command_octets_max < 255:
            raise ValueError("command_octets_max is below 255 (RFC 2449 §4)")
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")


_AT_LEAST_ONE = (
    "errors_max",
    "login_failures_max",
    "login_failures_per_client",
    "login_failures_period",
    "timeout",
    "login_timeout",
    "loss_timeout",
    "sessions_max",
    "sessions_per_client_max",
    "read_ahead_messages",
)
