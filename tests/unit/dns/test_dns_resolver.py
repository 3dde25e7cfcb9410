"""The resolver against a name server that tells the truth, and every lie."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from postroom.dns.answer import (
    Answer,
    DnsFailed,
    MxRecord,
    NoData,
    NoSuchDomain,
    Query,
    Records,
    Refused,
)
from postroom.dns.cache import AnswerCache
from postroom.dns.resolver import Resolver
from postroom.dns.settings import ResolverSettings
from postroom.mail.now import Now
from postroom.mail.units import Duration
from postroom.testing.nameserver import NameServer
from postroom.testing.zone import Lie, Zone

RECORDS = [
    "whizzer.test    MX  10 mx.whizzer.test",
    "mx.whizzer.test 5 A 127.0.1.2",
    "mx.whizzer.test AAAA ::2  ; a comment",
    "alias.test CNAME whizzer.test",
    "big.test TXT " + " ".join(f'"{"x" * 200}"' for _ in range(20)),
]
LIES = [f"{lie.value}.test LIE {lie.value}" for lie in Lie]
LIES += [f"{lie.value}.test MX 10 mx.whizzer.test" for lie in Lie]


class Clock:
    def __init__(self) -> None:
        self.us = 1_000_000

    def __call__(self) -> Now:
        return Now(self.us, self.us)


@asynccontextmanager
async def running(
    *servers: str, wait: str = "250ms", **changes: object
) -> AsyncIterator[tuple[Resolver, NameServer, Clock]]:
    clock = Clock()
    async with NameServer(Zone([*RECORDS, *LIES])) as server:
        settings = ResolverSettings(
            nameservers=(*servers, server.address),
            timeout=Duration.from_text(wait),
            tries=1,
            **changes,  # type: ignore[arg-type]
        )
        resolver = Resolver(settings, clock)
        yield resolver, server, clock
        await resolver.aclose()


TRUE_MX = Records((), 60_000_000, (MxRecord(10, "mx.whizzer.test"),))


async def test_truth() -> None:
    async with running(wait="3s") as (resolver, _, _):
        assert await resolver.query("Whizzer.Test.", "MX") == TRUE_MX
        assert await resolver.query("alias.test", "MX") == TRUE_MX
        assert await resolver.query("mx.whizzer.test", "A") == Records(
            ("127.0.1.2",), 5_000_000
        )
        assert await resolver.query("mx.whizzer.test", "MX") == NoData(60_000_000)
        assert await resolver.query("none.test", "MX") == NoSuchDomain(60_000_000)
        assert await resolver.query("test", "MX") == NoData(60_000_000)
        assert await resolver.query("no name", "MX") == NoSuchDomain()


LIED: dict[Lie, Answer | str] = {
    Lie.WRONG_ID: "no answer in 30ms",
    Lie.WRONG_QUESTION: "no answer in 30ms",
    Lie.FORGED_FIRST: TRUE_MX,
    Lie.TRUNCATED: TRUE_MX,
    Lie.TRUNCATED_NO_TCP: "truncated answer, and by TCP: connection closed",
    Lie.CNAME_LOOP: "CNAME loop",
    Lie.CNAME_CHAIN: "more than 8 CNAMEs",
    Lie.SERVFAIL: "SERVFAIL",
    Lie.REFUSED: "REFUSED",
    Lie.FORMERR_ON_EDNS: TRUE_MX,
    Lie.REFERRAL: "a referral instead of an answer",
    Lie.GARBAGE: "malformed answer",
    Lie.SILENCE: "no answer in 30ms",
}


@pytest.mark.parametrize(("lie", "expected"), LIED.items(), ids=LIED.keys())
async def test_lies_defer_or_do_not_matter(lie: Lie, expected: Answer | str) -> None:
    wait = "3s" if isinstance(expected, Records) else "30ms"
    async with running(wait=wait) as (resolver, _, _):
        found = await resolver.query(f"{lie.value}.test", "MX")
    if isinstance(expected, str):
        assert isinstance(found, DnsFailed)
        assert expected in found.reason
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("tries", "asked"), [(1, [True]), (2, [True, False]), (3, [True, True, False])]
)
async def test_the_last_try_is_without_edns(
    tries: int, asked: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some devices drop what has EDNS, and nobody answers."""
    had_edns: list[bool] = []

    async def ask(server: object, query: Query, limits: object, seen: object) -> object:
        had_edns.append(query.has_edns)
        return Refused("no answer", answered=False) if query.has_edns else TRUE_MX

    monkeypatch.setattr("postroom.dns.resolver.ask", ask)
    settings = ResolverSettings(nameservers=("127.0.0.1",), tries=tries)
    found = await Resolver(settings, lambda: Now(0, 0)).query("whizzer.test", "MX")
    assert had_edns == asked
    assert isinstance(found, DnsFailed if tries == 1 else Records)


