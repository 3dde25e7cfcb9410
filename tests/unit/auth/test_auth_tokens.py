"""Bearer tokens: JSON Web Tokens and their keys, and servers that are asked."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from postroom.auth import introspection
from postroom.auth.introspection import AskedTokens, endpoint_of
from postroom.auth.jwt import Rules, judge, read_keys
from postroom.auth.sasl import Known, Unavailable, Unknown, Verdict
from postroom.auth.settings import TokenSettings
from postroom.auth.tokens import SignedTokens
from postroom.mail.now import SECOND_US
from postroom.mail.units import Duration, Size
from postroom.observe.events import AnyEvent, TableRefused
from postroom.testing.workbench import NOON_US, JumpingClock

NOON_S = NOON_US // SECOND_US
RULES = Rules("https://op.test", "mail.test")
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()
CLAIMS = {
    "iss": "https://op.test",
    "aud": "mail.test",
    "sub": "4711",
    "email": "tim@whizzer.test",
    "exp": NOON_S + 300,
    "scope": "openid mail",
}


def b64(data: bytes | int) -> str:
    if isinstance(data, int):
        data = data.to_bytes((data.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwk_rsa(key: rsa.RSAPrivateKey = RSA_KEY, **more: str) -> dict[str, str]:
    numbers = key.public_key().public_numbers()
    return {"kty": "RSA", "kid": "r", "n": b64(numbers.n), "e": b64(numbers.e), **more}


def jwk_ec(**more: str) -> dict[str, str]:
    numbers = EC_KEY.public_key().public_numbers()
    x, y = (b64(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-256", "kid": "e", "x": x, "y": y, **more}


def jwk_ed(**more: str) -> dict[str, str]:
    x = b64(ED_KEY.public_key().public_bytes_raw())
    return {"kty": "OKP", "crv": "Ed25519", "kid": "d", "x": x, **more}


def jwks(*keys: dict[str, str]) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


KEYS = read_keys(jwks(jwk_rsa(), jwk_ec(), jwk_ed()))


def sign_rs256(data: bytes) -> bytes:
    return RSA_KEY.sign(data, padding.PKCS1v15(), hashes.SHA256())


def sign_es256(data: bytes) -> bytes:
    r, s = decode_dss_signature(EC_KEY.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def with_zero(signature: bytes) -> bytes:
    """The same numbers, written otherwise."""
    return signature[:32] + b"\0" + signature[32:]


def sign_es256_der(data: bytes) -> bytes:
    return EC_KEY.sign(data, ec.ECDSA(hashes.SHA256()))


def sign_hs256(data: bytes) -> bytes:
    """What the classic forgery does: the public key as a shared secret."""
    public = json.dumps(jwk_rsa()).encode()
    return hmac.new(public, data, hashlib.sha256).digest()


Sign = Callable[[bytes], bytes]


def token(header: dict[str, Any], sign: Sign = sign_rs256, /, **changes: Any) -> str:
    claims = {k: v for k, v in {**CLAIMS, **changes}.items() if v is not None}
    parts = [b64(json.dumps(part).encode()) for part in (header, claims)]
    signed = ".".join(parts)
    return f"{signed}.{b64(sign(signed.encode()))}"


RS = {"alg": "RS256", "kid": "r", "typ": "at+jwt"}
GOOD = {
    "RS256": token(RS),
    "ES256": token({"alg": "ES256", "kid": "e"}, sign_es256),
    "EdDSA": token({"alg": "EdDSA", "kid": "d"}, ED_KEY.sign),
    "no kid": token({"alg": "RS256"}),
    "several audiences": token(RS, aud=["other", "mail.test"]),
    "just expired": token(RS, exp=NOON_S - 29),
    "fractions of a second": token(RS, exp=NOON_S + 0.5),
    "our clock is late": token(RS, nbf=NOON_S + 30),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_tokens(name: str) -> None:
    judged = judge(GOOD[name], KEYS, RULES, NOON_S)
    assert isinstance(judged, dict), judged
    assert judged["sub"] == "4711"


HEAD, BODY, SIGNATURE = token(RS).split(".")
OTHER = rsa.generate_private_key(65537, 2048)
BAD = {
    "expired": (token(RS, exp=NOON_S - 30), "expired"),
    "no exp": (token(RS, exp=None), "no time of expiry"),
    "exp is a text": (token(RS, exp=str(NOON_S + 9)), "no time of expiry"),
    "exp is true": (token(RS, exp=True), "no time of expiry"),
    "not yet": (token(RS, nbf=NOON_S + 31), "not valid yet"),
    "nbf is a text": (token(RS, nbf="1"), "malformed nbf"),
    "another issuer": (token(RS, iss="https://evil.test"), "another issuer"),
    "a list of issuers": (token(RS, iss=["https://op.test"]), "another issuer"),
    "no issuer": (token(RS, iss=None), "another issuer"),
    "another audience": (token(RS, aud="calendar.test"), "another audience"),
    "part of the audience": (token(RS, aud="mail.test.evil"), "another audience"),
    "no audience": (token(RS, aud=None), "another audience"),
    "an audience that is no text": (token(RS, aud={"mail.test": 1}), "audience"),
    "alg none": (
        token({"alg": "none"}, lambda _: b"x"),
        "algorithm that no key",
    ),
    "alg none, no signature": (f"{b64(b'{}')}.{BODY}.", "not a signed token"),
    "alg NONE": (token({"alg": "nOnE"}, lambda _: b"x"), "algorithm that no key"),
    "HS256 with the public key": (
        token({"alg": "HS256", "kid": "r"}, sign_hs256),
        "algorithm that no key",
    ),
    "no alg": (token({"kid": "r"}), "algorithm that no key"),
    "alg is a list": (token({"alg": ["RS256"]}), "algorithm that no key"),
    "RS256 with the kid of another kind": (
        token({"alg": "RS256", "kid": "e"}),
        "key that we do not know",
    ),
    "an unknown kid": (token({"alg": "RS256", "kid": "x"}), "key that we do not know"),
    "a key of its own": (
        token({"alg": "RS256", "jwk": jwk_rsa(OTHER)}, lambda data: OTHER.sign(
            data, padding.PKCS1v15(), hashes.SHA256()
        )),
        "wrong signature",
    ),
    "crit": (token({**RS, "crit": ["b64"]}), "extensions"),
    "ES256 in DER": (
        token({"alg": "ES256", "kid": "e"}, sign_es256_der),
        "wrong signature",
    ),
    "ES256 with an octet put in": (
        token(
            {"alg": "ES256", "kid": "e"},
            lambda data: with_zero(sign_es256(data)),
        ),
        "wrong signature",
    ),
    "ES256 of zeros": (
        token({"alg": "ES256", "kid": "e"}, lambda _: bytes(64)),
        "wrong signature",
    ),
    "a signature of another": (f"{HEAD}.{BODY}.{SIGNATURE[::-1]}", "wrong signature"),
    "claims of another": (
        f"{HEAD}.{token(RS, email='joe@x.test').split('.')[1]}.{SIGNATURE}",
        "wrong signature",
    ),
    "empty": ("", "not a signed token"),
    "two parts": (f"{HEAD}.{BODY}", "not a signed token"),
    "four parts": (f"{HEAD}.{BODY}.{SIGNATURE}.x", "not a signed token"),
    "encrypted": ("a.b.c.d.e", "not a signed token"),
    "padded": (f"{HEAD}==.{BODY}.{SIGNATURE}", "not a signed token"),
    "a header that is no JSON": (f"{b64(b'x')}.{BODY}.{SIGNATURE}", "not a signed"),
    "a header that is a list": (f"{b64(b'[]')}.{BODY}.{SIGNATURE}", "not a signed"),
    "a header without end": (
        f"{b64(b'[' * 5000)}.{BODY}.{SIGNATURE}",
        "not a signed token",
    ),
    "too long": ("a" * 9000 + "." + BODY + "." + SIGNATURE, "not a signed token"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_tokens(name: str) -> None:
    bad, why = BAD[name]
    judged = judge(bad, KEYS, RULES, NOON_S)
    assert isinstance(judged, str)
    assert why in judged


def test_scopes() -> None:
    rules = Rules("https://op.test", "mail.test", "mail")
    for name, value, good in [
        ("scope", "openid mail", True),
        ("scope", "openid mailx", False),
        ("scp", ["mail"], True),
        ("scope", None, False),
        ("scope", 7, False),
    ]:
        given = token(RS, **{"scope": None, name: value})
        assert isinstance(judge(given, KEYS, rules, NOON_S), dict) == good


UNUSABLE = {
    "no JSON": (b"x", "no JSON"),
    "a list": (b"[]", 'no "keys"'),
    "no keys": (b"{}", 'no "keys"'),
    "none": (jwks(), "no public key"),
    "a shared secret": (jwks({"kty": "oct", "k": "eA"}), "no public key"),
    "only for encryption": (jwks(jwk_rsa(use="enc")), "no public key"),
    "for another algorithm": (jwks(jwk_rsa(alg="RS512")), "no public key"),
    "a short RSA key": (jwks(jwk_rsa(n=b64(1 << 1023))), "no public key"),
    "an RSA key without n": (jwks(jwk_rsa(n="")), "no public key"),
    "a point beside the curve": (jwks(jwk_ec(x=b64(5))), "no public key"),
    "another curve": (jwks(jwk_ec(crv="P-384")), "no public key"),
    "a cut off key": (jwks(jwk_ed(x="eA")), "no public key"),
    "too many": (jwks(*[jwk_ed()] * 65), "more than 64"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_key_sets_that_are_none(name: str) -> None:
    text, why = UNUSABLE[name]
    with pytest.raises(ValueError, match=why):
        read_keys(text)


def test_keys_that_can_be_used_are_taken_from_among_others() -> None:
    keys = read_keys(jwks({"kty": "oct", "k": "eA"}, jwk_rsa(use="enc"), jwk_ed()))
    assert [(key.id, key.algorithm) for key in keys] == [("d", "EdDSA")]


# The file of keys


def jwt_settings(path: Path, **more: Any) -> TokenSettings:
    return TokenSettings(
        verifier="jwt",
        issuer="https://op.test",
        audience="mail.test",
        jwks_file=str(path),
        **more,
    )


class Site:
    """A verifier with its file, clock and events."""

    def __init__(self, path: Path, **more: Any) -> None:
        self.path = path
        self.clock = JumpingClock()
        self.events: list[AnyEvent] = []
        self.pool = ThreadPoolExecutor(1)
        self.tokens = SignedTokens(
            jwt_settings(path, **more), self.pool, self.events.append, self.clock
        )

    def write(self, text: bytes) -> None:
        aside = self.path.with_suffix(".new")
        aside.write_bytes(text)
        os.rename(aside, self.path)
        self.clock.jump(2)

    async def verify(self, given: str) -> Verdict:
        return await self.tokens.verify(given)


async def test_keys_are_read_again_and_a_broken_file_changes_nothing(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path / "jwks")
    found = await site.verify(token(RS))
    assert isinstance(found, Unavailable)
    assert "No such file" in found.reason
    site.write(jwks(jwk_ed()))
    assert isinstance(await site.verify(token(RS)), Unknown)
    site.write(jwks(jwk_rsa()))
    assert await site.verify(token(RS)) == Known("tim@whizzer.test")
    site.write(b"broken")
    for _ in range(3):
        assert await site.verify(token(RS)) == Known("tim@whizzer.test")
        site.clock.jump(2)
    told = [one.error for one in site.events if isinstance(one, TableRefused)]
    assert len(told) == 2  # once for each state
    assert "no JSON" in told[1]
    site.pool.shutdown()


USERS: dict[str, tuple[dict[str, Any], str, Verdict]] = {
    "the address": ({}, "email", Known("tim@whizzer.test")),
    "another claim": ({}, "sub", Known("4711")),
    "none": ({"email": None}, "email", Unknown("the token has no email")),
    "empty": ({"email": ""}, "email", Unknown("the token has no email")),
    "a number": ({"sub": 4711}, "sub", Unknown("the token has no sub")),
    "not proven, as a text": (
        {"email_verified": "false"},
        "email",
        Unknown("the token's address is not verified"),
    ),
    "not proven": (
        {"email_verified": False},
        "email",
        Unknown("the token's address is not verified"),
    ),
}


@pytest.mark.parametrize("name", USERS)
async def test_which_claim_is_the_user(name: str, tmp_path: Path) -> None:
    changes, claim, expected = USERS[name]
    site = Site(tmp_path / "jwks", user_claim=claim)
    site.write(jwks(jwk_rsa()))
    assert await site.verify(token(RS, **changes)) == expected
    site.pool.shutdown()


# Servers that are asked


class Answers:
    """An authorization server on loopback, and what it was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.body = json.dumps({"active": True, "email": "tim"}).encode()
        self.asked: list[dict[str, list[str]]] = []
        self.authorization = ""
        self.location = ""
        self.gate = threading.Event()
        self.gate.set()
        self.url = ""


