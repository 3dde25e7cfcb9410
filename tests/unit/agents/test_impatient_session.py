"""A session with a host that is slow, or ahead of itself; the clock is the test's."""

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from postroom.agents import session as module
from postroom.agents.job import Job
from postroom.agents.session import Session
from postroom.agents.settings import SmtpAgentSettings
from postroom.agents.smtp_words import Peer
from postroom.mail.address import Address
from postroom.mail.envelope import Envelope, Recipient
from postroom.mail.ids import QueueId
from postroom.mail.message import Body, MemoryBody, Message
from postroom.mail.now import SECOND_US, Now
from postroom.mail.outcome import Attempt, Deferred, Delivered, Failed, Outcome
from postroom.mail.route import Route
from postroom.net.stream import Stream, StreamTimeout
from postroom.testing.ready_client import PIPELINING, PLAIN, ready

MINUTE_US = 60 * SECOND_US
_TEXT = MemoryBody(b"Text.\r\n")
PEER = Peer("mx.whizzer.test", "192.0.2.1", 25)


class SlowStream:
    """Gives out one reply at each read, each after a while."""

    tls = None

    def __init__(
        self,
        replies: list[bytes],
        pause_us: int,
        *,
        ahead: bytes = b"",
        is_stuck: bool = False,
    ) -> None:
        self.replies = replies
        self.sent = b""
        self.now_us = SECOND_US
        self.on_drain: Callable[[], object] = lambda: None
        self._pause_us = pause_us
        self._deadline_us = 0
        self._is_stuck = is_stuck  # takes nothing
        self._ahead = ahead  # has come as soon as all before it was read

    @property
    def unread_octets(self) -> int:
        is_there = bool(self._ahead) and self.replies[:1] == [self._ahead]
        return len(self._ahead) if is_there else 0

    def set_deadline(self, at_us: int) -> None:
        self._deadline_us = at_us

    def write(self, data: bytes) -> None:
        self.sent += data

    async def read(self) -> bytes:
        self.now_us += self._pause_us
        if self.now_us >= self._deadline_us:
            raise StreamTimeout("overdue")
        return self.replies.pop(0) if self.replies else b""

    async def drain(self) -> None:
        self.on_drain()
        if self._is_stuck:
            raise StreamTimeout("overdue")

    def abort(self) -> None:
        self.replies.clear()

    def close(self) -> None:
        pass


async def send(
    stream: SlowStream,
    monkeypatch: pytest.MonkeyPatch,
    *,
    hello: bytes = PIPELINING,
    recipients: int = 1,
    cancelled: str = "",
    lmtp: bool = False,
    body: Body = _TEXT,
) -> list[Outcome]:
    monkeypatch.setattr(module, "read_mono_us", lambda: stream.now_us)
    to = tuple(Recipient(Address(f"u{i}", "whizzer.test")) for i in range(recipients))
    attempt = Attempt(
        QueueId("0Abcdefghij"),
        Envelope(Address("betty", "gonzo.test"), to),
        tuple(range(recipients)),
        Message(b"Subject: hi\r\n", body),
        Route("smtp", "whizzer.test"),
        Now(0, 0),
    )
    job = Job(attempt, to, asyncio.get_running_loop().create_future())
    session = Session(
        cast("Stream", stream), ready(hello, lmtp=lmtp), PEER, SmtpAgentSettings()
    )
    session.on_idle = lambda one: one.leave()
    session.start(job)
    if cancelled == "at once":
        job.done.cancel()
    elif cancelled == "in the content":
        stream.on_drain = job.done.cancel
    await session.serve()
    return [] if job.done.cancelled() else await job.done


CHUNKS = b"250-mx.example\r\n250-PIPELINING\r\n250 CHUNKING\r\n"
OK = b"250 2.1.0 Ok\r\n"
GO = b"354 go\r\n"


@pytest.mark.parametrize("hello", [PIPELINING, PLAIN], ids=["pipelining", "plain"])
async def test_each_command_has_its_own_time(
    monkeypatch: pytest.MonkeyPatch, hello: bytes
) -> None:
    """RFC 5321 §4.5.3.2: a host that needs 2 minutes for each is slow, not dead."""
    stream = SlowStream([*[OK] * 9, GO, OK], 2 * MINUTE_US)
    outcomes = await send(stream, monkeypatch, hello=hello, recipients=8)
    assert all(isinstance(outcome, Delivered) for outcome in outcomes)


