"""Certificates and keys: what is read, what is refused, and by which name."""

import os
import shutil
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from postroom.mail.now import DAY_US
from postroom.net.certificates import (
    SELF_SIGNED_DAYS,
    CertificateError,
    covers,
    expiry_text,
    make_self_signed,
    read_client_ca,
    read_pair,
)
from postroom.net.clock import read_now
from postroom.net.keys import (
    KeyPair,
    Keys,
    ServerTls,
    by_name,
    hush_bad_server_names,
)
from postroom.net.settings import CertificateSettings, TlsSettings
from postroom.net.tls import TlsError, TlsLayer, facts_of
from postroom.testing.authority import Authority

OWNERS = {os.geteuid()}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def issued(authority: Authority, *names: str, expired: bool = False) -> str:
    path = authority.issue(*names, expired=expired)
    Path(path).chmod(0o600)
    return path


def pair(authority: Authority, *names: str) -> KeyPair:
    settings = CertificateSettings(cert=issued(authority, *names))
    return read_pair(settings, OWNERS)


def test_a_pair_in_one_file(authority: Authority) -> None:
    found = pair(authority, "MX.Gonzo.test", "*.gonzo.test")
    assert found.names == ("mx.gonzo.test", "*.gonzo.test")
    assert found.kind == "EC"
    assert len(bytes.fromhex(found.end_point)) == 32
    assert "PRIVATE KEY" in found.key
    assert "KEY" not in repr(found)
    assert "KEY" not in repr(Keys((found,)))


def test_names_may_be_given(authority: Authority) -> None:
    path = issued(authority, "mx.gonzo.test")
    settings = CertificateSettings(cert=path, names=("Other.test",))
    assert read_pair(settings, OWNERS).names == ("other.test",)


def private(key: object, *, password: bytes = b"") -> bytes:
    assert isinstance(
        key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
    )
    encryption: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


def another_key(key: Path) -> None:
    key.write_bytes(private(ec.generate_private_key(ec.SECP256R1())))


def no_key(key: Path) -> None:
    key.write_bytes(b"-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n")


def encrypted(key: Path) -> None:
    made = ec.generate_private_key(ec.SECP256R1())
    key.write_bytes(private(made, password=b"secret"))


def too_large(key: Path) -> None:
    key.write_bytes(b"x" * ((1 << 20) + 1))


