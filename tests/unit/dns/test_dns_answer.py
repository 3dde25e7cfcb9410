"""A reply from the wire is judged against the question that was asked."""

from itertools import pairwise

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from postroom.dns.answer import (
    CNAME_CHAIN_MAX,
    Continues,
    DnsFailed,
    Judgement,
    MxRecord,
    NoData,
    NoSuchDomain,
    NotOurs,
    Query,
    Records,
    RecordType,
    Refused,
    Truncated,
    TtlLimits,
    read_reply,
)
from postroom.dns.wire import RECORDS_MAX

LIMITS = TtlLimits(ttl_us_max=1000_000_000, negative_ttl_us_max=100_000_000)
SOA = "ns.test. root.test. 1 2 3 4 50"


def make_reply(
    query: Query, *records: str, rcode: str = "NOERROR"
) -> dns.message.Message:
    """Answer with records ``name ttl type data``; SOA and NS go into authority."""
    reply = dns.message.make_response(dns.message.from_wire(query.wire))
    reply.set_rcode(dns.rcode.from_text(rcode))
    for record in records:
        name, ttl, rdtype, data = record.split(None, 3)
        section = reply.authority if rdtype in ("SOA", "NS") else reply.answer
        section.append(dns.rrset.from_text(name, int(ttl), "IN", rdtype, data))
    return reply


def judge(
    question: str, *records: str, rcode: str = "NOERROR", limits: TtlLimits = LIMITS
) -> Judgement:
    name, rdtype = question.split()
    kind: RecordType = rdtype  # type: ignore[assignment]
    query = Query.make(name, kind, 4711)
    return read_reply(make_reply(query, *records, rcode=rcode).to_wire(), query, limits)


def test_mx_records() -> None:
    records = ("a.test. 60 MX 20 B.test.", "a.test. 60 MX 10 c.test.")
    query = Query.make("a.test", "MX", 1)
    reply = make_reply(query)
    reply.answer.append(
        dns.rrset.from_text("a.test.", 60, "IN", "MX", "20 B.test.", "10 c.test.")
    )
    found = read_reply(reply.to_wire(), query, LIMITS)
    assert isinstance(found, Records)
    assert sorted(found.exchanges) == [MxRecord(10, "c.test"), MxRecord(20, "b.test")]
    assert found.ttl_us == 60_000_000
    assert len(records) == 2


VALUES = {
    "A": ("a.test. 60 A 127.0.1.1", "127.0.1.1"),
    "AAAA": ("a.test. 60 AAAA 2001:db8::1", "2001:db8::1"),
    "PTR": ("a.test. 60 PTR Host.test.", "host.test"),
    "CNAME": ("a.test. 60 CNAME Host.test.", "host.test"),
    "TXT": ('a.test. 60 TXT "v=spf1 " "\\255 -all"', "v=spf1 \xff -all"),
}


@pytest.mark.parametrize(("rdtype", "case"), VALUES.items(), ids=VALUES.keys())
def test_values(rdtype: str, case: tuple[str, str]) -> None:
    assert judge(f"a.test {rdtype}", case[0]) == Records((case[1],), 60_000_000)


