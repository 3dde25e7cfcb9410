"""Targets of logins: SASL messages of every mechanism, both sides; signed tokens."""

import re
from base64 import urlsafe_b64encode

import msgspec

from postroom.auth import jwt
from postroom.auth.cram import make_secret
from postroom.auth.mechanisms import MECHANISMS, Circumstances, begin
from postroom.auth.sasl import (
    Answer,
    Challenge,
    CheckPassword,
    CheckToken,
    Failed,
    FindSecret,
    FindUser,
    FindVerifier,
    Known,
    Lost,
    Proven,
    Step,
    Unknown,
)
from postroom.auth.sasl_client import Link, Secrets, exchange
from postroom.auth.scram import derive

VERIFIER = derive(b"secret", b"0123456789abcdef", 1)
NOW = Circumstances(
    nonce="nonce",
    challenge=b"<1@gonzo.test>",
    bindings={"tls-server-end-point": b"\1\2"},
    names=("joe@gonzo.test",),
)
STEPS_MAX = 20


def sasl(data: bytes) -> None:
    """An exchange of any mechanism: it ends, and only the right secret proves."""
    if not data:
        return
    mechanism = MECHANISMS[data[0] % len(MECHANISMS)]
    said = data[1:].split(b"\xfe")
    initial = None if data[0] & 128 else said.pop(0)
    exchange = begin(mechanism, initial, NOW)
    proven = False
    try:
        step = next(exchange)
        for _ in range(STEPS_MAX):
            answer = answered(step, said)
            proven = proven or isinstance(answer, Known)
            step = exchange.send(answer)
    except StopIteration as stop:
        match stop.value:
            case Proven(user):
                assert user == "joe"
                assert proven or mechanism.startswith(("SCRAM", "CRAM"))
            case Failed(reason):
                assert reason
            case other:
                raise AssertionError(other) from None
        return
    raise AssertionError("the exchange goes on and on")


def answered(step: Step, said: list[bytes]) -> Answer:
    match step:
        case Challenge(octets):
            assert len(octets) <= 12288
            return said.pop(0) if said else b""
        case CheckPassword(login, password):
            assert login
            return Known("joe") if password == b"secret" else Unknown("wrong")
        case CheckToken(token):
            assert token.isascii()
            return Known("joe") if token == "token" else Unknown("wrong")
        case FindVerifier():
            return VERIFIER
        case FindSecret():
            return make_secret(b"secret")
        case FindUser(names):
            return Known("joe") if "joe" in names[0] else Unknown("nobody")
        case Lost():
            return None


SECRETS = Secrets("joe", "secret", "token", "jane")
LINK = Link(MECHANISMS, True, True, b"binding", "mx.example", 587)
MANY_ROUNDS = re.compile(rb"i=0*(?:[5-9]\d{3}|\d{5})")


def sasl_client(data: bytes) -> None:
    """Challenges of any server: no exception, and none is believed without proof."""
    if not data or MANY_ROUNDS.search(data):  # those only take long
        return
    mechanism = MECHANISMS[data[0] % len(MECHANISMS)]
    ours = exchange(mechanism, SECRETS, LINK, "nonce")
    said = data[1:].split(b"\xfe")
    try:
        response = next(ours)
        for _ in range(STEPS_MAX):
            assert len(response) <= 12288
            response = ours.send(said.pop(0) if said else b"")
    except StopIteration as stop:
        distrust = stop.value
    else:
        raise AssertionError("the exchange goes on and on")
    if distrust is None:
        assert not mechanism.startswith("SCRAM")
    else:
        assert distrust.why.isprintable()


NOW_S = 1_795_000_000
HEADER = urlsafe_b64encode(b'{"alg":"RS256"}').decode().rstrip("=")
RULES = jwt.Rules(issuer="https://issuer.test", audience="gonzo.test")


def tokens(data: bytes) -> None:
    """Tokens and key files: no exception but the one that names the file's fault."""
    part = urlsafe_b64encode(data).decode().rstrip("=")
    for token in (data.decode("latin-1"), f"{part}.{part}.AAAA", f"{HEADER}.{part}.AA"):
        assert isinstance(jwt.judge(token, (), RULES, NOW_S), str)
    try:
        claims = msgspec.json.decode(data)
    except ValueError:
        claims = None
    if isinstance(claims, dict):
        assert isinstance(jwt.check_claims(claims, RULES, NOW_S), str)
    try:
        jwt.read_keys(data)
    except ValueError as fault:
        if not str(fault):
            raise
