"""TLS in real SMTP sessions, over sockets: STARTTLS, and TLS from the first octet."""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from postroom.mail.envelope import Envelope, Origin, protocol_word
from postroom.mail.ids import QueueId
from postroom.mail.now import SECOND_US
from postroom.mail.tls import TlsFacts
from postroom.mail.trace import received_field
from postroom.net.certificates import read_client_ca, read_pair
from postroom.net.clock import read_mono_us
from postroom.net.connect import wrap
from postroom.net.keys import NO_KEYS, Keys, ServerTls
from postroom.net.settings import CertificateSettings, TlsSettings
from postroom.net.stream import Stream, StreamError, StreamLost
from postroom.observe.events import (
    CommandRejected,
    MessageQueued,
    SessionClosed,
    TlsFailed,
    TlsStarted,
)
from postroom.policy.hooks import hook
from postroom.policy.session import Mail, Session
from postroom.services.face import Face, Kind, Login, Tls
from postroom.services.receive import ReceiveService
from postroom.smtp.settings import ServerSettings
from postroom.testing.authority import Authority
from postroom.testing.workbench import Bench, Plan, bench

CLIENT_IP = "192.0.2.1"
OFFERED = ServerSettings(starttls=True)
OWNERS = {os.geteuid()}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def keys_of(authority: Authority, *names: str) -> Keys:
    path = authority.issue(*names)
    Path(path).chmod(0o600)
    return Keys((read_pair(CertificateSettings(cert=path), OWNERS),))


def face(tls: Tls, kind: Kind = Kind.SMTP) -> Face:
    offers = tls in (Tls.STARTTLS, Tls.REQUIRED)
    return Face(ServerSettings(starttls=offers), kind, tls, Login.OFF)


class Caller:
    """The client's side of a connection."""

    def __init__(self, stream: Stream, ca_file: str) -> None:
        self.stream = stream
        stream.set_deadline(read_mono_us() + 30 * SECOND_US)
        self.context = ssl.create_default_context(cafile=ca_file)
        self._rest = b""

    async def hears(self) -> str:
        """Return the next reply, all of its lines."""
        lines = []
        while True:
            while b"\r\n" not in self._rest:
                data = await self.stream.read()
                if not data:
                    return ""
                self._rest += data
            line, _, self._rest = self._rest.partition(b"\r\n")
            lines.append(line.decode())
            if line[3:4] != b"-":
                return "\n".join(lines)

    async def says(self, *lines: str) -> str:
        """Say lines in one packet; return the last reply."""
        self.stream.write("".join(f"{line}\r\n" for line in lines).encode())
        reply = ""
        for _ in lines:
            reply = await self.hears()
        return reply

    async def encrypt(self, name: str = "gonzo.test") -> None:
        await self.stream.start_tls(
            self.context, server_side=False, server_hostname=name
        )


@asynccontextmanager
async def called(
    b: Bench, authority: Authority, listener: str = "in"
) -> AsyncIterator[Caller]:
    """Call the service; afterwards it has come to an end by itself."""
    ours, theirs = socket.socketpair()
    stream, other = await wrap(ours), await wrap(theirs)
    stream.peer_ip, stream.peer_port = CLIENT_IP, 4242
    served = asyncio.create_task(ReceiveService(b.tools).serve(stream, listener))
    try:
        yield Caller(other, authority.ca_file)
    finally:
        other.close()
        async with asyncio.timeout(30):
            await served
        stream.abort()


@asynccontextmanager
async def host(
    authority: Authority,
    tls: Tls = Tls.STARTTLS,
    kind: Kind = Kind.SMTP,
    settings: TlsSettings | None = None,
    keys: Keys | None = None,
    plan: Plan | None = None,
) -> AsyncIterator[Bench]:
    keys = keys_of(authority, "gonzo.test") if keys is None else keys
    async with bench(plan) as b:
        served = ServerTls(settings or TlsSettings(), keys)
        b.generation = b.generation._replace(tls=served, faces={"in": face(tls, kind)})
        yield b


