"""The door behind a load balancer: whose word is taken, and what is told."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from postroom.mail.units import Duration
from postroom.net import sweeper
from postroom.net.clock import read_now
from postroom.net.connect import wrap
from postroom.net.settings import ProxySettings
from postroom.net.stream import Stream
from postroom.observe.events import AnyEvent, SessionRefused
from postroom.services.entrance import PLAIN, Entrance, learn_client

PROXY_IP, CLIENT_IP = "192.0.2.7", "198.51.100.9"
HEADER = b"PROXY TCP4 198.51.100.9 192.0.2.25 4242 25\r\n"
BEHIND = Entrance("smtp", proxy=ProxySettings(networks=("192.0.2.0/29",)))


class Door:
    """A connection that has come, and the proxy's side of it."""

    def __init__(self, stream: Stream, proxy: Stream) -> None:
        self.stream, self.proxy = stream, proxy
        self.told: list[AnyEvent] = []

    async def lets_in(self, entrance: Entrance = BEHIND) -> bool:
        return await learn_client(self.stream, entrance, self.told.append, read_now)

    @property
    def reasons(self) -> list[tuple[str, str]]:
        refused = [e for e in self.told if isinstance(e, SessionRefused)]
        assert len(refused) == len(self.told)
        return [(event.client_ip, event.why) for event in refused]


@asynccontextmanager
async def door(peer_ip: str = PROXY_IP) -> AsyncIterator[Door]:
    ours, theirs = socket.socketpair()
    stream, proxy = await wrap(ours), await wrap(theirs)
    stream.peer_ip, stream.peer_port = peer_ip, 1
    try:
        yield Door(stream, proxy)
    finally:
        stream.abort()
        proxy.abort()


async def test_the_client_is_whom_the_proxy_names() -> None:
    async with door() as d:
        d.proxy.write(HEADER + b"\x16\x03\x01")
        assert await d.lets_in()
        assert (d.stream.peer_ip, d.stream.peer_port) == (CLIENT_IP, 4242)
        assert await d.stream.read() == b"\x16\x03\x01"  # what is behind is kept
        assert not d.told


@pytest.mark.parametrize("cut", range(1, len(HEADER)))
async def test_headers_in_two_pieces(cut: int) -> None:
    async with door() as d:
        d.stream.put_back(HEADER[:cut])
        d.proxy.write(HEADER[cut:] + b"x")
        assert await d.lets_in()
        assert d.stream.peer_ip == CLIENT_IP
        assert await d.stream.read() == b"x"


async def test_a_proxy_that_speaks_for_itself() -> None:
    async with door() as d:
        d.proxy.write(b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00")
        assert await d.lets_in()
        assert d.stream.peer_ip == PROXY_IP


async def test_whoever_is_not_listed_is_not_heard() -> None:
    async with door("192.0.2.8") as d:
        d.proxy.write(HEADER)
        assert not await d.lets_in()
        assert d.reasons == [("192.0.2.8", "proxy: not a known proxy")]
        assert d.stream.peer_ip == "192.0.2.8"
        assert not d.stream.is_open


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"EHLO c.test\r\n", "proxy: no PROXY header"),
        (HEADER[:-1], "proxy: half a PROXY header"),
        (HEADER.replace(b"25\r", b"99999\r"), "proxy: PROXY line with a wrong port"),
    ],
)
async def test_bad_headers_end_the_connection(said: bytes, why: str) -> None:
    async with door() as d:
        d.proxy.write(said)
        d.proxy.close()
        assert not await d.lets_in()
        assert d.reasons == [(PROXY_IP, why)]
        assert not d.stream.is_open


@pytest.mark.parametrize("how", ["closes", "aborts"])
async def test_a_look_whether_we_are_there_is_not_told(how: str) -> None:
    async with door() as d:
        if how == "closes":
            d.proxy.close()
        else:
            d.proxy.abort()
        assert not await d.lets_in()
        assert not d.told


async def test_a_proxy_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper, "SWEEP_US", 1_000)
    hasty = ProxySettings(networks=(PROXY_IP,), timeout=Duration(1_000))
    async with door() as d:
        assert not await d.lets_in(Entrance("smtp", proxy=hasty))
        assert d.reasons == [(PROXY_IP, "proxy: no PROXY header in time")]


async def test_elsewhere_no_header_is_expected() -> None:
    async with door() as d:
        d.proxy.write(HEADER)
        assert await d.lets_in(PLAIN)
        assert d.stream.peer_ip == PROXY_IP
        assert await d.stream.read() == HEADER


def test_settings_that_cannot_be() -> None:
    for wrong in ({"networks": ("192.0.2.1/24",)}, {"timeout": Duration(0)}):
        with pytest.raises(ValueError, match=r"write|longer"):
            ProxySettings(**wrong)
