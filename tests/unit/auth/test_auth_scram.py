"""SCRAM-SHA-256: the RFC's own vector, and what clients get wrong."""

import base64
import hashlib
import hmac

import pytest

from postroom.auth import scram
from postroom.auth.scram import (
    Challenge,
    ClientFirst,
    ScramError,
    ScramSuccess,
    Verifier,
    challenge,
    derive,
    judge,
    prepare,
    read_client_first,
    saslprep,
    stand_in,
)

# RFC 7677 §3
CLIENT_FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
SERVER_NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SERVER_FIRST = (
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    b"s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
)
CLIENT_FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
VERIFIER = derive(b"pencil", SALT, 4096)


def first() -> ClientFirst:
    read = read_client_first(CLIENT_FIRST)
    assert isinstance(read, ClientFirst)
    return read


def given() -> Challenge:
    return challenge(first(), VERIFIER, SERVER_NONCE)


def test_the_exchange_of_rfc_7677() -> None:
    assert first().user == "user"
    assert given().to_wire() == SERVER_FIRST
    success = judge(given(), CLIENT_FINAL)
    assert isinstance(success, ScramSuccess)
    assert success.user == "user"
    assert success.to_wire() == SERVER_FINAL


def test_a_verifier_is_written_and_read() -> None:
    text = VERIFIER.to_text()
    assert text.startswith("4096:W22ZaJ0SNY7soEsUEjb6gQ==$")
    assert Verifier.from_text(text) == VERIFIER
    assert VERIFIER.matches(b"pencil")
    assert not VERIFIER.matches(b"Pencil")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4096",
        "x:AAAA$AAAA:AAAA",
        "4096:AAAA$AAAA:AAAA",
        "4096:AAA$AAAA:AAAA",
        "a" * 999,
    ],
)
def test_texts_that_are_no_verifier(text: str) -> None:
    with pytest.raises(ValueError, match=r"SCRAM|base64|padding|Incorrect"):
        Verifier.from_text(text)


FIRSTS = {
    "empty": (b"", "other-error"),
    "no name": (b"n,,n=,r=abc", "other-error"),
    "no nonce": (b"n,,n=user", "other-error"),
    "an empty nonce": (b"n,,n=user,r=", "other-error"),
    "no header": (b"n=user,r=abc", "other-error"),
    "another flag": (b"x,,n=user,r=abc", "other-error"),
    "channel binding": (b"p=tls-unique,,n=user,r=abc", "channel-binding-not-supported"),
    "an extension we must know": (b"n,,m=x,n=user,r=abc", "extensions-not-supported"),
    "a bad escape": (b"n,,n=us=er,r=abc", "invalid-username-encoding"),
    "no UTF-8": (b"n,,n=\xff,r=abc", "other-error"),
    "far too long": (b"n,,n=user,r=" + b"a" * 5000, "other-error"),
}


@pytest.mark.parametrize("name", FIRSTS)
def test_first_messages_that_cannot_be(name: str) -> None:
    data, word = FIRSTS[name]
    assert read_client_first(data) == ScramError(word)
    assert ScramError(word).to_wire() == b"e=" + word.encode()


def test_first_messages_in_full() -> None:
    read = read_client_first(b"y,a=other,n=a=2Cb=3Dc,r=abc,x=1")
    assert isinstance(read, ClientFirst)
    assert (read.user, read.acts_as, read.nonce) == ("a,b=c", "other", "abc")
    assert read.bare == "n=a=2Cb=3Dc,r=abc,x=1"


FINALS = {
    "empty": (b"", "other-error"),
    "no proof": (CLIENT_FINAL.partition(b",p=")[0], "other-error"),
    "another proof": (CLIENT_FINAL[:-4] + b"VVQ=", "invalid-proof"),
    "a short proof": (CLIENT_FINAL.replace(b"dHzbZapW", b""), "invalid-proof"),
    "a torn proof": (CLIENT_FINAL[:-1], "invalid-encoding"),
    "another nonce": (CLIENT_FINAL.replace(b"%hv", b"%hx"), "invalid-proof"),
    "another header": (
        CLIENT_FINAL.replace(b"biws", b"eSws"),
        "channel-bindings-dont-match",
    ),
    "an extension slipped in": (
        CLIENT_FINAL.replace(b",p=", b",x=1,p="),
        "invalid-proof",
    ),
}


@pytest.mark.parametrize("name", FINALS)
def test_final_messages_that_fail(name: str) -> None:
    data, word = FINALS[name]
    assert judge(given(), data) == ScramError(word)


def test_a_proof_of_another_exchange_is_worthless() -> None:
    other = challenge(first(), VERIFIER, "another")
    assert isinstance(judge(other, CLIENT_FINAL), ScramError)


def test_the_client_of_an_exchange_with_extensions() -> None:
    bare = "n=user,r=abc"
    read = read_client_first(b"n,," + bare.encode())
    assert isinstance(read, ClientFirst)
    made = challenge(read, VERIFIER, "def")
    final = "c=biws,r=abcdef,x=1"
    signed = f"{bare},{made.to_wire().decode()},{final}".encode()
    salted = hashlib.pbkdf2_hmac("sha256", b"pencil", SALT, 4096)
    key = hmac.digest(salted, b"Client Key", "sha256")
    signature = hmac.digest(hashlib.sha256(key).digest(), signed, "sha256")
    proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
    data = f"{final},p={base64.b64encode(proof).decode()}".encode()
    assert isinstance(judge(made, data), ScramSuccess)


def test_who_does_not_exist_has_a_salt_too() -> None:
    one, again = (stand_in("nobody", b"k" * 32, 4096) for _ in range(2))
    assert one == again
    assert one.salt != stand_in("somebody", b"k" * 32, 4096).salt
    assert len(one.salt) == scram.SALT_OCTETS_MIN
    assert not one.matches(b"")


# RFC 4013 §3
PREPARED = {
    "a soft hyphen": ("I\u00adX", "IX"),
    "nothing to do": ("user", "user"),
    "case is kept": ("USER", "USER"),
    "compatibility": ("\u00aa", "a"),
    "a Roman number": ("\u2168", "IX"),
    "an odd blank": ("a\u00a0b", "a b"),
    "an accent composed": ("e\u0301", "\u00e9"),
    "right to left": ("\u0627\u0628", "\u0627\u0628"),
}


@pytest.mark.parametrize("name", PREPARED)
def test_saslprep(name: str) -> None:
    text, expected = PREPARED[name]
    assert saslprep(text) == expected
    assert prepare(text.encode()) == expected.encode()


@pytest.mark.parametrize("text", ["\u0007", "\u0627\u0031", "\u0627a\u0628", "\ue000"])
def test_what_saslprep_forbids_is_used_as_it_is(text: str) -> None:
    with pytest.raises(ValueError, match=r"prohibited|directions"):
        saslprep(text)
    assert prepare(text.encode()) == text.encode()


def test_octets_that_are_no_text() -> None:
    assert prepare(b"\xff\xfe") == b"\xff\xfe"
    assert prepare("\u00ad".encode()) == "\u00ad".encode()