async def test_starttls(authority: Authority) -> None:
    async with host(authority) as b, called(b, authority) as caller:
        assert (await caller.hears()).startswith("220")
        assert "STARTTLS" in await caller.says("EHLO c.test")
        assert await caller.says("STARTTLS") == "220 2.0.0 Ready to start TLS"
        await caller.encrypt()
        assert await caller.says("MAIL FROM:<>") == "503 5.5.1 Say hello first"
        assert "STARTTLS" not in await caller.says("EHLO c.test")
        assert (await caller.says("STARTTLS")).startswith("503 5.5.1")
        assert (await caller.says("MAIL FROM:<a@b.test>")).startswith("250")
        assert (await caller.says("RCPT TO:<betty@gonzo.test>")).startswith("250")
        assert (await caller.says("DATA")).startswith("354")
        assert (await caller.says("Subject: x\r\n\r\nhello\r\n.")).startswith("250")
        assert (await caller.says("QUIT")).startswith("221")
    (started,) = b.told(TlsStarted)
    assert (started.side, started.version, started.verify) == (
        "server",
        "TLSv1.3",
        "NOT",
    )
    assert started.relay == f"[{CLIENT_IP}]"
    (queued,) = b.told(MessageQueued)
    assert queued.origin.protocol == "ESMTPS"  # RFC 3848
    assert [e.how for e in b.told(SessionClosed)] == ["quit"]


async def test_verb_said_in_the_clear_is_forgotten(authority: Authority) -> None:
    shown = Face(
        ServerSettings(starttls=True, verb=True), Kind.SMTP, Tls.STARTTLS, Login.OFF
    )
    async with host(authority) as b:
        b.generation = b.generation._replace(faces={"in": shown})
        async with called(b, authority) as caller:
            await caller.hears()
            assert (await caller.says("EHLO c.test", "VERB")).startswith("250 2.0.0")
            assert (await caller.says("STARTTLS")).startswith("220")
            await caller.encrypt()
            rcpt = "RCPT TO:<betty@gonzo.test>"
            await caller.says("EHLO c.test", "MAIL FROM:<>", rcpt, "DATA")
            letter = "Subject: x\r\n\r\nhello\r\n."
            assert (await caller.says(letter)).startswith("250 2.0.0")
            await caller.says("QUIT")
        async with asyncio.timeout(30):
            while not b.agents["mailbox"].attempts:  # noqa: ASYNC110 - it is tried soon
                await asyncio.sleep(0)
        (attempt,) = b.agents["mailbox"].attempts
        assert attempt.say is None  # RFC 3207 §4.2


def test_what_the_trace_field_says() -> None:
    tls = TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, verify="NOT")
    origin = Origin("ESMTPS", CLIENT_IP, helo="c.test", tls=tls)
    field = received_field(Envelope(origin=origin), QueueId("x"), "gonzo.test", 0, 0)
    assert field.decode().split("\r\n")[1:3] == [
        "\tby gonzo.test with ESMTPS id x",
        "\t(version=TLSv1.3 cipher=TLS_AES_256_GCM_SHA384 bits=256 verify=NOT);",
    ]


@pytest.mark.parametrize(
    ("protocol", "tls", "login", "word"),
    [
        ("ESMTP", False, "", "ESMTP"),
        ("ESMTP", True, "", "ESMTPS"),
        ("ESMTP", False, "joe", "ESMTPA"),
        ("ESMTPA", True, "joe", "ESMTPSA"),
        ("ESMTPSA", True, "", "ESMTPS"),
        ("ESMTPS", False, "", "ESMTP"),
        ("LMTP", True, "joe", "LMTPSA"),
        ("SMTP", True, "joe", "SMTP"),
        ("local", False, "joe", "local"),
    ],
)
def test_words_of_rfc_3848(protocol: str, tls: bool, login: str, word: str) -> None:
    facts = TlsFacts("TLSv1.3", "x", 256) if tls else None
    assert protocol_word(Origin(protocol, login=login, tls=facts)) == word


@pytest.mark.parametrize("kind", [Kind.SMTP, Kind.SUBMISSION, Kind.LMTP])
async def test_tls_from_the_first_octet(authority: Authority, kind: Kind) -> None:
    async with (
        host(authority, Tls.IMPLICIT, kind) as b,
        called(b, authority) as caller,
    ):
        await caller.encrypt()
        assert (await caller.hears()).startswith("220")
        hello = "LHLO" if kind is Kind.LMTP else "EHLO"
        assert "STARTTLS" not in await caller.says(f"{hello} c.test")
        await caller.says("QUIT")
    (closed,) = b.told(SessionClosed)
    word = "LMTPS" if kind is Kind.LMTP else "ESMTPS"
    assert (closed.how, closed.origin.protocol) == ("quit", word)


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\nHost: gonzo.test\r\n\r\n",
        b"EHLO c.test\r\n",
        b"\x00" * 40,
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x80\x2e\x01\x00\x02" + b"\x00" * 60,
    ],
    ids=["HTTP", "SMTP", "zeros", "SSH", "SSLv2"],
)
async def test_who_does_not_speak_tls_is_gone_with_one_line(
    authority: Authority, first: bytes
) -> None:
    async with host(authority, Tls.IMPLICIT) as b:
        async with called(b, authority) as caller:
            caller.stream.write(first)
            said = b""
            while data := await caller.stream.read():
                said += data
        assert b"220" not in said
        (failed,) = b.told(TlsFailed)
        assert "TLS" in failed.error or "record" in failed.error
        assert len(b.events) == 1


