"""Logging in at other hosts: our exchanges against vectors, and against our server."""

from collections.abc import Mapping

import pytest

from postroom.auth.mechanisms import Circumstances, Mechanism, begin
from postroom.auth.sasl import Answer, Challenge, Ended, Lost, Proven
from postroom.auth.sasl_client import (
    Distrust,
    Exchange,
    Link,
    Secrets,
    choose,
    exchange,
    needs_proof,
    speaks_first,
)
from postroom.testing.exchange import Book

PASSWORD = Secrets("betty", "pass,w=ö rd")
TOKEN = Secrets("betty", token="tok.en")
ALL = (
    "SCRAM-SHA-256-PLUS",
    "SCRAM-SHA-256",
    "CRAM-MD5",
    "EXTERNAL",
    "OAUTHBEARER",
    "XOAUTH2",
    "PLAIN",
    "LOGIN",
)
TLS = Link(ALL, is_tls=True, binding=b"hash of the certificate")


def finish(ours: Exchange, octets: bytes = b"") -> Distrust | None:
    """Give the last challenge; the exchange has to end with it."""
    try:
        ours.send(octets)
    except StopIteration as stop:
        found: Distrust | None = stop.value
        return found
    raise AssertionError("the exchange goes on")


def log_in(
    mechanism: Mechanism, secrets: Secrets, link: Link, bindings: Mapping[str, bytes]
) -> tuple[Ended, Distrust | None]:
    """Log in at our own server; returns how each side sees the end."""
    book = Book({"betty": "pass,w=ö rd"}, tokens={"tok.en": "betty"})
    ours = exchange(mechanism, secrets, link, "clientnonce")
    first = next(ours)
    now = Circumstances(
        nonce="servernonce", challenge=b"<1.2@mx.test>", bindings=bindings
    )
    theirs = begin(mechanism, first if speaks_first(mechanism) else None, now)
    given: Answer = None
    while True:
        try:
            step = theirs.send(given)
        except StopIteration as stop:
            distrust = finish(ours) if needs_proof(mechanism) else None
            return stop.value, distrust
        match step:
            case Challenge(octets):
                given = ours.send(octets)
            case Lost():
                given = None
            case question:
                given = book.answer(question)


@pytest.mark.parametrize(
    ("mechanism", "secrets"),
    [
        ("SCRAM-SHA-256-PLUS", PASSWORD),
        ("SCRAM-SHA-256", PASSWORD),
        ("CRAM-MD5", PASSWORD),
        ("OAUTHBEARER", TOKEN),
        ("XOAUTH2", TOKEN),
        ("PLAIN", PASSWORD),
        ("LOGIN", PASSWORD),
    ],
)
def test_our_server_lets_us_in(mechanism: Mechanism, secrets: Secrets) -> None:
    bindings = {"tls-server-end-point": TLS.binding}
    ended, distrust = log_in(mechanism, secrets, TLS, bindings)
    assert ended == Proven("betty")
    assert distrust is None


def test_a_channel_in_between_is_noticed() -> None:
    other = {"tls-server-end-point": b"that of the server itself"}
    ended, _ = log_in("SCRAM-SHA-256-PLUS", PASSWORD, TLS, other)
    assert not isinstance(ended, Proven)


def test_a_stripped_plus_is_noticed() -> None:
    """RFC 5802 §6: "y" tells a server that offered it that somebody took it away."""
    link = Link(("SCRAM-SHA-256",), is_tls=True, binding=b"x")
    ended, _ = log_in("SCRAM-SHA-256", PASSWORD, link, {"tls-server-end-point": b"x"})
    assert not isinstance(ended, Proven)


