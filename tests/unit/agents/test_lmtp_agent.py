"""The LMTP agent: a reply per recipient, sockets, and what a store refuses."""

import asyncio
from pathlib import Path

from postroom.agents.lmtp import lmtp_agent
from postroom.agents.settings import SmtpAgentSettings
from postroom.mail.address import Address
from postroom.mail.envelope import Envelope, Recipient
from postroom.mail.ids import QueueId
from postroom.mail.message import MemoryBody, Message
from postroom.mail.now import Now
from postroom.mail.outcome import Attempt, Deferred, Delivered, Failed
from postroom.mail.route import Route
from postroom.testing.resolver import FakeResolver
from postroom.testing.scripted_host import ScriptedHost as Host
from postroom.testing.scripted_host import running


def attempt(hop: str, *names: str) -> Attempt:
    recipients = tuple(Recipient(Address(name, "whizzer.test")) for name in names)
    return Attempt(
        QueueId("0Abcdefghij"),
        Envelope(Address("betty", "gonzo.test"), recipients),
        tuple(range(len(recipients))),
        Message(b"Subject: hi\r\n", MemoryBody(b"Text.\r\n")),
        Route("lmtp", hop),
        Now(1_795_361_711_000_000, 0),
    )


async def test_lmtp_answers_for_each_recipient() -> None:
    host = Host(
        {".": [b"250 2.0.0 Saved\r\n", b"552 5.2.2 Mailbox full\r\n"]}, lmtp=True
    )
    async with running(host):
        agent = lmtp_agent(SmtpAgentSettings(), FakeResolver(), "gonzo.test")
        hop = f"[127.0.0.2]:{host.port}"
        outcomes = await agent.deliver(attempt(hop, "a", "b"))
        await agent.aclose()
    assert host.lines[0] == "LHLO gonzo.test"
    assert isinstance(outcomes[0], Delivered)
    assert not outcomes[0].relayed
    assert isinstance(outcomes[1], Failed)
    assert outcomes[1].status == "5.2.2"


async def test_lmtp_by_socket(tmp_path: Path) -> None:
    host = Host(lmtp=True)
    path = str(tmp_path / "lmtp")
    server = await asyncio.start_unix_server(host.serve, path)
    agent = lmtp_agent(SmtpAgentSettings(), FakeResolver(), "gonzo.test")
    (outcome,) = await agent.deliver(attempt(f"unix:{path}", "a"))
    (lost,) = await agent.deliver(attempt(f"unix:{path}.not", "a"))
    await agent.aclose()
    server.close()
    assert isinstance(outcome, Delivered)
    assert outcome.peer == path
    assert isinstance(lost, Deferred)
    assert lost.hop_failed
