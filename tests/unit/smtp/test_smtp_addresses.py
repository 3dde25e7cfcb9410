"""Addresses as envelopes carry them: what is one, what is not, and how it is read."""

import pytest

from postroom.mail.address import NULL_SENDER, Address, AddressError

GOOD = [
    ("", "", ""),
    ("postmaster", "postmaster", ""),
    ("|/bin/sh", "|/bin/sh", ""),  # only a name: what to do with it is for the route
    ("a@b", "a", "b"),
    ("first.last@mail.example.org", "first.last", "mail.example.org"),
    ("a+tag=x@example.org", "a+tag=x", "example.org"),
    ("!#$%&'*+-/=?^_`{|}~@example.org", "!#$%&'*+-/=?^_`{|}~", "example.org"),
    ("x%elsewhere@example.org", "x%elsewhere", "example.org"),
    ("host!x@example.org", "host!x", "example.org"),
    ('"a b"@example.org', "a b", "example.org"),
    ('"a\\"b\\\\c"@example.org', 'a"b\\c', "example.org"),
    ('"x@y"@example.org', "x@y", "example.org"),
    ('"plain"@example.org', "plain", "example.org"),
    ('"\\p"@example.org', "p", "example.org"),
    ("a@Example.ORG", "a", "Example.ORG"),
    ("a@example.org.", "a", "example.org"),
    ("a@under_score.example", "a", "under_score.example"),
    ("a@127.0.0.1", "a", "127.0.0.1"),
    ("a@[127.0.0.1]", "a", "[127.0.0.1]"),
    ("a@[IPv6:2001:DB8::1]", "a", "[IPv6:2001:db8::1]"),
    ("a@[ipv6:::1]", "a", "[IPv6:::1]"),
    ("@one.example:a@b", "a", "b"),
    ("@one.example,@two.example:a@b", "a", "b"),
    ("jürgen@münchen.example", "jürgen", "münchen.example"),
    ("a" * 64 + "@b", "a" * 64, "b"),
    ("a@" + "x" * 63 + ".example", "a", "x" * 63 + ".example"),
]

BAD = [
    "@",
    "a@",
    "@b",
    "a@b@c",
    "a b@c",
    " a@b",
    "a@b ",
    ".a@b",
    "a.@b",
    "a..b@c",
    "a@.b",
    "a@b..",
    "a@b..c",
    "a@-b",
    "a@b-",
    "a@b-.c",
    "a@b/c",
    "a@b:25",
    "<a@b>",
    "a,b@c",
    "a;b@c",
    "a(b)@c",
    "a\\b@c",
    "a[b]@c",
    '""',
    '""@b',
    '"a@b',
    '"a"b@c',
    'a"b"@c',
    'a."b"@c',
    '"a\\"@b',
    '"a\nb"@c',
    '"a\\\nb"@c',
    '"a\0b"@c',
    "a\r\n@b",
    "a@b\r\n",
    "a\0@b",
    "a\x7f@b",
    "a\x85b@c",
    "a@b\u2028c",
    "a\ud800@b",
    ":include:/etc/passwd@",
    "a@[127.0.0.1",
    "a@[127.0.0.256]",
    "a@[127.0.0]",
    "a@[127.000.0.1]",
    "a@[IPv6:127.0.0.1]",
    "a@[IPv6:fe80::1%eth0]",
    "a@[::1]",
    "a@[x]",
    "a@[]",
    "@one.example:",
    "@one.example,two.example:a@b",
    "@one.example,:a@b",
    "a" * 65 + "@b",
    '"' + "a" * 65 + '"@b',
    "é" * 33 + "@b",
    "a@" + "x" * 64 + ".example",
    "a@" + ".".join(["x" * 60] * 5),
]


@pytest.mark.parametrize(("text", "local", "domain"), GOOD, ids=[g[0] for g in GOOD])
def test_good(text: str, local: str, domain: str) -> None:
    address = Address.from_text(text)
    assert (address.local, address.domain) == (local, domain)
    assert Address.from_text(address.to_text()) == address


@pytest.mark.parametrize("text", BAD)
def test_bad(text: str) -> None:
    with pytest.raises(AddressError):
        Address.from_text(text)


def test_what_an_address_knows() -> None:
    assert NULL_SENDER.is_null
    assert NULL_SENDER.to_text() == ""
    assert not Address("a", "b").is_null
    assert Address("a", "Example.ORG").domain_key == "example.org"
    assert str(Address("a b", "c")) == '"a b"@c'
    assert Address("a", "b").is_ascii
    assert not Address("ü", "b").is_ascii
    assert not Address("a", "ü").is_ascii


def test_a_long_route_is_read_in_linear_time() -> None:
    route = ",".join(["@" + "a-" * 30 + "a.example"] * 2000)
    assert Address.from_text(f"{route}:a@b") == Address("a", "b")
    with pytest.raises(AddressError):
        Address.from_text(f"{route}a@b")
