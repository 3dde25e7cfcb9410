"""Answers to DNS questions: what they can be, and the judgement of one from the wire.

Pure. ``read_reply`` decides whether some octets answer the question that was asked,
and what they say. What does not belong to the question is ``NotOurs`` (the caller
waits on, as for a forger's guess); what belongs to it but cannot be used is
``DnsFailed``. Nothing raises.
"""

from typing import Literal, Protocol

import dns.message
import dns.name
import dns.rcode
import msgspec

from postroom.dns import wire as rr
from postroom.dns.wire import WireError, WireMessage, WireRecord
from postroom.mail.now import SECOND_US, Now

RecordType = Literal["MX", "A", "AAAA", "TXT", "PTR", "CNAME"]
"""The record types that are asked for."""

CNAME_CHAIN_MAX = 8
"""How many aliases are followed, one after the other."""


class MxRecord(msgspec.Struct, frozen=True, gc=False, order=True):
    """One MX record; ``exchange`` is lower case without final dot, ``""`` for ``.``."""

    preference: int
    exchange: str


class Records(msgspec.Struct, frozen=True):
    """The records asked for, good for ``ttl_us``.

    MX records are in ``exchanges``; all others are texts in ``values``: addresses,
    names in lower case without final dot, TXT strings joined (octets as Latin-1).
    """

    values: tuple[str, ...]
    ttl_us: int
    exchanges: tuple[MxRecord, ...] = ()


class NoData(msgspec.Struct, frozen=True, gc=False):
    """The name exists but has no record of this type (RFC 2308 §2.2)."""

    ttl_us: int = 0


class NoSuchDomain(msgspec.Struct, frozen=True, gc=False):
    """The name does not exist (RFC 2308 §2.1)."""

    ttl_us: int = 0


class DnsFailed(msgspec.Struct, frozen=True, gc=False):
    """Nobody could say; try again later. ``reason`` is a sentence for a log."""

    reason: str


Answer = Records | NoData | NoSuchDomain | DnsFailed


class NameService(Protocol):
    """What answers questions: the resolver, or a fake of it."""

    async def query(self, name: str, rdtype: RecordType) -> Answer:
        """Ask, from the cache if it knows. Never raises for what servers do."""

    def cached(self, name: str, rdtype: RecordType, now: Now) -> Answer | None:
        """Return what is known without asking; None if nothing is."""


class Query(msgspec.Struct, frozen=True):
    """One question on the wire."""

    wire: bytes
    question: bytes
    name: str
    rdtype: RecordType

    @classmethod
    def make(
        cls, name: str, rdtype: RecordType, number: int, udp_octets_max: int = 0
    ) -> "Query":
        """Make a recursive question; ``number`` is its id, 0 to 65535.

        ``name`` must have come from ``names.to_ascii``. EDNS is used if
        ``udp_octets_max`` is not 0.
        """
        qname = dns.name.from_text(name)
        edns = 0 if udp_octets_max else False
        message = dns.message.make_query(
            qname, rdtype, use_edns=edns, payload=udp_octets_max or None, id=number
        )
        wire = message.to_wire()
        end = 12 + len(qname.to_wire() or b"") + 4
        return cls(wire, wire[12:end], name, rdtype)

    @property
    def has_edns(self) -> bool:
        """Whether it offers EDNS, behind its question."""
        return len(self.wire) > 12 + len(self.question)


class NotOurs(msgspec.Struct, frozen=True, gc=False):
    """The octets do not answer this question: ignore them and wait on."""


class Truncated(msgspec.Struct, frozen=True, gc=False):
    """The answer did not fit: ask again by TCP (RFC 1035 §4.2.1)."""


class Continues(msgspec.Struct, frozen=True):
    """The answer is an alias chain that ends outside: ask on for ``target``."""

    target: str
    seen: frozenset[str]
    ttl_us: int


class Refused(msgspec.Struct, frozen=True, gc=False):
    """The server answers but will not or cannot say: try the next one.

    ``dislikes_edns`` tells that a plainer question may help; ``answered`` is false
    when there was no answer at all, so that asking again may.
    """

    reason: str
    dislikes_edns: bool = False
    answered: bool = True


Judgement = Answer | NotOurs | Truncated | Continues | Refused


class TtlLimits(msgspec.Struct, frozen=True, gc=False):
    """How long answers may be believed."""

    ttl_us_max: int
    negative_ttl_us_max: int


