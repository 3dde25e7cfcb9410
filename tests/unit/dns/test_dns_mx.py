"""The choice of hosts (RFC 5321 §5.1, RFC 7505): pure, so it is all tables."""

from collections.abc import Sequence

import pytest

from postroom.dns.answer import (
    Answer,
    DnsFailed,
    MxRecord,
    NoData,
    NoSuchDomain,
    Records,
)
from postroom.dns.mx import (
    MX_HOSTS_MAX,
    Candidates,
    Exchanger,
    Exchangers,
    Hosts,
    LoopsBack,
    MxHost,
    NoMail,
    NullMx,
    candidates,
    choose,
    order_addresses,
)
from postroom.dns.own import OwnNames

GONZO = OwnNames.of(["gonzo.test", "mx.gonzo.test"], ["127.0.1.1", "::1"])


def mx(*texts: str) -> Records:
    split = (text.split() for text in texts)
    return Records((), 1, tuple(MxRecord(int(p), n.rstrip(".")) for p, n in split))


def a(*addresses: str) -> Sequence[Answer]:
    return (Records(addresses, 1),)


def decide(found: Answer, hosts: dict[str, Sequence[Answer]]) -> Exchangers:
    named = candidates("w.test", found, seed=1)
    return (
        choose("w.test", named, hosts, GONZO)
        if isinstance(named, Candidates)
        else named
    )


FAILED = DnsFailed("SERVFAIL")
LOOP = LoopsBack("w.test", "mx.gonzo.test")
UNKNOWN = NoMail("5.1.2", "Host unknown (Name server: w.test: host not found)")
CASES: dict[str, tuple[Answer, dict[str, Sequence[Answer]], Exchangers]] = {
    "sorted by preference": (
        mx("20 b.test", "10 a.test"),
        {"a.test": a("127.0.2.1"), "b.test": a("127.0.2.2")},
        Hosts(
            (
                Exchanger("a.test", 10, ("127.0.2.1",)),
                Exchanger("b.test", 20, ("127.0.2.2",)),
            )
        ),
    ),
    "implicit MX": (
        NoData(),
        {"w.test": a("127.0.2.1")},
        Hosts((Exchanger("w.test", 0, ("127.0.2.1",)),)),
    ),
    "no MX, no address": (
        NoData(),
        {"w.test": (NoData(),)},
        NoMail(
            "5.1.2", "Host unknown (Name server: w.test: no MX and no address records)"
        ),
    ),
    "no MX, no name": (NoData(), {"w.test": (NoSuchDomain(),)}, UNKNOWN),
    "no domain": (NoSuchDomain(), {}, UNKNOWN),
    "MX look-up failed": (FAILED, {}, FAILED),
    "address look-up failed": (mx("10 a.test"), {"a.test": (FAILED,)}, FAILED),
    "one host failed, another stands": (
        mx("10 a.test", "20 b.test"),
        {"a.test": (FAILED,), "b.test": a("127.0.2.2")},
        Hosts((Exchanger("b.test", 20, ("127.0.2.2",)),)),
    ),
    "AAAA failed, A stands": (
        mx("10 a.test"),
        {"a.test": (FAILED, *a("127.0.2.2"))},
        Hosts((Exchanger("a.test", 10, ("127.0.2.2",)),)),
    ),
    "one host missing, one failed: wait": (
        mx("10 a.test", "20 b.test"),
        {"a.test": (NoSuchDomain(),), "b.test": (FAILED,)},
        FAILED,
    ),
    "null MX": (mx("0 ."), {}, NullMx("w.test")),
    "null MX with any preference": (mx("10 ."), {}, NullMx("w.test")),
    "a dot among others is no host": (
        mx("0 .", "10 a.test"),
        {"a.test": a("127.0.2.1")},
        Hosts((Exchanger("a.test", 10, ("127.0.2.1",)),)),
    ),
    "MX with addresses for names": (
        mx("10 127.0.0.1", "20 10.0.0.1."),
        {},
        NoMail("5.4.4", "no MX record of w.test names a mail host"),
    ),
    "MX with names that are none": (
        mx("10 a\\032b.test", "20 -.test"),
        {},
        NoMail("5.4.4", "no MX record of w.test names a mail host"),
    ),
    "MX hosts without addresses do not fall back on the domain": (
        mx("10 a.test"),
        {"a.test": (NoData(),), "w.test": a("127.0.2.1")},
        NoMail("5.4.4", "no MX host of w.test has an address (a.test)"),
    ),
    "we are second: worse and equal ones are dropped": (
        mx("10 a.test", "20 mx.gonzo.test", "20 b.test", "30 c.test"),
        {n: a("127.0.2.1") for n in ("a.test", "b.test", "c.test")},
        Hosts((Exchanger("a.test", 10, ("127.0.2.1",)),)),
    ),
    "we are best": (
        mx("10 mx.gonzo.test", "20 b.test"),
        {"b.test": a("127.0.2.1")},
        LOOP,
    ),
    "we are among the best": (
        mx("10 mx.gonzo.test", "10 b.test"),
        {"b.test": a("127.0.2.1")},
        LOOP,
    ),
    "only better host has no address: loop": (
        mx("10 a.test", "20 mx.gonzo.test"),
        {"a.test": (NoData(),)},
        LOOP,
    ),
    "only better host failed: wait": (
        mx("10 a.test", "20 mx.gonzo.test"),
        {"a.test": (FAILED,)},
        FAILED,
    ),
    "a stranger's name for our address": (
        mx("10 a.test", "20 alias.test", "30 c.test"),
        {
            "a.test": a("127.0.2.1"),
            "alias.test": a("127.0.1.1"),
            "c.test": a("127.0.2.3"),
        },
        Hosts((Exchanger("a.test", 10, ("127.0.2.1",)),)),
    ),
    "our address in an equal group drops all of it": (
        mx("10 a.test", "20 alias.test", "20 b.test"),
        {
            "a.test": a("127.0.2.1"),
            "alias.test": a("127.0.2.9", "::1"),
            "b.test": a("127.0.2.2"),
        },
        Hosts((Exchanger("a.test", 10, ("127.0.2.1",)),)),
    ),
    "implicit MX is our address": (
        NoData(),
        {"w.test": a("127.0.1.1")},
        LoopsBack("w.test", "w.test"),
    ),
    "another loopback address is another host": (
        mx("10 a.test"),
        {"a.test": a("127.0.1.2")},
        Hosts((Exchanger("a.test", 10, ("127.0.1.2",)),)),
    ),
    "one name twice: the better preference": (
        mx("20 a.test", "10 A.test"),
        {"a.test": a("127.0.2.1")},
        Hosts((Exchanger("a.test", 10, ("127.0.2.1",)),)),
    ),
    "one address twice is tried once": (
        mx("10 a.test"),
        {"a.test": (*a("127.0.2.1"), *a("127.0.2.1"))},
        Hosts((Exchanger("a.test", 10, ("127.0.2.1",)),)),
    ),
}


