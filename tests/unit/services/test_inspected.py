"""A session with a client that is looked up: when it is waited for, who is refused."""

import asyncio
from typing import Any

import pytest

from postroom.dns.answer import Answer, RecordType
from postroom.dns.own import OwnNames
from postroom.mail.envelope import Origin
from postroom.observe.events import ClientSuspected, CommandRejected, MessageQueued
from postroom.policy.builtin import Guards
from postroom.policy.chain import Chain
from postroom.policy.check_settings import (
    DnsListSettings,
    HelloSettings,
    ReverseSettings,
)
from postroom.policy.inspection import Inspector
from postroom.policy.settings import PolicySettings
from postroom.services.receive import ReceiveService
from postroom.services.talk import Talk
from postroom.testing.conversation import ListConversation, Piece
from postroom.testing.resolver import FakeResolver
from postroom.testing.workbench import Bench, bench

STRANGER = Origin(protocol="SMTP", client_ip="192.0.2.1", listener="in")
HELLO = "EHLO c.test\n"
MAIL = "MAIL FROM:<ann@c.test>\n"
JOE = "RCPT TO:<joe@gonzo.test>\n"
POSTMASTER = "RCPT TO:<postmaster@gonzo.test>\n"
CONTENT = "Subject: s\n\nhello\n.\n"
LISTED = {"1.2.0.192.bl.test A": "127.0.0.2"}
LISTS = PolicySettings(dns_lists=DnsListSettings(zones=("bl.test",), reject_at=1))


def look_up(b: Bench, settings: PolicySettings, answers: dict[str, Any]) -> Any:
    """Have a bench's clients looked up."""
    resolver = FakeResolver(answers)
    own = OwnNames.of(["gonzo.test"])
    inspector = Inspector(settings, resolver, own, b.events.append, b.clock)
    hooks = Guards(settings, 0).hooks()
    chain = Chain(hooks, settings, b.events.append, b.clock, lambda: 0)
    b.generation = b.generation._replace(chain=chain, inspector=inspector)
    return resolver


async def talk(b: Bench, *pieces: Piece, origin: Origin = STRANGER) -> list[str]:
    conversation = ListConversation(*pieces)
    before = asyncio.all_tasks()
    await ReceiveService(b.tools).converse(conversation, origin)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    left = map(repr, asyncio.all_tasks() - before)
    assert not [one for one in left if "Inspection" in one or "reverse_name" in one]
    return conversation.codes


async def test_a_listed_client_is_refused_at_rcpt_but_reaches_postmaster() -> None:
    async with bench() as b:
        look_up(b, LISTS, LISTED)
        said = await talk(b, HELLO + MAIL + JOE + POSTMASTER + JOE + "QUIT\n")
        assert said == [
            "220", "250", "250 2.1.0", "550 5.7.1", "250 2.1.5", "550 5.7.1",
            "221 2.0.0",
        ]  # fmt: skip
        assert [event.rule for event in b.told(CommandRejected)] == ["dns_lists"] * 2
        (told,) = b.told(ClientSuspected)
        assert (told.check, told.detail) == ("dns_lists", "score 1: bl.test")
        assert told.action == "reject"


@pytest.mark.parametrize(
    ("origin", "answers"),
    [
        pytest.param(STRANGER, {}, id="not-listed"),
        pytest.param(
            Origin(protocol="SMTP", client_ip="127.0.0.1", listener="in"),
            {"1.0.0.127.bl.test A": "127.0.0.2"},
            id="near",
        ),
        pytest.param(Origin(login="joe", listener="submit"), LISTED, id="sendmail-bs"),
    ],
)
async def test_who_is_served(origin: Origin, answers: dict[str, Any]) -> None:
    async with bench() as b:
        look_up(b, LISTS, answers)
        said = await talk(b, HELLO + MAIL + JOE + "QUIT\n", origin=origin)
        assert said[3] == "250 2.1.5"


async def test_a_verified_name_stands_in_the_message_and_the_log() -> None:
    settings = PolicySettings(reverse=ReverseSettings(look_up=True))
    async with bench() as b:
        b.agents["mailbox"].gate.clear()
        ptr = "1.2.0.192.in-addr.arpa PTR"
        look_up(b, settings, {ptr: "mx.c.test", "mx.c.test A": "192.0.2.1"})
        await talk(b, HELLO + MAIL + JOE + "DATA\n", CONTENT, "QUIT\n")
        (queued,) = b.told(MessageQueued)
        assert queued.origin.client_name == "mx.c.test"


async def test_a_second_message_is_not_looked_up_again_but_a_second_hello_is() -> None:
    settings = PolicySettings(hello=HelloSettings(own_name="reject"))
    async with bench() as b:
        look_up(b, settings, {})
        said = await talk(
            b, HELLO + MAIL + JOE + "RSET\n" + MAIL + "RSET\n", "EHLO gonzo.test\n",
            MAIL + JOE, HELLO + MAIL + JOE, "QUIT\n",
        )  # fmt: skip
        assert [code for code in said if code.startswith(("250 2.1.5", "550"))] == [
            "250 2.1.5", "550 5.7.1", "250 2.1.5"
        ]  # fmt: skip
        assert len(b.told(ClientSuspected)) == 1


async def test_the_first_mail_waits_for_what_is_still_asked() -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    class Waiting(FakeResolver):
        async def query(self, name: str, rdtype: RecordType) -> Answer:
            asked.set()
            await go.wait()
            return await super().query(name, rdtype)

    async with bench() as b:
        look_up(b, LISTS, LISTED)
        assert b.generation.inspector is not None
        b.generation.inspector.resolver = Waiting(LISTED)
        conversation = ListConversation(HELLO, MAIL + JOE, "QUIT\n")
        serving = ReceiveService(b.tools).converse(conversation, STRANGER)
        session = asyncio.create_task(serving)
        await asked.wait()
        await b.until(lambda: "250" in conversation.codes)
        assert "250 2.1.0" not in conversation.codes
        go.set()
        await session
        assert conversation.codes[2:4] == ["250 2.1.0", "550 5.7.1"]


async def test_a_client_that_leaves_before_its_first_mail_leaves_nothing() -> None:
    class Silent(FakeResolver):
        async def query(self, name: str, rdtype: RecordType) -> Answer:
            await asyncio.Event().wait()
            raise AssertionError

    async with bench() as b:
        look_up(b, LISTS, LISTED)
        assert b.generation.inspector is not None
        b.generation.inspector.resolver = Silent()
        assert await talk(b, HELLO, "QUIT\n") == ["220", "250", "221 2.0.0"]


async def test_whoever_is_somebody_else_now_is_looked_up_anew() -> None:
    async with bench() as b:
        resolver = look_up(b, LISTS, LISTED)
        conversation = ListConversation("QUIT\n")
        one = Talk(conversation, b.tools, STRANGER, b.tools.shop.clock())
        one.inspect()
        assert one.inspection is not None
        await one.meet(one.inspection)
        assert one.session.objection is not None
        one.is_now(Origin(protocol="SMTP", client_ip="192.0.2.77", listener="in"))
        assert one.session.objection is None
        assert one.inspection is not None
        await one.meet(one.inspection)
        assert one.session.objection is None
        assert resolver.asked == ["1.2.0.192.bl.test A", "77.2.0.192.bl.test A"]
        one.is_now(Origin(protocol="SMTP", client_ip="127.0.0.1", listener="in"))
        assert one.inspection is None
