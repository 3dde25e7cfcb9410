"""Makes the test name server's replies, true and false ones. Pure."""

from itertools import pairwise

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from postroom.testing.zone import TTL_S, Lie, Zone, soa

MANY_MX = 100
CHAIN_LENGTH = 20


def replies(zone: Zone, wire: bytes, *, tcp: bool) -> list[bytes]:
    """Return the datagrams, or TCP messages, that answer a question.

    None at all for silence, and for octets that are no question.
    """
    try:
        query = dns.message.from_wire(wire)
    except Exception:  # whatever arrives on a socket
        return []
    if not query.question or query.flags & dns.flags.QR:
        return []
    lie = zone.lies.get(query.question[0].name.canonicalize())
    if lie is None:
        return [_wire(_true_reply(zone, query), tcp=tcp)]
    return _lies(lie, zone, query, tcp=tcp)


def _true_reply(zone: Zone, query: dns.message.Message) -> dns.message.Message:
    reply = dns.message.make_response(query, recursion_available=True)
    reply.flags |= dns.flags.AA
    zone.fill(reply)
    return reply


def _wire(reply: dns.message.Message, *, tcp: bool) -> bytes:
    if tcp:
        return reply.to_wire(max_size=65535)
    payload = reply.request_payload or 512
    try:
        return reply.to_wire(max_size=max(payload, 512))
    except dns.exception.TooBig:
        return _cut(reply)


def _cut(reply: dns.message.Message) -> bytes:
    reply.answer.clear()
    reply.authority.clear()
    reply.flags |= dns.flags.TC
    return reply.to_wire()


def _lies(
    lie: Lie, zone: Zone, query: dns.message.Message, *, tcp: bool
) -> list[bytes]:
    reply = _true_reply(zone, query)
    truth = _wire(reply, tcp=tcp)
    match lie:
        case Lie.WRONG_ID:
            return [_other_id(truth)]
        case Lie.WRONG_QUESTION:
            return [_other_question(query)]
        case Lie.FORGED_FIRST:
            return [_other_id(truth), _other_question(query), b"", truth]
        case Lie.TRUNCATED | Lie.TRUNCATED_NO_TCP:
            if tcp:
                return [truth] if lie is Lie.TRUNCATED else []
            return [_cut(reply)]
        case Lie.CNAME_LOOP | Lie.CNAME_CHAIN:
            return [_wire(_aliases(query, lie), tcp=tcp)]
        case Lie.MANY_MX:
            return [_wire(_many_mx(query), tcp=tcp)]
        case Lie.SERVFAIL:
            return [_error(query, dns.rcode.SERVFAIL)]
        case Lie.REFUSED:
            return [_error(query, dns.rcode.REFUSED)]
        case Lie.FORMERR_ON_EDNS:
            return [_error(query, dns.rcode.FORMERR) if query.edns >= 0 else truth]
        case Lie.REFERRAL:
            return [_referral(query)]
        case Lie.GARBAGE:
            return [truth[: 12 + len(truth[12:]) // 2] + b"\xff" * 40]
        case Lie.SILENCE:
            return []


def _empty(query: dns.message.Message) -> dns.message.Message:
    return dns.message.make_response(query, recursion_available=True)


def _other_id(wire: bytes) -> bytes:
    number = int.from_bytes(wire[:2], "big") ^ 0x5555
    return number.to_bytes(2, "big") + wire[2:]


def _other_question(query: dns.message.Message) -> bytes:
    asked = query.question[0]
    other = dns.message.make_query("forged.test", asked.rdtype, id=query.id)
    reply = dns.message.make_response(other)
    owner, data = other.question[0].name, "10 forged.test."
    if asked.rdtype == dns.rdatatype.MX:
        reply.answer.append(dns.rrset.from_text(owner, TTL_S, "IN", "MX", data))
    return reply.to_wire()


def _aliases(query: dns.message.Message, lie: Lie) -> dns.message.Message:
    reply, owner = _empty(query), query.question[0].name
    length = 2 if lie is Lie.CNAME_LOOP else CHAIN_LENGTH
    names = [owner, *(dns.name.from_text(f"c{n}.alias.test") for n in range(length))]
    if lie is Lie.CNAME_LOOP:
        names.append(owner)
    for alias, target in pairwise(names):
        reply.answer.append(
            dns.rrset.from_text(alias, TTL_S, "IN", "CNAME", target.to_text())
        )
    return reply


def _many_mx(query: dns.message.Message) -> dns.message.Message:
    reply, asked = _empty(query), query.question[0]
    if asked.rdtype != dns.rdatatype.MX:
        reply.authority.append(soa())
        return reply
    data = [f"{n // 10} mx{n}.{asked.name.to_text()}" for n in range(MANY_MX)]
    reply.answer.append(dns.rrset.from_text(asked.name, TTL_S, "IN", "MX", *data))
    return reply


def _referral(query: dns.message.Message) -> bytes:
    reply = _empty(query)
    reply.flags &= ~dns.flags.RA
    name = query.question[0].name
    reply.authority.append(
        dns.rrset.from_text(name, TTL_S, "IN", "NS", "ns.elsewhere.test.")
    )
    return reply.to_wire()


def _error(query: dns.message.Message, rcode: dns.rcode.Rcode) -> bytes:
    reply = _empty(query)
    reply.set_rcode(rcode)
    return reply.to_wire()
