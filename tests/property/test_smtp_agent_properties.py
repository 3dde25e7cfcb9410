"""Whatever a host says at any step: one outcome each, and none says Sent in vain."""

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

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
from postroom.testing.scripted_host import WILLING, ScriptedHost, running

SAID = st.sampled_from(
    [
        None,
        b"250 Ok\r\n",
        b"250-Ok\r\n250 2.0.0 Ok\r\n",
        b"354 go\r\n",
        b"421 4.3.2 bye\r\n",
        b"450 4.2.0 later\r\n",
        b"452 4.5.3 too many\r\n",
        b"503 5.5.1 sequence\r\n",
        b"550 5.1.1 no\r\n",
        b"250 Ok\r\n250 Ok\r\n",
        b"550-no\r\n550 5.1.1 no\r\n",
        b"\xff\xfe\r\n",
        b"banana\r\n",
    ]
)
VERBS = ["@", "EHLO", "HELO", "MAIL", "RCPT", "DATA", ".", "RSET", "QUIT"]
SCRIPTS = st.dictionaries(
    st.sampled_from(VERBS), st.lists(SAID, min_size=1, max_size=4), max_size=4
)
COUNT = 3


def attempt(number: int) -> Attempt:
    recipients = tuple(
        Recipient(Address(f"u{number}-{i}", "whizzer.test")) for i in range(COUNT)
    )
    return Attempt(
        QueueId("0Abcdefghij"),
        Envelope(Address("betty", "gonzo.test"), recipients),
        tuple(range(COUNT)),
        Message(b"N: %d\r\n" % number, MemoryBody(b"Text.\r\n")),
        Route("smtp", "[127.0.0.2]"),
        Now(1_795_361_711_000_000, 0),
    )


async def play(host: ScriptedHost, size: int) -> list[Sequence[Outcome]]:
    async with running(host):
        chosen = SmtpAgentSettings(port=host.port, connections_max=2)
        agent = SmtpAgent(chosen, FakeResolver(), "gonzo.test", OwnNames())
        outcomes = await asyncio.gather(
            *(agent.deliver(attempt(number)) for number in range(size))
        )
        host.drop_all()
        await agent.aclose()
    return outcomes


@settings(max_examples=60, deadline=None)
@given(SCRIPTS, st.integers(1, 4))
def test_one_outcome_each_and_sent_means_sent(
    script: dict[str, list[bytes | None]], size: int
) -> None:
    # Each list ends well, so that no script makes the agent wait for ever.
    host = ScriptedHost({verb: [*said, WILLING[verb]] for verb, said in script.items()})
    outcomes = asyncio.run(asyncio.wait_for(play(host, size), 20))
    assert [len(some) for some in outcomes] == [COUNT] * size
    taken = b"".join(host.messages)
    for number, some in enumerate(outcomes):
        if any(isinstance(outcome, Delivered) for outcome in some):
            assert b"N: %d\r\n" % number in taken
