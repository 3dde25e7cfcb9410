"""Opening a session, octet for octet: what a host may not say, and where it stops."""

import ssl
from collections import deque
from pathlib import Path

import pytest

from postroom.agents.logins import Logins
from postroom.agents.opening import Kit, Opening
from postroom.agents.settings import SmtpAgentSettings
from postroom.agents.smtp_words import Peer
from postroom.agents.terms import Terms
from postroom.dns.hop_options import TlsLevel
from postroom.mail.outcome import Deferred, Delivered
from postroom.net.stream import Stream, StreamLost, StreamTimeout
from postroom.net.tls_client import ClientTls
from postroom.observe.events import AnyEvent, TlsFailed
from postroom.smtp.client import ClientConnection
from postroom.testing.authority import Authority
from postroom.testing.outbound import OFFERS, READY, Sender
from postroom.testing.scripted_host import ScriptedHost as Host
from postroom.testing.scripted_host import running

PEER = Peer("mx.whizzer.test", "192.0.2.1", 25)


class Wire(Stream):
    """A stream that says what a test wrote down; its handshakes always succeed."""

    def __init__(self, *pieces: bytes | Exception, unread: bytes = b"") -> None:
        super().__init__()
        self.pieces = deque(pieces)
        self.written = b""
        self.handshakes: list[str | None] = []
        if unread:
            self.put_back(unread)

    async def read(self) -> bytes:
        piece = self.pieces.popleft() if self.pieces else b""
        if isinstance(piece, Exception):
            raise piece
        return piece

    def write(self, data: bytes) -> None:
        self.written += data

    async def start_tls(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None = None,
        from_start: bool = False,
    ) -> None:
        self.handshakes.append(server_hostname)
        self.written += b"<TLS>"

    def set_deadline(self, mono_us: int | None) -> None:
        pass

    def close(self) -> None:
        self.written += b"<END>"


async def opened(
    wire: Wire, terms: Terms, *, lmtp: bool = False, peer: Peer = PEER
) -> tuple[object, Opening, list[AnyEvent]]:
    events: list[AnyEvent] = []
    client = ClientConnection("gonzo.test", lmtp=lmtp)
    kit = Kit(ClientTls(), Logins(""), events.append)
    opening = Opening(wire, client, peer, terms, SmtpAgentSettings(), kit)
    return await opening.run("whizzer.test"), opening, events


OFFER = b"250-mx\r\n250 STARTTLS\r\n"


@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize("in_stream", [b"", b"250 late\r\n", b"\0" * 5000])
@pytest.mark.parametrize("in_core", [b"", b"250 early\r\n", b"220-half"])
async def test_everything_ahead_of_the_handshake_is_counted_and_gone(
    in_core: bytes, in_stream: bytes, lmtp: bool
) -> None:
    wire = Wire(
        b"220 mx\r\n",
        OFFER,
        b"220 go\r\n" + in_core,
        b"250-mx\r\n250 SIZE 7\r\n",
        unread=in_stream,
    )
    reason, opening, events = await opened(wire, Terms(tls="required"), lmtp=lmtp)
    assert reason is None
    assert opening.client.extensions.keywords == {"SIZE": "7"}
    hello = b"LHLO" if lmtp else b"EHLO"
    assert wire.written == (
        hello + b" gonzo.test\r\nSTARTTLS\r\n<TLS>" + hello + b" gonzo.test\r\n"
    )
    count = len(in_core) + len(in_stream)
    told = [event.error for event in events if isinstance(event, TlsFailed)]
    assert told == (
        [f"discarded {count} octets sent ahead of the handshake"] if count else []
    )


ENDS: dict[str, tuple[tuple[bytes | Exception, ...], str]] = {
    "nothing": ((b"",), "4.4.2"),
    "a time-out": ((StreamTimeout("late"),), "4.4.1"),
    "a reset": ((StreamLost("gone"),), "4.4.2"),
    "no welcome": ((b"554 5.3.2 no\r\n",), "4.3.2"),
    "421 as a greeting": ((b"421 4.3.2 busy\r\n",), "4.3.2"),
    "another protocol": ((b"SSH-2.0-x\r\n",), "4.5.0"),
    "two greetings": ((b"220 a\r\n220 b\r\n",), "4.5.0"),
    "no hello": ((b"220 mx\r\n", b"550 no\r\n", b"550 no\r\n"), "4.3.2"),
    "421 to hello": ((b"220 mx\r\n", b"421 4.3.2 bye\r\n"), "4.3.2"),
    "gone after STARTTLS": ((b"220 mx\r\n", OFFER, b""), "4.4.2"),
    "421 to STARTTLS": ((b"220 mx\r\n", OFFER, b"421 4.7.0 bye\r\n"), "4.7.0"),
    "354 to STARTTLS": ((b"220 mx\r\n", OFFER, b"354 go\r\n"), "4.5.0"),
    "gone within": ((b"220 mx\r\n", OFFER, b"220 go\r\n", b""), "4.4.2"),
    "no hello within": (
        (b"220 mx\r\n", OFFER, b"220 go\r\n", b"550 no\r\n", b"550 no\r\n"),
        "4.3.2",
    ),
    "a second STARTTLS is not said": (
        (b"220 mx\r\n", OFFER, b"220 go\r\n", OFFER),
        "",
    ),
}


@pytest.mark.parametrize(("pieces", "status"), ENDS.values(), ids=ENDS.keys())
async def test_where_it_stops(
    pieces: tuple[bytes | Exception, ...], status: str
) -> None:
    wire = Wire(*pieces)
    reason, opening, _ = await opened(wire, Terms())
    if not status:
        assert reason is None
        assert wire.written.count(b"STARTTLS") == 1
        return
    assert isinstance(reason, Deferred)
    assert (reason.status, reason.hop_failed) == (status, True)
    opening.leave()
    assert wire.written.endswith(b"<END>")
    assert b"MAIL" not in wire.written


async def test_the_name_asked_for_is_that_of_the_host() -> None:
    for peer, name in (
        (PEER, "mx.whizzer.test"),
        (Peer("[192.0.2.1]", "192.0.2.1", 25), "192.0.2.1"),
        (Peer("[IPv6:2001:db8::1]", "2001:db8::1", 25), "2001:db8::1"),
    ):
        wire = Wire(b"220 mx\r\n", OFFER, b"220 go\r\n", b"250 mx\r\n")
        await opened(wire, Terms(), peer=peer)
        assert wire.handshakes == [name]


@pytest.mark.parametrize("tls", ["opportunistic", "required"])
async def test_a_host_that_refuses_us_behind_the_handshake(
    tmp_path: Path, tls: TlsLevel
) -> None:
    """It wants a certificate of ours, which TLS 1.3 lets it say only afterwards."""
    context = Authority(tmp_path).server_context("mx.whizzer.test")
    context.verify_mode = ssl.CERT_REQUIRED
    host = Host({"EHLO": OFFERS, "STARTTLS": READY}, tls=context)
    async with running(host):
        sender = Sender(host, tls=tls, messages_per_connection_max=1)
        for _ in range(2):
            outcome = await sender.send()
            is_free = tls == "opportunistic"  # and remembers it
            assert isinstance(outcome, Delivered if is_free else Deferred)
        await sender.aclose()
    assert host.lines.count("STARTTLS") == (1 if is_free else 2)
    assert len(host.messages) == (2 if is_free else 0)
