"""The SMTP agent against hosts of every temper, on loopback."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from postroom.agents.settings import SmtpAgentSettings
from postroom.agents.smtp import Links, SmtpAgent
from postroom.dns.answer import DnsFailed
from postroom.dns.own import OwnNames
from postroom.limits.shared import SharedCounters
from postroom.mail.address import Address
from postroom.mail.envelope import Envelope, Recipient
from postroom.mail.ids import QueueId
from postroom.mail.message import Body, MemoryBody, Message, Prepend
from postroom.mail.now import Now
from postroom.mail.outcome import Attempt, Deferred, Delivered, Failed, Outcome
from postroom.mail.route import Route
from postroom.mail.units import Duration
from postroom.testing.resolver import FakeResolver
from postroom.testing.scripted_host import WILLING, running
from postroom.testing.scripted_host import ScriptedHost as Host

NOW = Now(1_795_361_711_000_000, 0)


def agent_for(
    port: int,
    zone: dict[str, Any] | None = None,
    *,
    own: OwnNames | None = None,
    links: Links | None = None,
    **settings: Any,
) -> SmtpAgent:
    resolver = FakeResolver(
        zone
        or {
            "whizzer.test MX": ["10 mx.whizzer.test"],
            "mx.whizzer.test A": "127.0.0.2",
        }
    )
    chosen = SmtpAgentSettings(port=port, **settings)
    return SmtpAgent(chosen, resolver, "gonzo.test", own or OwnNames(), links)


def attempt(
    *names: str,
    hop: str = "whizzer.test",
    body: Body | None = None,
    header: bytes = b"Subject: hi\r\n",
    say: Callable[[str], None] | None = None,
    message: Message | None = None,
) -> Attempt:
    recipients = tuple(
        Recipient(Address(name, "whizzer.test")) for name in names or ("joe",)
    )
    return Attempt(
        QueueId("0Abcdefghij"),
        Envelope(Address("betty", "gonzo.test"), recipients),
        tuple(range(len(recipients))),
        message or Message(header, body or MemoryBody(b"Text.\r\n")),
        Route("smtp", hop),
        NOW,
        say,
    )


async def deliver_one(host: Host, *names: str, **settings: Any) -> Sequence[Outcome]:
    async with running(host):
        agent = agent_for(host.port, **settings)
        outcomes = await agent.deliver(attempt(*names))
        await agent.aclose()
    return outcomes


# -- good hosts ---------------------------------------------------------------


async def test_a_message_is_handed_over() -> None:
    host = Host()
    (outcome,) = await deliver_one(host)
    assert outcome == Delivered(
        "2.0.0", "Ok: queued as 7", "mx.whizzer.test [127.0.0.2]", relayed=True
    )
    assert host.lines == [
        "EHLO gonzo.test",
        "MAIL From:<betty@gonzo.test> SIZE=22",
        "RCPT To:<joe@whizzer.test>",
        "DATA",
        "QUIT",
    ]
    assert host.messages == [b"Subject: hi\r\n\r\nText.\r\n"]


async def test_edits_dots_and_a_missing_separator() -> None:
    host = Host()
    async with running(host):
        agent = agent_for(host.port)
        one = Message(b"A: b\r\n", MemoryBody(b".x\r\n..\r\n"), (Prepend(b"R: 1\r\n"),))
        two = Message(b"A: b\r\n", MemoryBody(b"text\r\n"), has_separator=False)
        for message in (one, two):
            (outcome,) = await agent.deliver(attempt(message=message))
            assert isinstance(outcome, Delivered)
        await agent.aclose()
    assert host.messages == [
        b"R: 1\r\nA: b\r\n\r\n..x\r\n...\r\n",
        b"A: b\r\ntext\r\n",
    ]


async def test_commands_travel_together_and_so_do_content_and_next_commands() -> None:
    host = Host()
    async with running(host):
        agent = agent_for(host.port, connections_max=1)
        outcomes = await asyncio.gather(*(agent.deliver(attempt()) for _ in range(3)))
        await agent.aclose()
    assert all(isinstance(o, Delivered) for (o,) in outcomes)
    assert host.connections == 1
    assert len(host.messages) == 3
    together = [r for r in host.reads if b"Text.\r\n.\r\nMAIL" in r and b"DATA" in r]
    assert len(together) == 2


async def test_connections_are_kept_and_said_goodbye_to() -> None:
    host = Host()
    async with running(host):
        agent = agent_for(host.port)
        for _ in range(5):
            await agent.deliver(attempt())
        await agent.aclose()
    assert host.connections == 1
    assert host.lines.count("QUIT") == 1
    assert host.lines.count("EHLO gonzo.test") == 1


async def test_a_connection_is_not_used_for_ever() -> None:
    host = Host()
    async with running(host):
        agent = agent_for(host.port, messages_per_connection_max=2)
        for _ in range(5):
            await agent.deliver(attempt())
        await agent.aclose()
    assert host.connections == 3


async def test_a_server_without_pipelining_is_asked_step_by_step() -> None:
    host = Host({"EHLO": b"500 what?\r\n"})
    (outcome,) = await deliver_one(host)
    assert isinstance(outcome, Delivered)
    assert all(read.count(b"\r\n") == 1 for read in host.reads[:5])
    assert host.lines[2] == "MAIL From:<betty@gonzo.test>"


async def test_a_large_message_flows_in_pieces() -> None:
    host = Host({"EHLO": b"250-mx\r\n250 PIPELINING\r\n"})
    body = b"0123456789abcdef.\r\n" * 100_000
    async with running(host):
        agent = agent_for(host.port)
        (outcome,) = await agent.deliver(attempt(body=MemoryBody(body)))
        await agent.aclose()
    assert isinstance(outcome, Delivered)
    assert host.messages[0] == b"Subject: hi\r\n\r\n" + body


# -- recipients and replies -----------------------------------------------------


async def test_each_recipient_has_its_own_outcome() -> None:
    host = Host(
        {
            "RCPT": [
                b"250 2.1.5 Ok\r\n",
                b"550 5.1.1 No such user\r\n",
                b"450 4.2.1 Try later\r\n",
                b"250 2.1.5 Ok\r\n",
            ]
        }
    )
    outcomes = await deliver_one(host, "a", "b", "c", "d")
    assert [type(o) for o in outcomes] == [Delivered, Failed, Deferred, Delivered]
    peer = "mx.whizzer.test [127.0.0.2]"
    assert outcomes[1] == Failed(
        "5.1.1", "No such user", peer, 550, "RCPT", ("550 5.1.1 No such user",)
    )
    assert outcomes[2] == Deferred(
        "4.2.1",
        "450 4.2.1 Try later",
        peer,
        450,
        verb="RCPT",
        said=("450 4.2.1 Try later",),
    )


@pytest.mark.parametrize(
    ("step", "reply", "expected"),
    [
        ("MAIL", b"550 5.7.1 Go away\r\n", Failed),
        ("MAIL", b"451 4.3.0 Not now\r\n", Deferred),
        ("RCPT", b"553 who?\r\n", Failed),
        ("DATA", b"554 5.5.1 No\r\n", Failed),
        ("DATA", b"451 4.3.0 No\r\n", Deferred),
        (".", b"554 5.6.0 Spam\r\n", Failed),
        (".", b"452 4.3.1 Full\r\n", Deferred),
    ],
)
async def test_refusals_at_each_step_are_the_messages_fate(
    step: str, reply: bytes, expected: type[Outcome]
) -> None:
    host = Host({step: [reply, WILLING[step]]})
    async with running(host):
        agent = agent_for(host.port)
        (first,) = await agent.deliver(attempt())
        (second,) = await agent.deliver(attempt())
        await agent.aclose()
    assert isinstance(first, expected)
    assert not (isinstance(first, Deferred) and first.hop_failed)
    assert isinstance(second, Delivered)
    assert host.connections == 1


async def test_codes_without_status_get_sendmails() -> None:
    host = Host({"RCPT": [b"550 unknown\r\n", b"450 busy\r\n"]})
    outcomes = await deliver_one(host, "a", "b")
    assert [o.status for o in outcomes] == ["5.2.0", "4.2.0"]


async def test_too_many_recipients_go_in_several_transactions() -> None:
    many = [b"250 2.1.5 Ok\r\n"] * 3 + [b"452 4.5.3 Too many\r\n"] * 2
    host = Host({"RCPT": [*many, b"250 2.1.5 Ok\r\n"]})
    outcomes = await deliver_one(host, "a", "b", "c", "d", "e")
    assert all(isinstance(o, Delivered) for o in outcomes)
    assert len(host.messages) == 2


async def test_our_own_bound_on_recipients() -> None:
    host = Host()
    names = [f"u{n}" for n in range(7)]
    outcomes = await deliver_one(host, *names, recipients_max=3)
    assert len(outcomes) == 7
    assert len(host.messages) == 3
    assert sum(line.startswith("RCPT") for line in host.lines) == 7


async def test_a_message_over_the_hosts_size_is_not_sent() -> None:
    host = Host()
    async with running(host):
        agent = agent_for(host.port)
        large = MemoryBody(b"x\r\n" * 2_000)
        (outcome,) = await agent.deliver(attempt(body=large))
        assert isinstance(outcome, Failed)
        assert outcome.status == "5.3.4"
        (next_one,) = await agent.deliver(attempt())
        assert isinstance(next_one, Delivered)
        await agent.aclose()
    assert host.connections == 1
    assert len(host.messages) == 1


# -- hosts that fail --------------------------------------------------------------


async def test_nobody_listens() -> None:
    host = Host()
    async with running(host):
        port = host.port
    agent = agent_for(port)
    (outcome,) = await agent.deliver(attempt())
    assert outcome == Deferred(
        "4.4.1",
        "Connection refused by mx.whizzer.test.",
        "mx.whizzer.test [127.0.0.2]",
        hop_failed=True,
    )
    await agent.aclose()


ZONE = {
    "whizzer.test MX": ["10 one.test", "20 two.test"],
    "one.test A": "127.0.0.2",
    "two.test A": "127.0.0.3",
}


@pytest.mark.parametrize(
    "first",
    [
        {"@": b"554 5.3.2 No service\r\n"},
        {"@": b"421 4.3.2 Too busy\r\n"},
        {"@": b"450 later\r\n"},
        {"@": None},
        {"@": b"SSH-2.0-OpenSSH_9.2\r\n"},
        {"@": b"x" * 100_000},
        {"EHLO": b"421 4.3.2 Too busy\r\n"},
        {"EHLO": b"550 no\r\n", "HELO": b"550 no\r\n"},
        {"EHLO": None},
    ],
    ids=lambda first: str(first)[:40],
)
async def test_a_host_that_gives_no_welcome_is_passed_over(
    first: dict[str, Any],
) -> None:
    bad, good = Host(first), Host()
    async with running(bad, good):
        agent = agent_for(bad.port, ZONE)
        (outcome,) = await agent.deliver(attempt())
        await agent.aclose()
    assert isinstance(outcome, Delivered)
    assert outcome.peer == "two.test [127.0.0.3]"
    assert bad.connections == 1


async def test_all_hosts_turn_us_away() -> None:
    host = Host({"@": b"554 5.7.1 You are listed\r\n"})
    (outcome,) = await deliver_one(host)
    assert isinstance(outcome, Deferred)
    assert outcome.hop_failed
    assert outcome.text == "554 5.7.1 You are listed"
    assert outcome.status == "4.3.2"


async def test_a_host_that_never_takes_mail() -> None:
    host = Host({"@": b"521 mx does not accept mail\r\n"})
    (outcome,) = await deliver_one(host)
    assert isinstance(outcome, Failed)
    assert outcome.status == "5.3.2"


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA", "."])
@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (None, "4.4.2"),
        (b"421 4.3.2 Shutting down\r\n", "4.3.2"),
        (b"banana\r\n", "4.5.0"),
        (b"999 what\r\n", "4.5.0"),
    ],
    ids=["drops", "421", "no-code", "999"],
)
async def test_a_peer_that_breaks_off_at_each_step(
    step: str, reply: bytes | None, status: str
) -> None:
    outcomes = await deliver_one(Host({step: reply}), "a", "b")
    for outcome in outcomes:
        assert isinstance(outcome, Deferred)
        assert outcome.hop_failed
        assert outcome.status == status


async def test_what_was_known_before_the_end_is_kept() -> None:
    host = Host({"RCPT": [b"550 5.1.1 No\r\n", b"250 Ok\r\n"], ".": None})
    outcomes = await deliver_one(host, "a", "b")
    assert isinstance(outcomes[0], Failed)
    assert isinstance(outcomes[1], Deferred)
    assert outcomes[1].text == "Connection reset by mx.whizzer.test."


async def test_a_kept_connection_that_has_gone_is_no_failure() -> None:
    host = Host({".": [b"250 Ok\r\n"]})
    async with running(host):
        agent = agent_for(host.port)
        (first,) = await agent.deliver(attempt())
        host.drop_all()
        (second,) = await agent.deliver(attempt())
        assert isinstance(first, Delivered)
        assert isinstance(second, Delivered)
        await agent.aclose()
    assert host.connections == 2


async def test_a_host_that_ends_each_session_after_one_message() -> None:
    bye = b"421 4.7.0 One message is enough\r\n"
    ok = b"250 2.1.0 Ok\r\n"
    host = Host({"MAIL": [ok, bye, ok, bye, ok]})
    async with running(host):
        agent = agent_for(host.port, connections_max=1)
        outcomes = await asyncio.gather(*(agent.deliver(attempt()) for _ in range(3)))
        await agent.aclose()
    assert all(isinstance(o, Delivered) for (o,) in outcomes)
    assert host.connections == 3


async def test_a_host_that_hangs_is_given_up() -> None:
    host = Host({"RCPT": b""})
    (outcome,) = await deliver_one(host, command_timeout=Duration(1))
    assert outcome == Deferred(
        "4.4.2",
        "Connection timed out with mx.whizzer.test.",
        "mx.whizzer.test [127.0.0.2]",
        hop_failed=True,
    )


async def test_a_broken_stored_body_sends_no_half_message() -> None:
    class Broken:
        size = 4_000

        async def read(self, offset: int, octets: int) -> bytes:
            if offset:
                raise OSError("disk gone")
            return b"half\r\n"

    host = Host()
    async with running(host):
        agent = agent_for(host.port)
        with pytest.raises(OSError, match="disk gone"):
            await agent.deliver(attempt(body=Broken()))
        (outcome,) = await agent.deliver(attempt())
        assert isinstance(outcome, Delivered)
        await agent.aclose()
    assert len(host.messages) == 1


async def test_a_cancelled_attempt_is_not_delivered_behind_the_callers_back() -> None:
    host = Host({"MAIL": b""})
    async with running(host):
        agent = agent_for(host.port)
        task = asyncio.create_task(agent.deliver(attempt()))
        await asyncio.wait_for(host.hanging.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        host.answers["MAIL"] = b"250 2.1.0 Ok\r\n"
        host.released.set()
        await agent.aclose()
    assert host.messages == []


# -- the way -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        (
            {"whizzer.test MX": ["0 ."]},
            Failed("5.1.10", "Host does not accept mail: MX 0 ."),
        ),
        (
            {"other.test A": "127.0.0.2"},
            Failed("5.1.2", "Host unknown (Name server: whizzer.test: host not found)"),
        ),
    ],
)
async def test_no_way(zone: dict[str, Any], expected: Outcome) -> None:
    agent = agent_for(1, zone)
    assert await agent.deliver(attempt("a", "b")) == [expected, expected]


async def test_dns_does_not_answer() -> None:
    agent = agent_for(1, {"whizzer.test MX": DnsFailed("SERVFAIL")})
    (outcome,) = await agent.deliver(attempt())
    assert isinstance(outcome, Deferred)
    assert outcome.status == "4.4.3"
    assert outcome.hop_failed
    assert outcome.text.startswith(
        "Name server: whizzer.test: host name lookup failure"
    )


async def test_a_loop_is_seen() -> None:
    agent = agent_for(25, own=OwnNames.of(["mx.whizzer.test"]))
    (outcome,) = await agent.deliver(attempt())
    assert isinstance(outcome, Failed)
    assert outcome.status == "5.4.6"
    assert "loops back" in outcome.text


async def test_a_smart_host_with_a_port_needs_no_mx() -> None:
    host = Host()
    async with running(host):
        agent = agent_for(1)
        hop = f"[127.0.0.2]:{host.port}"
        (outcome,) = await agent.deliver(attempt(hop=hop))
        await agent.aclose()
    assert isinstance(outcome, Delivered)
    assert outcome.peer == "[127.0.0.2] [127.0.0.2]"


async def test_domains_behind_one_host_share_connections_and_binding() -> None:
    host = Host()
    bound: dict[str, str] = {}
    zone = {
        "a.test MX": ["10 mx.test"],
        "b.test MX": ["5 mx.test"],
        "mx.test A": "127.0.0.2",
    }
    async with running(host):
        agent = agent_for(host.port, zone, links=Links(bind=bound.__setitem__))
        await agent.deliver(attempt(hop="a.test"))
        await agent.deliver(attempt(hop="b.test"))
        await agent.aclose()
    assert host.connections == 1
    assert set(bound.values()) == {f"mx.test:{host.port}"}


async def test_the_window_bounds_connections() -> None:
    host = Host()
    async with running(host):
        agent = agent_for(host.port, links=Links(window=lambda hop: 2))
        await asyncio.gather(*(agent.deliver(attempt()) for _ in range(20)))
        await agent.aclose()
    assert host.connections <= 2
    assert len(host.messages) == 20


async def test_connections_are_counted_over_all_workers() -> None:
    host = Host()
    counters = SharedCounters.private(256)
    async with running(host):
        agent = agent_for(
            host.port, links=Links(counters=counters), slot_wait_max=Duration(1)
        )
        key = f"out:mx.whizzer.test:{host.port}"
        assert counters.add(key, 20, 20)
        (refused,) = await agent.deliver(attempt())
        assert isinstance(refused, Deferred)
        assert not refused.hop_failed
        counters.release(key, 20)
        (outcome,) = await agent.deliver(attempt())
        assert isinstance(outcome, Delivered)
        assert counters.count(key) == 1
        await agent.aclose()
        assert counters.count(key) == 0


# -- sendmail -v --------------------------------------------------------------


async def narrated(host: Host, zone: dict[str, Any] | None = None) -> list[str]:
    lines: list[str] = []
    async with running(host):
        agent = agent_for(host.port, zone)
        await agent.deliver(attempt(say=lines.append))
        await agent.aclose()
    return lines


async def test_the_dialogue_is_narrated_as_sendmail_does() -> None:
    host = Host()
    assert await narrated(host) == [
        f"joe@whizzer.test... Connecting to mx.whizzer.test. port {host.port}"
        " via esmtp...",
        "220 mx ESMTP",
        ">>> EHLO gonzo.test",
        "250-mx",
        "250-PIPELINING",
        "250-8BITMIME",
        "250 SIZE 5000",
        ">>> MAIL From:<betty@gonzo.test> SIZE=22",
        ">>> RCPT To:<joe@whizzer.test>",
        ">>> DATA",
        "250 2.1.0 Ok",
        "250 2.1.5 Ok",
        "354 go",
        ">>> .",
        "250 2.0.0 Ok: queued as 7",
        "joe@whizzer.test... Sent (Ok: queued as 7)",
        "Closing connection to mx.whizzer.test.",
        ">>> QUIT",
        "221 2.0.0 Bye",
    ]


async def test_failures_are_narrated_too() -> None:
    lines = await narrated(Host({"RCPT": b"550 5.1.1 No\r\n"}))
    assert "550 5.1.1 No" in lines
    assert "joe@whizzer.test... User unknown" in lines
    lines = await narrated(Host(), {"whizzer.test A": "127.0.0.99"})
    assert lines[-1] == (
        "joe@whizzer.test... Deferred: Connection refused by whizzer.test."
    )
    lines = await narrated(Host(), {"other.test A": "127.0.0.2"})
    assert lines == [
        "joe@whizzer.test... Host unknown (Name server: whizzer.test: host not found)"
    ]
