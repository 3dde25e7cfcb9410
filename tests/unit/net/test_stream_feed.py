"""Octets are given to a taker in the turn of the loop in which they come."""

import asyncio
from typing import Any

import pytest

from postroom.net.clock import read_mono_us
from postroom.net.stream import (
    Stream,
    StreamInterrupted,
    StreamLost,
    StreamOverstayed,
    StreamTimeout,
)
from postroom.testing.streams import stream_pair


class Mouth:
    """A taker that keeps what it gets and has enough at a certain piece."""

    def __init__(self, enough: bytes = b"enough", error: Exception | None = None):
        self.eaten: list[bytes] = []
        self.enough = enough
        self.error = error

    def __call__(self, data: bytes) -> bool:
        self.eaten.append(data)
        if data == self.enough and self.error is not None:
            raise self.error
        return data not in (self.enough, b"")


async def fed(stream: Stream, taker: Mouth) -> "asyncio.Task[None]":
    """Begin to feed; it waits for octets now."""
    feeding = asyncio.create_task(stream.feed(taker))
    await asyncio.sleep(0)
    return feeding


async def test_a_taker_is_given_octets_when_they_come_and_nobody_is_woken() -> None:
    async with stream_pair() as (one, _):
        mouth = Mouth()
        feeding = await fed(one, mouth)
        one.data_received(b"a")
        one.data_received(b"b")
        await asyncio.sleep(0)
        assert mouth.eaten == [b"ab"]  # what came in one turn is one piece
        assert one.unread_octets == 0
        assert one.received_octets == 2
        assert not feeding.done()
        one.data_received(b"enough")
        await asyncio.sleep(0)
        assert not feeding.done()
        one.data_received(b"for whoever reads next")  # before the task is woken
        await feeding
        assert mouth.eaten == [b"ab", b"enough"]
        assert await one.read() == b"for whoever reads next"


async def test_octets_on_their_way_to_a_taker_that_is_gone_stay() -> None:
    async with stream_pair() as (one, _):
        mouth = Mouth()
        feeding = await fed(one, mouth)
        feeding.cancel()
        one.data_received(b"x")
        with pytest.raises(asyncio.CancelledError):
            await feeding
        await asyncio.sleep(0)
        assert mouth.eaten == []
        assert await one.read() == b"x"


async def test_a_taker_is_given_first_what_has_come_before() -> None:
    async with stream_pair() as (one, _):
        one.data_received(b"a")
        one.data_received(b"b")
        mouth = Mouth(enough=b"ab")
        await one.feed(mouth)
        assert mouth.eaten == [b"ab"]


async def test_a_taker_hears_of_the_end_once() -> None:
    async with stream_pair() as (one, other):
        mouth = Mouth()
        feeding = await fed(one, mouth)
        await other.aclose()
        await feeding
        assert mouth.eaten == [b""]
        assert await one.read() == b""


async def test_what_a_taker_raises_is_raised_by_feed_and_the_stream_lives() -> None:
    async with stream_pair() as (one, _):
        feeding = await fed(one, Mouth(error=ValueError("spat out")))
        one.data_received(b"enough")
        with pytest.raises(ValueError, match="spat out"):
            await feeding
        one.data_received(b"x")
        assert await one.read() == b"x"


async def test_what_a_taker_raises_is_not_lost_when_the_server_is_to_end() -> None:
    async with stream_pair() as (one, _):
        feeding = await fed(one, Mouth(error=ValueError("spat out")))
        one.data_received(b"enough")
        one.interrupt()  # both wake the task, which has not run yet
        with pytest.raises(ValueError, match="spat out"):
            await feeding
        with pytest.raises(StreamInterrupted):
            await one.feed(Mouth())


async def test_what_comes_as_time_runs_out_is_answered_all_the_same() -> None:
    async with stream_pair() as (one, _):
        mouth = Mouth()
        feeding = await fed(one, mouth)
        one.data_received(b"enough")  # the taker has begun something by now
        one.expire()
        await feeding
        feeding = await fed(one, mouth)
        one.data_received(b"not enough")
        one.expire()
        with pytest.raises(StreamTimeout):
            await feeding
        assert mouth.eaten == [b"enough", b"not enough"]


async def test_what_comes_when_time_has_run_out_is_left_for_later() -> None:
    async with stream_pair() as (one, _):
        mouth = Mouth()
        feeding = await fed(one, mouth)
        one.expire()
        one.data_received(b"too late")
        with pytest.raises(StreamTimeout):
            await feeding
        assert mouth.eaten == []
        assert await one.read() == b"too late"


class Answering:
    """A TLS layer whose peer sends what is no data but has to be answered."""

    at_end, failure = False, None

    def decrypt(self, data: bytes) -> bytes:
        return b""

    def data_to_send(self) -> bytes:
        return b"x" * 10_000


async def test_what_tls_itself_answers_is_bounded_too() -> None:
    async with stream_pair() as (one, other):
        feeding = await fed(one, Mouth())
        vars_of: Any = one
        vars_of._tls = Answering()
        writing = one._transport
        assert writing is not None
        for _ in range(10_000):
            if not writing.is_reading():
                break
            one.data_received(b"renegotiate")
        assert writing.get_write_buffer_size() < 1_000_000
        vars_of._tls = None
        async with asyncio.timeout(60):
            while not writing.is_reading():
                await other.read()
        other.write(b"enough")
        async with asyncio.timeout(60):
            await feeding


async def test_feeding_is_interrupted_once() -> None:
    async with stream_pair() as (one, _):
        mouth = Mouth()
        feeding = await fed(one, mouth)
        one.interrupt()
        with pytest.raises(StreamInterrupted):
            await feeding
        feeding = await fed(one, mouth)
        one.data_received(b"enough")
        await feeding
        assert mouth.eaten == [b"enough"]


async def test_feeding_ends_with_a_loss() -> None:
    async with stream_pair() as (one, _):
        feeding = await fed(one, Mouth())
        one.abort()
        with pytest.raises(StreamLost):
            await feeding


async def test_a_cancelled_feed_leaves_later_octets_to_be_read() -> None:
    async with stream_pair() as (one, _):
        mouth = Mouth()
        feeding = await fed(one, mouth)
        feeding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await feeding
        one.data_received(b"x")
        assert mouth.eaten == []
        assert await one.read() == b"x"


@pytest.mark.usefixtures("fast_sweeper")
async def test_feeding_past_the_deadline_or_the_end_times_out() -> None:
    async with stream_pair() as (one, _):
        one.set_deadline(read_mono_us())
        with pytest.raises(StreamTimeout):
            await one.feed(Mouth())
        one.set_deadline(None)
        one.end_at(read_mono_us())
        with pytest.raises(StreamOverstayed):
            await one.feed(Mouth())
        one.data_received(b"too late")
        with pytest.raises(StreamOverstayed):
            await one.feed(Mouth())
