"""Outcome hooks: what they are told, and that slow ones hold up no mail."""

import asyncio
import inspect
from typing import Any

import pytest

from postroom import hook
from postroom.mail.outcome import Deferred, Failed, Outcome
from postroom.observe.events import HookFailed
from postroom.services import attempts
from postroom.testing.workbench import Bench, Plan, bench

JOE, JIM = "joe@whizzer.test", "jim@whizzer.test"
LATER = Deferred("4.2.0", "later")
AWAY = Deferred("4.4.1", "connection refused", hop_failed=True)
DAY_S = 86_400


async def queue(b: Bench, *recipients: str) -> None:
    await b.shard.accept(b.letter(*recipients))
    await b.rescan()


class Watch:
    """Outcome hooks that write down what they are told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str, bool]] = []
        self.gate = asyncio.Event()
        self.waiting = 0

    def plain(self, session: Any, subject: Any) -> None:
        self.told.append(
            (
                str(subject.recipient),
                subject.outcome.status,
                subject.agent,
                subject.next_us > 0,
            )
        )

    async def slow(self, session: Any, subject: Any) -> None:
        self.waiting += 1
        await self.gate.wait()
        self.plain(session, subject)


def hooks(function: Any) -> Any:
    def told(session: Any, subject: Any) -> Any:
        return function(session, subject)

    async def waits(session: Any, subject: Any) -> Any:
        await function(session, subject)

    return hook.outcome(waits if inspect.iscoroutinefunction(function) else told)


async def test_they_are_told_whether_it_is_tried_again() -> None:
    watch = Watch()
    script: dict[str, list[Outcome]] = {JOE: [LATER, Failed("5.1.1", "no such user")]}
    async with bench(Plan(hooks=[hooks(watch.plain)], script=script)) as b:
        await queue(b, JOE, JIM)
        await b.rescan(DAY_S)
        assert watch.told[:3] == [
            (JOE, "4.2.0", "smtp", True),
            (JIM, "2.0.0", "smtp", False),
            (JOE, "5.1.1", "smtp", False),
        ]


async def test_they_are_told_of_mail_that_expires_after_a_try() -> None:
    watch = Watch()
    async with bench(Plan(hooks=[hooks(watch.plain)], script={JOE: [LATER]})) as b:
        await queue(b, JOE)
        await b.rescan(6 * DAY_S)
        assert watch.told[1] == (JOE, "4.2.0", "smtp", False)


async def test_they_are_told_of_mail_that_expires_without_a_try() -> None:
    watch = Watch()
    async with bench(Plan(hooks=[hooks(watch.plain)], script={JOE: [AWAY]})) as b:
        await queue(b, JOE)
        b.clock.utc_us += 6 * DAY_S * 1_000_000  # the rest is measured on the other
        await b.rescan()
        assert b.agents["smtp"].tried == [JOE]
        of_joe = [told for told in watch.told if told[0] == JOE]
        assert of_joe == [
            (JOE, "4.4.1", "smtp", True), (JOE, "4.4.1", "smtp", False)
        ]  # fmt: skip


async def test_they_are_told_of_what_an_alias_leads_to_in_vain() -> None:
    watch = Watch()
    plan = Plan(hooks=[hooks(watch.plain)], aliases={"all": ["joe", "nosuch"]})
    async with bench(plan) as b:
        await queue(b, ":all@gonzo.test")
        await b.rescan(1)
        assert ("all@gonzo.test", "5.1.1", "alias", False) in watch.told
        assert b.is_balanced()


async def test_a_slow_one_holds_up_no_mail_and_keeps_its_message_in_hand() -> None:
    watch = Watch()
    async with bench(Plan(hooks=[hooks(watch.slow)])) as b:
        for _ in range(30):
            await queue(b, JOE)
        assert b.agents["smtp"].tried == [JOE] * 30
        assert await b.queue() == []
        assert b.scheduler.active == 0
        await b.until(lambda: watch.waiting == 30)
        assert len(b.shard.in_hand.left_behind()) == 30
        assert not watch.told
        watch.gate.set()
        await b.until(lambda: len(watch.told) == 30)
        await b.until(b.is_balanced)


async def test_when_too_many_wait_attempts_wait_for_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attempts, "ASIDE_MAX", 2)
    watch = Watch()
    async with bench(Plan(hooks=[hooks(watch.slow)])) as b:
        for _ in range(3):
            await b.shard.accept(b.letter(JOE))
            b.dispatcher.look_again()
        await b.until(lambda: watch.waiting == 3)
        assert b.dispatcher.active == 1
        watch.gate.set()
        await b.until(lambda: len(watch.told) == 3)
        await b.until(b.is_balanced)


async def test_draining_waits_for_them_and_then_no_longer() -> None:
    watch = Watch()
    async with bench(Plan(hooks=[hooks(watch.slow)])) as b:
        await queue(b, JOE)
        await b.until(lambda: watch.waiting == 1)
        await b.dispatcher.drain(0)
        assert b.is_balanced()
        assert not watch.told


async def test_one_that_fails_aside_is_named() -> None:
    @hook.outcome
    async def broken(session: Any, subject: Any) -> None:
        raise ValueError("bug")

    async with bench(Plan(hooks=[broken])) as b:
        await queue(b, JOE)
        await b.until(lambda: bool(b.told(HookFailed)))
        assert b.told(HookFailed)[0].hook == "broken"
        await b.until(b.is_balanced)