async def test_a_hundred_mx() -> None:
    async with running(wait="3s") as (resolver, _, _):
        found = await resolver.query("many-mx.test", "MX")
    assert isinstance(found, Records)
    assert len(found.exchanges) == 100


async def test_large_answer_comes_by_tcp() -> None:
    async with running(wait="3s") as (resolver, server, _):
        found = await resolver.query("big.test", "TXT")
    assert found == Records(("x" * 4000,), 60_000_000)
    assert (server.udp_questions, server.tcp_questions) == (1, 1)


async def test_cache_keeps_to_the_ttl() -> None:
    async with running(wait="3s") as (resolver, server, clock):
        await resolver.query("mx.whizzer.test", "A")
        await resolver.query("MX.Whizzer.Test", "A")
        assert server.udp_questions == 1
        clock.us += 4_999_999
        assert resolver.cached("mx.whizzer.test", "A", clock()) is not None
        clock.us += 1
        assert resolver.cached("mx.whizzer.test", "A", clock()) is None
        await resolver.query("mx.whizzer.test", "A")
        assert server.udp_questions == 2


async def test_negative_answers_and_failures_are_cached_too() -> None:
    async with running(wait="3s") as (resolver, server, clock):
        for name in ("none.test", "servfail.test"):
            for _ in range(3):
                await resolver.query(name, "MX")
        assert server.udp_questions == 2
        clock.us += 5_000_000
        assert resolver.cached("servfail.test", "MX", clock()) is None
        assert resolver.cached("none.test", "MX", clock()) == NoSuchDomain(60_000_000)
        resolver.forget()
        assert resolver.cached("none.test", "MX", clock()) is None
        assert resolver.cached("no name", "MX", clock()) == NoSuchDomain()


async def test_the_same_question_goes_out_once() -> None:
    async with running(wait="3s") as (resolver, server, _):
        found = await asyncio.gather(
            *(resolver.query("whizzer.test", "MX") for _ in range(50))
        )
    assert set(found) == {TRUE_MX}
    assert server.udp_questions == 1


async def test_one_caller_cancelled_does_not_disturb_the_others() -> None:
    async with running(wait="3s") as (resolver, _, _):
        first = asyncio.create_task(resolver.query("whizzer.test", "MX"))
        second = asyncio.create_task(resolver.query("whizzer.test", "MX"))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == TRUE_MX
        assert first.cancelled() or await first == TRUE_MX


async def test_the_next_server_is_asked_after_silence_and_servfail() -> None:
    broken = Zone(["whizzer.test LIE servfail"])
    silent = Zone(["whizzer.test LIE silence"])
    async with (
        NameServer(broken) as first,
        NameServer(silent) as second,
        running(first.address, second.address, wait="60ms") as (resolver, third, _),
    ):
        assert await resolver.query("whizzer.test", "MX") == TRUE_MX
        assert (first.udp_questions, second.udp_questions) == (1, 1)
        # the one that answered is asked first from now on
        await resolver.query("none.test", "MX")
        assert third.udp_questions == 2
        assert (first.udp_questions, second.udp_questions) == (1, 1)


