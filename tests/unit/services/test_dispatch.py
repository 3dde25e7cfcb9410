"""The delivery loop: whatever agents, spool and clock do, mail ends somewhere."""

import asyncio
import weakref
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from postroom import hook
from postroom.mail.envelope import Recipient
from postroom.mail.now import DAY_US, HOUR_US, SECOND_US
from postroom.mail.outcome import Deferred, Failed, Outcome
from postroom.mail.route import Route
from postroom.mail.units import Duration
from postroom.observe.events import (
    AttemptDone,
    Lifecycle,
    ReportDropped,
    ReportQueued,
    SpoolFailed,
)
from postroom.services.accept import Routed
from postroom.services.generation import Tenancy
from postroom.services.settings import DeliverSettings
from postroom.spool.spool import Fenced, SpoolError
from postroom.testing.spool import Letters
from postroom.testing.workbench import Bench, Plan, ScriptedAgent, bench

LATER = Deferred("4.2.0", "mailbox busy")
HOP_DOWN = Deferred("4.4.1", "Connection refused by whizzer.test.", hop_failed=True)
NEVER = Failed("5.1.1", "User unknown")
JOE = "joe@whizzer.test"
BETTY = "betty@gonzo.test"


async def queue(b: Bench, *recipients: str, sender: str = BETTY) -> None:
    """Put a letter into the queue behind the dispatcher's back, then let it search."""
    await b.shard.accept(b.letter(*recipients, sender=sender))
    await b.rescan()


async def deliver_all(b: Bench, days: int = 7) -> None:
    for _ in range(days * 8):
        await b.rescan(3 * 3600)


async def test_what_is_due_is_delivered_and_gone() -> None:
    async with bench() as b:
        await queue(b, JOE)
        assert b.agents["smtp"].tried == [JOE]
        assert await b.queue() == []
        assert b.is_balanced()
        (done,) = b.told(AttemptDone)
        assert (done.tries, done.next_us, done.agent) == (1, 0, "smtp")


async def test_nothing_is_delivered_that_the_log_cannot_tell_of() -> None:
    async with bench() as b:
        b.log.overfull = True
        await queue(b, JOE)
        await b.rescan(60)
        assert b.agents["smtp"].tried == []
        b.log.overfull = False
        await b.rescan(60)
        assert b.agents["smtp"].tried == [JOE]
        assert b.is_balanced()


async def test_an_agent_that_raises_defers_and_is_told_of() -> None:
    async with bench(Plan(script={JOE: [ValueError("a bug")]})) as b:
        await queue(b, JOE)
        (entry,) = await b.queue()
        assert entry.recipients[0].status_text == "Deferred: internal error"
        assert entry.recipients[0].tries == 1
        assert entry.recipients[0].due_us > b.clock.utc_us
        assert any("a bug" in told.what for told in b.told(Lifecycle))
        assert b.is_balanced()


class Short(ScriptedAgent):
    """Returns fewer outcomes than it owes."""

    async def deliver(self, attempt: Any) -> Sequence[Outcome]:
        return (await super().deliver(attempt))[:-1]


async def test_an_agent_that_returns_too_few_outcomes_defers() -> None:
    async with bench() as b:
        b.agents["smtp"] = Short({})
        await queue(b, JOE, "jim@whizzer.test")
        (entry,) = await b.queue()
        assert [r.tries for r in entry.recipients] == [1, 1]
        assert b.is_balanced()


async def test_a_missing_agent_defers() -> None:
    async with bench() as b:
        del b.agents["smtp"]
        await queue(b, JOE)
        (entry,) = await b.queue()
        text = entry.recipients[0].status_text
        assert text == "Deferred: no delivery agent is called smtp"
        assert b.is_balanced()