async def test_who_hangs_up_amid_the_handshake(authority: Authority) -> None:
    async with host(authority, Tls.IMPLICIT) as b:
        async with called(b, authority) as caller:
            caller.stream.write(b"\x16\x03\x01\x02\x00")
        (failed,) = b.told(TlsFailed)
        assert failed.error == "the peer has gone amid the handshake"


async def test_who_distrusts_us_hangs_up(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path, "Another CA")
    async with host(authority) as b:
        async with called(b, other) as caller:
            await caller.hears()
            await caller.says("EHLO c.test")
            await caller.says("STARTTLS")
            with pytest.raises(StreamLost, match="certificate not verified"):
                await caller.encrypt()
        failed = [e.error for e in b.told(TlsFailed)]
        # In TLS 1.3 the server is done before the client has looked.
        assert failed in ([], ["the peer does not know our certificate's issuer"])


async def test_no_certificate_is_no_tls_for_now(authority: Authority) -> None:
    async with (
        host(authority, keys=NO_KEYS) as b,
        called(b, authority) as caller,
    ):
        await caller.hears()
        await caller.says("EHLO c.test")
        assert (await caller.says("STARTTLS")).startswith("454 4.3.3 ")
        assert (await caller.says("NOOP")).startswith("250")
        await caller.says("QUIT")
    assert [e.rule for e in b.told(CommandRejected)] == ["no certificate"]


async def test_where_tls_is_required(authority: Authority) -> None:
    async with (
        host(authority, Tls.REQUIRED) as b,
        called(b, authority) as caller,
    ):
        await caller.hears()
        await caller.says("EHLO c.test")
        for line in ("MAIL FROM:<>", "VRFY betty", "EXPN all", "HELP", "RSET"):
            assert await caller.says(line) == (
                "530 5.7.0 Must issue a STARTTLS command first"
            ), line
        assert (await caller.says("NOOP")).startswith("250")
        assert (await caller.says("STARTTLS")).startswith("220")
        await caller.encrypt()
        await caller.says("EHLO c.test")
        assert (await caller.says("MAIL FROM:<>")).startswith("250")
        await caller.says("QUIT")
    rules = {e.rule for e in b.told(CommandRejected)}
    assert rules == {"tls-required"}


INJECTED = (
    "STARTTLS\r\nMAIL FROM:<evil@b.test>\r\n",
    "STARTTLS\r\nRSET\r\nEHLO evil.test\r\nMAIL FROM:<evil@b.test>\r\n",
    "STARTTLS\r\nQUIT\r\n",
    "STARTTLS\r\n\x00\xff",
)


@pytest.mark.parametrize("kind", [Kind.SMTP, Kind.LMTP])
@pytest.mark.parametrize("packet", INJECTED)
async def test_nothing_said_before_the_handshake_survives_it(
    authority: Authority, kind: Kind, packet: str
) -> None:
    """RFC 3207 §4.2; CVE-2011-0411."""
    hello = "LHLO" if kind is Kind.LMTP else "EHLO"
    async with host(authority, kind=kind) as b, called(b, authority) as caller:
        await caller.hears()
        await caller.says(f"{hello} c.test")
        caller.stream.write(packet.encode("latin-1"))
        assert (await caller.hears()).startswith("220")
        await caller.encrypt()
        # The first that is answered is the first that was said encrypted.
        assert (await caller.says(f"{hello} d.test")).startswith("250-gonzo.test")
        assert (await caller.says("NOOP")).startswith("250")
        await caller.says("QUIT")
    assert [e.origin.helo for e in b.told(SessionClosed)] == ["d.test"]
    assert not b.told(CommandRejected)


async def test_octets_in_the_clear_after_220_end_the_session(
    authority: Authority,
) -> None:
    async with host(authority) as b:
        async with called(b, authority) as caller:
            await caller.hears()
            await caller.says("EHLO c.test")
            await caller.says("STARTTLS")
            caller.stream.write(b"MAIL FROM:<evil@b.test>\r\n")
            while await caller.stream.read():
                pass
        assert [e.error for e in b.told(TlsFailed)] == ["the peer does not speak TLS"]
        assert [e.how for e in b.told(SessionClosed)] == ["lost"]
        assert not b.told(CommandRejected)


