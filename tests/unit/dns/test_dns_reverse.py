"""The name of a client is only what leads back to it."""

from typing import Any

import pytest

from postroom.dns.answer import DnsFailed
from postroom.dns.reverse import NAMES_MAX, Reverse, ReverseName, reverse_name
from postroom.testing.resolver import FakeResolver

PTR = "1.2.0.192.in-addr.arpa PTR"
V6 = f"1.{'0.' * 23}8.b.d.0.1.0.0.2.ip6.arpa PTR"
SERVFAIL = DnsFailed("SERVFAIL")

CASES: dict[str, tuple[str, dict[str, Any], ReverseName]] = {
    "verified": (
        "192.0.2.1",
        {PTR: "mx.test", "mx.test A": "192.0.2.1"},
        ReverseName(Reverse.VERIFIED, "mx.test", "mx.test"),
    ),
    "verified, IPv6": (
        "2001:db8::1",
        {V6: "mx.test", "mx.test AAAA": "2001:db8:0:0::1"},
        ReverseName(Reverse.VERIFIED, "mx.test", "mx.test"),
    ),
    "IPv4 within IPv6": (
        "::ffff:192.0.2.1",
        {PTR: "mx.test", "mx.test A": "192.0.2.1"},
        ReverseName(Reverse.VERIFIED, "mx.test", "mx.test"),
    ),
    "the second name leads back": (
        "192.0.2.1",
        {PTR: ["old.test", "mx.test"], "mx.test A": ["192.0.2.9", "192.0.2.1"]},
        ReverseName(Reverse.VERIFIED, "mx.test", "old.test"),
    ),
    "somebody else's name": (
        "192.0.2.1",
        {PTR: "mx.bank.test", "mx.bank.test A": "203.0.113.1"},
        ReverseName(Reverse.UNVERIFIED, "", "mx.bank.test"),
    ),
    "the name has only the other family": (
        "192.0.2.1",
        {PTR: "mx.test", "mx.test AAAA": "2001:db8::1"},
        ReverseName(Reverse.UNVERIFIED, "", "mx.test"),
    ),
    "no name": ("192.0.2.1", {}, ReverseName(Reverse.MISSING)),
    "no proper name": (
        "192.0.2.1",
        {PTR: ["bad name.test", "x;y", "\\000.test", ""]},
        ReverseName(Reverse.MISSING),
    ),
    "too many names": (
        "192.0.2.1",
        {PTR: [f"n{n}.test" for n in range(NAMES_MAX)] + ["mx.test"],
         "mx.test A": "192.0.2.1"},
        ReverseName(Reverse.UNVERIFIED, "", "n0.test"),
    ),
    "the reverse zone fails": (
        "192.0.2.1", {PTR: SERVFAIL}, ReverseName(Reverse.FAILED)
    ),
    "the forward zone fails": (
        "192.0.2.1",
        {PTR: "mx.test", "mx.test A": SERVFAIL},
        ReverseName(Reverse.FAILED, "", "mx.test"),
    ),
    "no address": ("a socket", {}, ReverseName(Reverse.MISSING)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
async def test_reverse_names(name: str) -> None:
    ip, answers, found = CASES[name]
    assert await reverse_name(FakeResolver(answers), ip) == found
