"""Which hosts take a domain's mail, and in which order (RFC 5321 §5.1). Pure.

``candidates`` reads the MX answer; ``choose`` adds the addresses of the hosts and
takes ourselves, and what is no better than ourselves, out of the list. Every way in
which there is no host is a value of its own, with the status the sender will see.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import groupby
from operator import attrgetter

import msgspec

from postroom.dns.answer import (
    Answer,
    DnsFailed,
    MxRecord,
    NoData,
    NoSuchDomain,
    Records,
)
from postroom.dns.names import is_ip_address, to_ascii
from postroom.dns.own import OwnNames
from postroom.dns.settings import AddressOrder

MX_HOSTS_MAX = 100
"""How many hosts of one domain are considered, best preference first."""


class MxHost(msgspec.Struct, frozen=True, gc=False):
    """A host that the domain names for its mail."""

    name: str
    preference: int


class Exchanger(msgspec.Struct, frozen=True):
    """A host to try, with its addresses in the order in which to try them."""

    name: str
    preference: int
    addresses: tuple[str, ...]


class Candidates(msgspec.Struct, frozen=True):
    """The hosts named, best first. ``implicit``: the domain itself, for want of MX."""

    hosts: tuple[MxHost, ...]
    implicit: bool = False


class Hosts(msgspec.Struct, frozen=True):
    """Where to try, in this order; never empty."""

    hosts: tuple[Exchanger, ...]


class NullMx(msgspec.Struct, frozen=True, gc=False):
    """The domain says that it takes no mail (RFC 7505 §3); 556, 5.1.10."""

    domain: str
    status: str = "5.1.10"
    code: int = 556

    @property
    def reason(self) -> str:
        """What sendmail says of it."""
        return "Host does not accept mail: MX 0 ."


class NoMail(msgspec.Struct, frozen=True, gc=False):
    """Mail cannot go there, and waiting will not help."""

    status: str
    reason: str
    code: int = 550


class LoopsBack(msgspec.Struct, frozen=True, gc=False):
    """The best host is ourselves, yet the domain is not local (RFC 5321 §5.1)."""

    domain: str
    host: str
    status: str = "5.4.6"
    code: int = 553

    @property
    def reason(self) -> str:
        """What sendmail says, and what to do."""
        return (
            f"config error: mail loops back to me (MX problem?): {self.host} is this "
            f"system, but {self.domain} is not among its local domains"
        )


Exchangers = Hosts | NullMx | NoMail | LoopsBack | DnsFailed
"""What a search for the hosts of a domain can come to."""

HostAnswers = Mapping[str, Sequence[Answer]]
"""By host name: its address answers (AAAA, A), in the order to be tried."""


def candidates(
    domain: str, mx: Answer, seed: int
) -> Candidates | NullMx | NoMail | DnsFailed:
    """Return the hosts that an MX answer names, sorted, equal ones in random order.

    ``seed`` drives the order of equal ones. Exchanges that are addresses or no host
    names are left out.
    """
    match mx:
        case DnsFailed():
            return mx
        case NoSuchDomain():
            return unknown_host(domain)
        case NoData() | Records(exchanges=()):
            # RFC 5321 §5.1: the implicit MX, with preference 0
            return Candidates((MxHost(domain, 0),), implicit=True)
        case Records():
            return _from_records(domain, mx.exchanges, seed)


def _from_records(
    domain: str, records: tuple[MxRecord, ...], seed: int
) -> Candidates | NullMx | NoMail:
    if len(records) == 1 and not records[0].exchange:  # RFC 7505 §3
        return NullMx(domain)
    best: dict[str, int] = {}
    for record in sorted(records):
        name = to_ascii(record.exchange)
        if name and not is_ip_address(name):
            best.setdefault(name, record.preference)
    if not best:
        return NoMail("5.4.4", f"no MX record of {domain} names a mail host")
    hosts = sorted(
        (MxHost(name, preference) for name, preference in best.items()),
        key=lambda host: (host.preference, _shuffle_key(host.name, seed)),
    )
    return Candidates(tuple(hosts[:MX_HOSTS_MAX]))


def unknown_host(domain: str) -> NoMail:
    """Return the verdict on a domain that does not exist, in sendmail's words."""
    return NoMail("5.1.2", f"Host unknown (Name server: {domain}: host not found)")


