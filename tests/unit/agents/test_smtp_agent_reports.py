"""What the SMTP agent says of reports to hosts that offer DSN, and to others."""

import pytest

from postroom.agents.settings import SmtpAgentSettings
from postroom.agents.smtp import SmtpAgent
from postroom.dns.own import OwnNames
from postroom.mail.address import Address
from postroom.mail.envelope import Envelope, Recipient
from postroom.mail.ids import QueueId
from postroom.mail.message import MemoryBody, Message
from postroom.mail.now import Now
from postroom.mail.outcome import Attempt, Delivered, Outcome
from postroom.mail.route import Route
from postroom.testing.resolver import FakeResolver
from postroom.testing.scripted_host import ScriptedHost, running

DSN = b"250-mx\r\n250-PIPELINING\r\n250 DSN\r\n"


def joe(notify: str = "", orcpt: str = "", name: str = "joe") -> Recipient:
    return Recipient(Address(name, "whizzer.test"), notify, orcpt)


async def deliver(
    hello: bytes | None,
    *recipients: Recipient,
    ret: str = "",
    envid: str = "",
    ignored: tuple[str, ...] = (),
) -> tuple[list[str], list[Outcome], bytes]:
    """Hand a message over; returns the commands, the outcomes and the content."""
    host = ScriptedHost({"EHLO": hello} if hello else {})
    envelope = Envelope(
        Address("betty", "gonzo.test"), recipients, ret=ret, envid=envid
    )
    attempt = Attempt(
        QueueId("0Abcdefghij"),
        envelope,
        tuple(range(len(recipients))),
        Message(b"A: b\r\n", MemoryBody(b"text\r\n")),
        Route("smtp", "whizzer.test"),
        Now(1_795_361_711_000_000, 0),
    )
    zone = {"whizzer.test MX": ["10 mx.whizzer.test"], "mx.whizzer.test A": "127.0.0.2"}
    async with running(host):
        settings = SmtpAgentSettings(port=host.port, ignored_extensions=ignored)
        agent = SmtpAgent(settings, FakeResolver(zone), "gonzo.test", OwnNames())
        outcomes = list(await agent.deliver(attempt))
        await agent.aclose()
    said = [line for line in host.lines if line.startswith(("MAIL", "RCPT"))]
    return said, outcomes, host.messages[0]


@pytest.mark.parametrize(
    ("recipient", "expected"),
    [
        (joe(), ""),
        (joe("NEVER"), " NOTIFY=NEVER ORCPT=rfc822;joe@whizzer.test"),
        (joe("success,Delay"), " NOTIFY=success,Delay ORCPT=rfc822;joe@whizzer.test"),
        (joe("", "rfc822;Joe+2Bx@Y"), " ORCPT=rfc822;Joe+2Bx@Y"),
        (joe("FAILURE", "x;y"), " NOTIFY=FAILURE ORCPT=x;y"),
        (joe("", " list@gonzo.test"), " ORCPT=rfc822;list@gonzo.test"),
        (joe("DELAY", "x;y list@gonzo.test"), " NOTIFY=DELAY ORCPT=x;y"),
    ],
)
async def test_a_host_with_dsn_is_told(recipient: Recipient, expected: str) -> None:
    said, (outcome,), _ = await deliver(DSN, recipient, ret="HDRS", envid="a+20b")
    assert said == [
        "MAIL From:<betty@gonzo.test> RET=HDRS ENVID=a+20b",
        f"RCPT To:<joe@whizzer.test>{expected}",
    ]
    assert isinstance(outcome, Delivered)
    assert outcome.relayed
    assert outcome.reports


async def test_what_was_not_asked_is_not_said() -> None:
    said, _, _ = await deliver(DSN, joe())
    assert said == ["MAIL From:<betty@gonzo.test>", "RCPT To:<joe@whizzer.test>"]


async def test_each_recipient_has_its_own_wishes() -> None:
    said, _, _ = await deliver(
        DSN, joe(), joe("NEVER", name="ann"), joe("", "x;y", "bob")
    )
    assert said[1:] == [
        "RCPT To:<joe@whizzer.test>",
        "RCPT To:<ann@whizzer.test> NOTIFY=NEVER ORCPT=rfc822;ann@whizzer.test",
        "RCPT To:<bob@whizzer.test> ORCPT=x;y",
    ]


@pytest.mark.parametrize("hello", [None, b"500 what?\r\n", b"250-mx\r\n250 XDSN\r\n"])
async def test_a_host_without_dsn_is_told_nothing(hello: bytes | None) -> None:
    # RFC 3461 §5.2.2 (a)
    recipient = joe("SUCCESS", "x;y")
    said, (outcome,), _ = await deliver(hello, recipient, ret="FULL", envid="x")
    assert said[1] == "RCPT To:<joe@whizzer.test>"
    assert "RET" not in said[0]
    assert "ENVID" not in said[0]
    assert isinstance(outcome, Delivered)
    assert outcome.relayed
    assert not outcome.reports


async def test_a_host_whose_dsn_is_ignored_sends_no_reports() -> None:
    said, (outcome,), _ = await deliver(DSN, joe("SUCCESS"), ignored=("DSN",))
    assert said[1] == "RCPT To:<joe@whizzer.test>"
    assert isinstance(outcome, Delivered)
    assert not outcome.reports  # so that we send the one that was asked for


@pytest.mark.parametrize(
    ("recipients", "marked"),
    [
        ([joe()], False),
        ([joe("", "x;y")], False),
        ([joe("", " list@gonzo.test")], True),
        ([joe("", "x;y list@gonzo.test")], True),
        ([joe("", " list@gonzo.test"), joe("", " list@gonzo.test", "a")], True),
        ([joe("", " list@gonzo.test"), joe("", " other@gonzo.test", "a")], False),
        ([joe("", " list@gonzo.test"), joe(name="a")], False),
        ([joe("", " no address")], False),
    ],
)
async def test_what_an_alias_sent_on_is_marked(
    recipients: list[Recipient], marked: bool
) -> None:
    _, _, content = await deliver(None, *recipients)
    mark = b"Delivered-To: list@gonzo.test\r\n"
    assert content == (mark if marked else b"") + b"A: b\r\n\r\ntext\r\n"