async def test_each_answer_of_a_mail_store_has_its_own_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = SlowStream([OK, OK, OK, OK, GO, OK, OK, OK], 4 * MINUTE_US)
    outcomes = await send(stream, monkeypatch, recipients=3, lmtp=True)
    assert all(isinstance(outcome, Delivered) for outcome in outcomes)


async def test_a_host_does_not_hold_us_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it has said by then of some recipients counts."""
    stream = SlowStream([OK * 9 + GO, *[OK] * 8], 4 * MINUTE_US)
    outcomes = await send(stream, monkeypatch, recipients=8, lmtp=True)
    assert [type(outcome) for outcome in outcomes] == [Delivered] * 6 + [Deferred] * 2
    assert len(stream.replies) == 2


async def test_pieces_of_a_reply_have_no_time_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = SlowStream([b"250-a\r\n", b"250-b\r\n", OK, OK, GO, OK], 2 * MINUTE_US)
    (outcome,) = await send(stream, monkeypatch)
    assert isinstance(outcome, Deferred)
    assert outcome.status == "4.4.2"


async def test_nothing_is_waited_for_longer_if_nobody_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = SlowStream([*[OK] * 9, GO, OK], 4 * MINUTE_US)
    await send(stream, monkeypatch, recipients=8, cancelled="at once")
    assert b"Text." not in stream.sent
    assert len(stream.replies) >= 9


@pytest.mark.parametrize("said", [b"250 done\r\n", b"354 go\r\n", b"353 judging\r\n"])
@pytest.mark.parametrize("is_later", [False, True])
async def test_no_success_before_the_content_is_sent(
    monkeypatch: pytest.MonkeyPatch, said: bytes, is_later: bool
) -> None:
    """Believed, it would hide what is really said at the end; the dot is not sent."""
    replies = [OK, OK, *([GO, said] if is_later else [GO + said]), b"554 5.6.0 No\r\n"]
    stream = SlowStream(replies, SECOND_US, ahead=said if is_later else b"")
    (outcome,) = await send(stream, monkeypatch)
    assert isinstance(outcome, Deferred)
    assert outcome.status == "4.5.0"
    assert not stream.sent.endswith(b"\r\n.\r\n")


async def test_a_refusal_before_the_end_is_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = SlowStream([OK, OK, GO + b"552 5.3.4 Too big\r\n"], SECOND_US)
    (outcome,) = await send(stream, monkeypatch)
    assert isinstance(outcome, Failed)
    assert outcome.status == "5.3.4"


class Pieces:
    """A body of two pieces, each of them more than a chunk."""

    size = 720_000

    async def read(self, offset: int, octets: int) -> bytes:
        return b"0123456789\r\n" * 30_000


@pytest.mark.parametrize("hello", [PLAIN, CHUNKS], ids=["DATA", "BDAT"])
async def test_a_refusal_by_a_host_that_takes_nothing_more_is_believed(
    monkeypatch: pytest.MonkeyPatch, hello: bytes
) -> None:
    """A message that is too large must not be tried again for days."""
    refusal = b"552 5.3.4 Too big\r\n"
    start = [] if hello is CHUNKS else [GO]
    stream = SlowStream(
        [OK, OK, *start, refusal], SECOND_US, ahead=refusal, is_stuck=True
    )
    (outcome,) = await send(stream, monkeypatch, hello=hello, body=Pieces())
    assert isinstance(outcome, Failed)
    assert outcome.status == "5.3.4"


@pytest.mark.parametrize("hello", [PLAIN, CHUNKS], ids=["DATA", "BDAT"])
async def test_content_is_not_finished_for_an_attempt_that_was_cut_off(
    monkeypatch: pytest.MonkeyPatch, hello: bytes
) -> None:
    """It is tried again: at each try the host would take one more copy."""
    start = [OK] if hello is CHUNKS else [GO]
    stream = SlowStream([OK, OK, *start, OK], SECOND_US)
    when = "in the content"
    await send(stream, monkeypatch, hello=hello, body=Pieces(), cancelled=when)
    assert stream.sent.count(b"0123456789\r\n") == 30_000, "the first piece only"
    assert not stream.sent.endswith(b"\r\n.\r\n")
    assert b"LAST" not in stream.sent


async def test_a_host_that_takes_nothing_more_and_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = SlowStream([OK, OK, GO], SECOND_US, is_stuck=True)
    (outcome,) = await send(stream, monkeypatch, hello=PLAIN, body=Pieces())
    assert isinstance(outcome, Deferred)
    assert outcome.status == "4.4.2"