async def test_an_attempt_that_takes_too_long_is_cut_off_and_deferred() -> None:
    settings = DeliverSettings(attempt_timeout=Duration.from_text("1m"))
    async with bench(Plan(deliver=settings)) as b:
        agent = b.agents["smtp"]
        agent.gate.clear()
        await b.shard.accept(b.letter(JOE))
        b.dispatcher.look_again()
        await b.until(lambda: bool(agent.attempts))
        await b.rescan(61)
        (entry,) = await b.queue()
        assert entry.recipients[0].status_text == "Deferred: attempt took too long"
        assert b.scheduler.resting_until_us("whizzer.test"), "more would hang there"
        assert b.is_balanced()


async def test_a_result_is_not_forgotten_while_the_spool_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("postroom.services.dispatch._SETTLE_PAUSE_S", 0.001)
    async with bench() as b:
        b.spool.faults["settle"] = [SpoolError("disk"), SpoolError("disk")]
        await queue(b, JOE)
        assert b.agents["smtp"].tried == [JOE]  # once
        assert await b.queue() == []
        assert len(b.told(SpoolFailed)) == 2
        assert b.is_balanced()


async def test_a_result_survives_the_time_limit_of_its_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("postroom.services.dispatch._SETTLE_PAUSE_S", 0.001)
    settings = DeliverSettings(attempt_timeout=Duration.from_text("1m"))
    async with bench(Plan(deliver=settings)) as b:
        faults: list[Exception] = [SpoolError("disk") for _ in range(9)]
        b.spool.faults["settle"] = faults
        await b.shard.accept(b.letter(JOE))
        b.dispatcher.look_again()
        await b.until(lambda: len(faults) < 8)
        await b.rescan(61)
        assert await b.queue() == []
        assert b.agents["smtp"].tried == [JOE]
        assert b.is_balanced()


async def test_what_another_worker_has_taken_over_is_dropped() -> None:
    async with bench() as b:
        b.spool.faults["settle"] = [Fenced("stale")]
        await queue(b, JOE)
        assert any("another worker" in told.what for told in b.told(Lifecycle))
        assert await b.waiting() == [JOE]


async def test_a_claim_that_fails_gives_back_what_was_counted() -> None:
    async with bench() as b:
        b.spool.faults["claim"] = [SpoolError("disk")]
        await queue(b, JOE)
        assert b.is_balanced()
        await b.rescan(1)
        assert await b.queue() == []
        assert b.is_balanced()


async def test_a_claim_that_fails_by_a_bug_does_not_block_its_lane() -> None:
    async with bench() as b:
        b.spool.faults["claim"] = [RuntimeError("bug")]
        await queue(b, JOE)
        await b.rescan(1)
        assert await b.queue() == []
        assert b.is_balanced()


