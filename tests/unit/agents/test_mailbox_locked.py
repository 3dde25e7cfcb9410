"""Mailboxes that other programs have locked hold up nobody else's mail."""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from postroom.agents.mailbox import PATIENT_PARCELS_MAX, MailboxAgent
from postroom.mail.address import Address
from postroom.mail.envelope import Envelope, Recipient
from postroom.mail.ids import QueueIds
from postroom.mail.message import MemoryBody, Message
from postroom.mail.now import Now
from postroom.mail.outcome import Attempt, Deferred, Delivered, Outcome
from postroom.mail.route import Route
from postroom.mail.units import Duration
from postroom.mailbox.mbox import Mboxes
from postroom.mailbox.settings import MailboxSettings
from postroom.mailbox.store import Parcel

IDS = QueueIds(0)
NOW = Now(1_767_225_601_000_000, 5_000_000)
SENT = Delivered("2.0.0", "Sent")
LOCKED = Deferred(
    "4.2.0", "cannot write to mailbox joe@x: joe is locked by another program"
)


class Watched(Mboxes):
    """Waits for locks only when it is let."""

    def __init__(self, settings: MailboxSettings) -> None:
        super().__init__(settings)
        self.is_waiting, self.go_on = Event(), Event()

    def deliver(self, parcels: Sequence[Parcel]) -> list[Outcome]:
        self.is_waiting.set()
        self.go_on.wait(60)
        return super().deliver(parcels)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Watched]:
    (tmp_path / "joe.lock").write_text("1\n")
    settings = MailboxSettings(
        format="mbox", path=f"{tmp_path}/{{user}}", lock_timeout=Duration(0)
    )
    store = Watched(settings)
    yield store
    store.go_on.set()


@pytest.fixture
def agent(store: Watched) -> Iterator[MailboxAgent]:
    with ThreadPoolExecutor(2) as pool:
        yield MailboxAgent(store, MailboxSettings(), pool)
        store.go_on.set()


def attempt(*recipients: str) -> Attempt:
    people = tuple(Recipient(Address.from_text(r)) for r in recipients)
    return Attempt(
        queue_id=IDS.next(NOW.utc_us),
        envelope=Envelope(Address("a", "x"), people, arrival_us=NOW.utc_us),
        numbers=tuple(range(len(people))),
        message=Message(b"A: b\r\n", MemoryBody(b"text\r\n")),
        route=Route("mailbox", "local"),
        now=NOW,
    )


async def test_others_do_not_wait(agent: MailboxAgent, store: Watched) -> None:
    waiting = asyncio.create_task(agent.deliver(attempt("joe@x")))
    await asyncio.to_thread(store.is_waiting.wait, 60)
    for _ in range(3):
        assert await agent.deliver(attempt("betty@x")) == [SENT]
    assert not waiting.done()
    store.go_on.set()
    assert await waiting == [LOCKED]


async def test_it_goes_when_the_lock_goes(
    agent: MailboxAgent, store: Watched, tmp_path: Path
) -> None:
    both = asyncio.create_task(agent.deliver(attempt("betty@x", "joe@x")))
    await asyncio.to_thread(store.is_waiting.wait, 60)
    (tmp_path / "joe.lock").unlink()
    store.go_on.set()
    assert await both == [SENT, SENT]
    await agent.aclose()


async def test_few_wait(agent: MailboxAgent, store: Watched) -> None:
    waiting = [
        asyncio.create_task(agent.deliver(attempt("joe@x")))
        for _ in range(PATIENT_PARCELS_MAX)
    ]
    while agent._patient.count < PATIENT_PARCELS_MAX:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert await agent.deliver(attempt("joe@x", "betty@x")) == [LOCKED, SENT]
    store.go_on.set()
    assert await asyncio.gather(*waiting) == [[LOCKED]] * PATIENT_PARCELS_MAX
    assert agent._patient.count == 0
