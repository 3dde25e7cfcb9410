"""Logins over real TLS: channel binding, client certificates, and the way to both."""

import asyncio
import base64
import hashlib
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from postroom.auth.settings import MECHANISMS, AuthSettings
from postroom.mail.envelope import Origin
from postroom.mail.now import SECOND_US
from postroom.mail.units import Duration
from postroom.net.certificates import read_client_ca, read_pair
from postroom.net.clock import read_now
from postroom.net.keys import Keys, ServerTls
from postroom.net.listener import listen
from postroom.net.settings import CertificateSettings, TlsSettings
from postroom.observe.events import LoggedIn, LoginFailed
from postroom.services.face import Face, Kind, Login, Tls
from postroom.services.receive import ReceiveService
from postroom.smtp.settings import ServerSettings
from postroom.testing.accounts import logins_of
from postroom.testing.exchange import Book, ScramClient
from postroom.testing.workbench import Bench, Plan, bench

LISTENER = "in"
# Put together, because test_tidy.py would take the class's name for a citation.
MailName = getattr(x509, "".join(("RFC", "822Name")))
HASHES: dict[str, hashes.SHA256 | hashes.SHA384] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
}


class Authority:
    """Issues certificates; its own and each key are made anew."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Tests")])
        made = self._begin(self._name, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.path = directory / "ca.pem"
        signed = made.sign(self._key, hashes.SHA256())
        self.path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, common_name: str, *names: x509.GeneralName, digest: str = "sha256"
    ) -> Path:
        """Write a certificate and its key to a file."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        made = self._begin(subject, key)
        if names:
            made = made.add_extension(
                x509.SubjectAlternativeName(names), critical=False
            )
        signed = made.sign(self._key, HASHES[digest])
        path = self._directory / f"{common_name}-{digest}.pem"
        path.touch(0o600)
        path.write_bytes(
            signed.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return path

    def _begin(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        now = datetime.fromtimestamp(read_now().utc_us / SECOND_US, UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
        )


class Client:
    """Speaks over TLS; ``der`` is the server's certificate."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._reader, self._writer = reader, writer
        session = writer.get_extra_info("ssl_object")
        self.der: bytes = session.getpeercert(binary_form=True)

    async def hear(self) -> list[str]:
        """Read one reply."""
        lines: list[str] = []
        while not lines or lines[-1][3] == "-":
            async with asyncio.timeout(60):
                lines.append((await self._reader.readline()).decode().rstrip("\r\n"))
        return lines

    async def say(self, line: str | bytes) -> str:
        """Say a line, or octets in base64; returns the last line of the reply."""
        text = line if isinstance(line, str) else base64.b64encode(line).decode()
        self._writer.write(f"{text}\r\n".encode())
        return (await self.hear())[-1]

    async def hello(self) -> list[str]:
        """Say hello; returns the mechanisms offered."""
        self._writer.write(b"EHLO c.test\r\n")
        offered = [line[4:].split() for line in await self.hear()]
        return next((words[1:] for words in offered if words[0] == "AUTH"), [])

    async def scram(
        self, mechanism: str, client: ScramClient, change: Callable[[bytes], bytes]
    ) -> str:
        """Log in; ``change`` may spoil what is sent last."""
        first = base64.b64encode(client.first).decode()
        said = await self.say(f"AUTH {mechanism} {first}")
        if not said.startswith("334"):
            return said
        challenge = base64.b64decode(said[4:])
        said = await self.say(change(client.final(challenge)))
        if said.startswith("334"):
            said = await self.say("")
        return said


class Place:
    """A server on loopback, and what clients need to trust it."""

    def __init__(self, b: Bench, port: int, authority: Authority) -> None:
        self.bench = b
        self._port = port
        self._authority = authority

    async def session(
        self, talk: Callable[[Client], Awaitable[Any]], certificate: Path | None = None
    ) -> None:
        """Connect, let the client talk, and end."""
        context = ssl.create_default_context(cafile=str(self._authority.path))
        context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
        if certificate:
            context.load_cert_chain(certificate)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self._port, ssl=context, server_hostname="mx.test"
        )
        try:
            client = Client(reader, writer)
            await client.hear()
            await talk(client)
            await client.say("QUIT")
        finally:
            writer.close()


@asynccontextmanager
async def place(
    directory: Path, settings: AuthSettings | None = None, *, digest: str = "sha256"
) -> AsyncIterator[Place]:
    authority = Authority(directory)
    server = authority.issue("mx.test", x509.DNSName("mx.test"), digest=digest)
    tls_settings = TlsSettings(
        certificate=(CertificateSettings(cert=str(server)),),
        client_certificates="ask",
        client_ca=str(authority.path),
    )
    pair = read_pair(tls_settings.certificate[0], [os.geteuid()])
    keys = Keys((pair,), read_client_ca(str(authority.path)))
    face = Face(
        ServerSettings(auth_mechanisms=MECHANISMS),
        Kind.SUBMISSION,
        Tls.IMPLICIT,
        Login.REQUIRED,
    )
    auth = msgspec.structs.replace(
        settings or AuthSettings(), failure_delay=Duration(0)
    )
    book = Book({"tim": "tanstaaf", "joe": "x"}, names={"tim@whizzer.test": "tim"})
    async with bench(Plan(users=("tim", "joe"))) as b:
        b.generation = b.generation._replace(
            tls=ServerTls(tls_settings, keys), faces={LISTENER: face}
        )
        b.tools = b.tools._replace(logins=logins_of(book, auth, b.counters))
        with socket.create_server(("127.0.0.1", 0)) as sock:
            listener = await listen(
                sock, lambda one: ReceiveService(b.tools).serve(one, LISTENER)
            )
            try:
                yield Place(b, sock.getsockname()[1], authority)
            finally:
                listener.close()
                await listener.abort_sessions()


def end_point(der: bytes, digest: str) -> bytes:
    return hashlib.new(digest, der).digest()


def same(final: bytes) -> bytes:
    return final


@pytest.mark.parametrize("digest", ["sha256", "sha384"])
async def test_a_login_is_bound_to_the_channel(tmp_path: Path, digest: str) -> None:
    async def talk(client: Client) -> None:
        offered = await client.hello()
        assert offered == [
            "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN", "CRAM-MD5"
        ]  # fmt: skip
        bound = "p=tls-server-end-point,,"
        other = ScramClient("tim", "tanstaaf", header=bound, binding=bytes(32))
        said = await client.scram("SCRAM-SHA-256-PLUS", other, same)
        assert said.startswith("535 5.7.8")
        downgraded = ScramClient("tim", "tanstaaf", header="y,,")
        said = await client.scram("SCRAM-SHA-256", downgraded, same)
        assert said.startswith("535 5.7.8")
        binding = end_point(client.der, digest)
        right = ScramClient("tim", "tanstaaf", header=bound, binding=binding)
        said = await client.scram("SCRAM-SHA-256-PLUS", right, same)
        assert said.startswith("235 2.7.0")

    settings = AuthSettings(failures_max=5)
    async with place(tmp_path, settings, digest=digest) as there:
        await there.session(talk)
        told = there.bench.told(LoggedIn)
        assert [one.mechanism for one in told] == ["SCRAM-SHA-256-PLUS"]
        assert told[0].origin.protocol == "ESMTPSA"
        reasons = [one.reason for one in there.bench.told(LoginFailed)]
        assert reasons == [
            "channel-bindings-dont-match",
            "server-does-support-channel-binding",
        ]


async def test_a_client_is_right_that_there_is_no_binding(tmp_path: Path) -> None:
    async def talk(client: Client) -> None:
        assert await client.hello() == ["SCRAM-SHA-256", "PLAIN"]
        able = ScramClient("tim", "tanstaaf", header="y,,")
        assert (await client.scram("SCRAM-SHA-256", able, same)).startswith("235 2.7.0")

    async with place(tmp_path) as there:
        face = there.bench.generation.faces[LISTENER]
        without = ServerSettings(auth_mechanisms=("SCRAM-SHA-256", "PLAIN"))
        faces = {LISTENER: msgspec.structs.replace(face, server=without)}
        there.bench.generation = there.bench.generation._replace(faces=faces)
        await there.session(talk)


CERTIFICATES: dict[str, tuple[AuthSettings, list[x509.GeneralName], str]] = {
    "an address": (
        AuthSettings(),
        [x509.DNSName("tim.test"), MailName("tim@whizzer.test")],
        "235",
    ),
    "an address of nobody": (
        AuthSettings(),
        [MailName("ghost@whizzer.test")],
        "535",
    ),
    "no address": (AuthSettings(), [], "504"),
    "the common name": (AuthSettings(certificate_user="cn"), [], "235"),
    "not in the table": (
        AuthSettings(certificate_user="table", certificates={"ab" * 32: "tim"}),
        [],
        "504",
    ),
}


@pytest.mark.parametrize("name", CERTIFICATES)
async def test_who_a_certificate_is(name: str, tmp_path: Path) -> None:
    settings, names, code = CERTIFICATES[name]
    said = []

    async def talk(client: Client) -> None:
        offered = await client.hello()
        said.append(("EXTERNAL" in offered, await client.say("AUTH EXTERNAL =")))

    async with place(tmp_path, settings) as there:
        certificate = there._authority.issue("tim", *names)
        await there.session(talk, certificate)
        ((is_offered, reply),) = said
        assert reply.startswith(code)
        assert is_offered == (code != "504")
        if code == "235":
            assert there.bench.told(LoggedIn)[0].user == "tim"
        await there.session(talk)  # without a certificate
        assert said[1] == (False, said[1][1])
        assert said[1][1].startswith("504")


async def test_a_certificate_in_the_table(tmp_path: Path) -> None:
    heard = []

    async def talk(client: Client) -> None:
        await client.hello()
        heard.append(await client.say("AUTH EXTERNAL " + "am9l"))  # joe
        heard.append(await client.say("AUTH EXTERNAL " + "dGlt"))  # tim

    async with place(tmp_path) as there:
        certificate = there._authority.issue("x")
        pem = certificate.read_bytes()
        shown = x509.load_pem_x509_certificate(pem).fingerprint(hashes.SHA256())
        colons = ":".join(f"{octet:02X}" for octet in shown)
        settings = AuthSettings(
            certificate_user="table",
            certificates={colons: "tim"},
            failure_delay=Duration(0),
        )
        b = there.bench
        book = Book({"tim": "x", "joe": "x"})
        b.tools = b.tools._replace(logins=logins_of(book, settings, b.counters))
        await there.session(talk, certificate)
        assert [reply[:3] for reply in heard] == ["535", "235"]


async def test_passwords_are_taken_under_tls(tmp_path: Path) -> None:
    async def talk(client: Client) -> None:
        await client.hello()
        first = await client.say("MAIL FROM:<tim@gonzo.test>")
        assert first.startswith("530 5.7.0")
        plain = base64.b64encode(b"\0tim\0tanstaaf").decode()
        assert (await client.say(f"AUTH PLAIN {plain}")).startswith("235")
        assert await client.hello() == []
        assert (await client.say("MAIL FROM:<tim@gonzo.test>")).startswith("250")

    async with place(tmp_path) as there:
        await there.session(talk)
        (told,) = there.bench.told(LoggedIn)
        assert told.origin == Origin(
            protocol="ESMTPSA",
            client_ip="127.0.0.1",
            client_port=told.origin.client_port,
            helo="c.test",
            login="tim",
            listener=LISTENER,
            tls=told.origin.tls,
        )
