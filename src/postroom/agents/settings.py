"""Settings of the agents that speak SMTP or LMTP to other systems."""

import msgspec

from postroom.dns.settings import AddressOrder
from postroom.mail.units import Duration


class SmtpAgentSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """How mail is handed to other hosts."""

    port: int = 25
    """The port that is connected to where a hop names none; LMTP has always 24."""
    helo_name: str = ""
    """What EHLO says; empty for the host's own name."""
    source_ipv4: str = ""
    """The address IPv4 connections come from; empty lets the system choose."""
    source_ipv6: str = ""
    """The same for IPv6."""
    addresses: AddressOrder = "ipv6-first"
    """Which addresses of a host are used, and in which order."""
    hosts_tried_max: int = 6
    """Addresses tried for one connection, over all hosts (RFC 5321 §5.1: at least
    two)."""
    connections_max: int = 20
    """Connections to one destination, over all workers."""
    recipients_max: int = 100
    """Recipients of one transaction; more go in several (RFC 5321 §4.5.3.1.8)."""
    messages_per_connection_max: int = 1_000
    """After so many messages a connection is closed and a fresh one made."""
    connection_age_max: Duration = Duration.from_text("5m")
    """After so long a connection takes no further message."""
    idle_max: Duration = Duration.from_text("2s")
    """How long a connection without work is kept."""
    found_kept: Duration = Duration.from_text("30s")
    """How long the way to a hop is remembered before DNS is asked again."""
    slot_wait_max: Duration = Duration.from_text("1m")
    """How long mail waits for a connection when other workers use all."""
    connect_timeout: Duration = Duration.from_text("30s")
    """Until a connection stands."""
    greeting_timeout: Duration = Duration.from_text("5m")
    """Until the greeting has come (RFC 5321 §4.5.3.2.1)."""
    hello_timeout: Duration = Duration.from_text("5m")
    """Until EHLO or HELO is answered."""
    command_timeout: Duration = Duration.from_text("5m")
    """Until MAIL, RCPT and DATA are answered (RFC 5321 §4.5.3.2.2 to §4.5.3.2.4)."""
    block_timeout: Duration = Duration.from_text("3m")
    """Until a piece of a large message is taken (RFC 5321 §4.5.3.2.5)."""
    content_timeout: Duration = Duration.from_text("10m")
    """Until the content is answered (RFC 5321 §4.5.3.2.6): too short a wait makes
    duplicates."""
    quit_timeout: Duration = Duration.from_text("5s")
    """Until QUIT is answered; nothing depends on it."""

    def __post_init__(self) -> None:
        """Check what the types do not."""
        if not 0 < self.port < 65536:
            raise ValueError(f"port is {self.port}, but has to be 1 to 65535")
