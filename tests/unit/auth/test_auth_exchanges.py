"""SASL exchanges: the RFCs' own examples, and all that clients get wrong."""

import hashlib
import hmac
import json
from collections.abc import Callable

import pytest

from postroom.auth import cram
from postroom.auth.external import Certificate, names_in, read_certificate
from postroom.auth.mechanisms import (
    MECHANISMS,
    Ability,
    Circumstances,
    Mechanism,
    needs_secrecy,
    offered,
)
from postroom.auth.oauth import Hints
from postroom.auth.sasl import (
    CheckPassword,
    Failed,
    FindSecret,
    FindUser,
    FindVerifier,
    Proven,
)
from postroom.auth.settings import MECHANISMS as NAMES
from postroom.testing.exchange import Book, Played, Reaction, ScramClient, play

END_POINT = {"tls-server-end-point": b"the certificate's hash"}
NOW = Circumstances(
    nonce="servernonce", challenge=b"<1896.697170952@postoffice.reston.mci.net>"
)
BOUND = Circumstances(nonce="servernonce", bindings=END_POINT)


def book() -> Book:
    return Book(
        {
            "tim": "tanstaaftanstaaf",
            "kurt": "xipj3plmq",
            "user": "pencil",
            "a,b=c": "x",
        },
        names={"tim@whizzer.test": "tim", "Ursel": "user"},
        tokens={"vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==": "user", "ghost": "no"},
    )


def outcome(played: Played) -> str:
    match played.ended:
        case Proven(user):
            return f"is {user}"
        case Failed(kind=kind):
            return kind
        case None:
            return "waits"


