"""Whatever arrives on the DNS socket is judged, never raised over, never believed."""

from ipaddress import ip_address

import dns.message
import dns.rrset
from hypothesis import example, given
from hypothesis import strategies as st

from postroom.dns.answer import (
    Answer,
    DnsFailed,
    MxRecord,
    NoData,
    NoSuchDomain,
    NotOurs,
    Query,
    Records,
    Refused,
    TtlLimits,
    read_reply,
)
from postroom.dns.hop import Hop
from postroom.dns.mx import Candidates, Hosts, candidates, choose
from postroom.dns.names import to_ascii
from postroom.dns.own import OwnNames

LIMITS = TtlLimits(10**15, 10**15)
QUERY = Query.make("a.test", "MX", 4711)


def good_reply() -> bytes:
    reply = dns.message.make_response(dns.message.from_wire(QUERY.wire))
    texts = [f"{n} mx{n}.a.test." for n in range(5)]
    reply.answer.append(dns.rrset.from_text("a.test.", 60, "IN", "MX", *texts))
    return reply.to_wire()


GOOD = good_reply()


@given(st.binary(max_size=600))
def test_any_octets_are_ignored(wire: bytes) -> None:
    assert isinstance(read_reply(wire, QUERY, LIMITS), NotOurs)


@given(st.binary(max_size=300), st.integers(0, 0xFF))
def test_any_octets_behind_the_question_do_not_raise(tail: bytes, counts: int) -> None:
    head = GOOD[:6] + bytes([0, counts]) + GOOD[8 : 12 + len(QUERY.question)]
    read_reply(head + tail, QUERY, LIMITS)


@given(
    st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=8)
)
@example([])
def test_mutated_replies_do_not_raise(changes: list[tuple[int, int]]) -> None:
    wire = bytearray(GOOD)
    for place, value in changes:
        wire[place] = value
    found = read_reply(bytes(wire), QUERY, LIMITS)
    if isinstance(found, Records):
        assert all(0 <= mx.preference < 65536 for mx in found.exchanges)


@given(st.integers(0, len(GOOD) - 1))
def test_cut_replies_are_never_answers(length: int) -> None:
    assert isinstance(read_reply(GOOD[:length], QUERY, LIMITS), NotOurs | Refused)


@given(st.text(max_size=80))
def test_names_are_valid_or_none_and_stay_as_they_are(text: str) -> None:
    name = to_ascii(text)
    if name is not None:
        assert to_ascii(name) == name
        assert len(name) <= 253
        assert Query.make(name, "A", 1).question


@given(st.text(max_size=60))
def test_hops_read_back_as_they_were(text: str) -> None:
    try:
        hop = Hop.from_text(text)
    except ValueError:
        return
    assert Hop.from_text(hop.to_text()) == hop


LABELS = st.sampled_from(
    [f"h{n}.test" for n in range(8)] + ["", "bad name", "10.0.0.1"]
)
ANSWERS: st.SearchStrategy[Answer] = st.one_of(
    st.lists(st.sampled_from([f"127.0.9.{n}" for n in range(1, 6)]), min_size=1).map(
        lambda found: Records(tuple(found), 1)
    ),
    st.just(NoData()),
    st.just(NoSuchDomain()),
    st.just(DnsFailed("x")),
)


@given(
    st.lists(st.tuples(st.integers(0, 3), LABELS), min_size=1, max_size=12),
    st.dictionaries(st.sampled_from([f"h{n}.test" for n in range(8)]), ANSWERS),
    st.integers(0, 1 << 64),
)
def test_choice_is_sorted_and_never_ourselves_nor_worse(
    records: list[tuple[int, str]], answers: dict[str, Answer], seed: int
) -> None:
    own = OwnNames.of(["h0.test"], ["127.0.9.1"])
    mx = Records((), 1, tuple(MxRecord(p, n) for p, n in records))
    found = candidates("w.test", mx, seed)
    if not isinstance(found, Candidates):
        return
    chosen = choose("w.test", found, {n: (a,) for n, a in answers.items()}, own)
    if not isinstance(chosen, Hosts):
        return
    preferences = [host.preference for host in chosen.hosts]
    assert preferences == sorted(preferences)
    ours = [p for p, n in records if n == "h0.test"]
    for p, n in records:
        answer = answers.get(n)
        if isinstance(answer, Records) and "127.0.9.1" in answer.values:
            best = min(q for q, m in records if m == n)
            ours.append(best if best <= p else p)
    assert all(p < min(ours, default=99) for p in preferences)
    for host in chosen.hosts:
        assert host.addresses
        assert all(ip_address(address) for address in host.addresses)
