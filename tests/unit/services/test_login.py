"""AUTH in a session: what is offered, what is answered, what failures cost."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from postroom import defer, hook, reject
from postroom.auth.backend import Accounts
from postroom.auth.sasl import Verdict
from postroom.auth.settings import MECHANISMS, AuthSettings
from postroom.limits.shared import SharedCounters, map_octets, prepare_map
from postroom.mail.envelope import Origin
from postroom.net.stream import StreamInterrupted
from postroom.observe.events import (
    CommandRejected,
    LoggedIn,
    LoginFailed,
    MessageQueued,
    SessionClosed,
)
from postroom.policy.hooks import Function
from postroom.services.receive import ReceiveService
from postroom.smtp.settings import ServerSettings
from postroom.testing.accounts import BookBackend, logins_of
from postroom.testing.conversation import ListConversation, Piece
from postroom.testing.exchange import Book
from postroom.testing.workbench import Bench, Plan, bench

CLIENT = Origin(protocol="SMTP", client_ip="192.0.2.7", listener="in")
OPEN = AuthSettings(plaintext="always")
GOOD = base64.b64encode(b"\0tim\0tanstaaftanstaaf").decode()
BAD = base64.b64encode(b"\0tim\0tanstaaf").decode()
AUTH = f"AUTH PLAIN {GOOD}\n"
WRONG = f"AUTH PLAIN {BAD}\n"
HELLO = "EHLO c.test\n"


def b64(text: bytes) -> str:
    return base64.b64encode(text).decode()


def book() -> Book:
    return Book({"tim": "tanstaaftanstaaf", "joe": "x"}, tokens={"token": "tim"})


class SlowCheck(BookBackend):
    """Checks of passwords that end when they are told to."""

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self.checks = 0
        self.client_ip = ""
        self.go_on = asyncio.Event()

    async def check_password(
        self, login: str, password: bytes, client_ip: str = ""
    ) -> Verdict:
        self.checks += 1
        self.client_ip = client_ip
        await self.go_on.wait()
        return await super().check_password(login, password, client_ip)


@asynccontextmanager
async def site(
    settings: AuthSettings = OPEN,
    *hooks: Function,
    accounts: Book | None = None,
    mechanisms: tuple[str, ...] = MECHANISMS,
) -> AsyncIterator[Bench]:
    server = ServerSettings(auth_mechanisms=mechanisms)
    users = ("tim", "joe", "postmaster")
    async with bench(Plan(server=server, hooks=hooks, users=users)) as b:
        logins = logins_of(accounts or book(), settings, b.counters)
        b.tools = b.tools._replace(logins=logins)
        yield b


async def talk(b: Bench, *pieces: Piece, origin: Origin = CLIENT) -> ListConversation:
    conversation = ListConversation(*pieces)
    await ReceiveService(b.tools).converse(conversation, origin)
    return conversation


def auth_line(said: ListConversation) -> str:
    found = [line[4:] for line in said.replies if line[4:].startswith("AUTH")]
    return found[-1] if found else ""


async def test_a_login_and_what_it_is_good_for() -> None:
    async with site() as b:
        said = await talk(
            b,
            HELLO + AUTH,
            HELLO,
            "MAIL FROM:<tim@gonzo.test>\nRCPT TO:<joe@gonzo.test>\nDATA\n",
            "Subject: s\n\nhello\n.\n",
            "QUIT\n",
        )
        assert said.codes == [
            "220", "250", "235 2.7.0", "250", "250 2.1.0", "250 2.1.5", "354",
            "250 2.0.0", "221 2.0.0",
        ]  # fmt: skip
        (told,) = b.told(LoggedIn)
        assert (told.user, told.mechanism, told.service) == ("tim", "PLAIN", "smtp")
        (queued,) = b.told(MessageQueued)
        assert (queued.origin.login, queued.origin.protocol) == ("tim", "ESMTPA")
        assert auth_line(said).startswith("AUTH SCRAM")
        assert said.written.count(b"AUTH ") == 1  # RFC 4954 §4: once


OFFERS = {
    "in the clear": (AuthSettings(), CLIENT, "AUTH SCRAM-SHA-256 CRAM-MD5"),
    "from here, in the clear": (
        AuthSettings(),
        Origin(client_ip="127.0.0.1", listener="in"),
        "AUTH SCRAM-SHA-256 CRAM-MD5",
    ),
    "from here, where that is enough": (
        AuthSettings(plaintext="loopback"),
        Origin(client_ip="::1", listener="in"),
        "AUTH SCRAM-SHA-256 OAUTHBEARER XOAUTH2 PLAIN LOGIN CRAM-MD5",
    ),
    "from elsewhere, where here is enough": (
        AuthSettings(plaintext="loopback"),
        CLIENT,
        "AUTH SCRAM-SHA-256 CRAM-MD5",
    ),
    "anywhere": (
        OPEN,
        CLIENT,
        "AUTH SCRAM-SHA-256 OAUTHBEARER XOAUTH2 PLAIN LOGIN CRAM-MD5",
    ),
}


@pytest.mark.parametrize("name", OFFERS)
async def test_what_is_offered(name: str) -> None:
    settings, origin, expected = OFFERS[name]
    async with site(settings) as b:
        assert auth_line(await talk(b, HELLO, origin=origin)) == expected


async def test_only_what_the_listener_wants() -> None:
    async with site(mechanisms=("LOGIN", "EXTERNAL")) as b:
        said = await talk(b, HELLO, AUTH, "AUTH EXTERNAL =\n")
        assert auth_line(said) == "AUTH LOGIN"
        assert said.codes[2:] == ["504 5.5.4", "504 5.5.4"]
    async with site(AuthSettings(), mechanisms=("PLAIN", "LOGIN")) as b:
        assert not auth_line(await talk(b, HELLO))  # no empty AUTH line


async def test_without_accounts_nobody_logs_in() -> None:
    async with site() as b:
        b.tools = b.tools._replace(logins=None)
        said = await talk(b, HELLO, AUTH)
        assert not auth_line(said)
        assert said.codes[2:] == ["504 5.5.4"]


# What a client says after EHLO, each piece after the answer to the one before, and the
# codes of the answers.
SAID: dict[str, tuple[list[str], list[str]]] = {
    "PLAIN in two steps": (["AUTH PLAIN", GOOD], ["334", "235 2.7.0"]),
    "LOGIN": (
        ["AUTH LOGIN", b64(b"tim"), b64(b"tanstaaftanstaaf")],
        ["334", "334", "235 2.7.0"],
    ),
    "LOGIN with the name at once": (
        ["AUTH LOGIN " + b64(b"tim"), b64(b"tanstaaftanstaaf")],
        ["334", "235 2.7.0"],
    ),
    "small letters": ([f"auth plain {GOOD}"], ["235 2.7.0"]),
    "a token": (
        ["AUTH OAUTHBEARER " + b64(b"n,,\x01auth=Bearer token\x01\x01")],
        ["235 2.7.0"],
    ),
    "a bad token": (
        ["AUTH OAUTHBEARER " + b64(b"n,,\x01auth=Bearer t\x01\x01"), b64(b"\x01")],
        ["334", "535 5.7.8"],
    ),
    "a bad token, told by *": (
        ["AUTH XOAUTH2 " + b64(b"user=tim\x01auth=Bearer t\x01\x01"), "*"],
        ["334", "501 5.7.0"],
    ),
    "wrong password": ([f"AUTH PLAIN {BAD}"], ["535 5.7.8"]),
    "no such user": (["AUTH PLAIN " + b64(b"\0ghost\0x")], ["535 5.7.8"]),
    "malformed": (["AUTH PLAIN " + b64(b"tim")], ["535 5.7.8"]),
    "as another": (
        ["AUTH PLAIN " + b64(b"joe\0tim\0tanstaaftanstaaf")],
        ["535 5.7.8"],
    ),
    "an empty response": (["AUTH PLAIN ="], ["535 5.7.8"]),
    "cancelled": (["AUTH PLAIN", "*"], ["334", "501 5.7.0"]),
    "cancelled, then once more": (
        ["AUTH PLAIN", "*", f"AUTH PLAIN {GOOD}"],
        ["334", "501 5.7.0", "235 2.7.0"],
    ),
    "failed, then once more": (
        [f"AUTH PLAIN {BAD}", f"AUTH PLAIN {GOOD}"],
        ["535 5.7.8", "235 2.7.0"],
    ),
    "no base64": (["AUTH PLAIN", "!!!"], ["334", "501 5.5.2"]),
    "truncated base64": (["AUTH PLAIN", GOOD[:-1]], ["334", "501 5.5.2"]),
    "base64 with blanks": (["AUTH LOGIN", "dGl t"], ["334", "501 5.5.2"]),
    "no base64 at once": (["AUTH PLAIN dGlt="], ["501 5.5.2"]),
    "an initial response that CRAM-MD5 has not": (
        ["AUTH CRAM-MD5 " + b64(b"tim x")],
        ["501 5.7.0"],
    ),
    "an unknown mechanism": (["AUTH KERBEROS_V4"], ["504 5.5.4"]),
    "no mechanism": (["AUTH"], ["501 5.5.4"]),
    "EXTERNAL without a certificate": (["AUTH EXTERNAL ="], ["504 5.5.4"]),
    "-PLUS without TLS": (["AUTH SCRAM-SHA-256-PLUS"], ["504 5.5.4"]),
    "twice": (
        [f"AUTH PLAIN {GOOD}", f"AUTH PLAIN {GOOD}"],
        ["235 2.7.0", "503 5.5.1"],
    ),
    "in a transaction": (
        ["MAIL FROM:<a@c.test>", f"AUTH PLAIN {GOOD}", "RSET", f"AUTH PLAIN {GOOD}"],
        ["250 2.1.0", "503 5.5.1", "250 2.0.0", "235 2.7.0"],
    ),
    "a response without end": (["AUTH PLAIN", "A" * 12_300], ["334", "500 5.5.6"]),
}  # fmt: skip


@pytest.mark.parametrize("name", SAID)
async def test_dialogues(name: str) -> None:
    said, codes = SAID[name]
    async with site() as b:
        heard = await talk(b, HELLO, *[f"{line}\n" for line in said])
        assert heard.codes[2:] == codes


async def test_before_hello() -> None:
    async with site() as b:
        assert (await talk(b, AUTH)).codes[1:] == ["503 5.5.1"]


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER"])
async def test_secrets_want_tls(mechanism: str) -> None:
    async with site(AuthSettings()) as b:
        said = await talk(b, HELLO, f"AUTH {mechanism} {GOOD}\n")
        assert said.codes[2:] == ["538 5.7.11"]
        assert not b.told(LoginFailed)
        (rejected,) = b.told(CommandRejected)
        assert GOOD not in rejected.argument  # what it sent is nobody's business


async def test_failures_are_told_held_back_and_counted() -> None:
    async with site() as b:
        said = await talk(b, HELLO, WRONG, WRONG, WRONG, "NOOP\n")
        assert said.codes[2:] == ["535 5.7.8", "535 5.7.8", "421 4.7.0"]
        assert said.pauses.count(OPEN.failure_delay) == 3
        told = b.told(LoginFailed)
        assert [(one.user, one.mechanism) for one in told] == [("tim", "PLAIN")] * 3
        assert told[0].reason == "wrong user or password"
        assert b.told(SessionClosed)[-1].how == "errors"
        assert not b.told(LoggedIn)


async def test_a_client_that_breaks_off_has_failed_all_the_same() -> None:
    async with site() as b:
        shown = b64(b"user=tim\x01auth=Bearer t\x01\x01")
        await talk(b, HELLO, f"AUTH XOAUTH2 {shown}\n", "*\n")
        await talk(b, HELLO, f"AUTH XOAUTH2 {shown}\n")
        assert len(b.told(LoginFailed)) == 2


async def test_an_address_that_fails_too_often_is_not_heard() -> None:
    settings = AuthSettings(plaintext="always", failures_per_client=4)
    async with site(settings) as b:
        for _ in range(2):
            await talk(b, HELLO, WRONG, WRONG)
        asked = book()
        b.tools = b.tools._replace(logins=logins_of(asked, settings, b.counters))
        barred = await talk(b, HELLO, AUTH, WRONG)
        assert barred.codes[2:] == ["454 4.7.0", "454 4.7.0"]
        assert not asked.asked  # nothing was checked
        other = await talk(b, HELLO, AUTH, origin=Origin(client_ip="192.0.2.8"))
        assert other.codes[2:] == ["235 2.7.0"]
        b.clock.jump(settings.failures_period.seconds / 4)
        assert (await talk(b, HELLO, AUTH)).codes[2:] == ["235 2.7.0"]


@pytest.mark.parametrize(
    ("begun", "guess"),
    [
        ("AUTH LOGIN " + b64(b"tim"), b64(b"tanstaaftanstaaf")),
        ("AUTH PLAIN", GOOD),
    ],
)
async def test_exchanges_held_open_are_no_further_guesses(
    begun: str, guess: str
) -> None:
    settings = AuthSettings(plaintext="always", failures_per_client=2)
    asked = book()
    async with site(settings, accounts=asked) as b:

        async def fails_elsewhere() -> None:
            await talk(b, HELLO, WRONG, WRONG)
            asked.asked.clear()

        said = await talk(b, HELLO, f"{begun}\n", fails_elsewhere, f"{guess}\n")
        assert said.codes[-1] == "454 4.7.0"
        assert not asked.asked
        assert not b.told(LoggedIn)


async def test_what_came_of_guesses_made_side_by_side_is_not_told() -> None:
    settings = AuthSettings(plaintext="always", failures_per_client=2)
    async with site(settings) as b:
        quick = logins_of(book(), settings, b.counters)
        slow = SlowCheck(book())
        b.tools = b.tools._replace(logins=quick._replace(accounts=Accounts(slow)))
        sessions = [asyncio.create_task(talk(b, HELLO, one)) for one in (AUTH, WRONG)]
        await b.until(lambda: slow.checks == 2)
        assert slow.client_ip == CLIENT.client_ip  # PAM is told
        b.tools = b.tools._replace(logins=quick)
        await talk(b, HELLO, WRONG, WRONG)
        slow.go_on.set()
        for said in await asyncio.gather(*sessions):
            assert said.codes[2:] == ["454 4.7.0"]
        assert not b.told(LoggedIn)


async def test_a_network_of_ipv6_is_one_client() -> None:
    settings = AuthSettings(plaintext="always", failures_per_client=2)
    near, far = (Origin(client_ip=f"2001:db8:0:{n}::7") for n in (1, 2))
    async with site(settings) as b:
        await talk(b, HELLO, WRONG, WRONG, origin=Origin(client_ip="2001:db8:0:1::9"))
        assert (await talk(b, HELLO, AUTH, origin=near)).codes[2:] == ["454 4.7.0"]
        assert (await talk(b, HELLO, AUTH, origin=far)).codes[2:] == ["235 2.7.0"]


async def test_a_user_who_is_guessed_at_is_slow_and_not_locked_out() -> None:
    settings = AuthSettings(plaintext="always", failures_per_user=2)
    async with site(settings) as b:
        for n in range(3):
            guesser = Origin(client_ip=f"192.0.2.{n + 20}")
            said = await talk(b, HELLO, WRONG, origin=guesser)
        assert said.pauses == [settings.failure_delay_max]
        good = await talk(b, HELLO, AUTH)
        assert good.codes[2:] == ["235 2.7.0"]
        assert good.pauses == [settings.failure_delay_max]
        joe = b64(b"\0joe\0x")
        assert not (await talk(b, HELLO, f"AUTH PLAIN {joe}\n")).pauses


async def test_two_workers_count_together() -> None:
    buffer = bytearray(map_octets(2))
    prepare_map(buffer)
    settings = AuthSettings(plaintext="always", failures_per_client=4)
    async with site(settings) as b:
        workers = [
            b.tools._replace(
                logins=logins_of(book(), settings, SharedCounters(buffer, 2, row))
            )
            for row in (0, 1)
        ]
        for tools in workers:
            b.tools = tools
            await talk(b, HELLO, WRONG, WRONG)
        for tools in workers:
            b.tools = tools
            assert (await talk(b, HELLO, AUTH)).codes[2:] == ["454 4.7.0"]


async def test_accounts_that_cannot_be_asked_are_no_failure() -> None:
    down = book()
    down.is_down = True
    async with site(accounts=down) as b:
        said = await talk(b, HELLO, *[AUTH] * 5)
        assert said.codes[2:] == ["454 4.7.0"] * 5
        assert not any(said.pauses)
        assert b.told(LoginFailed)[0].reason == "down"


@pytest.mark.parametrize(
    ("verdict", "code"),
    [
        (reject("5.7.1", "not from there"), "535 5.7.1"),
        (defer("4.7.1", "not now"), "454 4.7.1"),
    ],
)
async def test_a_hook_refuses_a_good_login(verdict: Any, code: str) -> None:
    seen = []

    @hook.auth
    def judge(session: Any, auth: Any) -> Any:
        seen.append((auth.user, auth.mechanism, session.login))
        return verdict

    async with site(OPEN, judge) as b:
        said = await talk(b, HELLO, AUTH, "MAIL FROM:<a@c.test>\n")
        assert said.codes[2] == code
        assert seen == [("tim", "PLAIN", "")]
        assert not b.told(LoggedIn)
        assert len(b.told(CommandRejected)) == 1
        assert not auth_line(await talk(b, "HELO c.test\n"))


async def test_a_server_that_ends_does_so_after_the_login() -> None:
    async with site() as b:
        said = await talk(b, HELLO, "AUTH PLAIN\n", StreamInterrupted("drain"))
        assert said.codes[2:] == ["334", "421 4.3.2"]


AUTHS = {
    "one's own": ("tim@gonzo.test", AUTH, "tim@gonzo.test"),
    "one's own, bare of its domain": ("tim@elsewhere.test", AUTH, "<>"),
    "another's": ("joe@gonzo.test", AUTH, "<>"),
    "nobody's": ("<>", AUTH, "<>"),
    "without a login": ("tim@gonzo.test", "NOOP\n", "<>"),
    "no address": ("x+40+40", AUTH, "<>"),
}


@pytest.mark.parametrize("name", AUTHS)
async def test_what_is_believed_of_mail_auth(name: str) -> None:
    given, before, expected = AUTHS[name]
    async with site() as b:
        b.agents["mailbox"].gate.clear()
        await talk(
            b,
            HELLO + before,
            f"MAIL FROM:<tim@gonzo.test> AUTH={given}\n",
            "RCPT TO:<joe@gonzo.test>\nDATA\n",
            "Subject: s\n\nhello\n.\n",
        )
        await b.until(lambda: bool(b.agents["mailbox"].attempts))
        (attempt,) = b.agents["mailbox"].attempts
        assert attempt.envelope.auth == expected