def read_reply(
    wire: bytes,
    query: Query,
    limits: TtlLimits,
    seen: frozenset[str] = frozenset(),
) -> Judgement:
    """Judge octets that arrived where the answer to ``query`` is awaited.

    ``seen`` are the names of the alias chain so far, if the question continues one.
    """
    if not _belongs(wire, query):
        return NotOurs()
    if wire[2] & 0x02:  # TC
        return Truncated()
    try:
        message = WireMessage(wire, 12 + len(query.question))
        return _judge(message, query, limits, seen)
    except WireError as error:
        return Refused(f"malformed answer: {error}")


def _belongs(wire: bytes, query: Query) -> bool:
    """Match id, QR, opcode and question (RFC 1035 §4.1.1, §7.3; case is ignored)."""
    end = 12 + len(query.question)
    return (
        len(wire) >= end
        and wire[:2] == query.wire[:2]
        and wire[2] & 0xF8 == 0x80
        and wire[4:6] == b"\0\1"
        and wire[12:end].lower() == query.question.lower()
    )


def _judge(
    message: WireMessage, query: Query, limits: TtlLimits, seen: frozenset[str]
) -> Judgement:
    rcode = message.rcode
    if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        edns = rcode in (dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS)
        text = dns.rcode.to_text(dns.rcode.Rcode.make(rcode))
        return Refused(text, dislikes_edns=edns)
    found = _follow(message, query, limits, seen)
    if not isinstance(found, Continues):
        return found
    negative = _negative_ttl_us(message, limits)
    if rcode == dns.rcode.NXDOMAIN:  # RFC 6604 §2: it speaks of the chain's last name
        return NoSuchDomain(min(negative or 0, found.ttl_us))
    if negative is not None:
        return NoData(min(negative, found.ttl_us))
    if found.target != query.name:
        return found
    if _is_referral(message):
        return Refused("a referral instead of an answer: the server does not recurse")
    return NoData(0)  # RFC 2308 §5: without SOA it should not be cached


def _follow(
    message: WireMessage, query: Query, limits: TtlLimits, seen: frozenset[str]
) -> Records | DnsFailed | Continues:
    """Walk the aliases in an answer to the records, or to where it ends."""
    sets: dict[tuple[str, int], list[WireRecord]] = {}
    for record in message.answer:
        sets.setdefault((record.owner, record.rdtype), []).append(record)
    wanted = rr.TYPES[query.rdtype]
    owner, ttl_us = query.name, limits.ttl_us_max
    seen |= {query.name}
    while True:
        records = sets.get((owner, wanted))
        if records:
            return _records(message, records, query.rdtype, ttl_us)
        alias = sets.get((owner, rr.CNAME))
        if not alias:
            return Continues(owner, seen, ttl_us)
        owner = message.name(alias[0])
        if owner in seen:
            return DnsFailed(f"{query.name}: CNAME loop")
        if len(seen) > CNAME_CHAIN_MAX:
            return DnsFailed(f"{query.name}: more than {CNAME_CHAIN_MAX} CNAMEs")
        seen |= {owner}
        ttl_us = min(ttl_us, _ttl_us(alias[0].ttl_s))


def _records(
    message: WireMessage, records: list[WireRecord], rdtype: RecordType, ttl_us: int
) -> Records:
    """Read a set of records, each once (RFC 2181 §5); the least TTL counts."""
    ttl_us = min(ttl_us, *(_ttl_us(record.ttl_s) for record in records))
    if rdtype == "MX":
        found = (
            MxRecord(message.number(record), message.name(record, skip=2))
            for record in records
        )
        return Records((), ttl_us, tuple(dict.fromkeys(found)))
    values = (_value(message, record) for record in records)
    return Records(tuple(dict.fromkeys(values)), ttl_us)


def _value(message: WireMessage, record: WireRecord) -> str:
    match record.rdtype:
        case rr.A | rr.AAAA:
            return message.address(record)
        case rr.TXT:
            return message.text(record)
        case _:
            return message.name(record)


def _negative_ttl_us(message: WireMessage, limits: TtlLimits) -> int | None:
    """RFC 2308 §5: the lesser of the SOA's TTL and its MINIMUM field."""
    for record in message.authority:
        if record.rdtype == rr.SOA:
            ttl_s = min(record.ttl_s, message.soa_minimum_s(record))
            return min(_ttl_us(ttl_s), limits.negative_ttl_us_max)
    return None


def _is_referral(message: WireMessage) -> bool:
    """RFC 2308 §2.2: NS records, no SOA, no authority."""
    return not message.is_authoritative and any(
        record.rdtype == rr.NS for record in message.authority
    )


def _ttl_us(ttl_s: int) -> int:
    """RFC 2181 §8: with the top bit set it counts as zero."""
    return 0 if ttl_s >= 1 << 31 else ttl_s * SECOND_US