JUDGED: dict[str, tuple[Judgement, Judgement]] = {
    "null MX is kept as an empty name": (
        judge("a.test MX", "a.test. 60 MX 0 ."),
        Records((), 60_000_000, (MxRecord(0, ""),)),
    ),
    "TTL is capped": (
        judge("a.test A", "a.test. 99999 A 127.0.0.1"),
        Records(("127.0.0.1",), 1000_000_000),
    ),
    "the least TTL of a chain counts": (
        judge("a.test A", "a.test. 7 CNAME b.test.", "b.test. 60 A 127.0.0.1"),
        Records(("127.0.0.1",), 7_000_000),
    ),
    "owner in other case": (
        judge("a.test A", "A.TEST. 60 A 127.0.0.1"),
        Records(("127.0.0.1",), 60_000_000),
    ),
    "records of other names are ignored": (
        judge("a.test A", "evil.test. 60 A 127.0.0.1", f". 60 SOA {SOA}"),
        NoData(50_000_000),
    ),
    "NXDOMAIN, TTL by the SOA's minimum (RFC 2308 §5)": (
        judge("a.test MX", f"test. 60 SOA {SOA}", rcode="NXDOMAIN"),
        NoSuchDomain(50_000_000),
    ),
    "NXDOMAIN, TTL of the SOA if less": (
        judge("a.test MX", f"test. 20 SOA {SOA}", rcode="NXDOMAIN"),
        NoSuchDomain(20_000_000),
    ),
    "negative TTL is capped": (
        judge("a.test MX", "test. 9999 SOA n. r. 1 2 3 4 9999", rcode="NXDOMAIN"),
        NoSuchDomain(100_000_000),
    ),
    "NXDOMAIN without SOA is not cached": (
        judge("a.test MX", rcode="NXDOMAIN"),
        NoSuchDomain(0),
    ),
    "NXDOMAIN at the end of a chain": (
        judge(
            "a.test A", "a.test. 9 CNAME b.test.", f". 60 SOA {SOA}", rcode="NXDOMAIN"
        ),
        NoSuchDomain(9_000_000),
    ),
    "no data": (judge("a.test MX", f"a.test. 60 SOA {SOA}"), NoData(50_000_000)),
    "no data without SOA is not cached": (judge("a.test MX"), NoData(0)),
    "an alias that leads out of the answer": (
        judge("a.test MX", "a.test. 9 CNAME b.test."),
        Continues("b.test", frozenset({"a.test", "b.test"}), 9_000_000),
    ),
    "an alias to nothing": (
        judge("a.test MX", "a.test. 9 CNAME b.test.", f". 60 SOA {SOA}"),
        NoData(9_000_000),
    ),
    "CNAME loop": (
        judge("a.test MX", "a.test. 9 CNAME b.test.", "b.test. 9 CNAME a.test."),
        DnsFailed("a.test: CNAME loop"),
    ),
    "CNAME to itself": (
        judge("a.test MX", "a.test. 9 CNAME a.test."),
        DnsFailed("a.test: CNAME loop"),
    ),
    "SERVFAIL": (judge("a.test MX", rcode="SERVFAIL"), Refused("SERVFAIL")),
    "REFUSED": (judge("a.test MX", rcode="REFUSED"), Refused("REFUSED")),
    "FORMERR": (judge("a.test MX", rcode="FORMERR"), Refused("FORMERR", True)),
    "referral": (
        judge("a.test MX", "test. 60 NS ns.elsewhere.test."),
        Refused("a referral instead of an answer: the server does not recurse"),
    ),
}


@pytest.mark.parametrize(("found", "expected"), JUDGED.values(), ids=JUDGED.keys())
def test_judged(found: Judgement, expected: Judgement) -> None:
    assert found == expected


def chain(length: int) -> list[str]:
    names = ["a.test.", *(f"c{n}.test." for n in range(length))]
    links = [f"{a} 60 CNAME {b}" for a, b in pairwise(names)]
    return [*links, f"{names[-1]} 60 A 127.0.0.1"]


def test_chain_of_eight_is_followed() -> None:
    assert isinstance(judge("a.test A", *chain(CNAME_CHAIN_MAX)), Records)


def test_chain_of_nine_is_not() -> None:
    found = judge("a.test A", *chain(CNAME_CHAIN_MAX + 1))
    assert found == DnsFailed("a.test: more than 8 CNAMEs")


def test_chain_over_several_answers_is_counted_together() -> None:
    query = Query.make("c.test", "A", 1)
    wire = make_reply(query, "c.test. 60 CNAME a.test.").to_wire()
    looped = read_reply(wire, query, LIMITS, frozenset({"a.test", "c.test"}))
    assert looped == DnsFailed("c.test: CNAME loop")
    seen = frozenset(f"s{n}.test" for n in range(CNAME_CHAIN_MAX)) | {"c.test"}
    found = read_reply(wire, query, LIMITS, seen)
    assert found == DnsFailed("c.test: more than 8 CNAMEs")


def test_what_does_not_belong_is_ignored() -> None:
    query = Query.make("a.test", "A", 4711)
    good = make_reply(query, "a.test. 60 A 127.0.0.1").to_wire()
    other_name = make_reply(Query.make("b.test", "A", 4711)).to_wire()
    other_type = make_reply(Query.make("a.test", "AAAA", 4711)).to_wire()
    not_ours = {
        "empty": b"",
        "short": good[:11],
        "id": bytes([good[0] ^ 1]) + good[1:],
        "question itself": query.wire,
        "opcode": good[:2] + bytes([good[2] | 0x10]) + good[3:],
        "other name": other_name,
        "other type": other_type,
        "no question": good[:4] + b"\0\0" + good[6:],
        "two questions": good[:4] + b"\0\2" + good[6:],
        "cut in the question": good[: len(query.question) + 8],
    }
    for why, wire in not_ours.items():
        assert read_reply(wire, query, LIMITS) == NotOurs(), why
    assert isinstance(read_reply(good, query, LIMITS), Records)


def test_question_in_other_case_belongs() -> None:
    query = Query.make("abc.test", "A", 1)
    wire = make_reply(query, "abc.test. 60 A 127.0.0.1").to_wire()
    assert isinstance(read_reply(wire.replace(b"abc", b"aBC"), query, LIMITS), Records)


