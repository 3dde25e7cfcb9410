"""Where there is no way to a hop: who is told at once, and whose mail waits."""

from typing import Any

import pytest

from postroom.agents.settings import SmtpAgentSettings
from postroom.agents.smtp import SmtpAgent
from postroom.dns.answer import DnsFailed, NoSuchDomain
from postroom.dns.own import OwnNames
from postroom.mail.address import Address
from postroom.mail.envelope import Envelope, Recipient
from postroom.mail.ids import QueueId
from postroom.mail.message import MemoryBody, Message
from postroom.mail.now import Now
from postroom.mail.outcome import Attempt, Deferred, Failed
from postroom.mail.route import Route
from postroom.testing.resolver import FakeResolver

OWN = OwnNames.of(["gonzo.test"], ["127.0.1.1"])
ZONE: dict[str, Any] = {
    "null.test MX": "0 .",
    "loop.test MX": "10 gonzo.test",
    "bare.test MX": "10 mx.bare.test",
    "silent.test MX": DnsFailed("no answer"),
    "here.test A": "127.0.0.2",
}


def try_to(hop: str, *recipients: str, say: Any = None) -> Attempt:
    return Attempt(
        QueueId("0Abcdefghij"),
        Envelope(
            Address("betty", "gonzo.test"),
            tuple(Recipient(Address.from_text(text)) for text in recipients),
        ),
        tuple(range(len(recipients))),
        Message(b"Subject: hi\r\n", MemoryBody(b"Text.\r\n")),
        Route("smtp", hop),
        Now(0, 0),
        say,
    )


def agent(*, lmtp: bool = False) -> SmtpAgent:
    settings = SmtpAgentSettings(port=1)
    return SmtpAgent(settings, FakeResolver(ZONE), "gonzo.test", OWN, lmtp=lmtp)


NAMED: dict[str, tuple[str, str]] = {
    "no such host": ("relay.test", "Host unknown"),
    "no such host, with terms": ("relay.test;tls=off", "Host unknown"),
    "no such host, no MX": ("[relay.test]:587", "Host unknown"),
    "takes no mail": ("null.test", "does not accept mail"),
    "ourselves": ("loop.test", "loops back"),
    "our own address": ("[127.0.1.1]", "loops back"),
    "no address": ("bare.test", "no MX host"),
}


@pytest.mark.parametrize(("hop", "why"), NAMED.values(), ids=NAMED)
async def test_mail_waits_where_the_site_has_named_the_hop(hop: str, why: str) -> None:
    """A smart host that has vanished from the DNS must not make all mail bounce."""
    (outcome,) = await agent().deliver(try_to(hop, "joe@whizzer.test"))
    assert isinstance(outcome, Deferred)
    assert (outcome.status, outcome.hop_failed) == ("4.3.5", True)
    assert why in outcome.text
    assert f"mail goes by {hop.partition(';')[0]} here" in outcome.text


OWN_DOMAIN: dict[str, tuple[str, str, str]] = {
    "no such domain": ("gone.test", "joe@Gone.test", "5.1.2"),
    "with terms": ("gone.test;tls=required", "joe@gone.test", "5.1.2"),
    "takes no mail": ("null.test", "joe@null.test", "5.1.10"),
    "ourselves": ("loop.test", "joe@loop.test", "5.4.6"),
    "literal": ("[127.0.1.1]", "joe@[127.0.1.1]", "5.4.6"),
    "IPv6 literal": ("[IPv6:::ffff:7f00:101]", "joe@[IPv6:::ffff:7f00:101]", "5.4.6"),
    "U-label": ("xn--bcher-kva.test", "joe@b\u00fccher.test", "5.1.2"),
}


@pytest.mark.parametrize(
    ("hop", "recipient", "status"), OWN_DOMAIN.values(), ids=OWN_DOMAIN
)
async def test_who_named_the_domain_is_told(
    hop: str, recipient: str, status: str
) -> None:
    (outcome,) = await agent().deliver(try_to(hop, recipient))
    assert isinstance(outcome, Failed), outcome
    assert outcome.status == status


async def test_each_recipient_by_itself() -> None:
    attempt = try_to("relay.test", "joe@relay.test", "ann@whizzer.test")
    outcomes = await agent().deliver(attempt)
    assert [type(outcome) for outcome in outcomes] == [Failed, Deferred]


async def test_who_listens_hears_the_same() -> None:
    lines: list[str] = []
    (outcome,) = await agent().deliver(
        try_to("relay.test", "joe@whizzer.test", say=lines.append)
    )
    assert isinstance(outcome, Deferred)
    assert lines == [
        "joe@whizzer.test... Deferred: mail goes by relay.test here: Host unknown "
        "(Name server: relay.test: host not found)"
    ]


async def test_what_name_servers_cannot_say_waits_as_before() -> None:
    (outcome,) = await agent().deliver(try_to("silent.test", "joe@whizzer.test"))
    assert isinstance(outcome, Deferred)
    assert outcome.status == "4.4.3"


async def test_a_store_that_vanished_waits() -> None:
    (outcome,) = await agent(lmtp=True).deliver(try_to("store.test", "joe@w.test"))
    assert isinstance(outcome, Deferred)
    assert outcome.status == "4.3.5"


async def test_what_vanishes_between_two_looks_waits_for_the_next() -> None:
    resolver = FakeResolver(ZONE)
    one = SmtpAgent(SmtpAgentSettings(port=1), resolver, "gonzo.test", OWN)
    attempt = try_to("here.test", "joe@here.test")
    (outcome,) = await one.deliver(attempt)
    assert isinstance(outcome, Deferred)  # nobody listens there
    resolver.tell("here.test A", NoSuchDomain())
    resolver.tell("here.test MX", NoSuchDomain())
    (outcome,) = await one.deliver(attempt)
    assert isinstance(outcome, Deferred)
    assert outcome.status == "4.4.4"
    (outcome,) = await one.deliver(attempt)
    assert isinstance(outcome, Failed)
    assert outcome.status == "5.1.2"
    await one.aclose()