async def test_hooks_see_that_a_session_is_encrypted(authority: Authority) -> None:
    seen: list[tuple[bool, str]] = []

    @hook.mail
    def look(session: Session, mail: Mail) -> None:
        seen.append((session.tls, session.helo))

    async with (
        host(authority, plan=Plan(hooks=[look])) as b,
        called(b, authority) as caller,
    ):
        await caller.hears()
        await caller.says("EHLO c.test")
        await caller.says("MAIL FROM:<>")
        await caller.says("RSET")
        await caller.says("STARTTLS")
        await caller.encrypt()
        await caller.says("HELO d.test")
        await caller.says("MAIL FROM:<>")
        await caller.says("QUIT")
    assert seen == [(False, "c.test"), (True, "d.test")]


# Certificates of clients


def asking(authority: Authority, how: str) -> TlsSettings:
    return TlsSettings(
        client_certificates=how,  # type: ignore[arg-type]
        client_ca=authority.ca_file,
        client_certificate_services=("smtp",),
    )


def with_ca(authority: Authority, ca: Authority) -> Keys:
    keys = keys_of(authority, "gonzo.test")
    return Keys(keys.pairs, read_client_ca(ca.ca_file))


@pytest.mark.parametrize("how", ["ask", "require"])
async def test_a_certificate_of_the_client_is_known(
    authority: Authority, how: str
) -> None:
    settings, keys = asking(authority, how), with_ca(authority, authority)
    async with (
        host(authority, Tls.IMPLICIT, settings=settings, keys=keys) as b,
        called(b, authority) as caller,
    ):
        caller.context.load_cert_chain(authority.issue("c.test", common_name="joe"))
        await caller.encrypt()
        await caller.hears()
        await caller.says("QUIT")
    facts = b.told(SessionClosed)[0].origin.tls
    assert facts is not None
    assert (facts.verify, facts.subject, facts.hosts) == ("OK", "/CN=joe", ("c.test",))
    assert facts.common_names == ("joe",)
    assert facts.issuer == "/CN=Test CA"
    assert len(facts.fingerprint) == 64
    assert [e.verify for e in b.told(TlsStarted)] == ["OK"]


async def test_a_client_that_is_asked_need_not_have_one(authority: Authority) -> None:
    settings, keys = asking(authority, "ask"), with_ca(authority, authority)
    async with (
        host(authority, Tls.IMPLICIT, settings=settings, keys=keys) as b,
        called(b, authority) as caller,
    ):
        await caller.encrypt()
        await caller.hears()
        await caller.says("QUIT")
    assert [e.verify for e in b.told(TlsStarted)] == ["NO"]


@pytest.mark.parametrize(
    ("how", "shows", "why"),
    [
        ("require", False, "the client has no certificate"),
        ("require", True, "certificate not verified: "),
        ("ask", True, "certificate not verified: "),
    ],
)
async def test_a_client_that_cannot_be_known_is_refused(
    authority: Authority, tmp_path: Path, how: str, shows: bool, why: str
) -> None:
    settings, keys = asking(authority, how), with_ca(authority, authority)
    async with host(authority, Tls.IMPLICIT, settings=settings, keys=keys) as b:
        async with called(b, authority) as caller:
            if shows:
                stranger = Authority(tmp_path, "Strangers")
                caller.context.load_cert_chain(stranger.issue("c.test"))
            # In TLS 1.3 the client is done before we have looked.
            with suppress(StreamError):
                await caller.encrypt()
            with suppress(StreamError):
                assert not await caller.stream.read()
        (failed,) = b.told(TlsFailed)
        assert failed.error.startswith(why)
        assert not b.told(SessionClosed)


async def test_large_content_crosses_whole(authority: Authority) -> None:
    """More than records, buffers and what is sent together hold."""
    line = b"x" * 998 + b"\r\n"
    async with (
        host(authority, Tls.IMPLICIT) as b,
        called(b, authority) as caller,
    ):
        await caller.encrypt()
        await caller.hears()
        await caller.says("EHLO c.test")
        await caller.says("MAIL FROM:<>", "RCPT TO:<betty@gonzo.test>", "DATA")
        for _ in range(20):
            caller.stream.write(line * 100)
            await caller.stream.drain()
        assert (await caller.says(".")).startswith("250")
        await caller.says("QUIT")
    (queued,) = b.told(MessageQueued)
    assert queued.size_octets >= 20 * 100 * len(line)