def test_truncated_is_never_a_partial_answer() -> None:
    query = Query.make("a.test", "A", 1)
    reply = make_reply(query, "a.test. 60 A 127.0.0.1")
    reply.flags |= dns.flags.TC
    assert read_reply(reply.to_wire(), query, LIMITS) == Truncated()


def test_malformed_is_refused() -> None:
    query = Query.make("a.test", "A", 1)
    good = make_reply(query, "a.test. 60 A 127.0.0.1").to_wire()
    for wire in (good[:-1], good[:-4] + b"\xff", good[:-16] + b"\xc0\xff" + good[-14:]):
        assert isinstance(read_reply(wire, query, LIMITS), Refused), wire


def test_compression_loop_is_refused() -> None:
    query = Query.make("a.test", "A", 1)
    good = make_reply(query, "a.test. 60 A 127.0.0.1").to_wire()
    start = 12 + len(query.question)
    pointer = (0xC000 | start).to_bytes(2, "big")
    found = read_reply(good[:start] + pointer + good[start + 2 :], query, LIMITS)
    assert isinstance(found, Refused)


def test_ttl_with_the_top_bit_is_zero() -> None:
    """RFC 2181 §8."""
    query = Query.make("a.test", "A", 1)
    good = make_reply(query, "a.test. 60 A 127.0.0.1").to_wire()
    wire = good[:-10] + b"\x80\0\0\x3c" + good[-6:]
    assert read_reply(wire, query, LIMITS) == Records(("127.0.0.1",), 0)


def test_query_with_edns_offers_a_size() -> None:
    plain = Query.make("a.test", "A", 1)
    edns = Query.make("a.test", "A", 1, 1232)
    assert plain.question == edns.question
    assert dns.message.from_wire(edns.wire).payload == 1232
    assert dns.message.from_wire(plain.wire).edns == -1


LONG = ".".join("a" * 120)  # a name of 120 labels, which costs two octets to point at


def pointing(query: Query, count: int, data: bytes, rdtype: int) -> bytes:
    """Answer with records whose owner and data are pointers at the question."""
    head = query.wire[:2] + b"\x81\x80\0\1" + count.to_bytes(2, "big") + bytes(4)
    fixed = rdtype.to_bytes(2, "big") + b"\0\1\0\0\0\x3c"
    record = b"\xc0\x0c" + fixed + len(data).to_bytes(2, "big") + data
    return head + query.question + record * count


POINTING: dict[str, tuple[RecordType, int, bytes]] = {
    "MX": ("MX", 15, b"\0\x0a\xc0\x0c"),
    "CNAME": ("MX", 5, b"\xc0\x0c"),
    "PTR": ("PTR", 12, b"\xc0\x0c"),
    "of another type": ("MX", 99, b"\xc0\x0c"),
}


