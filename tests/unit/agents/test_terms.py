"""Which terms hold for a destination, and what settings are refused."""

import msgspec
import pytest

from postroom.agents.settings import Destination, SmtpAgentSettings
from postroom.agents.terms import Terms, TermsBook
from postroom.agents.way import Place, Ways
from postroom.config.load import parse
from postroom.config.problems import ConfigError
from postroom.dns.own import OwnNames
from postroom.testing.resolver import FakeResolver

BOOK = TermsBook(
    SmtpAgentSettings(
        helo_name="out.gonzo.test",
        logins_file="logins",
        destination=(
            Destination(match=("Partner.TEST.", ".partner.test"), tls="verified"),
            Destination(match=("deep.partner.test",), tls="required"),
            Destination(match=("[relay.test]",), login="relay"),
            Destination(match=("[relay.test]:465", "[192.0.2.1]"), login="other"),
            Destination(match=("[IPv6:2001:DB8:0::1]",), source_ipv6="2001:db8::2"),
            Destination(match=("unix:/run/lmtp",), helo_name="in.test"),
            Destination(match=("bücher.test",), tls="off"),
        ),
    )
)

HOPS: dict[str, tuple[str, str, str]] = {
    "of nobody": ("x.test", "opportunistic", ""),
    "of a domain": ("partner.test", "verified", ""),
    "beneath": ("a.b.partner.test", "verified", ""),
    "more specific": ("deep.partner.test", "required", ""),
    "beneath the more specific": ("x.deep.partner.test", "verified", ""),
    "not beneath": ("xpartner.test", "opportunistic", ""),
    "a host without MX": ("[mx.partner.test]", "verified", ""),
    "a smart host": ("[relay.test]:587", "opportunistic", "relay"),
    "a smart host at its port": ("[relay.test]:465", "opportunistic", "other"),
    "by MX is not the same": ("relay.test", "opportunistic", ""),
    "an address": ("[192.0.2.1]", "opportunistic", "other"),
    "an address with a port": ("[192.0.2.1]:26", "opportunistic", "other"),
    "in another alphabet": ("xn--bcher-kva.test", "off", ""),
    "said by the route": ("partner.test;tls=off;login=x", "off", "x"),
}


@pytest.mark.parametrize(("hop", "tls", "login"), HOPS.values(), ids=HOPS.keys())
def test_of_hop(hop: str, tls: str, login: str) -> None:
    terms, _ = BOOK.of_hop(hop)
    assert (terms.tls, terms.login) == (tls, login)
    assert terms.helo_name == "out.gonzo.test"
    assert BOOK.of_hop(hop)[0] is terms  # made once


def test_of_sockets_and_ipv6() -> None:
    assert BOOK.of_hop("unix:/run/lmtp")[0].helo_name == "in.test"
    assert BOOK.of_hop("/run/lmtp")[0].helo_name == "in.test"
    assert BOOK.of_hop("[IPv6:2001:db8::1]:25")[0].source_ipv6 == "2001:db8::2"


def test_of_host() -> None:
    terms, by_host = BOOK.of_hop("x.test")
    assert by_host
    assert BOOK.of_host("x.test", "mx.partner.test").tls == "verified"
    assert BOOK.of_host("x.test", "mx.x.test") is terms
    assert not BOOK.of_hop("partner.test")[1]  # said of the domain: hosts do not matter


def test_everywhere_else() -> None:
    book = TermsBook(
        SmtpAgentSettings(
            destination=(
                Destination(match=("*",), tls="required"),
                Destination(match=("mx.test",), tls="off"),
            )
        )
    )
    assert book.of_hop("x.test")[0].tls == "required"
    assert book.of_host("x.test", "mx.test").tls == "off"
    assert book.of_host("x.test", "other.test").tls == "required"


def test_without_entries_nothing_is_looked_for() -> None:
    assert TermsBook(SmtpAgentSettings()).of_hop("x.test")[1] is False


