"""An SMTP agent by itself, with its log: for tests of what it does to other hosts."""

from collections.abc import Sequence
from typing import Any

from postroom.agents.settings import SmtpAgentSettings
from postroom.agents.smtp import Links, SmtpAgent
from postroom.dns.own import OwnNames
from postroom.mail.address import NULL_SENDER, Address
from postroom.mail.envelope import Envelope, Recipient
from postroom.mail.ids import QueueId
from postroom.mail.message import MemoryBody, Message
from postroom.mail.now import Now
from postroom.mail.outcome import Attempt, Outcome, Say
from postroom.mail.route import Route
from postroom.observe.events import AnyEvent
from postroom.testing.resolver import FakeResolver
from postroom.testing.scripted_host import ScriptedHost as Host

OFFERS = b"250-mx\r\n250-PIPELINING\r\n250 STARTTLS\r\n"
"""An EHLO reply with STARTTLS."""
READY = b"220 2.0.0 Ready\r\n"
ZONE = {
    "whizzer.test MX": ["10 mx.whizzer.test"],
    "mx.whizzer.test A": "127.0.0.2",
    "two.test MX": ["10 mx.whizzer.test", "20 mx2.whizzer.test"],
    "mx2.whizzer.test A": "127.0.0.3",
}


class Sender:
    """An agent with its log.

    Attributes:
        events: what it told.
        bound: the destinations of hops, as it told the schedule.
        agent: the agent itself.
    """

    def __init__(
        self, host: Host, zone: dict[str, Any] | None = None, **settings: Any
    ) -> None:
        self.events: list[AnyEvent] = []
        self.bound: dict[str, str] = {}
        self.agent = SmtpAgent(
            SmtpAgentSettings(port=host.port, **settings),
            FakeResolver(zone or ZONE),
            "gonzo.test",
            OwnNames(),
            Links(emit=self.events.append, bind=self.bound.__setitem__),
        )

    async def send(self, hop: str = "whizzer.test", **changes: Any) -> Outcome:
        """Send one message."""
        (outcome,) = await self.agent.deliver(attempt(hop, **changes))
        return outcome

    async def aclose(self) -> None:
        """Say goodbye."""
        await self.agent.aclose()

    def told(self, kind: type[AnyEvent]) -> Sequence[Any]:
        """Return the events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]


def attempt(
    hop: str,
    *,
    header: bytes = b"Subject: hi\r\n",
    requiretls: bool = False,
    bounce: bool = False,
    agent: str = "smtp",
    say: Say | None = None,
) -> Attempt:
    """Return an attempt to send one message to one recipient."""
    return Attempt(
        QueueId("0Abcdefghij"),
        Envelope(
            NULL_SENDER if bounce else Address("betty", "gonzo.test"),
            (Recipient(Address("joe", "whizzer.test")),),
            requiretls=requiretls,
        ),
        (0,),
        Message(header, MemoryBody(b"Text.\r\n")),
        Route(agent, hop),
        Now(1_795_361_711_000_000, 0),
        say,
    )