def a_directory(key: Path) -> None:
    key.unlink()
    key.mkdir()


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "another key": (another_key, "is not the key of"),
    "half a file": (no_key, "holds no private key"),
    "a passphrase": (encrypted, "is encrypted with a passphrase"),
    "an empty file": (lambda key: key.write_bytes(b""), "holds no private key"),
    "a missing file": (Path.unlink, "does not exist"),
    "a directory": (a_directory, "cannot be read"),
    "a great file": (too_large, "larger than 1 MiB"),
    "others may read it": (lambda key: key.chmod(0o604), "chmod 600"),
    "a group may write it": (lambda key: key.chmod(0o620), "chmod 600"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_key_that_will_not_do(
    authority: Authority, tmp_path: Path, name: str
) -> None:
    spoil, text = REFUSED[name]
    cert = issued(authority, "gonzo.test")
    key = tmp_path / "key.pem"
    shutil.copy(cert, key)
    key.chmod(0o600)
    settings = CertificateSettings(cert=cert, key=str(key))
    assert read_pair(settings, OWNERS).names == ("gonzo.test",)
    spoil(key)
    with pytest.raises(CertificateError, match=text) as refused:
        read_pair(settings, OWNERS)
    assert str(key) in str(refused.value)


def test_a_group_may_read_a_key(authority: Authority) -> None:
    """As Debian's ``ssl-cert`` does."""
    path = issued(authority, "gonzo.test")
    Path(path).chmod(0o640)
    assert read_pair(CertificateSettings(cert=path), OWNERS).names


def test_a_key_of_a_stranger_is_refused(authority: Authority) -> None:
    path = issued(authority, "gonzo.test")
    with pytest.raises(CertificateError, match="chown root"):
        read_pair(CertificateSettings(cert=path), {os.geteuid() + 1})


def test_what_is_no_certificate(tmp_path: Path) -> None:
    path = tmp_path / "cert.pem"
    path.write_bytes(private(ec.generate_private_key(ec.SECP256R1())))
    path.chmod(0o600)
    with pytest.raises(CertificateError, match="holds no certificate"):
        read_pair(CertificateSettings(cert=str(path)), OWNERS)
    with pytest.raises(CertificateError, match="holds no certificate"):
        read_client_ca(str(path))


def test_when_it_expires(authority: Authority) -> None:
    settings = CertificateSettings(cert=issued(authority, "a.test", expired=True))
    old = read_pair(settings, OWNERS)  # used all the same
    assert "has expired" in expiry_text(old, read_now().utc_us, 0)
    assert not expiry_text(old, old.until_us - 15 * DAY_US, 14 * DAY_US)
    text = expiry_text(old, old.until_us - 13 * DAY_US, 14 * DAY_US)
    assert text == f"{old.path} expires in 13 days: get a new certificate"


@pytest.mark.parametrize(
    ("names", "host", "is_covered"),
    [
        (["mx.a.test"], "MX.a.test", True),
        (["*.a.test"], "mx.a.test", True),
        (["*.a.test"], "a.test", False),
        (["*.a.test"], "x.mx.a.test", False),
        (["a.test"], "mx.a.test", False),
        ([], "a.test", False),
    ],
)
def test_names_that_cover_a_host(names: list[str], host: str, is_covered: bool) -> None:
    assert covers(names, host) is is_covered


# Self-signed


def test_a_self_signed_certificate_is_made_once(tmp_path: Path) -> None:
    path, now_us = tmp_path / "own.pem", read_now().utc_us
    assert make_self_signed(str(path), "mx.gonzo.test", now_us, -1, -1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = read_pair(CertificateSettings(cert=str(path)), OWNERS)
    assert found.names == ("mx.gonzo.test", "localhost")
    assert found.kind == "EC"
    before = path.read_bytes()
    assert not make_self_signed(str(path), "mx.gonzo.test", now_us, -1, -1)
    assert path.read_bytes() == before
    ServerTls(TlsSettings(self_signed=True), Keys((found,)))
    for hostname, later_us in (
        ("other.test", now_us),
        ("mx.gonzo.test", now_us + (SELF_SIGNED_DAYS - 29) * DAY_US),
    ):
        assert make_self_signed(str(path), hostname, later_us, -1, -1)
        assert path.read_bytes() != before
        assert make_self_signed(str(path), "mx.gonzo.test", now_us, -1, -1) is (
            hostname != "mx.gonzo.test"
        )
    assert not list(tmp_path.glob("*.new"))


def test_openssl_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "own.pem"
    make_self_signed(str(path), "mx.gonzo.test", read_now().utc_us, -1, -1)
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("there is no openssl here")
    told = subprocess.run(
        [program, "x509", "-in", str(path), "-noout", "-text"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "DNS:mx.gonzo.test, DNS:localhost" in told.stdout
    assert "ASN1 OID: prime256v1" in told.stdout


# Which certificate a client is shown


def shown(server: ServerTls, authority: Authority, name: str | None) -> set[str]:
    """Do a handshake in memory; return the names that the client was shown."""
    client = ssl.create_default_context(cafile=authority.ca_file)
    client.check_hostname = False
    context = server.context("smtp")
    assert context is not None
    ours = TlsLayer(context, server_side=True)
    theirs = TlsLayer(client, server_side=False, server_hostname=name)
    shake(ours, theirs)
    found: Any = theirs.session.getpeercert()
    return {value for _, value in found["subjectAltName"]}


def shake(ours: TlsLayer, theirs: TlsLayer) -> None:
    done = False
    for _ in range(10):
        theirs_done = theirs.handshake(ours.data_to_send())
        done = ours.handshake(theirs.data_to_send())
        if done and theirs_done:
            return
    raise AssertionError("the handshake does not end")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (None, "one.test"),
        ("one.test", "one.test"),
        ("two.test", "two.test"),
        ("TWO.test", "two.test"),
        ("a.many.test", "*.many.test"),
        ("a.b.many.test", "one.test"),
        ("nobody.test", "one.test"),
    ],
)
def test_clients_are_shown_what_they_ask_for(
    authority: Authority, name: str | None, expected: str
) -> None:
    pairs = tuple(pair(authority, n) for n in ("one.test", "two.test", "*.many.test"))
    server = ServerTls(TlsSettings(), Keys(pairs))
    assert shown(server, authority, name) == {expected}


def test_new_keys_are_for_new_handshakes(authority: Authority) -> None:
    before, after = pair(authority, "one.test"), pair(authority, "one.test", "b.test")
    server = ServerTls(TlsSettings(), Keys((before,)))
    assert shown(server, authority, "one.test") == {"one.test"}
    server.renew(Keys((after,)))
    assert shown(server, authority, "one.test") == {"one.test", "b.test"}
    bad = KeyPair("bad.pem", ("one.test",), "EC", before.chain, after.key)
    with pytest.raises(ValueError, match=r"bad\.pem: the TLS library refuses it"):
        server.renew(Keys((bad,)))
    assert shown(server, authority, "one.test") == {"one.test", "b.test"}


def test_logins_are_bound_to_the_certificate_shown(authority: Authority) -> None:
    one, two = pair(authority, "one.test"), pair(authority, "two.test")
    server = ServerTls(TlsSettings(), Keys((one, two)))
    client = ssl.create_default_context(cafile=authority.ca_file)
    context = server.context("smtp")
    assert context is not None
    ours = TlsLayer(context, server_side=True)
    shake(ours, TlsLayer(client, server_side=False, server_hostname="two.test"))
    server.renew(Keys((one,)))  # sessions under way keep theirs
    assert server.end_point(ours.session).hex() == two.end_point


def test_of_one_kind_of_key_the_first_is_taken() -> None:
    def made(kind: str, *names: str) -> KeyPair:
        return KeyPair("", names, kind, "", "")

    pairs = [
        made("RSA", "a", "b"),
        made("EC", "b"),
        made("EC", "b", "c"),
        made("RSA", "c"),
    ]
    assert by_name(pairs) == {"a": (0,), "b": (0, 1), "c": (2, 3)}


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (TlsSettings(ciphers="NONSENSE"), r"tls\.ciphers: the TLS library refuses it"),
    ],
)
def test_what_the_library_refuses(
    authority: Authority, settings: TlsSettings, text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        ServerTls(settings, Keys((pair(authority, "a.test"),)))


def test_a_session_can_be_resumed(authority: Authority) -> None:
    server = ServerTls(TlsSettings(), Keys((pair(authority, "a.test"),)))
    client = ssl.create_default_context(cafile=authority.ca_file)
    context = server.context("smtp")
    assert context is not None
    kept: ssl.SSLSession | None = None
    for is_again in (False, True):
        ours = TlsLayer(context, server_side=True)
        theirs = TlsLayer(client, server_side=False, server_hostname="a.test")
        if kept is not None:
            theirs.session.session = kept
        shake(ours, theirs)
        assert ours.session.session_reused is is_again
        assert theirs.decrypt(ours.encrypt(b"220 a.test\r\n")) == b"220 a.test\r\n"
        kept = theirs.session.session
        ours.close()


@pytest.mark.parametrize("names", [("one.test",), ("one.test", "two.test")])
def test_a_server_name_that_is_no_ascii_ends_the_handshake_quietly(
    authority: Authority,
    names: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    printed: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    hush_bad_server_names()
    keys = Keys(tuple(pair(authority, name) for name in names))
    context = ServerTls(TlsSettings(), keys).context("smtp")
    assert context is not None
    theirs = TlsLayer(
        ssl.create_default_context(), server_side=False, server_hostname="one.test"
    )
    assert not theirs.handshake(b"")
    hello = theirs.data_to_send()
    assert hello.count(b"one.test") == 1
    ours = TlsLayer(context, server_side=True)
    with pytest.raises(TlsError, match="by a name that is none"):
        ours.handshake(hello.replace(b"one.test", b"\xff\n\x1b[2J.x"))
    assert ours.data_to_send()  # the client is told
    assert not printed


def test_a_client_certificate_whose_names_are_no_text_names_nobody() -> None:
    """Such a one broke the session off with an exception of ours."""

    class Unreadable:
        context = SimpleNamespace(verify_mode=ssl.CERT_OPTIONAL)
        server_side, session_reused = True, False

        def cipher(self) -> tuple[str, str, int]:
            return "TLS_AES_256_GCM_SHA384", "TLSv1.3", 256

        def version(self) -> str:
            return "TLSv1.3"

        def getpeercert(self, binary_form: bool = False) -> bytes:
            if binary_form:
                return b"der"
            return b"\xff".decode().encode()  # as the library fails

    facts = facts_of(cast("ssl.SSLObject", Unreadable()))
    assert (facts.verify, facts.emails, facts.fingerprint) == ("NO", (), "")


def test_other_mishaps_are_still_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    hush_bad_server_names()
    for mishap, message in ((print, None), (b"x", None), (None, "servername")):
        found = SimpleNamespace(object=mishap, exc_value=ValueError(), err_msg=message)
        sys.unraisablehook(found)
    assert len(printed) == 3
