"""Mail that was in a mailbox before does not get in again (RFC 5321 §6.3)."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from postroom.agents.mailbox import MailboxAgent
from postroom.mail.address import Address
from postroom.mail.envelope import Envelope, Recipient
from postroom.mail.ids import QueueId
from postroom.mail.message import MemoryBody, Message, Prepend
from postroom.mail.now import Now
from postroom.mail.outcome import Attempt, Delivered, Failed, Outcome
from postroom.mail.route import Route
from postroom.mail.trace import delivered_to_field
from postroom.mail.units import Size
from postroom.mailbox.maildir import Maildirs
from postroom.mailbox.settings import MailboxSettings

NOW = Now(1_767_225_601_000_000, 5_000_000)
JOE = b"Delivered-To: joe@gonzo.test\r\n"
LOOP = Failed("5.4.6", "mail forwarding loop for joe@gonzo.test")


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[MailboxAgent]:
    settings = MailboxSettings(
        path=f"{tmp_path}/{{user}}", memory_octets_max=Size(1000)
    )
    with ThreadPoolExecutor(2) as pool:
        yield MailboxAgent(Maildirs(settings, "mx.test"), settings, pool)


def attempt(header: bytes, *names: str, size: int = 6, edit: bytes = b"") -> Attempt:
    recipients = tuple(Recipient(Address(name, "gonzo.test")) for name in names)
    edits = (Prepend(edit),) if edit else ()
    return Attempt(
        queue_id=QueueId("0Ab1Cd2Ef3G"),
        envelope=Envelope(Address("ann", "far.test"), recipients),
        numbers=tuple(range(len(names))),
        message=Message(header, MemoryBody(b"x" * (size - 2) + b"\r\n"), edits),
        route=Route("mailbox", "local"),
        now=NOW,
    )


def shape(outcomes: list[Outcome]) -> str:
    return "".join("." if isinstance(o, Delivered) else "x" for o in outcomes)


@pytest.mark.parametrize("size", [6, 5_000])
@pytest.mark.parametrize(
    ("header", "names", "expected"),
    [
        (b"Subject: x\r\n", ["joe"], "."),
        (JOE, ["joe"], "x"),
        (b"Subject: x\r\n" + JOE.lower(), ["joe"], "x"),
        (JOE, ["JOE"], "x"),
        (JOE, ["ann"], "."),
        (JOE, ["joe+list"], "."),  # what joe sends on to a folder of his
        (JOE, ["ann", "joe", "bob"], ".x."),
        (JOE + b"Delivered-To: ann@gonzo.test\r\n", ["ann", "joe"], "xx"),
        (b"Subject: Delivered-To: joe@gonzo.test\r\n", ["joe"], "."),
    ],
)
async def test_loops(
    agent: MailboxAgent, header: bytes, names: list[str], expected: str, size: int
) -> None:
    outcomes = list(await agent.deliver(attempt(header, *names, size=size)))
    assert shape(outcomes) == expected
    for name, outcome in zip(names, outcomes, strict=True):
        if name == "joe" and isinstance(outcome, Failed):
            assert outcome == LOOP


async def test_what_was_delivered_comes_back_once_at_most(agent: MailboxAgent) -> None:
    field = delivered_to_field(Address("joe", "gonzo.test"))
    (outcome,) = await agent.deliver(attempt(b"Subject: x\r\n" + field, "joe"))
    assert outcome == LOOP


async def test_the_mark_of_a_list_is_no_mailbox(agent: MailboxAgent) -> None:
    # joe: joe, archive with an owner: the copies carry joe's address as a list
    (outcome,) = await agent.deliver(attempt(b"Subject: x\r\n", "joe", edit=JOE))
    assert isinstance(outcome, Delivered)