def before_own_names(found: Candidates, own: OwnNames) -> Sequence[MxHost]:
    """Return the hosts preferred to the first that bears a name of ours."""
    limit = min(
        (host.preference for host in found.hosts if own.is_name(host.name)),
        default=None,
    )
    if limit is None:
        return found.hosts
    return [host for host in found.hosts if host.preference < limit]


def groups(hosts: Sequence[MxHost]) -> list[list[MxHost]]:
    """Return sorted hosts in groups of equal preference."""
    return [list(group) for _, group in groupby(hosts, attrgetter("preference"))]


def choose(
    domain: str,
    found: Candidates,
    answers: HostAnswers,
    own: OwnNames,
    *,
    port: int = 0,
) -> Exchangers:
    """Join hosts with their addresses; drop ourselves and what is no better.

    ``answers`` need not hold all hosts: those without an entry are left out, which
    is right as long as each of them is worse than some host with an entry. ``port``
    is where we would connect to: an own address with a port we do not listen on is
    not ourselves.
    """
    hosts: list[Exchanger] = []
    failed = ""
    for group in groups(before_own_names(found, own)):
        ready: list[Exchanger] = []
        for host in group:
            addresses, failure = _addresses(answers.get(host.name, ()))
            failed = failed or failure
            if any(own.is_address(address, port) for address in addresses):
                # RFC 5321 §5.1: this preference and all worse ones are discarded
                return _found(domain, hosts, failed) or LoopsBack(domain, host.name)
            if addresses:
                ready.append(Exchanger(host.name, host.preference, addresses))
        hosts += ready
    named = next((host.name for host in found.hosts if own.is_name(host.name)), "")
    result = _found(domain, hosts, failed)
    if result:
        return result
    return LoopsBack(domain, named) if named else _no_addresses(domain, found, answers)


def order_addresses(
    ipv6: Answer | None, ipv4: Answer | None, order: AddressOrder
) -> tuple[Answer, ...]:
    """Return the address answers in the order in which they are to be tried."""
    pair = (ipv6, ipv4) if order.startswith("ipv6") else (ipv4, ipv6)
    return tuple(answer for answer in pair if answer is not None)


def _found(
    domain: str, hosts: Sequence[Exchanger], failed: str
) -> Hosts | DnsFailed | None:
    """Prefer hosts; failing them a failed look-up, since it may hide some."""
    if hosts:
        return Hosts(tuple(hosts))
    return DnsFailed(failed) if failed else None


def _addresses(answers: Sequence[Answer]) -> tuple[tuple[str, ...], str]:
    addresses: list[str] = []
    failed = ""
    for answer in answers:
        if isinstance(answer, Records):
            addresses += answer.values
        elif isinstance(answer, DnsFailed):
            failed = answer.reason
    return tuple(dict.fromkeys(addresses)), failed


def _no_addresses(domain: str, found: Candidates, answers: HostAnswers) -> NoMail:
    if not found.implicit:
        names = ", ".join(host.name for host in found.hosts[:3])
        return NoMail("5.4.4", f"no MX host of {domain} has an address ({names})")
    if any(isinstance(answer, NoSuchDomain) for answer in answers.get(domain, ())):
        return unknown_host(domain)
    return NoMail(
        "5.1.2", f"Host unknown (Name server: {domain}: no MX and no address records)"
    )


def _shuffle_key(name: str, seed: int) -> bytes:
    """A fair order that the seed alone decides (RFC 5321 §5.1: MUST randomize)."""
    key = (seed & (1 << 64) - 1).to_bytes(8, "big")
    return blake2b(name.encode("ascii"), digest_size=8, key=key).digest()
