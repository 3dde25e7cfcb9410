"""The delivery loop and faults of our own: nothing goes round for ever, or unseen."""

from typing import Any

import pytest

from postroom.mail.now import DAY_US, SECOND_US
from postroom.mail.outcome import Deferred, Failed, Outcome
from postroom.mail.units import Duration
from postroom.observe.events import MessageShunted, ReportQueued, SpoolFailed
from postroom.services.report import Reporter
from postroom.services.report_settings import ReportSettings
from postroom.services.settings import DeliverSettings
from postroom.spool.spool import SpoolError
from postroom.testing.workbench import Bench, Plan, bench

HOP_DOWN = Deferred("4.4.1", "Connection refused by whizzer.test.", hop_failed=True)
NEVER = Failed("5.1.1", "User unknown")
JOE = "joe@whizzer.test"


async def queue(b: Bench, *recipients: str) -> None:
    await b.shard.accept(b.letter(*recipients))
    await b.rescan()


async def test_a_disk_that_fails_for_long_does_not_fill_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("postroom.services.dispatch._SETTLE_PAUSE_S", 0.001)
    async with bench() as b:
        b.spool.faults["settle"] = [SpoolError("disk") for _ in range(100)]
        await queue(b, JOE)
        assert await b.queue() == []
        assert len(b.told(SpoolFailed)) == 7, "1, 2, 4, ... 64"


async def test_a_bug_while_judging_loses_nothing_and_repeats_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script: dict[str, list[Outcome | Exception]] = {"bad@whizzer.test": [NEVER]}
    async with bench(Plan(script=script)) as b:

        async def broken(*_: Any, **__: Any) -> Any:
            raise RuntimeError("bug")

        with monkeypatch.context() as patch:
            patch.setattr("postroom.services.report.Reporter.report", broken)
            await queue(b, "bad@whizzer.test", "good@whizzer.test")
        assert await b.waiting() == ["bad@whizzer.test"]
        assert b.is_balanced()
        await b.rescan(3600)
        assert [r.kind for r in b.told(ReportQueued)] == ["failed"]
        assert b.agents["smtp"].tried.count("good@whizzer.test") == 1


async def test_what_can_never_be_judged_is_put_aside_when_its_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It must not go round for ever, nor vanish without a word to anybody."""
    async with bench(Plan(script={JOE: [NEVER]})) as b:

        async def broken(*_: Any, **__: Any) -> Any:
            raise RuntimeError("bug")

        monkeypatch.setattr("postroom.services.report.Reporter.report", broken)
        await queue(b, JOE)
        for _ in range(7 * 8):
            await b.rescan(3 * 3600)
        (entry,) = await b.queue()
        (recipient,) = entry.recipients
        assert recipient.state == "shunted"
        assert recipient.status_text == "expired; the sender cannot be told"
        assert [told.queue_id for told in b.told(MessageShunted)] == [entry.queue_id]
        assert len(b.agents["smtp"].tried) < 60
        assert b.is_balanced()


@pytest.mark.parametrize(
    "nothing_heard",
    [
        pytest.param([ValueError("a bug")], id="agent-raises"),
        pytest.param([], id="agent-missing"),
    ],
)
async def test_what_the_host_did_not_say_does_not_make_it_alive(
    nothing_heard: list[Outcome | Exception],
) -> None:
    """Its rests go on growing: else a dead host would be asked each minute."""
    script = {JOE: [HOP_DOWN, *nothing_heard, HOP_DOWN]}
    async with bench(Plan(script=script)) as b:
        await queue(b, JOE)
        agent = b.agents["smtp"]
        if not nothing_heard:
            del b.agents["smtp"]
        await b.rescan(120)
        b.agents["smtp"] = agent
        await b.rescan(600)
        rest = b.shard.rest_of("whizzer.test")
        assert rest is not None
        assert rest.until_us - b.clock.utc_us > 90 * SECOND_US
        assert b.is_balanced()


@pytest.mark.parametrize(
    ("gather", "outcome", "age_us"),
    [
        pytest.param("0s", NEVER, 0, id="at-once"),
        pytest.param("1ms", NEVER, 0, id="together"),
        pytest.param("0s", HOP_DOWN, 5 * DAY_US, id="of-an-elder"),
    ],
)
async def test_a_message_is_in_hand_until_its_report_is_written(
    monkeypatch: pytest.MonkeyPatch, gather: str, outcome: Outcome, age_us: int
) -> None:
    """A message whose report kills the worker is to be found out like any other."""
    seen: list[tuple[int, int]] = []
    left: list[str] = []
    report = Reporter.report

    async def reporting(*given: Any) -> Any:
        seen.append((len(b.shard.in_hand.left_behind()), len(left)))
        return await report(*given)

    monkeypatch.setattr(Reporter, "report", reporting)
    reports = ReportSettings(gather=Duration.from_text(gather))
    plan = Plan(deliver=DeliverSettings(reports=reports), script={JOE: [outcome]})
    async with bench(plan) as b:
        b.shard.in_hand.on_left = left.append
        await queue(b, JOE)
        if age_us:
            seen.clear()
            left.clear()
            b.clock.utc_us += age_us
            await b.rescan()
        assert seen[0] == (1, 0)
        assert b.is_balanced()