@pytest.mark.parametrize(
    ("implicit", "tls", "port", "expected"),
    [
        ("auto", "opportunistic", 465, True),
        ("auto", "off", 465, False),
        ("auto", "verified", 587, False),
        ("always", "verified", 587, True),
        ("never", "verified", 465, False),
    ],
)
def test_implicit(implicit: str, tls: str, port: int, expected: bool) -> None:
    terms = msgspec.convert({"implicit_tls": implicit, "tls": tls}, Terms)
    assert terms.is_implicit(port) is expected


def test_keys_part_connections() -> None:
    keys = {BOOK.of_hop(hop)[0].key for hop, *_ in HOPS.values()}
    assert len(keys) == len({BOOK.of_hop(hop)[0] for hop, *_ in HOPS.values()})
    assert Terms().key == ""


WRONG: dict[str, tuple[str, str]] = {
    "no such level": ('[outbound]\ntls = "maybe"', "one of"),
    "no such mechanism": ('[outbound]\nauth_mechanisms = ["NTLM"]', "NTLM"),
    "names of nobody": ("[outbound]\ntls_names = []", "tls_names is empty"),
    "a name that is none": ('[outbound]\ntls_names = ["a b"]', "no name of a host"),
    "a source that is none": ('[outbound]\nsource_ipv4 = "::1"', "no such address"),
    "a HELO that is none": ('[outbound]\nhelo_name = "-"', "no host name"),
    "a login without a file": ('[outbound]\nlogin = "x"', "no logins_file"),
    "matches nothing": ("[[outbound.destination]]\nmatch = []", "match is empty"),
    "no pattern": ('[[outbound.destination]]\nmatch = ["a b"]', "no pattern"),
    "no match": ('[[outbound.destination]]\ntls = "off"', '"match" is missing'),
    "twice": (
        '[[outbound.destination]]\nmatch = ["a.test", "A.test."]',
        "there twice",
    ),
    "misspelt": (
        '[[outbound.destination]]\nmatch = ["a"]\nsource = "x"',
        "no such setting",
    ),
}


@pytest.mark.parametrize(("text", "words"), WRONG.values(), ids=WRONG.keys())
def test_settings_that_cannot_be(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse(text, "/etc/p.toml")


async def test_families_take_turns_within_a_host() -> None:
    zone = {
        "x.test MX": ["10 mx.test"],
        "mx.test AAAA": ["2001:db8::1", "2001:db8::2", "2001:db8::3"],
        "mx.test A": ["192.0.2.1", "192.0.2.2"],
    }
    ways = Ways(SmtpAgentSettings(), FakeResolver(zone), OwnNames(), 0, lmtp=False)
    peers = await ways.peers("x.test;tls=required")
    assert isinstance(peers, list)
    assert [peer.ip for peer in peers] == [
        "2001:db8::1",
        "192.0.2.1",
        "2001:db8::2",
        "192.0.2.2",
        "2001:db8::3",
    ]


async def test_hosts_with_terms_of_their_own_part_connections() -> None:
    """Hops with the same hosts, but not all heed what is said of a host."""
    zone = {f"{name}.test MX": ["10 mx.test"] for name in "abc"}
    zone["mx.test A"] = ["192.0.2.1"]
    entries = (
        Destination(match=("a.test",), tls="opportunistic"),
        Destination(match=("mx.test",), tls="verified"),
    )
    settings = SmtpAgentSettings(destination=entries)
    ways = Ways(settings, FakeResolver(zone), OwnNames(), 0, lmtp=False)
    pools: dict[str, str] = {}
    for hop in ("a.test", "b.test", "c.test", "b.test;tls=opportunistic"):
        place = await ways.look(hop)
        assert isinstance(place, Place)
        assert place.is_strict is (hop in ("b.test", "c.test"))
        pools[hop] = place.pool
    assert pools["b.test"] == pools["c.test"]
    assert pools["a.test"] == pools["b.test;tls=opportunistic"] == "mx.test:25"
    assert pools["b.test"] != pools["a.test"]
