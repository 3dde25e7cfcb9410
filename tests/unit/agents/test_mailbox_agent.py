import asyncio
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from postroom.agents.discard import DiscardAgent
from postroom.agents.mailbox import MailboxAgent, mailbox_of
from postroom.mail.address import Address
from postroom.mail.envelope import Envelope, Recipient
from postroom.mail.ids import QueueId, QueueIds
from postroom.mail.message import Body, MemoryBody, Message, Prepend
from postroom.mail.now import Now
from postroom.mail.outcome import Attempt, Deferred, Delivered, Failed, Outcome
from postroom.mail.route import Route
from postroom.mail.units import Size
from postroom.mailbox.maildir import Maildirs
from postroom.mailbox.name import MailboxName
from postroom.mailbox.settings import MailboxSettings
from postroom.mailbox.store import InUse, Parcel, Unusable

NOW = Now(1_767_225_601_000_000, 5_000_000)
HEADER = b"Subject: hi\r\nFrom: betty@gonzo.test\r\n"
BODY = MemoryBody(b"text\r\n")
ID = QueueId("0Ab1Cd2Ef3G")
ROUTE = Route("mailbox", "local")


def attempt(
    *recipients: str,
    body: Body = BODY,
    queue_id: QueueId = ID,
    said: list[str] | None = None,
    now: Now = NOW,
    again: bool = False,
) -> Attempt:
    people = tuple(Recipient(Address.from_text(r)) for r in recipients)
    return Attempt(
        queue_id=queue_id,
        envelope=Envelope(
            sender=Address("betty", "gonzo.test"),
            recipients=people,
            arrival_us=1_767_225_600_000_000,
        ),
        numbers=tuple(range(len(people))),
        message=Message(HEADER, body, (Prepend(b"Received: by x\r\n"),)),
        route=ROUTE,
        now=now,
        say=said.append if said is not None else None,
        again=again,
    )


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


@pytest.fixture
def store(tmp_path: Path) -> Maildirs:
    return Maildirs(settings(tmp_path), "mx.test")


def settings(tmp_path: Path) -> MailboxSettings:
    path = f"{tmp_path}/{{user}}"
    return MailboxSettings(path=path, memory_octets_max=Size(1000))


@pytest.fixture
def agent(store: Maildirs, tmp_path: Path, pool: ThreadPoolExecutor) -> MailboxAgent:
    return MailboxAgent(store, settings(tmp_path), pool)


def mail_of(store: Maildirs, user: str) -> list[bytes | None]:
    session = store.open(MailboxName(user))
    assert not isinstance(session, InUse | Unusable)
    found = session.read(0, 1000, 10**9) if session.sizes else []
    session.close()
    return found


def expected(recipient: str, body: bytes) -> bytes:
    return (
        b"Return-Path: <betty@gonzo.test>\r\nDelivered-To: %b\r\n"
        b"Received: by x\r\n%b\r\n%b" % (recipient.encode(), HEADER, body)
    )


async def test_a_letter_arrives(agent: MailboxAgent, store: Maildirs) -> None:
    said: list[str] = []
    outcomes = await agent.deliver(attempt("joe@whizzer.test", said=said))
    assert outcomes == [Delivered("2.0.0", "Sent")]
    assert mail_of(store, "joe") == [expected("joe@whizzer.test", b"text\r\n")]
    assert said == [
        "joe@whizzer.test... Connecting to local...",
        "joe@whizzer.test... Sent",
    ]


async def test_a_large_letter_goes_in_pieces(
    agent: MailboxAgent, store: Maildirs
) -> None:
    body = b"0123456789abcdef\r\n" * 50_000
    outcomes = await agent.deliver(attempt("joe@x", "betty@x", body=MemoryBody(body)))
    assert outcomes == [Delivered("2.0.0", "Sent")] * 2
    assert mail_of(store, "joe") == [expected("joe@x", body)]
    assert mail_of(store, "betty") == [expected("betty@x", body)]


async def test_outcomes_are_in_order(agent: MailboxAgent, store: Maildirs) -> None:
    said: list[str] = []
    many = attempt("joe@x", '"../up"@x', "Joe+lists@x", said=said)
    outcomes = await agent.deliver(many)
    assert [type(outcome) for outcome in outcomes] == [Delivered, Failed, Delivered]
    assert len(mail_of(store, "joe")) == 2
    assert said[4] == "\"../up\"@x... no mailbox can be called '../up'"


async def test_groups_keep_every_message(agent: MailboxAgent, store: Maildirs) -> None:
    ids = QueueIds(0)
    attempts = [attempt("joe@x", queue_id=ids.next(NOW.utc_us)) for _ in range(300)]
    results = await asyncio.gather(*(agent.deliver(each) for each in attempts))
    assert all(result == [Delivered("2.0.0", "Sent")] for result in results)
    assert len(mail_of(store, "joe")) == 300
    await agent.aclose()


