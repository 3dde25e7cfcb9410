"""The search for a hop's hosts asks as little as it needs."""

import pytest

from postroom.dns.answer import DnsFailed
from postroom.dns.exchangers import find_exchangers
from postroom.dns.mx import Exchanger, Hosts, LoopsBack, NoMail, NullMx
from postroom.dns.own import OwnNames
from postroom.testing.resolver import FakeResolver

OWN = OwnNames.of(["gonzo.test"], ["127.0.1.1"])


async def test_by_mx() -> None:
    resolver = FakeResolver(
        {
            "whizzer.test MX": ["20 backup.test", "10 mx.whizzer.test"],
            "mx.whizzer.test A": "127.0.1.2",
            "mx.whizzer.test AAAA": "2001:db8::2",
            "backup.test A": "127.0.1.3",
        }
    )
    found = await find_exchangers(resolver, "Whizzer.Test", OWN, 1)
    assert found == Hosts(
        (
            Exchanger("mx.whizzer.test", 10, ("2001:db8::2", "127.0.1.2")),
            Exchanger("backup.test", 20, ("127.0.1.3",)),
        )
    )
    found = await find_exchangers(resolver, "whizzer.test", OWN, 1, order="ipv4-only")
    assert isinstance(found, Hosts)
    assert found.hosts[0].addresses == ("127.0.1.2",)


async def test_brackets_skip_mx() -> None:
    resolver = FakeResolver(
        {"relay.test A": "127.0.1.2", "relay.test MX": ["1 x.test"]}
    )
    found = await find_exchangers(resolver, "[relay.test]:587", OWN, 1)
    assert found == Hosts((Exchanger("relay.test", 0, ("127.0.1.2",)),))
    assert "relay.test MX" not in resolver.asked


@pytest.mark.parametrize(
    ("hop", "address"),
    [("[127.0.1.2]", "127.0.1.2"), ("[IPv6:2001:db8::1]:25", "2001:db8::1")],
)
async def test_literals_ask_nothing(hop: str, address: str) -> None:
    resolver = FakeResolver()
    found = await find_exchangers(resolver, hop, OWN, 1)
    assert found == Hosts((Exchanger(hop.removesuffix(":25"), 0, (address,)),))
    assert not resolver.asked


async def test_a_hundred_mx_cost_only_the_best_ones() -> None:
    told = {f"h{n}.test A": f"127.1.0.{n}" for n in range(100)}
    names = [f"{n // 10} h{n}.test" for n in range(100)]
    resolver = FakeResolver({"many.test MX": names, **told})
    found = await find_exchangers(resolver, "many.test", OWN, 1)
    assert isinstance(found, Hosts)
    assert len(found.hosts) == 10
    assert len(resolver.asked) == 1 + 2 * 10


async def test_worse_ones_are_asked_for_when_better_ones_have_no_address() -> None:
    resolver = FakeResolver(
        {"w.test MX": ["1 a.test", "2 b.test", "3 c.test"], "c.test A": "127.0.1.2"}
    )
    found = await find_exchangers(resolver, "w.test", OWN, 1)
    assert found == Hosts((Exchanger("c.test", 3, ("127.0.1.2",)),))


async def test_behind_our_own_address_nothing_is_asked() -> None:
    resolver = FakeResolver(
        {
            "w.test MX": ["1 a.test", "2 b.test", "3 c.test"],
            "a.test A": "127.0.1.9",
            "b.test A": "127.0.1.1",
        }
    )
    found = await find_exchangers(resolver, "w.test", OWN, 1)
    assert found == Hosts((Exchanger("a.test", 1, ("127.0.1.9",)),))
    assert "c.test A" not in resolver.asked


FAILURES = {
    "null MX": ("null.test", NullMx("null.test")),
    "loop": ("[127.0.1.1]", LoopsBack("[127.0.1.1]", "[127.0.1.1]")),
    "loop by name": ("loop.test", LoopsBack("loop.test", "gonzo.test")),
    "failure": ("broken.test", DnsFailed("SERVFAIL")),
}


@pytest.mark.parametrize(("hop", "expected"), FAILURES.values(), ids=FAILURES.keys())
async def test_failures(hop: str, expected: object) -> None:
    resolver = FakeResolver(
        {
            "null.test MX": ["0 ."],
            "loop.test MX": ["5 gonzo.test"],
            "broken.test MX": DnsFailed("SERVFAIL"),
        }
    )
    assert await find_exchangers(resolver, hop, OWN, 1) == expected


async def test_what_is_no_hop_is_unknown() -> None:
    found = await find_exchangers(FakeResolver(), "a b", OWN, 1)
    assert isinstance(found, NoMail)
    assert found.status == "5.1.2"