@pytest.mark.parametrize(
    ("found", "hosts", "expected"), CASES.values(), ids=CASES.keys()
)
def test_choice(
    found: Answer, hosts: dict[str, Sequence[Answer]], expected: Exchangers
) -> None:
    assert decide(found, hosts) == expected


def test_equal_ones_are_shuffled_fairly_and_by_the_seed_alone() -> None:
    found = mx(*(f"10 {name}.test" for name in "abcd"), "5 z.test")
    firsts = {name: 0 for name in "abcd"}
    for seed in range(2000):
        named = candidates("w.test", found, seed)
        assert isinstance(named, Candidates)
        assert named == candidates("w.test", found, seed)
        assert named.hosts[0].name == "z.test"
        firsts[named.hosts[1].name[0]] += 1
    assert all(400 < count < 600 for count in firsts.values()), firsts


def test_at_most_a_hundred_hosts_best_first() -> None:
    found = mx(*(f"{999 - n} h{n}.test" for n in range(300)))
    named = candidates("w.test", found, 1)
    assert isinstance(named, Candidates)
    assert len(named.hosts) == MX_HOSTS_MAX
    assert named.hosts[0] == MxHost("h299.test", 700)


def test_own_address_with_a_port_we_do_not_listen_on_is_a_neighbour() -> None:
    own = OwnNames.of([], ["127.0.0.1"], [25])
    named = Candidates((MxHost("filter.test", 0),))
    hosts = {"filter.test": a("127.0.0.1")}
    assert isinstance(choose("filter.test", named, hosts, own, port=10025), Hosts)
    assert isinstance(choose("filter.test", named, hosts, own, port=25), LoopsBack)


def test_listening_everywhere_all_of_loopback_is_ours() -> None:
    own = OwnNames.of([], ["127.0.0.1"], [25], everywhere=True)
    assert own.is_address("127.0.0.2", 25)
    assert own.is_address("::ffff:127.9.9.9", 25)
    assert not own.is_address("127.0.0.2", 10025)
    assert not own.is_address("128.0.0.1", 25)
    assert not GONZO.is_address("127.0.0.2", 25)


def test_order_of_address_families() -> None:
    six, four = Records(("::2",), 1), Records(("127.0.0.2",), 1)
    assert order_addresses(six, four, "ipv6-first") == (six, four)
    assert order_addresses(six, four, "ipv4-first") == (four, six)
    assert order_addresses(None, four, "ipv4-only") == (four,)


def test_reasons_are_sentences_for_people() -> None:
    assert LOOP.reason.startswith("config error: mail loops back to me (MX problem?)")
    assert NullMx("w.test").reason == "Host does not accept mail: MX 0 ."
    assert (NullMx("w.test").code, NullMx("w.test").status) == (556, "5.1.10")
