"""Settings of policy: the site's module, its time limits, and the built-in guards."""

from collections.abc import Iterable

import msgspec

from postroom.dns.names import is_ip_address, to_ascii
from postroom.limits.gcra import Rate
from postroom.mail.units import Duration
from postroom.policy.check_settings import (
    ClientSettings,
    DnsListSettings,
    HelloSettings,
    ReverseSettings,
)
from postroom.policy.session import parse_network

LOOPBACK = ("127.0.0.0/8", "::1/128")


class PolicySettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """The ``[policy]`` section."""

    module: str = ""
    """The site's policy module: a ``.py`` file, or a directory with ``__init__.py``.
    Empty for none."""

    async_timeout: Duration = Duration.from_text("10s")
    """How long an ``async def`` hook may take; then ``451 4.3.0``."""

    blocking_timeout: Duration = Duration.from_text("10s")
    """How long the client waits for a ``blocking=True`` hook; then ``451 4.3.0``."""

    blocking_threads_max: int = 8
    """Threads for ``blocking=True`` hooks in each worker."""

    blocking_waiting_max: int = 1000
    """Calls of ``blocking=True`` hooks that may wait for a thread in each worker; more
    get ``451 4.3.0``."""

    slow_after: Duration = Duration.from_text("20ms")
    """A plain hook that takes longer is named in the log, because it held up the whole
    worker; an ``async def`` one if it takes so long between two awaits."""

    relay_networks: tuple[str, ...] = ()
    """Clients that may send to domains which are not ours; others get ``550 5.7.1``.
    By default none, not even loopback: a proxy or a tunnel on this machine would make
    strangers look local. The ``sendmail`` command needs no entry."""

    relay_domains: tuple[str, ...] = ()
    """Domains that anybody may send to though they are not ours: we are their backup
    MX, or stand before their hosts. ``example.test``, or ``.example.test`` for all
    beneath it. Recipients that name a further way (``x%elsewhere@``, ``elsewhere!x@``)
    are refused nevertheless, since the next host might follow it."""

    relay_logins: bool = True
    """Whether clients that logged in may send to domains which are not ours."""

    sender_domain_real: bool = True
    """Whether a sender's domain must look like one on the Internet: a name with a dot
    whose last part is no number, or an address literal; else ``553 5.5.4``. Clients
    that may relay are not asked this, and the null sender is always accepted."""

    hops_max: int = 50
    """Received fields that a message may carry; more get ``554 5.4.6``."""

    connection_rate: str = ""
    """Connections of one client, as ``"60/1m"``; more get ``421 4.7.0``. Empty for no
    limit. An IPv6 client is its /64; the rates count over all workers."""

    message_rate: str = ""
    """Messages (MAIL) of one client, as ``"1000/1h"``; more get ``450 4.7.1``."""

    recipient_rate: str = ""
    """Recipients (RCPT) of one client, as ``"5000/1h"``; more get ``450 4.7.1``."""

    rate_free_networks: tuple[str, ...] = LOOPBACK
    """Clients whose rates are not limited."""

    clients: ClientSettings = ClientSettings()
    """What is looked up about clients."""

    dns_lists: DnsListSettings = DnsListSettings()
    """Lists of clients in the DNS."""

    reverse: ReverseSettings = ReverseSettings()
    """Clients' names by their addresses."""

    hello: HelloSettings = HelloSettings()
    """What clients call themselves."""

    @property
    def inspects(self) -> bool:
        """Whether anything is to be found out about clients at all."""
        actions = (*msgspec.structs.astuple(self.hello), self.reverse.missing)
        return (
            bool(self.dns_lists.zones)
            or self.reverse.look_up
            or any(action != "off" for action in (*actions, self.reverse.unverified))
        )

    def __post_init__(self) -> None:
        """Check what the types do not."""
        for network in (*self.relay_networks, *self.rate_free_networks):
            parse_network(network)
        relay_domain_names(self.relay_domains)
        for rate in (self.connection_rate, self.message_rate, self.recipient_rate):
            parse_rate(rate)
        for name in ("async_timeout", "blocking_timeout"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be longer than 0")
        for name in ("blocking_threads_max", "blocking_waiting_max", "hops_max"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")


def relay_domain_names(texts: Iterable[str]) -> frozenset[str]:
    """Return domains, and ``.domains``, in the form in which they are compared.

    Raises:
        ValueError: one is no domain name; the message says what is expected.
    """
    found = set()
    for text in texts:
        dot = "." if text.startswith(".") else ""
        name = to_ascii(text.removeprefix("."))
        if name is None or is_ip_address(name):
            raise ValueError(
                f'relay_domains: "{text}" is no domain: write "example.test", or '
                '".example.test" for all beneath it'
            )
        found.add(dot + name)
    return frozenset(found)


def parse_rate(text: str) -> Rate | None:
    """Read ``"1000/1h"``: so many per time, all of them at once if need be.

    The empty text is no limit.

    Raises:
        ValueError: the text is no rate; the message says what is expected.
    """
    if not text:
        return None
    count, slash, period = text.partition("/")
    try:
        if not slash or not count.isdecimal() or int(count) < 1:
            raise ValueError(text)
        length = Duration.from_text(period)
    except ValueError:
        raise ValueError(f'"{text}" is no rate: write "1000/1h"') from None
    if length < 1:
        raise ValueError(f'"{text}" is no rate: the time is zero')
    return Rate(int(count), length, burst=int(count))
