"""The supervisor's keys: a look-out for changed files, and what it says."""

import os
from pathlib import Path

import pytest

from postroom.admin.link import Renew, decode_to_worker, encode_message
from postroom.net.keys import Keys
from postroom.net.settings import CertificateSettings, TlsSettings
from postroom.supervise.keys import (
    Keyring,
    KeysError,
    Wanted,
    read_keys,
    warnings_of,
)
from postroom.testing.authority import Authority

HOST = "mx.gonzo.test"


class Desk:
    """A keyring over two files, and what it said."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory)
        self.cert, self.key = directory / "cert.pem", directory / "key.pem"
        self.said: list[tuple[str, str]] = []
        self.put(self.issue(HOST))
        one = CertificateSettings(cert=str(self.cert), key=str(self.key))
        self.wanted = Wanted(TlsSettings(certificate=(one,)), HOST)
        self.ring = Keyring(
            self.wanted, read_keys(self.wanted), lambda *told: self.said.append(told)
        )

    def issue(self, *names: str) -> bytes:
        return Path(self.authority.issue(*names)).read_bytes()

    def put(self, pem: bytes, *, cert: bool = True, key: bool = True) -> None:
        """Write files the way that certbot does: anew, under the same name."""
        for path, is_wanted in ((self.cert, cert), (self.key, key)):
            if is_wanted:
                new = path.with_suffix(".new")
                new.write_bytes(pem)
                new.chmod(0o600)
                new.rename(path)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_what_has_not_changed_is_not_read(desk: Desk) -> None:
    before = desk.ring.keys
    assert desk.ring.look() is None
    assert desk.ring.keys is before
    assert not desk.said


def test_changed_files_are_taken(desk: Desk) -> None:
    desk.put(desk.issue(HOST, "new.test"))
    keys = desk.ring.look()
    assert keys is not None
    assert keys.pairs[0].names == (HOST, "new.test")
    assert desk.said == [("tls: changed certificates are in force", "info")]
    assert desk.ring.look() is None
    assert desk.ring.keys is keys


def test_a_half_written_pair_is_tried_again(desk: Desk) -> None:
    before, pem = desk.ring.keys, desk.issue(HOST, "new.test")
    desk.put(pem, key=False)
    assert desk.ring.look() is None  # the key is still the old one
    assert not desk.said  # it may just be on its way
    desk.put(pem, cert=False)
    assert desk.ring.look() is not None
    assert desk.ring.keys != before
    assert [level for _, level in desk.said] == ["info"]


def test_what_stays_wrong_is_told_once(desk: Desk) -> None:
    before = desk.ring.keys
    desk.put(desk.issue(HOST), key=False)
    for _ in range(5):
        assert desk.ring.look() is None
    assert desk.ring.keys is before
    ((text, level),) = desk.said
    assert level == "error"
    assert text.startswith(f"tls: {desk.key} is not the key of {desk.cert}")
    assert text.endswith("; the certificates before stay in force")
    desk.key.unlink()
    for _ in range(3):
        desk.ring.look()
    assert [text for text, _ in desk.said][1:] == [
        f"tls: {desk.key} does not exist; the certificates before stay in force"
    ]


def test_files_touched_but_not_changed_are_no_news(desk: Desk) -> None:
    os.utime(desk.cert, (1, 1))
    assert desk.ring.look() is None
    assert not desk.said


def test_a_new_configuration_is_looked_after_from_then_on(
    desk: Desk, tmp_path: Path
) -> None:
    path = desk.authority.issue(HOST, "other.test")
    one = CertificateSettings(cert=path)
    wanted = Wanted(TlsSettings(certificate=(one,)), HOST)
    desk.ring.take(wanted, read_keys(wanted))
    desk.put(desk.issue(HOST))
    assert desk.ring.look() is None
    Path(path).write_bytes(desk.issue(HOST, "third.test"))
    keys = desk.ring.look()
    assert keys is not None
    assert keys.pairs[0].names == (HOST, "third.test")


def test_what_is_used_though_it_should_not_be(desk: Desk, tmp_path: Path) -> None:
    path = desk.authority.issue("other.test", expired=True)
    wanted = Wanted(TlsSettings(certificate=(CertificateSettings(cert=path),)), HOST)
    keys = read_keys(wanted)
    now_us = keys.pairs[0].until_us + 1
    assert warnings_of(wanted, keys, now_us) == [
        f"tls: {path} has expired 0 hours ago: get a new certificate",
        f"tls: no certificate is for this host's name {HOST}",
    ]
    ring = Keyring(wanted, keys, lambda *told: desk.said.append(told))
    ring.warn()
    ring.warn()
    assert len(desk.said) == 2  # once a day


def test_self_signed(tmp_path: Path) -> None:
    path = tmp_path / "own.pem"
    wanted = Wanted(TlsSettings(self_signed=True), HOST, str(path))
    keys = read_keys(wanted)
    assert keys == read_keys(wanted)
    assert keys.pairs[0].names == (HOST, "localhost")
    (text,) = warnings_of(wanted, keys, keys.pairs[0].until_us - 10**15 // 50)
    assert "is self-signed" in text
    wanted = Wanted(TlsSettings(self_signed=True), HOST, "/nonexistent/own.pem")
    with pytest.raises(KeysError, match="cannot write the self-signed certificate"):
        read_keys(wanted)


def test_no_certificate_is_no_key() -> None:
    assert read_keys(Wanted()) == Keys()


def test_the_library_is_asked_too(desk: Desk) -> None:
    one = CertificateSettings(cert=str(desk.cert), key=str(desk.key))
    settings = TlsSettings(certificate=(one,), ciphers="NONSENSE")
    with pytest.raises(KeysError, match=r"tls: tls\.ciphers: the TLS library"):
        read_keys(Wanted(settings, HOST))


def test_keys_cross_the_link_whole(desk: Desk) -> None:
    message = Renew(desk.ring.keys)
    assert decode_to_worker(encode_message(message).rstrip()) == message
    assert "PRIVATE" not in repr(message)
