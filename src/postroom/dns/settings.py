"""Settings of the resolver. Times are durations, sizes are octets."""

from typing import Literal

import msgspec

from postroom.dns.nameserver import Nameserver
from postroom.mail.units import Duration, Size

AddressOrder = Literal["ipv6-first", "ipv4-first", "ipv4-only", "ipv6-only"]
"""Which addresses of a host are used, and which of them are tried first."""


class ResolverSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """How names are looked up."""

    nameservers: tuple[str, ...] = ()
    """Servers as ``"127.0.0.1:5300"``, ``"[::1]:53"`` or ``"192.0.2.1"`` (port 53);
    empty: those of ``resolv_conf``."""

    resolv_conf: str = "/etc/resolv.conf"
    """Where the system names its servers; read once, when the resolver is made."""

    timeout: Duration = Duration.from_text("3s")
    """How long one server may take to answer one try."""

    tries: int = 3
    """How often the whole list of servers is gone through."""

    queries_max: int = 256
    """Questions on the wire at the same time; more wait their turn."""

    cache_entries_max: int = 10_000
    """Answers kept; the oldest goes first."""

    cache_octets_max: Size = Size(16 << 20)
    """About how much memory they take together, in each worker."""

    ttl_max: Duration = Duration.from_text("1d")
    """No answer is kept for longer, whatever its TTL says."""

    negative_ttl_max: Duration = Duration.from_text("1h")
    """No "does not exist" is kept for longer (RFC 2308 §5)."""

    failure_ttl: Duration = Duration.from_text("5s")
    """How long a failure is remembered, so that a dead server is not asked for each
    message (RFC 2308 §7: at most 5 minutes)."""

    udp_octets_max: Size = Size(1232)
    """The answer size offered by EDNS (RFC 6891 §6.2.5); 0: EDNS is not used."""

    addresses: AddressOrder = "ipv6-first"
    """Which addresses of a mail host are used, and in which order."""

    def __post_init__(self) -> None:
        """Check what the types do not."""
        for server in self.nameservers:
            Nameserver.from_text(server)
        if self.tries < 1:
            raise ValueError("tries must be at least 1")
