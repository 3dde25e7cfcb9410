"""Logging in at smart hosts: mechanisms, refusals, and what nobody may see."""

import hashlib
import os
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from postroom.agents.logins import Logins, LoginsError
from postroom.auth.mechanisms import Circumstances, Mechanism, begin
from postroom.auth.sasl import Challenge, Lost, Proven
from postroom.mail.outcome import Deferred, Delivered
from postroom.net.tls_client import end_point_binding
from postroom.observe.events import LoggedInElsewhere
from postroom.testing.authority import Authority
from postroom.testing.exchange import Book
from postroom.testing.outbound import OFFERS, READY, Sender
from postroom.testing.scripted_host import Answer, Judge, running
from postroom.testing.scripted_host import ScriptedHost as Host

MX = "mx.whizzer.test"
DONE = b"235 2.7.0 Welcome\r\n"
WRONG = b"535 5.7.8 Authentication credentials invalid\r\n"
LOGINS = """
[relay]
user = "betty"
password = "sesame, \\"open\\""

[cloud]
user = "betty"
token_file = "cloud.token"

[wrong]
user = "betty"
password = "guess"

[certificate]
authorize_as = "betty"
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def logins_file(tmp_path: Path) -> str:
    return secret(tmp_path / "logins", LOGINS)


def secret(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def judge(book: Book, binding: bytes = b"", names: tuple[str, ...] = ()) -> Judge:
    """Judge logins as our own server does."""

    def answer(mechanism: str, responses: list[bytes]) -> bytes:
        now = Circumstances(
            nonce="theirs",
            challenge=b"<1@mx>",
            bindings={"tls-server-end-point": binding} if binding else {},
            names=names,
        )
        said = list(responses)
        takes_first = mechanism not in ("LOGIN", "CRAM-MD5") and bool(said)
        known: Mechanism = mechanism  # type: ignore[assignment]
        exchange = begin(known, said.pop(0) if takes_first else None, now)
        given: Any = None
        while True:
            try:
                step = exchange.send(given)
            except StopIteration as stop:
                return DONE if isinstance(stop.value, Proven) else WRONG
            match step:
                case Challenge(octets) if not said:
                    return b"334 " + b64encode(octets) + b"\r\n"
                case Challenge():
                    given = said.pop(0)
                case Lost():
                    given = None
                case question:
                    given = book.answer(question)

    return answer


def accounts() -> Book:
    return Book({"betty": 'sesame, "open"'}, tokens={"tok.en": "betty"})


def bound(path: str) -> tuple[ssl.SSLContext, bytes]:
    """What a server needs, and what a login is bound to there."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(path)
    pem = Path(path).read_text()
    der = ssl.PEM_cert_to_DER_cert(pem[pem.index("-----BEGIN CERT") :])
    return tls, end_point_binding(der)


def offering(mechanisms: str) -> Mapping[str, Answer]:
    within = f"250-mx\r\n250 AUTH {mechanisms}\r\n".encode()
    return {"EHLO": OFFERS, "STARTTLS": READY, "EHLO/TLS": within}


@pytest.mark.parametrize(
    ("mechanism", "login"),
    [
        ("SCRAM-SHA-256", "relay"),
        ("PLAIN", "relay"),
        ("LOGIN", "relay"),
        ("CRAM-MD5", "relay"),
        ("OAUTHBEARER", "cloud"),
        ("XOAUTH2", "cloud"),
    ],
)
async def test_each_mechanism(
    authority: Authority, logins_file: str, mechanism: str, login: str
) -> None:
    secret(Path(logins_file).with_name("cloud.token"), "tok.en\n")
    tls = authority.server_context(MX)
    host = Host(offering(f"NTLM {mechanism}"), tls=tls, judge=judge(accounts()))
    async with running(host):
        sender = Sender(
            host,
            logins_file=logins_file,
            auth_mechanisms=(mechanism,),
        )
        outcome = await sender.send(f"whizzer.test;tls=required;login={login}")
        await sender.aclose()
    assert isinstance(outcome, Delivered)
    (told,) = sender.told(LoggedInElsewhere)
    assert (told.user, told.mechanism, told.error) == ("betty", mechanism, "")