async def test_nobody_listens() -> None:
    settings = ResolverSettings(nameservers=("127.0.0.1:1",), tries=2)
    found = await Resolver(settings, Clock()).query("a.test", "A")
    assert isinstance(found, DnsFailed)
    assert "127.0.0.1:1" in found.reason


async def test_silence_is_tried_again_refusal_is_not() -> None:
    async with NameServer(Zone(LIES)) as server:
        settings = ResolverSettings(
            nameservers=(server.address,), timeout=Duration.from_text("20ms"), tries=3
        )
        resolver = Resolver(settings, Clock())
        await resolver.query("silence.test", "MX")
        assert server.udp_questions == 3
        await resolver.query("refused.test", "MX")
        assert server.udp_questions == 4


async def test_alias_into_another_zone_is_asked_on_for() -> None:
    class Short(Zone):
        """Answers with the first alias only, as a lazy server does."""

        def fill(self, reply) -> None:  # type: ignore[no-untyped-def]
            super().fill(reply)
            if len(reply.answer) > 1:
                del reply.answer[1:]
                reply.authority.clear()

    records = ["a.test 30 CNAME b.test", "b.test CNAME c.test", "c.test A 127.0.0.9"]
    loop = ["x.test CNAME y.test", "y.test CNAME x.test"]
    async with NameServer(Short([*records, *loop])) as server:
        resolver = Resolver(ResolverSettings(nameservers=(server.address,)), Clock())
        found = await resolver.query("a.test", "A")
        assert found == Records(("127.0.0.9",), 30_000_000)
        looped = await resolver.query("x.test", "A")
        assert looped == DnsFailed("y.test: CNAME loop")


async def test_close_gives_up() -> None:
    async with NameServer(Zone(LIES)) as server:
        resolver = Resolver(ResolverSettings(nameservers=(server.address,)), Clock())
        asking = asyncio.create_task(resolver.query("silence.test", "MX"))
        await asyncio.sleep(0)
        await resolver.aclose()
        with pytest.raises(asyncio.CancelledError):
            await asking


def test_bad_server_in_the_settings() -> None:
    with pytest.raises(ValueError, match="is no name server"):
        Resolver(ResolverSettings(nameservers=("ns.test",)), Clock())


def test_servers_of_the_system(tmp_path) -> None:  # type: ignore[no-untyped-def]
    conf = tmp_path / "resolv.conf"
    conf.write_text("nameserver 192.0.2.7\n")
    resolver = Resolver(ResolverSettings(resolv_conf=str(conf)), Clock())
    assert [str(server) for server in resolver.nameservers] == ["192.0.2.7:53"]


def test_cache_is_bounded_by_size_too() -> None:
    """Whoever has a domain decides how large its answers are."""
    cache = AnswerCache(entries_max=1000, octets_max=100_000, failure_ttl_us=0)
    mx = tuple(MxRecord(number, "x" * 200) for number in range(100))
    for number in range(20):
        cache.put(f"n{number}.test", "MX", Records((), 10, mx), 0)
        assert cache.octets <= 100_000
    assert len(cache) == 3
    assert cache.get("n19.test", "MX", 0) is not None
    cache.put("n19.test", "MX", NoData(10), 0)
    assert (len(cache), cache.octets < 70_000) == (3, True)
    cache.put("huge.test", "TXT", Records(("x" * 100_000,), 10), 0)
    assert cache.get("huge.test", "TXT", 0) is None
    assert len(cache) == 3
    cache.clear()
    assert cache.octets == 0


def test_cache_is_bounded_and_forgets_the_oldest() -> None:
    cache = AnswerCache(entries_max=3, octets_max=1 << 20, failure_ttl_us=0)
    for number in range(5):
        cache.put(f"n{number}.test", "A", NoData(10), 0)
    assert len(cache) == 3
    assert cache.get("n1.test", "A", 5) is None
    assert cache.get("n4.test", "A", 5) == NoData(10)
    assert cache.get("n4.test", "A", 10) is None
    cache.put("n3.test", "A", DnsFailed("x"), 0)
    assert cache.get("n3.test", "A", 0) is None
