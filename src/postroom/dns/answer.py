"""Answers to DNS questions: what they can be, and the judgement of one from the wire.

Pure. ``read_reply`` decides whether some octets answer the question that was asked,
and what they say. What does not belong to the question is ``NotOurs`` (the caller
waits on, as for a forger's guess); what belongs to it but cannot be used is
``DnsFailed``. Nothing raises.
"""

from typing import Literal, Protocol

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import msgspec
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA
from dns.rdtypes.nsbase import NSBase
from dns.rdtypes.txtbase import TXTBase

from postroom.mail.now import SECOND_US, Now

RecordType = Literal["MX", "A", "AAAA", "TXT", "PTR", "CNAME"]
"""The record types that are asked for."""

CNAME_CHAIN_MAX = 8
"""How many aliases are followed, one after the other."""

VALUES_MAX = 1000
"""How many records of one answer are used."""


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
        message = dns.message.from_wire(wire, ignore_trailing=True)
        return _judge(message, query, limits, seen)
    except Exception as error:  # the library meets what a hostile server made up
        return Refused(f"malformed answer ({type(error).__name__})")


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
    message: dns.message.Message,
    query: Query,
    limits: TtlLimits,
    seen: frozenset[str],
) -> Judgement:
    rcode = message.rcode()
    if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        edns = rcode in (dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS)
        return Refused(dns.rcode.to_text(rcode), dislikes_edns=edns)
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
    message: dns.message.Message,
    query: Query,
    limits: TtlLimits,
    seen: frozenset[str],
) -> Records | DnsFailed | Continues:
    """Walk the aliases in an answer to the records, or to where it ends."""
    sets = {(s.name, s.rdtype): s for s in message.answer if s.rdclass == 1}
    wanted = dns.rdatatype.from_text(query.rdtype)
    owner, ttl_us = dns.name.from_text(query.name), limits.ttl_us_max
    seen |= {query.name}
    while True:
        records = sets.get((owner, wanted))
        if records:
            return _records(records, query.rdtype, min(ttl_us, _ttl_us(records.ttl)))
        alias = sets.get((owner, dns.rdatatype.CNAME))
        if not alias:
            return Continues(_text(owner), seen, ttl_us)
        owner = alias[0].target
        if _text(owner) in seen:
            return DnsFailed(f"{query.name}: CNAME loop")
        if len(seen) > CNAME_CHAIN_MAX:
            return DnsFailed(f"{query.name}: more than {CNAME_CHAIN_MAX} CNAMEs")
        seen |= {_text(owner)}
        ttl_us = min(ttl_us, _ttl_us(alias.ttl))


def _records(records: dns.rrset.RRset, rdtype: RecordType, ttl_us: int) -> Records:
    some = list(records)[:VALUES_MAX]
    if rdtype == "MX":
        exchanges = tuple(MxRecord(r.preference, _text(r.exchange)) for r in some)
        return Records((), ttl_us, exchanges)
    return Records(tuple(_value(r) for r in some), ttl_us)


def _value(record: dns.rdata.Rdata) -> str:
    match record:
        case A() | AAAA():
            return str(record.address)
        case TXTBase():
            return b"".join(record.strings).decode("latin-1")
        case NSBase():
            return _text(record.target)
        case _:
            raise ValueError("unreadable record")


def _negative_ttl_us(message: dns.message.Message, limits: TtlLimits) -> int | None:
    """RFC 2308 §5: the lesser of the SOA's TTL and its MINIMUM field."""
    for records in message.authority:
        if records.rdtype == dns.rdatatype.SOA and records.rdclass == 1:
            ttl_s = min(records.ttl, records[0].minimum)
            return min(_ttl_us(ttl_s), limits.negative_ttl_us_max)
    return None


def _is_referral(message: dns.message.Message) -> bool:
    """RFC 2308 §2.2: NS records, no SOA, no authority."""
    authoritative = message.flags & dns.flags.AA
    return not authoritative and any(
        records.rdtype == dns.rdatatype.NS for records in message.authority
    )


def _ttl_us(ttl_s: int) -> int:
    """RFC 2181 §8: with the top bit set it counts as zero."""
    return 0 if ttl_s >= 1 << 31 else ttl_s * SECOND_US


def _text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower() if len(name) > 1 else ""