@pytest.mark.parametrize(("rdtype", "number", "data"), POINTING.values(), ids=POINTING)
def test_a_name_pointed_at_is_read_once(
    rdtype: RecordType, number: int, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One answer must not keep a worker busy for seconds."""
    query = Query.make(LONG, rdtype, 1)
    steps = 0

    def octet(wire: bytes, at: int) -> int:
        nonlocal steps
        steps += 1
        return wire[at]

    monkeypatch.setattr("postroom.dns.wire._octet", octet)
    count = RECORDS_MAX
    read_reply(pointing(query, count, data, number), query, LIMITS)
    assert count < steps < 10 * count, steps


def test_more_records_than_anybody_needs_are_refused() -> None:
    query = Query.make("a.test", "MX", 1)
    for count, kind in ((RECORDS_MAX, Records), (RECORDS_MAX + 1, Refused)):
        wire = pointing(query, count, b"\0\x0a\xc0\x0c", 15)
        assert isinstance(read_reply(wire, query, LIMITS), kind)


def test_the_same_record_twice_is_one() -> None:
    """RFC 2181 §5: there are no duplicates in a set."""
    query = Query.make("a.test", "MX", 1)
    found = read_reply(pointing(query, 3, b"\0\x0a\xc0\x0c", 15), query, LIMITS)
    assert found == Records((), 60_000_000, (MxRecord(10, "a.test"),))


def owned(name: bytes) -> bytes:
    """Answer ``a.test A`` with one record whose owner is written so."""
    query = Query.make("a.test", "A", 4711)
    head = query.wire[:2] + b"\x81\x80\0\1\0\1" + bytes(4) + query.question
    return head + name + b"\0\1\0\1\0\0\0\x3c\0\4\x7f\0\0\1"


BEHIND = len(owned(b"")) - 14  # where the owner begins
NAMES: dict[str, tuple[bytes, str]] = {
    "pointer at itself": ((0xC000 | BEHIND).to_bytes(2, "big"), "lead back"),
    "pointer forwards": ((0xC000 | BEHIND + 4).to_bytes(2, "big"), "lead back"),
    "pointer at the header": (b"\xc0\x00", "lead back"),
    "pointer behind the end": (b"\xff\xff", "lead back"),
    "half a pointer into a loop": (b"\1a" + b"\xc0", "lead back"),
    "a label of 64 octets": (b"\x40" + b"a" * 64 + b"\0", "no known kind"),
    "a label of an unknown kind": (b"\x80a\0", "no known kind"),
    "256 octets": (b"\1a" * 127 + b"\1\0", "too long"),
    "labels without end": (b"\1a" * 30_000 + b"\0", "too long"),
    "long with what is pointed at": (b"\1a" * 124 + b"\xc0\x0c", "too long"),
    "cut off": (b"\x3f", "cut off"),
}


@pytest.mark.parametrize(("name", "why"), NAMES.values(), ids=NAMES)
def test_names_that_are_none(name: bytes, why: str) -> None:
    found = read_reply(owned(name), Query.make("a.test", "A", 4711), LIMITS)
    assert isinstance(found, Refused)
    assert why in found.reason


def test_pointers_behind_one_another_come_to_an_end() -> None:
    query = Query.make("a.test", "TXT", 4711)
    head = query.wire[:2] + b"\x81\x80\0\1\0\2" + bytes(4) + query.question
    start = len(head) + 12
    chain = b"\xc0\x0c" + b"".join(
        (0xC000 | start + 2 * n).to_bytes(2, "big") for n in range(200)
    )
    fixed = b"\0\x10\0\1\0\0\0\x3c"
    first = b"\xc0\x0c" + fixed + len(chain).to_bytes(2, "big") + chain
    last = (0xC000 | start + 2 * 200).to_bytes(2, "big") + fixed + b"\0\0"
    found = read_reply(head + first + last, query, LIMITS)
    assert found == Refused("malformed answer: too many pointers behind one another")


def test_odd_octets_in_names_are_escaped() -> None:
    r"""A dot within a label is no end of one: ``a\.test`` is not ``a.test``."""
    found = read_reply(owned(b"\6a.test\0"), Query.make("a.test", "A", 4711), LIMITS)
    assert found == NoData(0)
    query = Query.make("a.test", "PTR", 4711)
    wire = pointing(query, 1, b"\5a.\xffB!\0", 12)
    assert read_reply(wire, query, LIMITS) == Records((r"a\046\255b\033",), 60_000_000)


DATA: dict[str, tuple[RecordType, int, bytes]] = {
    "A of three octets": ("A", 1, b"\x7f\0\0"),
    "A of five octets": ("A", 1, b"\x7f\0\0\1\1"),
    "AAAA of four octets": ("AAAA", 28, b"\x7f\0\0\1"),
    "MX of one octet": ("MX", 15, b"\0"),
    "MX without a name": ("MX", 15, b"\0\x0a"),
    "MX with something behind": ("MX", 15, b"\0\x0a\xc0\x0c\0"),
    "TXT without strings": ("TXT", 16, b""),
    "TXT that is cut off": ("TXT", 16, b"\5abc"),
    "PTR without end": ("PTR", 12, b"\1a"),
    "CNAME of nothing": ("A", 5, b""),
}


@pytest.mark.parametrize(("rdtype", "number", "data"), DATA.values(), ids=DATA)
def test_data_that_makes_no_sense(rdtype: RecordType, number: int, data: bytes) -> None:
    query = Query.make("a.test", rdtype, 1)
    assert isinstance(
        read_reply(pointing(query, 1, data, number), query, LIMITS), Refused
    )


def test_a_short_soa_is_refused() -> None:
    query = Query.make("a.test", "A", 1)
    wire = bytearray(pointing(query, 1, b"\0" * 21, 6))
    wire[6:10] = b"\0\0\0\1"  # it stands in the authority section
    assert isinstance(read_reply(bytes(wire), query, LIMITS), Refused)
    wire = bytearray(pointing(query, 1, b"\0" * 21 + b"\5", 6))
    wire[6:10] = b"\0\0\0\1"
    assert read_reply(bytes(wire), query, LIMITS) == NoData(5_000_000)


def test_response_codes_of_edns() -> None:
    """RFC 6891 §6.1.3: BADVERS is 16, most of which stands in the OPT record."""
    query = Query.make("a.test", "A", 1, 1232)
    reply = make_reply(query)
    reply.use_edns(0)
    reply.set_rcode(dns.rcode.BADVERS)
    assert read_reply(reply.to_wire(), query, LIMITS) == Refused("BADVERS", True)
    cut = reply.to_wire()[:-2] + b"\0\5"
    assert isinstance(read_reply(cut, query, LIMITS), Refused)