async def test_a_claim_that_is_cut_short_is_not_the_end_of_its_lane(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bound on octets may end a claim early: what is behind must not wait for it."""
    async with bench() as b:
        whole = b.shard.claim

        async def one_at_a_time(hop: str, lane: int, count: int, now: Any) -> Any:
            return await whole(hop, lane, min(count, 1), now)

        monkeypatch.setattr(b.shard, "claim", one_at_a_time)
        for _ in range(5):
            await b.shard.accept(b.letter(JOE))
        await b.rescan()
        assert len(b.agents["smtp"].tried) == 5
        assert b.is_balanced()


async def test_mail_for_a_resting_hop_is_put_off_without_a_try() -> None:
    async with bench(Plan(script={JOE: [HOP_DOWN]})) as b:
        await queue(b, JOE)
        await queue(b, "jim@whizzer.test")
        assert b.agents["smtp"].tried == [JOE]
        for entry in await b.queue():
            assert "Connection refused" in entry.recipients[0].status_text
            assert entry.recipients[0].due_us > b.clock.utc_us
        assert b.is_balanced()


async def test_what_expires_at_a_resting_hop_is_reported_and_told() -> None:
    async with bench(Plan(script={JOE: [HOP_DOWN]})) as b:
        await queue(b, JOE)
        b.clock.utc_us += 6 * DAY_US  # the rest is measured on the other clock
        await b.rescan()
        assert b.agents["smtp"].tried == [JOE]
        assert [r.kind for r in b.told(ReportQueued)] == ["failed"]
        done = [d for d in b.told(AttemptDone) if str(d.recipient) == JOE]
        assert [d.next_us == 0 for d in done] == [False, True]
        assert b.is_balanced()
        await b.rescan(1)
        assert await b.queue() == []


@pytest.mark.parametrize(
    ("sender", "notify", "outcomes", "expected"),
    [
        pytest.param(BETTY, "", [NEVER], ["failed"], id="failure"),
        pytest.param(BETTY, "NEVER", [NEVER], [], id="notify-never"),
        pytest.param(BETTY, "DELAY", [NEVER], [], id="notify-delay-only"),
        pytest.param(BETTY, "FAILURE", [LATER], ["failed"], id="no-delay-wanted"),
        pytest.param(BETTY, "", [LATER], ["delayed", "failed"], id="warned-once"),
        pytest.param("", "", [LATER], ["failed"], id="nobody-hears-of-delays"),
        pytest.param("", "", [NEVER], ["failed"], id="double-bounce"),
    ],
)
async def test_reports(
    sender: str, notify: str, outcomes: list[Outcome], expected: list[str]
) -> None:
    async with bench(Plan(script={JOE: outcomes})) as b:
        recipient = Letters(None, b.clock).recipient(JOE)
        recipient = msgspec.structs.replace(recipient, notify=notify)
        await b.shard.accept(b.letter(recipient, sender=sender))
        await b.rescan()
        await deliver_all(b)
        reports = b.told(ReportQueued)
        assert [report.kind for report in reports] == expected
        to = {"": "postmaster@gonzo.test"}.get(sender, sender)
        assert {r.recipient.to_text() for r in reports} <= {to}
        assert await b.queue() == []
        assert b.is_balanced()


async def test_a_report_is_queued_in_the_same_act_that_removes_the_recipient() -> None:
    async with bench(Plan(script={JOE: [NEVER]})) as b:
        seen = []

        async def settle(lease: Any, settled: Any, new: Any = ()) -> None:
            seen.append((len(settled), len(new)))
            await b.shard.settle(lease, settled, new)

        b.spool.settle = settle  # type: ignore[attr-defined]
        await queue(b, JOE)
        assert seen[0] == (1, 1)


async def test_partial_outcomes_are_settled_one_by_one() -> None:
    script: dict[str, list[Outcome | Exception]] = {
        "a@whizzer.test": [LATER],
        "b@whizzer.test": [NEVER],
    }
    async with bench(Plan(script=script)) as b:
        await queue(b, "a@whizzer.test", "b@whizzer.test", "c@whizzer.test")
        assert await b.waiting() == ["a@whizzer.test"]
        assert len(b.told(ReportQueued)) == 1
        assert b.agents["mailbox"].tried == [BETTY]  # the report
        assert b.is_balanced()


NOBODY = Failed("5.1.1", "no postmaster either")


@pytest.mark.parametrize(
    ("aliases", "script"),
    [
        pytest.param({}, {"postmaster@gonzo.test": [NOBODY]}, id="refused"),
        pytest.param(
            {"postmaster": ["boss@whizzer.test"]},
            {"boss@whizzer.test": [NOBODY]},
            id="alias-to-a-host-that-refuses",
        ),
        pytest.param(
            {
                "postmaster": ["boss@whizzer.test"],
                "owner-postmaster": ["chief@whizzer.test"],
            },
            {"boss@whizzer.test": [NOBODY], "chief@whizzer.test": [NOBODY]},
            id="list-whose-owner-is-refused",
        ),
        pytest.param({"postmaster": ["nosuch"]}, {}, id="alias-to-nobody"),
    ],
)
async def test_the_circle_of_reports_ends(
    aliases: dict[str, list[str]], script: dict[str, list[Outcome | Exception]]
) -> None:
    plan = Plan(script={JOE: [NEVER], **script}, aliases=aliases)
    async with bench(plan) as b:
        await queue(b, JOE, sender="")
        for _ in range(6):
            await b.rescan(600)
        assert await b.queue() == []
        assert len(b.told(ReportQueued)) <= 3
        assert b.told(ReportDropped)
        assert b.is_balanced()


async def test_a_report_is_made_even_if_the_body_cannot_be_read() -> None:
    async with bench(Plan(script={JOE: [NEVER]})) as b:
        letter = b.letter(JOE)
        writer = b.shard.body_writer(letter.queue_id)
        await writer.write(b"large\r\n" * 100)
        body = await writer.finish()
        message = msgspec.structs.replace(letter.message, body=body)
        letter = msgspec.structs.replace(letter, message=message)
        (lease,) = await b.shard.accept(letter, claim=True)
        body.directory.remove([body.name])
        assert b.dispatcher.admit("whizzer.test", 0, b.clock())
        b.dispatcher.start([lease])
        await b.idle()
        assert [r.kind for r in b.told(ReportQueued)] == ["failed"]
        await b.rescan(1)
        assert await b.queue() == []
        assert b.is_balanced()


async def test_outcome_hooks_see_every_recipient() -> None:
    seen: list[tuple[str, str, int]] = []

    @hook.outcome
    def watch(session: Any, outcome: Any) -> None:
        seen.append((str(outcome.recipient), outcome.outcome.status, outcome.tries))

    async with bench(Plan(hooks=[watch], script={JOE: [LATER]})) as b:
        await queue(b, JOE, "jim@whizzer.test")
        assert seen == [(JOE, "4.2.0", 1), ("jim@whizzer.test", "2.0.0", 1)]


async def test_an_outcome_hook_that_raises_changes_nothing() -> None:
    @hook.outcome
    def watch(session: Any, outcome: Any) -> None:
        raise ValueError("bug")

    async with bench(Plan(hooks=[watch])) as b:
        await queue(b, JOE)
        assert await b.queue() == []
        assert b.is_balanced()


async def test_a_message_is_noted_as_in_hand_just_while_it_is_tried() -> None:
    async with bench() as b:
        agent = b.agents["smtp"]
        agent.gate.clear()
        await b.shard.accept(b.letter(JOE))
        b.dispatcher.look_again()
        await b.until(lambda: bool(agent.attempts))
        assert len(b.shard.in_hand.left_behind()) == 1
        agent.gate.set()
        await b.idle()
        assert b.shard.in_hand.left_behind() == []


async def test_an_attempt_holds_its_generation_to_the_end() -> None:
    async with bench() as b:
        agent = b.agents["smtp"]
        agent.gate.clear()
        tenancy = Tenancy()
        b.generation = b.generation._replace(tenancy=tenancy)
        held = weakref.ref(tenancy)
        del tenancy
        await b.shard.accept(b.letter(JOE))
        b.dispatcher.look_again()
        await b.until(lambda: bool(agent.attempts))
        b.generation = b.generation._replace(tenancy=Tenancy())
        assert held() is not None
        agent.gate.set()
        await b.idle()
        assert held() is None


async def test_draining_waits_for_attempts_and_starts_none() -> None:
    async with bench() as b:
        agent = b.agents["smtp"]
        agent.gate.clear()
        await b.shard.accept(b.letter(JOE))
        b.dispatcher.look_again()
        await b.until(lambda: bool(agent.attempts))
        draining = asyncio.create_task(b.dispatcher.drain(5))
        await asyncio.sleep(0)
        assert not b.dispatcher.admit("whizzer.test", 0, b.clock())
        await b.shard.accept(b.letter("jim@whizzer.test"))
        b.dispatcher.due("whizzer.test", 0)
        agent.gate.set()
        await draining
        assert agent.tried == [JOE]
        assert await b.waiting() == ["jim@whizzer.test"]


async def test_what_is_accepted_while_draining_is_left_to_the_next_holder() -> None:
    """Its commit was under way: an attempt would be cut off, or end unsettled."""
    async with bench() as b:

        async def accept(*given: Any, **named: Any) -> Any:
            leases = await b.shard.accept(*given, **named)
            await b.dispatcher.drain(5)
            return leases

        b.spool.accept = accept  # type: ignore[attr-defined]
        letter, said = b.letter(), list[str]()
        to = Routed(Recipient(letter.recipients[0].address), Route("smtp", "w.test"))
        finished = await b.acceptor.accept(
            letter.queue_id, letter.envelope, letter.message, [to], say=said.append
        )
        assert finished is not None
        await finished  # who follows it is not kept waiting
        await b.idle()
        assert b.agents["smtp"].tried == []
        assert len(await b.queue()) == 1


async def test_draining_cuts_off_what_does_not_end_and_loses_nothing() -> None:
    async with bench() as b:
        agent = b.agents["smtp"]
        agent.gate.clear()
        await b.shard.accept(b.letter(JOE))
        b.dispatcher.look_again()
        await b.until(lambda: bool(agent.attempts))
        await b.dispatcher.drain(0.01)
        assert b.dispatcher.active == 0  # nothing runs on while the spool is closed
        assert await b.waiting() == [JOE]


async def test_mail_that_is_held_back_does_not_make_the_search_spin() -> None:
    async with bench() as b:
        agent = b.agents["smtp"]
        agent.gate.clear()
        for number in range(30):  # more than the window takes
            await b.shard.accept(b.letter(f"u{number}@whizzer.test"))
        b.dispatcher.look_again()
        await b.until(lambda: bool(agent.attempts))
        b.spool.calls.clear()
        for _ in range(50):
            await asyncio.sleep(0.001)
        assert b.spool.calls.count("due_hops") <= 1
        assert b.spool.calls.count("claim") <= 1
        agent.gate.set()
        await b.idle()
        assert await b.queue() == []
        assert b.is_balanced()


@pytest.mark.parametrize("gone_back_s", [1, 3600])
async def test_a_clock_that_goes_back_does_not_lose_a_window(gone_back_s: int) -> None:
    async with bench() as b:
        letter = b.letter()
        queue_id = letter.queue_id
        recipient = letter.recipients[0]
        b.clock.utc_us -= gone_back_s * SECOND_US
        await b.acceptor.accept(
            queue_id,
            letter.envelope,  # it arrived an hour from now
            letter.message,
            [Routed(Recipient(recipient.address), Route("smtp", "whizzer.test"))],
        )
        await b.idle()
        assert b.is_balanced()
        await b.rescan(2 * HOUR_US // SECOND_US)
        assert await b.queue() == []


@pytest.mark.parametrize(
    ("by", "agent_is_asked", "left"), [("60;R", False, []), ("60;N", True, [])]
)
async def test_no_attempt_is_made_when_the_time_is_over(
    by: str, agent_is_asked: bool, left: list[str]
) -> None:
    """RFC 2852 §4.1.3, whichever agent it would be."""
    async with bench() as b:
        letter = b.letter(JOE)
        arrival_us = b.clock.utc_us - 61_000_000
        envelope = msgspec.structs.replace(
            letter.envelope, deliver_by=by, arrival_us=arrival_us
        )
        await b.shard.accept(msgspec.structs.replace(letter, envelope=envelope))
        await b.rescan()
        assert (b.agents["smtp"].tried == [JOE]) is agent_is_asked
        assert [each.kind for each in b.told(ReportQueued)] == (
            [] if agent_is_asked else ["failed"]
        )
        assert await b.waiting() == left
        assert b.is_balanced()