@contextmanager
def answering() -> Iterator[Answers]:
    answers = Answers()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            octets = self.rfile.read(int(self.headers["Content-Length"]))
            answers.asked.append(parse_qs(octets.decode()))
            answers.authorization = self.headers.get("Authorization", "")
            answers.gate.wait(60)
            self.send_response(answers.status)
            if answers.location:
                self.send_header("Location", answers.location)
            self.send_header("Content-Length", str(len(answers.body)))
            self.end_headers()
            self.wfile.write(answers.body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    answers.url = f"http://127.0.0.1:{server.server_port}/introspect?x=1"
    try:
        yield answers
    finally:
        answers.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()


def asking(answers: Answers, **more: Any) -> AskedTokens:
    settings = TokenSettings(
        verifier="introspection", introspection_url=answers.url, **more
    )
    return AskedTokens(settings, JumpingClock())


async def test_a_token_is_asked_about_once(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cr:t\n")
    with answering() as answers:
        more = {"client_id": "mail", "client_secret_file": str(secret)}
        tokens = asking(answers, **more)
        for _ in range(3):
            assert await tokens.verify("abc") == Known("tim")
        assert answers.asked == [
            {"token": ["abc"], "token_type_hint": ["access_token"]}
        ]
        expected = base64.b64encode(b"mail:s3cr%3At").decode()
        assert answers.authorization == f"Basic {expected}"
        assert await tokens.verify("abd") == Known("tim")
        assert len(answers.asked) == 2
        tokens.close()


@pytest.mark.parametrize("remember", ["0s", "1m"])
async def test_how_long_an_answer_is_good(remember: str) -> None:
    with answering() as answers:
        clock = JumpingClock()
        settings = TokenSettings(
            verifier="introspection",
            introspection_url=answers.url,
            remember=Duration.from_text(remember),
            remembered_max=1,
        )
        answers.body = json.dumps(
            {"active": True, "email": "tim", "exp": NOON_S + 10}
        ).encode()
        tokens = AskedTokens(settings, clock)
        await tokens.verify("abc")
        await tokens.verify("abc")
        assert len(answers.asked) == (1 if remember == "1m" else 2)
        clock.jump(11)  # the token has expired, whatever is remembered
        await tokens.verify("abc")
        await tokens.verify("abd")
        await tokens.verify("abc")
        assert len(answers.asked) == (4 if remember == "1m" else 5)
        tokens.close()


ANSWERS: dict[str, tuple[dict[str, Any] | bytes, type | Known]] = {
    "good": ({"active": True, "email": "tim"}, Known("tim")),
    "another audience than wanted": (
        {"active": True, "email": "tim", "aud": "x"},
        Unknown,
    ),
    "expired, it says": (
        {"active": True, "email": "tim", "aud": "mail.test", "exp": 5},
        Unknown,
    ),
    "another issuer": ({"active": True, "email": "tim", "iss": "x"}, Unknown),
    "right": ({"active": True, "email": "tim", "aud": "mail.test"}, Known("tim")),
    "not active": ({"active": False, "email": "tim", "aud": "mail.test"}, Unknown),
    "active in words": (
        {"active": "true", "email": "tim", "aud": "mail.test"},
        Unknown,
    ),
    "nothing": ({}, Unknown),
    "no user": ({"active": True}, Unknown),
    "no JSON": (b"<html>", Unavailable),
    "a list": (b"[]", Unavailable),
    "too long": (b'{"active": true, "x": "' + b"x" * 2000 + b'"}', Unavailable),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_answers(name: str) -> None:
    body, expected = ANSWERS[name]
    with answering() as answers:
        answers.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        wanted = {} if name == "good" else {"audience": "mail.test"}
        if name == "another issuer":
            wanted = {"issuer": "https://op.test"}
        tokens = asking(answers, answer_octets_max=Size(1024), **wanted)
        found = await tokens.verify("abc")
        if isinstance(expected, Known):
            assert found == expected
        else:
            assert isinstance(found, expected)
        tokens.close()


@pytest.mark.parametrize("status", [302, 307, 400, 401, 500, 503])
async def test_statuses_that_are_no_answer(status: int) -> None:
    with answering() as answers, answering() as elsewhere:
        answers.status, answers.location = status, elsewhere.url
        tokens = asking(answers)
        assert isinstance(await tokens.verify("abc"), Unavailable)
        assert not elsewhere.asked  # no redirect is followed
        tokens.close()


async def test_nobody_answers() -> None:
    with answering() as answers:
        pass
    tokens = asking(answers)
    found = await tokens.verify("abc")
    assert isinstance(found, Unavailable)
    tokens.close()


async def test_a_server_that_takes_too_long() -> None:
    with answering() as answers:
        answers.gate.clear()
        tokens = asking(answers, timeout=Duration.from_text("100ms"))
        found = await tokens.verify("abc")
        assert isinstance(found, Unavailable)
        tokens.close()


async def test_only_so_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(introspection, "WAITING_MAX", 0)
    with answering() as answers:
        answers.gate.clear()
        tokens = asking(answers)
        waiting = [
            asyncio.create_task(tokens.verify(f"t{n}"))
            for n in range(introspection.THREADS)
        ]
        await asyncio.sleep(0)
        found = await tokens.verify("one more")
        assert found == Unavailable("too many tokens wait to be asked about")
        answers.gate.set()
        assert await asyncio.gather(*waiting) == [Known("tim")] * len(waiting)
        tokens.close()


URLS = {
    "https://op.test/introspect": None,
    "http://127.0.0.1:8080/x": None,
    "http://localhost/x": None,
    "http://[::1]/x": None,
    "http://op.test/introspect": "in the clear",
    "http://10.0.0.1/introspect": "in the clear",
    "ftp://op.test/": "no https URL",
    "op.test/introspect": "no https URL",
    "https://": "no https URL",
    "https://me:secret@op.test/": "has a user",
    "https://op.test:x/": "Port could not be cast",
}


@pytest.mark.parametrize("url", URLS)
def test_urls(url: str) -> None:
    why = URLS[url]
    if why is None:
        assert endpoint_of(url).path in ("/introspect", "/x")
        return
    with pytest.raises(ValueError, match=why):
        endpoint_of(url)


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs audience"):
        TokenSettings(verifier="jwt", issuer="x", jwks_file="y")
    with pytest.raises(ValueError, match="needs introspection_url"):
        TokenSettings(verifier="introspection")
    for name in ("client_secret_file", "ca_file"):
        more: dict[str, Any] = {name: str(tmp_path / "nowhere")}
        settings = TokenSettings(
            verifier="introspection",
            introspection_url="https://op.test/",
            client_id="mail",
            **more,
        )
        with pytest.raises(ValueError, match=name):
            AskedTokens(settings, JumpingClock())