# What a client of PLAIN sends, and what comes of it.
PLAIN = {
    "RFC 4616 §4, first": (b"\0tim\0tanstaaftanstaaf", "is tim"),
    "RFC 4616 §4, second: another's name": (b"Ursel\0kurt\0xipj3plmq", "wrong"),
    "one's own name": (b"tim\0tim\0tanstaaftanstaaf", "is tim"),
    "another spelling of one's own": (
        b"tim@whizzer.test\0tim\0tanstaaftanstaaf",
        "is tim",
    ),
    "logging in by that spelling": (b"\0tim@whizzer.test\0tanstaaftanstaaf", "is tim"),
    "acting as nobody we know": (b"ghost\0tim\0tanstaaftanstaaf", "wrong"),
    "wrong password": (b"\0tim\0tanstaaf", "wrong"),
    "no such user": (b"\0ghost\0tanstaaftanstaaf", "wrong"),
    "the password of another": (b"\0tim\0xipj3plmq", "wrong"),
    "empty": (b"", "malformed"),
    "no NUL": (b"tim", "malformed"),
    "one NUL": (b"tim\0tanstaaftanstaaf", "malformed"),
    "three NULs": (b"\0tim\0tanstaaf\0tanstaaf", "malformed"),
    "only NULs": (b"\0\0", "malformed"),
    "no name": (b"\0\0tanstaaftanstaaf", "malformed"),
    "no password": (b"\0tim\0", "malformed"),
    "a name that is no UTF-8": (b"\0t\xffm\0tanstaaftanstaaf", "malformed"),
    "a name with a control character": (b"\0t\x01im\0tanstaaftanstaaf", "malformed"),
    "a name of soft hyphens": ("\0\u00ad\u00ad\0x".encode(), "malformed"),
    "a name without end": (b"\0" + b"t" * 321 + b"\0x", "malformed"),
    "a password without end": (b"\0tim\0" + b"x" * 1025, "malformed"),
    "whom it acts as is no UTF-8": (b"\xff\0tim\0tanstaaftanstaaf", "malformed"),
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain(name: str) -> None:
    message, expected = PLAIN[name]
    assert outcome(play("PLAIN", book(), initial=message)) == expected
    later = play("PLAIN", book(), message)
    assert outcome(later) == expected
    assert later.challenges == [b""]  # RFC 4422 §5


LOGIN: dict[str, tuple[tuple[bytes, ...], str]] = {
    "right": ((b"tim", b"tanstaaftanstaaf"), "is tim"),
    "wrong password": ((b"tim", b"tanstaaf"), "wrong"),
    "no such user": ((b"ghost", b"tanstaaf"), "wrong"),
    "no name": ((b"", b"tanstaaftanstaaf"), "malformed"),
    "no password": ((b"tim", b""), "malformed"),
    "a NUL in the password": ((b"tim", b"tanstaaf\0"), "malformed"),
    "a NUL in the name": ((b"ti\0m", b"tanstaaftanstaaf"), "malformed"),
    "a name without end": ((b"t" * 321, b"x"), "malformed"),
    "gone after the name": ((b"tim",), "waits"),
}


@pytest.mark.parametrize("name", LOGIN)
def test_login(name: str) -> None:
    said, expected = LOGIN[name]
    played = play("LOGIN", book(), *said)
    assert outcome(played) == expected
    assert played.challenges == [b"Username:", b"Password:"]
    early = play("LOGIN", book(), *said[1:], initial=said[0])
    assert outcome(early) == expected
    assert early.challenges == [b"Password:"]


def test_cram_md5_of_rfc_2195() -> None:
    played = play(
        "CRAM-MD5",
        book(),
        b"tim b913a602c7eda7a495b4e6e7334d3890",
        circumstances=NOW,
    )
    assert outcome(played) == "is tim"
    assert played.challenges == [NOW.challenge]


@pytest.mark.parametrize("length", [0, 1, 8, 63, 64, 65, 200])
def test_cram_md5_is_hmac(length: int) -> None:
    password = b"p" * length
    for challenge in (b"", b"<1@a>", b"x" * 55, b"x" * 56, b"x" * 64, b"x" * 300):
        digest = hmac.new(password, challenge, hashlib.md5).hexdigest().encode()
        secret = cram.make_secret(password)
        assert cram.answer(secret, challenge) == digest
        assert cram.from_text(cram.to_text(secret)) == secret


CRAM = {
    "wrong digest": (b"tim " + b"0" * 32, "wrong"),
    "no such user": (b"ghost b913a602c7eda7a495b4e6e7334d3890", "wrong"),
    "another user": (b"kurt b913a602c7eda7a495b4e6e7334d3890", "wrong"),
    "capital digits": (b"tim B913A602C7EDA7A495B4E6E7334D3890", "malformed"),
    "no digest": (b"tim", "malformed"),
    "no name": (b" b913a602c7eda7a495b4e6e7334d3890", "malformed"),
    "a short digest": (b"tim b913a602", "malformed"),
    "empty": (b"", "malformed"),
}


@pytest.mark.parametrize("name", CRAM)
def test_cram_md5_gone_wrong(name: str) -> None:
    response, expected = CRAM[name]
    played = play("CRAM-MD5", book(), response, circumstances=NOW)
    assert outcome(played) == expected


def test_cram_md5_wants_no_initial_response() -> None:
    played = play("CRAM-MD5", book(), initial=b"tim x", circumstances=NOW)
    assert outcome(played) == "unwanted"
    assert not played.challenges


def test_a_digest_for_another_challenge_is_worth_nothing() -> None:
    other = Circumstances(challenge=b"<1897.697170952@postoffice.reston.mci.net>")
    response = b"tim b913a602c7eda7a495b4e6e7334d3890"
    assert outcome(play("CRAM-MD5", book(), response, circumstances=other)) == "wrong"


# SCRAM


def scram(
    client: ScramClient,
    mechanism: Mechanism = "SCRAM-SHA-256",
    circumstances: Circumstances = NOW,
    *more: bytes,
) -> Played:
    said: tuple[Reaction, ...] = (client.final, *(more or (b"",)))
    return play(
        mechanism, book(), *said, initial=client.first, circumstances=circumstances
    )


SCRAM: dict[str, tuple[ScramClient, str]] = {
    "right": (ScramClient("user", "pencil"), "is user"),
    "as oneself": (ScramClient("user", "pencil", header="n,a=user,"), "is user"),
    "as oneself, otherwise": (
        ScramClient("user", "pencil", header="n,a=Ursel,"),
        "is user",
    ),
    "as another": (ScramClient("user", "pencil", header="n,a=tim,"), "wrong"),
    "escaped name": (ScramClient("a=2Cb=3Dc", "x"), "is a,b=c"),
    "wrong password": (ScramClient("user", "pencils"), "wrong"),
    "no such user": (ScramClient("ghost", "pencil"), "wrong"),
    "a client that could bind, had we offered it": (
        ScramClient("user", "pencil", header="y,,"),
        "is user",
    ),
    "binding without -PLUS": (
        ScramClient("user", "pencil", header="p=tls-server-end-point,,"),
        "malformed",
    ),
}


@pytest.mark.parametrize("name", SCRAM)
def test_scram(name: str) -> None:
    client, expected = SCRAM[name]
    assert outcome(scram(client)) == expected


HASH = END_POINT["tls-server-end-point"]
PLUS: dict[str, tuple[ScramClient, Mechanism, str]] = {
    "bound": (
        ScramClient("user", "pencil", header="p=tls-server-end-point,,", binding=HASH),
        "SCRAM-SHA-256-PLUS",
        "is user",
    ),
    "bound to another certificate": (
        ScramClient("user", "pencil", header="p=tls-server-end-point,,", binding=b"x"),
        "SCRAM-SHA-256-PLUS",
        "wrong",
    ),
    "bound to nothing": (
        ScramClient("user", "pencil", header="p=tls-server-end-point,,"),
        "SCRAM-SHA-256-PLUS",
        "wrong",
    ),
    "a type that we do not have": (
        ScramClient("user", "pencil", header="p=tls-unique,,", binding=HASH),
        "SCRAM-SHA-256-PLUS",
        "malformed",
    ),
    "-PLUS without binding": (
        ScramClient("user", "pencil"),
        "SCRAM-SHA-256-PLUS",
        "malformed",
    ),
    "-PLUS and y": (
        ScramClient("user", "pencil", header="y,,"),
        "SCRAM-SHA-256-PLUS",
        "malformed",
    ),
    "our offer was taken out on the way": (
        ScramClient("user", "pencil", header="y,,"),
        "SCRAM-SHA-256",
        "malformed",
    ),
    "a client that cannot bind": (
        ScramClient("user", "pencil"),
        "SCRAM-SHA-256",
        "is user",
    ),
    "binding by the wrong mechanism": (
        ScramClient("user", "pencil", header="p=tls-server-end-point,,", binding=HASH),
        "SCRAM-SHA-256",
        "malformed",
    ),
}


@pytest.mark.parametrize("name", PLUS)
def test_scram_with_channel_binding(name: str) -> None:
    client, mechanism, expected = PLUS[name]
    assert outcome(scram(client, mechanism, BOUND)) == expected


def test_the_proof_goes_before_the_end_and_wants_an_empty_answer() -> None:
    played = scram(ScramClient("user", "pencil"))
    assert [octets[:2] for octets in played.challenges] == [b"r=", b"v="]
    said_more = scram(ScramClient("user", "pencil"), "SCRAM-SHA-256", NOW, b"x")
    assert outcome(said_more) == "malformed"


def test_nothing_is_proven_to_a_client_that_may_not() -> None:
    played = scram(ScramClient("user", "pencil", header="n,a=tim,"))
    assert len(played.challenges) == 1


MANGLED: dict[str, Callable[[bytes], bytes]] = {
    "another nonce": lambda final: final.replace(b"r=clientnonce", b"r=clientnoncf"),
    "a nonce cut short": lambda final: final.replace(b"servernonce", b""),
    "no proof": lambda final: final.partition(b",p=")[0],
    "another proof": lambda final: final[:-5] + b"AAAA=",
    "a proof that is no base64": lambda final: final + b"!",
    "another header": lambda final: final.replace(b"c=biws", b"c=eSws"),
    "empty": lambda _: b"",
    "far too long": lambda final: final + b"x" * 5000,
}


@pytest.mark.parametrize("name", MANGLED)
def test_scram_mangled(name: str) -> None:
    client = ScramClient("user", "pencil")

    def answer(challenge: bytes) -> bytes:
        return MANGLED[name](client.final(challenge))

    played = play(
        "SCRAM-SHA-256", book(), answer, initial=client.first, circumstances=NOW
    )
    assert outcome(played) == "wrong"


class OwnNonce(ScramClient):
    """Proves that it knows the password, but over a nonce of its own choice."""

    def final(self, challenge: bytes) -> bytes:
        self.echoed = "r=mine"
        return super().final(challenge)


def test_a_proof_has_to_be_over_our_nonce() -> None:
    client = OwnNonce("user", "pencil")
    assert outcome(scram(client)) == "wrong"


def test_a_proof_cannot_be_replayed() -> None:
    client, sent = ScramClient("user", "pencil"), []

    def answer(challenge: bytes) -> bytes:
        sent.append(client.final(challenge))
        return sent[-1]

    first = client.first
    once = play("SCRAM-SHA-256", book(), answer, b"", initial=first, circumstances=NOW)
    assert outcome(once) == "is user"
    again = Circumstances(nonce="anothernonce")
    replayed = play(
        "SCRAM-SHA-256", book(), sent[0], initial=first, circumstances=again
    )
    assert outcome(replayed) == "wrong"


# EXTERNAL

EXTERNAL: dict[str, tuple[tuple[bytes, ...], tuple[str, ...], str]] = {
    "one's own": ((b"",), ("tim",), "is tim"),
    "named": ((b"tim",), ("tim",), "is tim"),
    "the second name means somebody": ((b"",), ("ghost", "kurt"), "is kurt"),
    "another's": ((b"kurt",), ("tim",), "wrong"),
    "a stranger": ((b"",), ("ghost",), "wrong"),
    "a certificate without names": ((b"",), (), "wrong"),
    "no UTF-8": ((b"\xff",), ("tim",), "malformed"),
    "a NUL": ((b"tim\0",), ("tim",), "malformed"),
}


@pytest.mark.parametrize("name", EXTERNAL)
def test_external(name: str) -> None:
    said, names, expected = EXTERNAL[name]
    circumstances = Circumstances(names=names)
    played = play("EXTERNAL", book(), *said, circumstances=circumstances)
    assert outcome(played) == expected


PEER = {
    "subject": (
        (("organizationName", "Whizzer"),),
        (("commonName", "tim"), ("serialNumber", "7")),
    ),
    "subjectAltName": (
        ("DNS", "tim.test"),
        ("email", "tim@whizzer.test"),
        ("email", "t@x.test"),
    ),
}


def test_names_in_certificates() -> None:
    certificate = read_certificate(PEER, "ab" * 32)
    assert certificate == Certificate(
        ("tim@whizzer.test", "t@x.test"), ("tim",), "ab" * 32
    )
    table = {"ab" * 32: "kurt"}
    assert names_in(certificate, "email", table) == ("tim@whizzer.test", "t@x.test")
    assert names_in(certificate, "cn", table) == ("tim",)
    assert names_in(certificate, "table", table) == ("kurt",)
    assert names_in(certificate, "table", {}) == ()
    assert names_in(None, "table", {"": "kurt"}) == ()
    assert names_in(read_certificate({}, ""), "email", {}) == ()
    assert names_in(Certificate(common_names=("a\0b",)), "cn", {}) == ()


# Tokens

TOKEN = b"vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="
# RFC 7628 §4.1, with a user of ours
GOOD = (
    b"n,a=user,\x01host=server.example.com\x01port=143\x01auth=Bearer "
    + TOKEN
    + b"\x01\x01"
)
BEARER = {
    "RFC 7628 §4.1": (GOOD, "is user"),
    "without a name": (GOOD.replace(b"a=user", b""), "is user"),
    "y as gs2 flag": (b"y" + GOOD[1:], "is user"),
    "small letters": (GOOD.replace(b"Bearer", b"bearer"), "is user"),
    "an unknown key": (GOOD.replace(b"host", b"qs"), "is user"),
    "another's name": (GOOD.replace(b"a=user", b"a=tim"), "wrong"),
    "another token": (GOOD.replace(b"vF9", b"vF8"), "wrong"),
    "a token of nobody": (GOOD.replace(TOKEN, b"ghost"), "wrong"),
    "RFC 7628 §4.3: asks where to get one": (
        b"n,a=user,\x01host=server.example.com\x01port=143\x01auth=\x01\x01",
        "wrong",
    ),
    "no auth": (b"n,a=user,\x01host=server.example.com\x01\x01", "wrong"),
    "another scheme": (GOOD.replace(b"Bearer", b"Basic"), "wrong"),
    "a token with blanks": (GOOD.replace(b"vF9", b"vF9 "), "wrong"),
    "two of them": (
        GOOD.replace(b"host=server.example.com", b"auth=Bearer x"),
        "malformed",
    ),
    "channel binding": (b"p=tls-exporter" + GOOD[1:], "malformed"),
    "no end": (GOOD[:-1], "malformed"),
    "no header": (GOOD.partition(b"\x01")[2], "malformed"),
    "only the dummy": (b"\x01", "malformed"),
    "empty": (b"", "malformed"),
    "no UTF-8": (GOOD.replace(b"user", b"\xff"), "malformed"),
    "far too long": (GOOD.replace(b"vF9", b"v" * 10_000), "malformed"),
}


@pytest.mark.parametrize("name", BEARER)
def test_oauthbearer(name: str) -> None:
    message, expected = BEARER[name]
    played = play("OAUTHBEARER", book(), b"\x01", initial=message)
    assert outcome(played) == expected
    assert bool(played.lost) == (expected == "wrong")


def test_what_clients_of_oauthbearer_are_told() -> None:
    hints = Hints("mail", "https://op.test/.well-known/openid-configuration")
    bad, circumstances = GOOD.replace(b"vF9", b"x"), Circumstances(hints=hints)
    played = play("OAUTHBEARER", book(), initial=bad, circumstances=circumstances)
    assert outcome(played) == "waits"  # RFC 7628 §3.2.3
    assert played.lost  # it counts, even if the client goes now
    assert json.loads(played.challenges[-1]) == {
        "status": "invalid_token",
        "scope": "mail",
        "openid-configuration": "https://op.test/.well-known/openid-configuration",
    }


def google(auth: bytes, user: bytes = b"user") -> bytes:
    return b"user=" + user + b"\x01auth=" + auth + b"\x01\x01"


XOAUTH2 = {
    "right": (google(b"Bearer " + TOKEN), "is user"),
    "another's name": (google(b"Bearer " + TOKEN, b"tim"), "wrong"),
    "another token": (google(b"Bearer x"), "wrong"),
    "no token": (google(b"Bearer"), "wrong"),
    "no name": (google(b"Bearer " + TOKEN, b""), "malformed"),
    "a name that is none": (google(b"Bearer " + TOKEN, b"\xe2\x80\xa8"), "malformed"),
    "no end": (google(b"Bearer " + TOKEN)[:-1], "malformed"),
    "empty": (b"", "malformed"),
}


@pytest.mark.parametrize("name", XOAUTH2)
def test_xoauth2(name: str) -> None:
    message, expected = XOAUTH2[name]
    played = play("XOAUTH2", book(), b"", initial=message)
    assert outcome(played) == expected
    if expected == "wrong":
        assert json.loads(played.challenges[-1])["status"] == "401"


# What all have in common

SPOKEN: dict[Mechanism, bytes] = {
    "PLAIN": b"\0tim\0tanstaaftanstaaf",
    "SCRAM-SHA-256": b"n,,n=user,r=x",
    "OAUTHBEARER": GOOD,
    "XOAUTH2": google(b"Bearer " + TOKEN),
    "EXTERNAL": b"",
}


@pytest.mark.parametrize("mechanism", SPOKEN)
def test_accounts_that_cannot_be_asked(mechanism: Mechanism) -> None:
    down = book()
    down.is_down = True
    now = Circumstances(nonce="n", names=("tim",))
    played = play(mechanism, down, initial=SPOKEN[mechanism], circumstances=now)
    assert outcome(played) == "later"
    assert not played.challenges


def questions(
    mechanism: Mechanism, *said: bytes | Callable[[bytes], bytes]
) -> list[type]:
    asked = book()
    play(mechanism, asked, *said, circumstances=NOW)
    return [type(question) for question in asked.asked]


def test_a_stranger_is_asked_for_as_often_as_a_user_with_a_wrong_proof() -> None:
    for name in ("user", "ghost"):
        client = ScramClient(name, "nonsense")
        scram_questions = questions("SCRAM-SHA-256", client.first, client.final)
        assert scram_questions == [FindVerifier, FindUser]
        octets = name.encode()
        digest = octets + b" " + b"0" * 32
        assert questions("CRAM-MD5", digest) == [FindSecret, FindUser]
        assert questions("PLAIN", b"\0" + octets + b"\0x") == [CheckPassword]


ALL: tuple[Ability, ...] = ("password", "scram", "cram", "token")


def test_what_is_offered() -> None:
    assert MECHANISMS == NAMES
    assert offered(MECHANISMS, ALL, secrecy=True, binds=True, named=True) == MECHANISMS
    assert offered(MECHANISMS, ALL, secrecy=False, binds=False, named=False) == (
        "SCRAM-SHA-256",
        "CRAM-MD5",
    )
    assert offered(MECHANISMS, ["password"], secrecy=True, binds=True, named=False) == (
        "PLAIN",
        "LOGIN",
    )
    assert offered(["LOGIN", "PLAIN"], ALL, secrecy=True, binds=False, named=True) == (
        "PLAIN",
        "LOGIN",
    )
    assert offered((), ALL, secrecy=True, binds=True, named=True) == ()
    assert [name for name in MECHANISMS if needs_secrecy(name)] == [
        "OAUTHBEARER",
        "XOAUTH2",
        "PLAIN",
        "LOGIN",
    ]
