"""Settings of what is looked up about a client: lists, its name, its hello.

What is found is judged at RCPT, so that postmaster can always be written to, and who
logged in or may relay is not asked (Postfix: ``smtpd_delay_reject``).
"""

from typing import Literal

import msgspec

from postroom.dns.lists import DnsList
from postroom.mail.units import Duration
from postroom.policy.session import parse_network

Action = Literal["off", "log", "defer", "reject"]
"""What becomes of a client that a check speaks against."""

PRIVATE = (
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
)


class DnsListSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """Lists of bad and of good clients in the DNS.

    The weights of those that a client is on are added up to its score.
    """

    zones: tuple[str, ...] = ()
    """Lists as ``"zen.spamhaus.org=127.0.0.[2..11]*3"``: the zone, the answers that
    count (all in 127.0.0.0/8 if none are named), and the weight (1 if none; negative
    for good clients). All are asked at once."""

    reject_at: int = 0
    """From this score on a client's recipients get 550 5.7.1. 0: never."""

    defer_at: int = 0
    """From this score on a client's recipients get 450 4.7.1. 0: never."""

    def __post_init__(self) -> None:
        """Check what the types do not."""
        zones = [DnsList.from_text(text).zone for text in self.zones]
        for zone in zones:
            if zones.count(zone) > 1:
                raise ValueError(f'the list "{zone}" is there twice')
        for name in ("reject_at", "defer_at"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0 (0: never)")


class ReverseSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """The client's name by its address."""

    look_up: bool = False
    """Look it up and verify that it leads back to the address; it then stands in
    Received, in the log, and is ``session.client_name``."""

    missing: Action = "off"
    """For a client without a name: ``defer`` is 450 4.7.25, ``reject`` 550 5.7.25."""

    unverified: Action = "off"
    """For a client whose names do not lead back to it, as ``missing``."""


class HelloSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """What a client calls itself. ``defer`` is 450 4.7.1, ``reject`` 550 5.7.1."""

    own_name: Action = "off"
    """For a client from outside that gives our own name."""

    own_address: Action = "off"
    """For a client from outside that gives an address of ours."""

    unqualified: Action = "off"
    """For a name without a dot."""

    unresolvable: Action = "off"
    """For a name that has no address and takes no mail. RFC 5321 §4.1.4 wants no mail
    refused because the name does not fit the address; that is not looked at."""


class ClientSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """What is looked up about clients before their first message."""

    timeout: Duration = Duration.from_text("5s")
    """How long look-ups may take, all together; what is not known then is not held
    against the client."""

    exempt_networks: tuple[str, ...] = PRIVATE
    """Clients that nothing is looked up about."""

    exempt_recipients: tuple[str, ...] = ("postmaster", "abuse")
    """Local names that may be written to all the same (RFC 5321 §4.5.1)."""

    def __post_init__(self) -> None:
        """Check what the types do not."""
        for network in self.exempt_networks:
            parse_network(network)
        if self.timeout < 1:
            raise ValueError("timeout must be longer than 0")