async def test_a_host_that_wants_long_hashes_holds_up_nobody_else(
    authority: Authority, logins_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = []
    compute = hashlib.pbkdf2_hmac

    def noted(*given: Any) -> bytes:
        where.append(threading.current_thread())
        return compute(*given)

    tls = authority.server_context(MX)
    answers = offering("SCRAM-SHA-256")
    host = Host(answers, tls=tls, judge=judge(accounts()))
    async with running(host):
        monkeypatch.setattr("postroom.auth.sasl_client.hashlib.pbkdf2_hmac", noted)
        sender = Sender(host, logins_file=logins_file)
        outcome = await sender.send("whizzer.test;tls=required;login=relay")
        await sender.aclose()
    assert isinstance(outcome, Delivered)
    # That of the host's side, which the test plays, is on the loop.
    assert any(thread is not threading.main_thread() for thread in where)


async def test_scram_bound_to_the_channel(
    authority: Authority, logins_file: str
) -> None:
    tls, binding = bound(authority.issue(MX))
    answers = offering("PLAIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS")
    host = Host(answers, tls=tls, judge=judge(accounts(), binding))
    async with running(host):
        sender = Sender(host, logins_file=logins_file, login="relay")
        assert isinstance(await sender.send(), Delivered)
        await sender.aclose()
    assert sender.told(LoggedInElsewhere)[0].mechanism == "SCRAM-SHA-256-PLUS"


@pytest.mark.parametrize("level", ["required", "verified"])
async def test_a_host_that_binds_otherwise(
    authority: Authority, logins_file: str, level: str
) -> None:
    """It knows PLUS, but not our binding: only a verified host may do without."""
    answers = offering("SCRAM-SHA-256 SCRAM-SHA-256-PLUS")
    known = judge(accounts())

    def other(mechanism: str, responses: list[bytes]) -> bytes:
        return WRONG if mechanism.endswith("-PLUS") else known(mechanism, responses)

    host = Host(answers, tls=authority.server_context(MX), judge=other)
    async with running(host):
        sender = Sender(
            host,
            logins_file=logins_file,
            login="relay",
            tls=level,
            ca_file=authority.ca_file,
        )
        outcome = await sender.send()
        await sender.aclose()
    assert isinstance(outcome, Delivered if level == "verified" else Deferred)
    tried = [event.mechanism for event in sender.told(LoggedInElsewhere)]
    assert tried == ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"][: len(tried)]


async def test_external_by_our_certificate(
    authority: Authority, logins_file: str
) -> None:
    host = Host(
        offering("EXTERNAL PLAIN"),
        tls=authority.server_context(MX),
        judge=judge(accounts(), names=("betty",)),
    )
    async with running(host):
        sender = Sender(
            host,
            logins_file=logins_file,
            login="certificate",
            certificate=authority.issue("gonzo.test"),
        )
        assert isinstance(await sender.send(), Delivered)
        await sender.aclose()
    assert sender.told(LoggedInElsewhere)[0].mechanism == "EXTERNAL"


REFUSALS: dict[str, tuple[Mapping[str, Answer], Judge | None, str, str]] = {
    "a wrong password": (offering("PLAIN"), judge(Book({})), "4.7.8", "535"),
    "a wrong token": (offering("XOAUTH2"), judge(Book({})), "4.7.4", "offers no"),
    "not now": (
        offering("PLAIN"),
        lambda *_: b"454 4.7.0 Temporary failure\r\n",
        "4.7.8",
        "454",
    ),
    "for good": (offering("PLAIN"), lambda *_: b"534 5.7.9 no\r\n", "4.7.8", "534"),
    "no AUTH there": ({"EHLO": OFFERS, "STARTTLS": READY}, None, "4.7.4", "no AUTH"),
    "nothing in common": (offering("NTLM GSSAPI"), None, "4.7.4", "NTLM GSSAPI"),
    "a server that knows no password": (
        offering("SCRAM-SHA-256"),
        lambda *_: DONE,
        "4.7.8",
        "prove",
    ),
    "nonsense as a challenge": (
        offering("SCRAM-SHA-256"),
        lambda *_: b"334 %%%\r\n",
        "4.7.8",
        "base64",
    ),
    "a challenge outside ASCII": (
        offering("SCRAM-SHA-256"),
        lambda *_: "334 Grüße\r\n".encode(),
        "4.7.8",
        "base64",
    ),
    "challenges without end": (
        offering("PLAIN"),
        lambda *_: b"334 AAAA\r\n",
        "4.7.8",
        "more than",
    ),
    "421 amid it": (offering("PLAIN"), lambda *_: b"421 4.3.2 bye\r\n", "4.3.2", "bye"),
}


@pytest.mark.parametrize(
    ("answers", "how", "status", "text"), REFUSALS.values(), ids=REFUSALS.keys()
)
async def test_a_refused_login_waits(
    authority: Authority,
    logins_file: str,
    answers: Mapping[str, Answer],
    how: Judge | None,
    status: str,
    text: str,
) -> None:
    said: list[str] = []
    host = Host(answers, tls=authority.server_context(MX), judge=how)
    async with running(host):
        sender = Sender(host, logins_file=logins_file, login="relay")
        outcome = await sender.send(say=said.append)
        await sender.aclose()
    assert isinstance(outcome, Deferred), outcome
    assert (outcome.status, outcome.hop_failed) == (status, True)
    assert text in outcome.text
    assert not host.messages
    shown = f"{outcome} {said} {sender.events}"
    assert "sesame" not in shown
    assert b64encode(b"\0betty\0sesame").decode()[:12] not in shown


@pytest.mark.parametrize("leave", [False, True])
async def test_a_password_crosses_in_the_clear_only_by_leave(
    logins_file: str, leave: bool
) -> None:
    answers = {"EHLO": b"250-mx\r\n250 AUTH PLAIN LOGIN\r\n"}
    host = Host(answers, judge=judge(accounts()))
    async with running(host):
        sender = Sender(
            host, logins_file=logins_file, login="relay", auth_in_clear=leave
        )
        outcome = await sender.send()
        await sender.aclose()
    assert isinstance(outcome, Delivered if leave else Deferred)
    assert any(line.startswith("AUTH") for line in host.lines) == leave


async def test_mechanisms_of_before_the_handshake_are_forgotten(
    authority: Authority, logins_file: str
) -> None:
    answers = {
        **offering("SCRAM-SHA-256"),
        "EHLO": OFFERS[:-14] + b"250-AUTH PLAIN\r\n250 STARTTLS\r\n",
    }
    tls = authority.server_context(MX)
    host = Host(answers, tls=tls, judge=judge(accounts()))
    async with running(host):
        sender = Sender(
            host, logins_file=logins_file, login="relay", auth_mechanisms=("PLAIN",)
        )
        assert isinstance(await sender.send(), Deferred)
        await sender.aclose()
    assert not any(line.startswith("AUTH") for line in host.lines)


async def test_a_long_token_waits_for_its_turn(
    authority: Authority, logins_file: str
) -> None:
    """RFC 4954 §4: with AUTH it would make too long a command."""
    token = "t" * 3000
    secret(Path(logins_file).with_name("cloud.token"), token)
    book = Book({"betty": ""}, tokens={token: "betty"})
    tls = authority.server_context(MX)
    host = Host(offering("XOAUTH2"), tls=tls, judge=judge(book))
    async with running(host):
        sender = Sender(host, logins_file=logins_file, login="cloud")
        assert isinstance(await sender.send(), Delivered)
        await sender.aclose()
    assert "AUTH XOAUTH2" in host.lines


async def test_a_new_password_and_a_new_token_are_used_at_once(
    authority: Authority, logins_file: str
) -> None:
    token = secret(Path(logins_file).with_name("cloud.token"), "old")
    tls = authority.server_context(MX)
    host = Host(offering("PLAIN XOAUTH2"), tls=tls, judge=judge(accounts()))
    async with running(host):
        sender = Sender(host, logins_file=logins_file, login="wrong")
        assert isinstance(await sender.send(), Deferred)
        assert isinstance(await sender.send("whizzer.test;login=cloud"), Deferred)
        secret(Path(logins_file), LOGINS.replace('"guess"', "'sesame, \"open\"'"))
        secret(Path(token), "tok.en")
        assert isinstance(await sender.send(), Delivered)
        assert isinstance(await sender.send("whizzer.test;login=cloud"), Delivered)
        await sender.aclose()


async def test_another_login_is_another_connection(
    authority: Authority, logins_file: str
) -> None:
    tls = authority.server_context(MX)
    host = Host(offering("PLAIN"), tls=tls, judge=judge(accounts()))
    async with running(host):
        sender = Sender(host, logins_file=logins_file)
        await sender.send()
        await sender.send("whizzer.test;login=relay")
        await sender.send()
        await sender.aclose()
    assert host.connections == 2
    assert len(host.messages) == 3


async def test_no_message_opens_our_password_to_strangers(
    tmp_path: Path, logins_file: str
) -> None:
    """TLS-Required: No is about its message, not about a password of ours."""
    host = Host(
        offering("PLAIN"),
        tls=Authority(tmp_path, "Strangers CA").server_context(MX),
        judge=judge(accounts()),
    )
    async with running(host):
        sender = Sender(host, logins_file=logins_file, login="relay", tls="verified")
        header = b"TLS-Required: No\r\n"
        assert isinstance(await sender.send(header=header), Deferred)
        await sender.aclose()
    assert not [line for line in host.lines if line.startswith("AUTH")]


# -- the file ---------------------------------------------------------------------

BAD_FILES: dict[str, tuple[str, int, str]] = {
    "no TOML": ("[relay\nuser = sesame", 0o600, "is no TOML"),
    "a wrong type": ("[relay]\nuser = 1", 0o600, "str"),
    "an unknown setting": ('[relay]\nusr = "x"', 0o600, "usr"),
    "a password without a user": ('[relay]\npassword = "x"', 0o600, "has no user"),
    "two secrets": (
        '[relay]\nuser = "a"\npassword = "x"\ntoken_file = "y"',
        0o600,
        "keep one",
    ),
    "readable by a group": (LOGINS, 0o640, "chmod 600"),
    "readable by all": (LOGINS, 0o604, "chmod 600"),
    "another's name": ("[other]\n", 0o600, 'no login "relay"'),
}


@pytest.mark.parametrize(
    ("text", "mode", "words"), BAD_FILES.values(), ids=BAD_FILES.keys()
)
def test_files_that_cannot_be_used(
    tmp_path: Path, text: str, mode: int, words: str
) -> None:
    path = secret(tmp_path / "logins", text)
    Path(path).chmod(mode)
    with pytest.raises(LoginsError, match=words):
        Logins(path).find("relay")


def fifo(path: Path) -> None:
    os.mkfifo(path, 0o600)


def directory(path: Path) -> None:
    path.mkdir(0o700)


def large(path: Path) -> None:
    secret(path, "#" * (1 << 20))


def binary(path: Path) -> None:
    path.write_bytes(b"\xff\xfe")
    path.chmod(0o600)


@pytest.mark.parametrize("make", [fifo, directory, large, binary, lambda path: None])
def test_things_that_are_no_such_file(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "logins")
    with pytest.raises(LoginsError):
        Logins(str(tmp_path / "logins")).find("relay")


@pytest.mark.parametrize("text", ["", " \n", "a\nb", "tök", "a\0b"])
def test_no_token(logins_file: str, text: str) -> None:
    secret(Path(logins_file).with_name("cloud.token"), text)
    with pytest.raises(LoginsError, match="holds no token"):
        Logins(logins_file).find("cloud")


async def test_an_unusable_file_defers_and_tells_only_the_log(
    logins_file: str,
) -> None:
    os.chmod(logins_file, 0o644)
    host = Host()
    async with running(host):
        sender = Sender(host, logins_file=logins_file, login="relay")
        outcome = await sender.send()
        await sender.aclose()
    assert isinstance(outcome, Deferred)
    assert outcome.status == "4.3.5"
    assert logins_file not in outcome.text
    assert "chmod 600" in sender.told(LoggedInElsewhere)[0].error