def test_scram_as_in_the_rfc() -> None:
    """RFC 7677 §3."""
    ours = exchange(
        "SCRAM-SHA-256",
        Secrets("user", "pencil"),
        Link(("SCRAM-SHA-256",)),
        "rOprNGfwEbeRWgbNEkqO",
    )
    assert next(ours) == b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    final = ours.send(
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    assert final == (
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    last = ours.send(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
    assert last == b""
    assert finish(ours) is None


def test_cram_md5_as_in_the_rfc() -> None:
    """RFC 2195 §2."""
    ours = exchange("CRAM-MD5", Secrets("tim", "tanstaaftanstaaf"), Link(()), "")
    next(ours)
    said = ours.send(b"<1896.697170952@postoffice.reston.mci.net>")
    assert said == b"tim b913a602c7eda7a495b4e6e7334d3890"


def test_oauthbearer_as_in_the_rfc() -> None:
    """RFC 7628 §4.1."""
    token = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="
    link = Link((), host="server.example.com", port=143)
    ours = exchange("OAUTHBEARER", Secrets("user@example.com", token=token), link, "")
    assert next(ours) == (
        b"n,a=user@example.com,\1host=server.example.com\1port=143\1"
        b"auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\1\1"
    )
    assert ours.send(b'{"status":"invalid_token"}') == b"\1"


@pytest.mark.parametrize(
    ("mechanism", "first"),
    [
        ("PLAIN", b"boss\0betty\0pass"),
        ("EXTERNAL", b"boss"),
        ("XOAUTH2", b"user=betty\1auth=Bearer tok\1\1"),
        ("OAUTHBEARER", b"n,a=boss,\1auth=Bearer tok\1\1"),
        ("SCRAM-SHA-256", b"n,a=boss,n=betty,r=N"),
        ("SCRAM-SHA-256-PLUS", b"p=tls-server-end-point,a=boss,n=betty,r=N"),
    ],
)
def test_first_responses(mechanism: str, first: bytes) -> None:
    secrets = Secrets("betty", "pass", "tok", "boss")
    assert next(exchange(mechanism, secrets, Link(()), "N")) == first
    assert speaks_first(mechanism)


NOT_CHALLENGES = {
    "nothing": b"",
    "another nonce": b"r=other,s=YWJj,i=4096",
    "our nonce alone": b"r=N,s=YWJj,i=4096",
    "no salt": b"r=Nx,i=4096",
    "salt that is no base64": b"r=Nx,s=YWJ,i=4096",
    "too few iterations": b"r=Nx,s=YWJj,i=1",
    "work for a day": b"r=Nx,s=YWJj,i=99999999",
    "a number without end": b"r=Nx,s=YWJj,i=" + b"9" * 5000,
    "an extension that must be understood": b"m=x,r=Nx,s=YWJj,i=4096",
    "no UTF-8": b"r=N\xff,s=YWJj,i=4096",
    "far too long": b"r=N" + b"x" * 9000 + b",s=YWJj,i=4096",
}


@pytest.mark.parametrize("said", NOT_CHALLENGES.values(), ids=NOT_CHALLENGES.keys())
def test_scram_challenges_that_cannot_be(said: bytes) -> None:
    ours = exchange("SCRAM-SHA-256", PASSWORD, Link(()), "N")
    next(ours)
    assert isinstance(finish(ours, said), Distrust)


@pytest.mark.parametrize(
    "said", [b"", b"v=", b"v=AAAA", b"v=?", b"e=invalid-proof", b"x", b"v=\xff"]
)
def test_a_server_that_does_not_know_us_is_not_believed(said: bytes) -> None:
    ours = exchange("SCRAM-SHA-256", PASSWORD, Link(()), "N")
    next(ours)
    ours.send(b"r=Nx,s=YWJj,i=4096")
    assert isinstance(finish(ours, said), Distrust)


CHOICES: dict[str, tuple[Secrets, Link, str]] = {
    "the best": (PASSWORD, TLS, "SCRAM-SHA-256-PLUS"),
    "no channel to bind to": (PASSWORD, Link(ALL, is_tls=True), "SCRAM-SHA-256"),
    "a token": (TOKEN, TLS, "OAUTHBEARER"),
    "a token, the old way": (TOKEN, Link(("XOAUTH2",), is_tls=True), "XOAUTH2"),
    "a token in the clear": (TOKEN, Link(ALL), ""),
    "a password in the clear": (PASSWORD, Link(("PLAIN", "LOGIN")), ""),
    "SCRAM in the clear": (PASSWORD, Link(("SCRAM-SHA-256", "PLAIN")), "SCRAM-SHA-256"),
    "only LOGIN": (PASSWORD, Link(("LOGIN", "NTLM"), is_tls=True), "LOGIN"),
    "nothing known": (PASSWORD, Link(("NTLM", "GSSAPI"), is_tls=True), ""),
    "nothing offered": (PASSWORD, Link((), is_tls=True), ""),
    "a certificate": (
        Secrets(),
        Link(ALL, is_tls=True, has_certificate=True),
        "EXTERNAL",
    ),
    "no certificate": (Secrets(), Link(ALL, is_tls=True), ""),
    "CRAM-MD5, which is not allowed": (PASSWORD, Link(("CRAM-MD5",)), ""),
}


@pytest.mark.parametrize(
    ("secrets", "link", "expected"), CHOICES.values(), ids=CHOICES.keys()
)
def test_choice(secrets: Secrets, link: Link, expected: str) -> None:
    allowed = [name for name in ALL if name != "CRAM-MD5"]
    assert choose(secrets, allowed, link) == expected


def test_passwords_cross_in_the_clear_only_by_leave() -> None:
    link = Link(("PLAIN",))
    assert choose(PASSWORD, ALL, link) == ""
    assert choose(PASSWORD, ALL, link, in_clear=True) == "PLAIN"


def test_secrets_do_not_show() -> None:
    shown = repr(Secrets("betty", "sesame", "tok.en")) + str(Secrets("b", "sesame"))
    assert "betty" in shown
    assert "sesame" not in shown
    assert "tok.en" not in shown
