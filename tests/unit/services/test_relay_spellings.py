"""No spelling of a recipient makes us relay for a stranger, and no trick around it.

Every spelling of ``tests/spellings`` is said to a real session (core, policy, router,
queue) by a client from outside, under several configurations, and again with senders,
hellos and parameters that pretend to be ours. None that leads elsewhere gets 250, and
nothing is handed to the agent that sends mail out; those that are ours by another name
arrive.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from postroom.dns.own import OwnNames
from postroom.mail.envelope import Origin
from postroom.route.facts import RouteFacts, Sources
from postroom.route.questions import ALIASES, ROUTES
from postroom.route.router import Router
from postroom.route.settings import RouteSettings
from postroom.services.face import Face, Kind, Login
from postroom.services.receive import ReceiveService
from postroom.services.settings import ReceiveSettings
from postroom.smtp.settings import ServerSettings
from postroom.testing.conversation import ListConversation
from postroom.testing.workbench import HOST, Aliases, Bench, Plan, bench

TABLES = Path(__file__).parents[2] / "spellings"
STRANGER = Origin(protocol="SMTP", client_ip="203.0.113.9", listener="in")
OURS = ("sub.gonzo.test", "münchen.test")
ADDRESSES = ("192.0.2.25", "2001:db8::25")
PATIENT = ServerSettings(errors_max=1000)
BORNE = ReceiveSettings(bad_recipients_max=0)


def table(name: str) -> dict[str, bytes]:
    """Read a table: the name, then the octets behind ``RCPT TO:``."""
    found: dict[str, bytes] = {}
    for line in (TABLES / name).read_text("utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        name, _, spelling = line.partition(" ")
        assert name not in found, name
        found[name] = re.sub(
            rb"\\x([0-9a-f]{2})",
            lambda match: bytes([int(match[1], 16)]),
            spelling.strip().encode(),
        )
    return found


SPELLINGS, OWN_SPELLINGS = table("foreign.txt"), table("ours.txt")

CONFIGURATIONS = {
    "default": RouteSettings(local_domains=OURS),
    "no-delimiter": RouteSettings(local_domains=OURS, recipient_delimiter=""),
    "smart-host": RouteSettings(local_domains=OURS, smart_host="[198.51.100.7]:587"),
    "routes": RouteSettings(local_domains=OURS, routes="routes"),
    "postmaster-away": RouteSettings(local_domains=OURS, postmaster="joe@gonzo.test"),
}
ROUTED = {
    "elsewhere.test": ("smtp:[198.51.100.7]",),
    ".elsewhere.test": ("smtp:[198.51.100.7]",),
    "whizzer.test": ("lmtp:[198.51.100.7]:24",),
    "*": ("smtp:[198.51.100.8]",),
}


def configured(b: Bench, settings: RouteSettings) -> None:
    own = OwnNames.of([HOST, *OURS], ADDRESSES)
    sources = Sources(
        tables={
            ALIASES: Aliases({"betty": ["joe"], "away": ["joe@elsewhere.test"]}),
            ROUTES: Aliases(ROUTED),
        },
        user_exists={"joe", "postmaster"}.__contains__,
    )
    b.generation = b.generation._replace(
        router=Router(settings, HOST, own), facts=RouteFacts(sources)
    )


async def replies_to(
    b: Bench,
    recipients: Mapping[str, bytes],
    *,
    hello: str = "EHLO outside.test",
    vain: str = "",
    mail: str = "MAIL FROM:<ann@outside.test>",
) -> dict[str, int]:
    """Say all of them in one session, and a message for those that were taken.

    ``vain`` is said between hello and MAIL, and has to be refused.
    """
    conversation = ListConversation(
        f"{hello}\n" + (f"{vain}\n" if vain else "") + f"{mail}\n",
        *(b"RCPT TO:%b\r\n" % spelling for spelling in recipients.values()),
        "DATA\n",
        "Subject: s\n\nhello\n.\n",
        "QUIT\n",
    )
    await ReceiveService(b.tools).converse(conversation, STRANGER)
    await b.idle()
    lines = [line for line in conversation.replies if line[3:4] != "-"]
    if vain:
        assert lines.pop(2)[0] == "5"
    assert [line[:3] for line in lines[:3]] == ["220", "250", "250"], lines[:3]
    said = lines[3 : 3 + len(recipients)]
    return {name: int(line[:3]) for name, line in zip(recipients, said, strict=True)}


def test_the_table_is_large_enough() -> None:
    assert len(set(SPELLINGS.values())) == len(SPELLINGS) >= 200


@pytest.mark.parametrize("settings", CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
async def test_no_spelling_relays(settings: RouteSettings) -> None:
    async with bench(Plan(server=PATIENT, receive=BORNE)) as b:
        configured(b, settings)
        codes = await replies_to(b, SPELLINGS)
        assert {name: code for name, code in codes.items() if code < 400} == {}
        # A refusal for ever, so that no honest client tries again and again.
        assert {name: code for name, code in codes.items() if code < 500} == {}
        assert b.agents["smtp"].tried == b.agents["mailbox"].tried == []


async def test_lmtp_relays_for_nobody() -> None:
    async with bench(Plan(server=PATIENT)) as b:
        configured(b, CONFIGURATIONS["default"])
        b.generation = b.generation._replace(faces={"in": Face(PATIENT, Kind.LMTP)})
        codes = await replies_to(b, SPELLINGS, hello="LHLO outside.test")
        assert {name: code for name, code in codes.items() if code < 500} == {}
        assert b.agents["smtp"].tried == b.agents["mailbox"].tried == []


async def test_submission_without_a_login_takes_nothing() -> None:
    said = "EHLO outside.test\nMAIL FROM:<joe@gonzo.test>\n"
    server = msgspec.structs.replace(PATIENT, auth_mechanisms=("PLAIN",))
    face = Face(server, Kind.SUBMISSION, login=Login.REQUIRED)
    async with bench(Plan(server=server)) as b:
        configured(b, CONFIGURATIONS["default"])
        b.generation = b.generation._replace(faces={"in": face})
        recipients = [b"RCPT TO:%b\r\n" % one for one in SPELLINGS.values()]
        conversation = ListConversation(said, *recipients, "DATA\n", "QUIT\n")
        await ReceiveService(b.tools).converse(conversation, STRANGER)
        lines = [line for line in conversation.replies if line[3:4] != "-"]
        assert lines[2].startswith("530 ")
        assert {line[0] for line in lines[3:-1]} == {"5"}


TRICKS = {
    "null sender": {"mail": "MAIL FROM:<>"},
    "our sender": {"mail": "MAIL FROM:<joe@gonzo.test>"},
    "our postmaster": {"mail": "MAIL FROM:<postmaster@gonzo.test>"},
    "our literal": {"mail": "MAIL FROM:<root@[192.0.2.25]>"},
    "localhost": {"mail": "MAIL FROM:<root@localhost.gonzo.test>"},
    "routed sender": {"mail": "MAIL FROM:<@gonzo.test:joe@elsewhere.test>"},
    "sender is the recipient": {"mail": "MAIL FROM:<joe@elsewhere.test>"},
    "our name": {"hello": "EHLO gonzo.test", "mail": "MAIL FROM:<joe@gonzo.test>"},
    "HELO our name": {"hello": "HELO gonzo.test"},
    "our address": {"hello": "EHLO [192.0.2.25]"},
    "loopback": {
        "hello": "EHLO [127.0.0.1]",
        "mail": "MAIL FROM:<root@localhost.gonzo.test>",
    },
    "AUTH parameter": {"mail": "MAIL FROM:<joe@gonzo.test> AUTH=joe@gonzo.test"},
    "AUTH unknown": {"mail": "MAIL FROM:<joe@gonzo.test> AUTH=<>"},
    "XCLIENT address": {"vain": "XCLIENT ADDR=127.0.0.1 NAME=gonzo.test"},
    "XCLIENT login": {"vain": "XCLIENT LOGIN=joe ADDR=127.0.0.1"},
    "PROXY header": {"vain": "PROXY TCP4 127.0.0.1 192.0.2.25 4242 25"},
    "login": {"vain": "AUTH PLAIN AGpvZQBzZWNyZXQ="},
    "another hello": {"vain": "LHLO gonzo.test"},
    "DSN parameters": {"mail": "MAIL FROM:<> RET=FULL ENVID=joe+40elsewhere.test"},
}


@pytest.mark.parametrize("trick", TRICKS.values(), ids=TRICKS.keys())
async def test_no_trick_relays(trick: dict[str, str]) -> None:
    server = msgspec.structs.replace(PATIENT, auth_mechanisms=("PLAIN",))
    async with bench(Plan(server=server, receive=BORNE)) as b:
        configured(b, CONFIGURATIONS["default"])
        codes = await replies_to(b, SPELLINGS, **trick)
        assert {name: code for name, code in codes.items() if code < 500} == {}
        assert b.agents["smtp"].tried == b.agents["mailbox"].tried == []


async def test_a_good_recipient_opens_no_door() -> None:
    """Foreign ones beside a good one are refused all the same; only he gets it."""
    async with bench(Plan(server=PATIENT, receive=BORNE)) as b:
        configured(b, CONFIGURATIONS["default"])
        codes = await replies_to(b, {"good": b"<joe@gonzo.test>"} | SPELLINGS)
        assert [name for name, code in codes.items() if code < 500] == ["good"]
        assert b.agents["mailbox"].tried == ["joe@gonzo.test"]
        assert b.agents["smtp"].tried == []


@pytest.mark.parametrize("name", OWN_SPELLINGS)
async def test_what_is_ours_by_another_name_arrives(name: str) -> None:
    async with bench() as b:
        configured(b, CONFIGURATIONS["default"])
        codes = await replies_to(b, {name: OWN_SPELLINGS[name]})
        assert codes == {name: 250}
        assert len(b.agents["mailbox"].tried) == 1
        assert b.agents["smtp"].tried == []


async def test_our_own_alias_may_lead_elsewhere() -> None:
    """What the owner of a name wants is not relaying; the table would hide a fault."""
    async with bench() as b:
        configured(b, CONFIGURATIONS["default"])
        assert await replies_to(b, {"away": b"<away@gonzo.test>"}) == {"away": 250}
        assert b.agents["smtp"].tried == ["joe@elsewhere.test"]
