"""The order and company in which addresses are tried, without a network."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

import pytest

from postroom.agents.dialer import Dialled, dial
from postroom.agents.smtp_words import Peer
from postroom.mail.outcome import Deferred
from postroom.net.stream import Stream, StreamTimeout


class Wire:
    """A network in which each address does what a test says.

    Attributes:
        calls: the addresses that were tried, in order.
        aborted: those whose connection was made and then let go.
        cancelled: those that were given up before they answered.
    """

    def __init__(self, **how: str) -> None:
        self.how = how
        self.calls: list[str] = []
        self.aborted: list[str] = []
        self.cancelled: list[str] = []
        self.two_hang = asyncio.Event()

    async def connect(self, peer: Peer) -> Stream:
        self.calls.append(peer.ip)
        match self.how.get(peer.ip, "stands"):
            case "refuses":
                raise ConnectionRefusedError(111, "Connection refused")
            case "times out":
                raise StreamTimeout("no answer")
            case "hangs":
                if len(self.calls) == 2:
                    self.two_hang.set()
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    self.cancelled.append(peer.ip)
                    raise
        wire = self

        class Stood(Stream):
            def abort(self) -> None:
                wire.aborted.append(peer.ip)

        return Stood()


def peers(*hosts: str) -> list[Peer]:
    """Return ``mx1/a/b`` as host mx1 with the addresses a and b."""
    return [
        Peer(name, ip, 25)
        for name, *ips in (host.split("/") for host in hosts)
        for ip in ips
    ]


async def results(
    wire: Wire, among: Sequence[Peer], *, count: int = 99, stagger_s: float = 0
) -> list[Dialled]:
    """Take so many results, then let the rest go."""
    found: list[Dialled] = []
    async with aclosing(dial(among, wire.connect, stagger_s)) as dialling:
        async for dialled in dialling:
            found.append(dialled)
            if len(found) == count:
                break
    return found


def shown(found: Sequence[Dialled]) -> list[str]:
    return [
        f"{peer.ip} {'failed' if isinstance(stream, Deferred) else 'stands'}"
        for peer, stream in found
    ]


async def test_the_first_that_stands_ends_the_search() -> None:
    wire = Wire()
    found = await results(wire, peers("mx1/a/b", "mx2/c"), count=1)
    assert shown(found) == ["a stands"]
    assert wire.calls == ["a"]


@pytest.mark.parametrize("stagger_s", [0, 30])
async def test_one_after_another(stagger_s: float) -> None:
    wire = Wire(a="refuses", b="times out", c="refuses")
    among = peers("mx1/a/b", "mx2/c", "mx3/d/e")
    found = await results(wire, among, count=4, stagger_s=stagger_s)
    assert shown(found) == ["a failed", "b failed", "c failed", "d stands"]
    assert wire.calls == ["a", "b", "c", "d"]
    assert not wire.cancelled
    texts = [one.stream.text for one in found if isinstance(one.stream, Deferred)]
    assert texts[0] == "Connection refused by mx1."
    assert texts[1] == "Connection timed out with mx1."


async def test_a_slow_address_gets_company_of_its_own_host() -> None:
    wire = Wire(a="hangs")
    found = await results(wire, peers("mx1/a/b", "mx2/c"), count=1, stagger_s=0.001)
    assert shown(found) == ["b stands"]
    assert wire.calls == ["a", "b"]
    assert wire.cancelled == ["a"]


async def test_a_worse_host_is_no_company() -> None:
    """RFC 5321 §5.1: it is tried when the better one has failed, not before."""
    wire = Wire(a="hangs", b="hangs")
    task = asyncio.create_task(
        results(wire, peers("mx1/a/b", "mx2/c"), count=1, stagger_s=0.001)
    )
    await wire.two_hang.wait()
    for _ in range(50):
        await asyncio.sleep(0.001)
    assert wire.calls == ["a", "b"]
    task.cancel()
    await asyncio.wait([task])
    assert sorted(wire.cancelled) == ["a", "b"]


async def test_who_says_no_is_followed_by_the_next() -> None:
    wire = Wire()
    found = await results(wire, peers("mx1/a/b", "mx2/c"))
    assert shown(found) == ["a stands", "b stands", "c stands"]


async def test_what_stood_too_late_is_let_go() -> None:
    """Both stand at the same moment; only one is taken."""
    gate = asyncio.Event()
    wire = Wire()

    async def connect(peer: Peer) -> Stream:
        stream = await wire.connect(peer)
        if len(wire.calls) == 2:
            gate.set()
        await gate.wait()
        return stream

    taken: list[str] = []
    async with aclosing(dial(peers("mx1/a/b"), connect, 0.001)) as dialling:
        async for peer, _ in dialling:
            taken.append(peer.ip)
            await asyncio.sleep(0)
            break
    assert sorted(taken + wire.aborted) == ["a", "b"]


async def test_a_bug_in_connecting_is_no_outcome() -> None:
    async def connect(peer: Peer) -> Stream:
        raise RuntimeError("a bug")

    for among in (peers("mx1/a"), peers("mx1/a/b")):
        with pytest.raises(RuntimeError):
            async for _ in dial(among, connect, 0):
                pass
