"""From a complete transaction to the queue, at once or later."""

from typing import Any

import msgspec
import pytest

from postroom.mail.envelope import Recipient
from postroom.mail.ids import QueueId
from postroom.mail.now import HOUR_US
from postroom.observe.events import MessageQueued
from postroom.services.accept import Routed
from postroom.services.listeners import Listeners
from postroom.services.settings import DeliverSettings
from postroom.spool.spool import NewMessage, SpoolError
from postroom.testing.workbench import Bench, Plan, bench


async def accept(b: Bench, letter: NewMessage, **more: Any) -> Any:
    routed = [
        Routed(Recipient(r.address, r.notify, r.orcpt), r.route)
        for r in letter.recipients
    ]
    return await b.acceptor.accept(
        letter.queue_id, letter.envelope, letter.message, routed, **more
    )


@pytest.mark.parametrize(
    ("recipients", "claims"),
    [
        pytest.param(["joe@far.test"], 0, id="one-goes-at-once"),
        pytest.param(["joe@far.test", "jim@far.test"], 0, id="one-hop-at-once"),
        pytest.param(["joe@far.test", "joe@near.test"], 2, id="two-hops-are-claimed"),
        pytest.param([":all@gonzo.test"], 0, id="alias-at-once"),
    ],
)
async def test_what_goes_at_once(recipients: list[str], claims: int) -> None:
    async with bench(Plan(aliases={"all": ["nosuch-but-told"]})) as b:
        await b.rescan()
        b.spool.calls.clear()
        await accept(b, b.letter(*recipients))
        (told,) = b.told(MessageQueued)
        assert told.recipients == len(recipients)
        await b.idle()
        tried = [text for text in b.agents["smtp"].tried]
        assert sorted(tried) == sorted(r for r in recipients if r[0] != ":")
        assert b.spool.calls.count("claim") >= claims
        assert b.spool.calls[0] == "accept"
        assert b.is_balanced()


async def test_with_too_many_attempts_in_hand_it_waits_in_the_queue() -> None:
    async with bench(Plan(deliver=DeliverSettings(attempts_max=1))) as b:
        agent = b.agents["smtp"]
        agent.gate.clear()
        await accept(b, b.letter("a@far.test"))
        assert not b.dispatcher.admit("near.test", 0, b.clock())
        agent.gate.set()
        await b.idle()
        assert b.is_balanced()


async def test_what_is_held_for_later_is_found_then() -> None:
    async with bench() as b:
        letter = b.letter("joe@far.test")
        until = b.clock.utc_us + HOUR_US
        envelope = msgspec.structs.replace(letter.envelope, hold_until_us=until)
        await accept(b, msgspec.structs.replace(letter, envelope=envelope))
        await b.rescan(1)
        assert b.agents["smtp"].tried == []
        await b.rescan(3600)
        assert b.agents["smtp"].tried == ["joe@far.test"]
        assert b.is_balanced()


@pytest.mark.parametrize("held", ["", "by policy"])
async def test_nobody_listens_for_ever(held: str) -> None:
    async with bench() as b:
        finished = await accept(b, b.letter("joe@far.test"), held=held, say=print)
        await b.idle()
        assert finished is None or finished.done()
        assert (finished is None) == bool(held)


async def test_a_listener_of_what_was_not_kept_is_forgotten() -> None:
    async with bench() as b:
        b.spool.faults["accept"] = [SpoolError("disk")]
        letter = b.letter("joe@far.test")
        with pytest.raises(SpoolError):
            await accept(b, letter, say=print)
        assert b.dispatcher.listeners.say_of(letter.queue_id) is None
        assert not b.told(MessageQueued)
        assert b.is_balanced()


async def test_listeners_count_first_tries() -> None:
    async with bench() as b:
        queue_id, other = b.letter().queue_id, b.letter().queue_id
        listeners = Listeners()
        finished = listeners.add(queue_id, print, 2)
        listeners.tried(other, 9)
        listeners.tried(queue_id, 1, more=2)
        assert listeners.say_of(queue_id) is print
        listeners.tried(queue_id, 2)
        assert not finished.done()
        listeners.tried(queue_id, 1)
        assert finished.done()
        listeners.tried(queue_id, 1)
        listeners.remove(queue_id)
        assert listeners.say_of(queue_id) is None


async def test_who_listens_hears_of_second_envelopes_too() -> None:
    listeners = Listeners()
    first, clone = QueueId("00000000001"), QueueId("00000000002")
    finished = listeners.add(first, print, 1)
    listeners.follow(first, clone, 2)
    listeners.tried(first, 1)
    assert listeners.say_of(clone) is print
    assert not finished.done()
    listeners.tried(clone, 2)
    assert finished.done()
    assert listeners.say_of(first) is None
    assert listeners.say_of(clone) is None