async def test_a_later_try_recognises_its_file_in_cur(
    agent: MailboxAgent, store: Maildirs, tmp_path: Path
) -> None:
    await agent.deliver(attempt("joe@x"))
    mail_of(store, "joe")  # makes cur
    new, cur = tmp_path / "joe/new", tmp_path / "joe/cur"
    (name,) = os.listdir(new)
    (new / name).rename(cur / f"{name}:2,S")
    later = Now(NOW.utc_us + 3600_000_000, NOW.mono_us)
    for second in (attempt("joe@x", again=True), attempt("joe@x", now=later)):
        outcomes = await agent.deliver(second)
        assert outcomes == [Delivered("2.0.0", "Sent (by an earlier try)")]
        assert os.listdir(new) == []


class BrokenBody:
    """A body that cannot be read, at once or from some offset on."""

    def __init__(self, size: int, good: int) -> None:
        self.size = size
        self._good = good

    async def read(self, offset: int, octets: int) -> bytes:
        if offset >= self._good:
            raise OSError("bad block")
        return b"x" * min(octets, self._good - offset)


class ShortBody(BrokenBody):
    """A body that ends before its size."""

    async def read(self, offset: int, octets: int) -> bytes:
        return b"x" * min(octets, max(0, self._good - offset))


@pytest.mark.parametrize(
    "body",
    [BrokenBody(100, 0), BrokenBody(10**6, 10**5), ShortBody(10**6, 10**5)],
    ids=["small", "large", "short"],
)
async def test_an_unreadable_body_is_deferred(
    agent: MailboxAgent, tmp_path: Path, body: Body
) -> None:
    (outcome,) = await agent.deliver(attempt("joe@x", body=body))
    assert outcome == Deferred("4.3.0", "the queued message cannot be read")
    if (tmp_path / "joe").exists():
        assert (
            os.listdir(tmp_path / "joe/tmp") == os.listdir(tmp_path / "joe/new") == []
        )


async def test_a_mailbox_out_of_reach_is_deferred(
    agent: MailboxAgent, tmp_path: Path
) -> None:
    (tmp_path / "joe").write_text("a file, no directory")
    said: list[str] = []
    for body in (MemoryBody(b"x\r\n"), MemoryBody(b"x\r\n" * 1000)):
        (outcome,) = await agent.deliver(attempt("joe@x", body=body, said=said))
        assert isinstance(outcome, Deferred)
        assert "joe" in outcome.text
    assert said[1].startswith("joe@x... Deferred: cannot write to mailbox joe@x: ")


class EndlessBody(BrokenBody):
    """A body whose reader never comes back from the second piece."""

    async def read(self, offset: int, octets: int) -> bytes:
        if offset:
            await asyncio.Event().wait()
        return b"x" * octets


async def test_a_cancelled_attempt_leaves_nothing(
    agent: MailboxAgent, tmp_path: Path
) -> None:
    handles = len(os.listdir("/proc/self/fd"))
    for pauses in range(12):
        body = EndlessBody(10**7, 0)
        task = asyncio.create_task(agent.deliver(attempt("joe@x", body=body)))
        for _ in range(pauses):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    for folder in ("tmp", "new"):
        path = tmp_path / "joe" / folder
        assert not path.exists() or os.listdir(path) == []
    await agent.aclose()
    assert len(os.listdir("/proc/self/fd")) <= handles + 1


class BrokenStore(Maildirs):
    def deliver(self, parcels: Sequence[Parcel]) -> list[Outcome]:
        raise RuntimeError("a bug")


async def test_a_bug_reaches_every_caller_and_is_over(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    agent = MailboxAgent(BrokenStore(settings(tmp_path), "h"), settings(tmp_path), pool)
    calls = [agent.deliver(attempt("joe@x")) for _ in range(3)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, RuntimeError) for result in results)
    await agent.aclose()


@pytest.mark.parametrize(
    ("address", "user"),
    [("Joe@x", "joe"), ("joe+a+b@x", "joe"), ("+joe@x", "+joe"), ("joe", "joe")],
)
def test_mailbox_of(address: str, user: str) -> None:
    assert mailbox_of(Address.from_text(address)).user == user


async def test_discard_says_yes() -> None:
    said: list[str] = []
    outcomes = await DiscardAgent().deliver(attempt("joe@x", "betty@x", said=said))
    assert outcomes == [Delivered("2.0.0", "Discarded")] * 2
    assert said == ["joe@x... Discarded", "betty@x... Discarded"]
