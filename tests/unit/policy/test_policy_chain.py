"""The chain: order, what ends it, and what happens to hooks that misbehave."""

import asyncio
import inspect
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from postroom import accept, add_header, defer, discard, hook, quarantine, reject
from postroom.mail.address import Address
from postroom.mail.now import Now
from postroom.mail.outcome import Delivered
from postroom.mail.route import Route
from postroom.mail.units import Duration
from postroom.mail.verdict import (
    Accept,
    Defer,
    Discard,
    Quarantine,
    Reject,
)
from postroom.observe.events import AnyEvent, HookFailed, HookSlow
from postroom.policy.chain import Chain
from postroom.policy.hooks import MARK, Hook, Phase
from postroom.policy.session import Connect, Mail, OutcomeSubject, Rcpt, RouteSubject
from postroom.policy.settings import PolicySettings
from postroom.testing.policy import make_message, make_session

NOW = Now(1_000_000, 0)
SESSION = make_session()
JOE = Address("joe", "whizzer.test")
RCPT = Rcpt(JOE)
SETTINGS = PolicySettings()
SHORT = msgspec.structs.replace(
    SETTINGS, async_timeout=Duration(1000), blocking_timeout=Duration(1000)
)


class Kit:
    """A chain of given functions, and what it emitted."""

    def __init__(
        self,
        *functions: Callable[..., Any],
        guards: tuple[Hook, ...] = (),
        settings: PolicySettings = SETTINGS,
        stopwatch: Callable[[], int] = lambda: 0,
    ) -> None:
        self.events: list[AnyEvent] = []
        # A function that serves in several tests has a mark of each: the last counts.
        hooks = [getattr(function, MARK)[-1] for function in functions]
        self.chain = Chain(
            [*hooks, *guards], settings, self.events.append, lambda: NOW, stopwatch
        )

    @property
    def failures(self) -> list[str]:
        return [one.error for one in self.events if isinstance(one, HookFailed)]


def asked(order: list[str], name: str, answer: object = None) -> Callable[..., Any]:
    def ask(session: object, subject: object) -> object:
        order.append(name)
        return answer

    return hook.rcpt(ask)


def guard(order: list[str], name: str, answer: object = None) -> Hook:
    def ask(session: object, subject: object) -> object:
        order.append(name)
        return answer

    return Hook("rcpt", name, ask, guard=True)


def test_nobody_to_ask() -> None:
    chain = Kit().chain
    assert not chain.has("rcpt")
    assert chain.decide_now("rcpt", SESSION, RCPT) == Accept()


def test_guards_come_first_then_hooks_as_written() -> None:
    order: list[str] = []
    kit = Kit(
        asked(order, "a"),
        asked(order, "b"),
        guards=(guard(order, "1"), guard(order, "2")),
    )
    assert kit.chain.has("rcpt")
    assert not kit.chain.has("mail")
    assert kit.chain.decide_now("rcpt", SESSION, RCPT) == Accept()
    assert order == ["1", "2", "a", "b"]


def test_accept_ends_the_sites_hooks_and_no_guard() -> None:
    order: list[str] = []
    no = reject("5.7.1", "no")
    kit = Kit(asked(order, "a", accept()), asked(order, "b", no))
    assert kit.chain.decide_now("rcpt", SESSION, RCPT) == Accept()
    kit = Kit(
        asked(order, "a", accept()),
        guards=(guard(order, "1", accept()), guard(order, "2", no)),
    )
    assert isinstance(kit.chain.decide_now("rcpt", SESSION, RCPT), Reject)
    assert order == ["a", "1", "2"]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (reject("5.7.1", "no"), Reject),
        (defer("4.7.1", "later"), Defer),
        (discard("why"), Discard),
    ],
)
def test_the_first_refusal_wins(answer: object, kind: type) -> None:
    order: list[str] = []
    kit = Kit(asked(order, "a"), asked(order, "b", answer), asked(order, "c"))
    assert isinstance(kit.chain.decide_now("rcpt", SESSION, RCPT), kind)
    assert order == ["a", "b"]


def test_a_refusal_names_its_hook() -> None:
    @hook.rcpt
    def by_me(session: object, rcpt: object) -> object:
        return reject("5.7.1", "no")

    verdict = Kit(by_me).chain.decide_now("rcpt", SESSION, RCPT)
    assert isinstance(verdict, Reject)
    assert verdict.rule == "by_me"


@pytest.mark.parametrize(
    ("phase", "answer", "code"),
    [
        ("connect", reject("5.7.1", "no"), 554),  # RFC 5321 §3.1
        ("connect", defer("4.7.0", "later"), 421),
        ("connect", reject("5.7.1", "no", 521), 521),
        ("auth", reject("5.7.8", "no"), 535),  # RFC 4954 §6
        ("hello", reject("5.7.1", "no"), 550),
    ],
)
def test_the_code_fits_the_phase(phase: Phase, answer: Any, code: int) -> None:
    function = getattr(hook, phase)(lambda session, subject: answer)
    verdict = Kit(function).chain.decide_now(phase, SESSION, Connect("192.0.2.1"))
    assert isinstance(verdict, Reject | Defer)
    assert verdict.reply.code == code


# Hooks that misbehave


def boom(session: object, rcpt: object) -> None:
    raise KeyError("boom")


def leave(session: object, rcpt: object) -> None:
    raise SystemExit(1)


class Broken(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


def breaks(session: object, rcpt: object) -> None:
    raise Broken


async def coroutine() -> None: ...


MISBEHAVIOUR: dict[str, tuple[Callable[..., Any], str]] = {
    "raises": (boom, "KeyError: 'boom' ("),
    "raises what cannot be told": (breaks, "Broken: its text cannot be had ("),
    "returns what cannot be told": (lambda a, b: Broken(), "an object of Broken"),
    "ends the program": (leave, "SystemExit: 1"),
    "returns True": (lambda a, b: True, "returned True, which is no verdict"),
    "returns a text": (lambda a, b: "550 no", "returned '550 no'"),
    "returns a class": (lambda a, b: Reject, "returned <class"),
    "returns a long text": (lambda a, b: "x" * 999, "..., which is no verdict"),
    "returns a coroutine": (lambda a, b: coroutine(), "returned <coroutine"),
    "chooses a route": (lambda a, b: Route("smtp", "x.test"), "no route can be chosen"),
    "changes things too early": (lambda a, b: accept(add_header("A", "b")), "only the"),
    "rejects by 250": (
        lambda a, b: Reject(
            msgspec.structs.replace(reject("5.7.1", "x").reply, code=250)
        ),
        "needs a reply of class 5",
    ),
    "defers by nothing": (lambda a, b: Defer(None), "needs a reply of class 4"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", MISBEHAVIOUR)
def test_misbehaviour_is_451_and_named(name: str) -> None:
    function, error = MISBEHAVIOUR[name]
    kit = Kit(hook.rcpt(function))
    verdict = kit.chain.decide_now("rcpt", SESSION, RCPT)
    assert isinstance(verdict, Defer)
    assert str(verdict.reply).startswith("451 4.3.0 ")
    (event,) = kit.events
    assert isinstance(event, HookFailed)
    assert (event.phase, event.utc_us) == ("rcpt", NOW.utc_us)
    assert error in event.error


def cancelled(session: object, rcpt: object) -> None:
    raise asyncio.CancelledError  # as the result of a cancelled future does


def test_a_plain_hook_that_meets_a_cancelled_future() -> None:
    kit = Kit(hook.rcpt(cancelled))
    assert isinstance(kit.chain.decide_now("rcpt", SESSION, RCPT), Defer)
    assert kit.failures[0].startswith("CancelledError")


@pytest.mark.parametrize("phase", ["connect", "hello", "auth"])
def test_nothing_to_discard_yet(phase: Phase) -> None:
    kit = Kit(getattr(hook, phase)(lambda session, subject: discard("why")))
    assert isinstance(kit.chain.decide_now(phase, SESSION, Connect("x")), Defer)
    assert "nothing to discard" in kit.failures[0]


def test_a_guard_that_raises_never_lets_mail_through() -> None:
    kit = Kit(guards=(Hook("rcpt", "broken", boom, guard=True),))
    assert isinstance(kit.chain.decide_now("rcpt", SESSION, RCPT), Defer)
    assert kit.failures


def test_where_it_was_raised_is_told() -> None:
    line = inspect.getsourcelines(boom)[1] + 1
    kit = Kit(hook.rcpt(boom))
    kit.chain.decide_now("rcpt", SESSION, RCPT)
    assert kit.failures[0].endswith(f"test_policy_chain.py:{line})")


def test_a_slow_plain_hook_is_named_and_its_verdict_counts() -> None:
    ticks = iter((0, 21_000_000))
    kit = Kit(asked([], "a", discard("x")), stopwatch=lambda: next(ticks))
    assert isinstance(kit.chain.decide_now("rcpt", SESSION, RCPT), Discard)
    assert kit.events == [HookSlow(NOW.utc_us, "ask", "rcpt", 21_000)]


# Hooks that wait


def returning(answer: object) -> Callable[..., Any]:
    async def ask(session: object, subject: object) -> object:
        await asyncio.sleep(0)
        return answer

    return hook.rcpt(ask)


async def test_plain_and_waiting_hooks_in_one_chain() -> None:
    order: list[str] = []
    kit = Kit(
        asked(order, "a"), returning(None), asked(order, "b"), returning(discard("x"))
    )
    later = kit.chain.decide_now("rcpt", SESSION, RCPT)
    assert order == ["a"]
    assert not isinstance(later, Accept | Reject | Defer | Discard)
    assert await later == Discard("x")
    assert order == ["a", "b"]
    assert await kit.chain.decide("rcpt", SESSION, RCPT) == Discard("x")


async def test_an_async_hook_that_blocks_is_named_and_its_verdict_counts() -> None:
    at_ns = 0

    @hook.rcpt
    async def blocks(session: object, rcpt: object) -> Reject:
        nonlocal at_ns
        for spent_ns in (5_000_000, 30_000_000, 0):
            await asyncio.sleep(0)
            at_ns += spent_ns
        return reject("5.7.1", "no")

    @hook.rcpt
    async def waits(session: object, rcpt: object) -> None:
        nonlocal at_ns
        for _ in range(10):
            at_ns += 15_000_000
            await asyncio.sleep(0)

    kit = Kit(waits, blocks, stopwatch=lambda: at_ns)
    assert isinstance(await kit.chain.decide("rcpt", SESSION, RCPT), Reject)
    (slow,) = kit.events
    assert isinstance(slow, HookSlow)
    assert (slow.hook, slow.duration_us) == ("blocks", 30_000)


async def test_an_async_hook_may_catch_what_it_awaits() -> None:
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    gate.set_exception(OSError("database"))

    @hook.rcpt
    async def careful(session: object, rcpt: object) -> Defer:
        try:
            await gate
        except OSError:
            await asyncio.sleep(0)
        return defer("4.7.1", "later")

    kit = Kit(careful)
    assert isinstance(await kit.chain.decide("rcpt", SESSION, RCPT), Defer)
    assert not kit.events


async def test_an_async_hook_may_end_the_sites_hooks() -> None:
    order: list[str] = []
    kit = Kit(returning(accept()), asked(order, "b"))
    assert await kit.chain.decide("rcpt", SESSION, RCPT) == Accept()
    assert order == []


async def test_an_async_hook_that_takes_too_long() -> None:
    @hook.rcpt
    async def forever(session: object, rcpt: object) -> None:
        await asyncio.Event().wait()

    kit = Kit(forever, settings=SHORT)
    assert isinstance(await kit.chain.decide("rcpt", SESSION, RCPT), Defer)
    assert kit.failures == ["took longer than 1ms"]


async def test_a_time_out_of_the_hooks_own_is_told_apart() -> None:
    @hook.rcpt
    async def gives_up(session: object, rcpt: object) -> None:
        raise TimeoutError("the database")

    kit = Kit(gives_up)
    assert isinstance(await kit.chain.decide("rcpt", SESSION, RCPT), Defer)
    assert kit.failures[0].startswith("TimeoutError: the database (")


async def test_a_hook_that_cancels_itself() -> None:
    @hook.rcpt
    async def cancels(session: object, rcpt: object) -> None:
        raise asyncio.CancelledError

    kit = Kit(cancels)
    assert isinstance(await kit.chain.decide("rcpt", SESSION, RCPT), Defer)
    assert kit.failures[0].startswith("CancelledError")


async def test_a_session_that_ends_takes_its_hook_along() -> None:
    begun = asyncio.Event()

    @hook.rcpt
    async def forever(session: object, rcpt: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    kit = Kit(forever)
    task = asyncio.create_task(kit.chain.decide("rcpt", SESSION, RCPT))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert kit.events == []


async def test_a_blocking_hook_runs_in_a_thread() -> None:
    threads: list[str] = []

    @hook.rcpt(blocking=True)
    def blocks(session: object, rcpt: object) -> object:
        threads.append(threading.current_thread().name)
        return discard("x")

    kit = Kit(blocks)
    assert await kit.chain.decide("rcpt", SESSION, RCPT) == Discard("x")
    assert threads == ["postroom-hook-1"]
    kit.chain.close()


async def test_blocking_hooks_that_fail() -> None:
    kit = Kit(hook.rcpt(blocking=True)(boom))
    assert isinstance(await kit.chain.decide("rcpt", SESSION, RCPT), Defer)
    assert "KeyError: 'boom' (" in kit.failures[0]
    kit.chain.close()
    kit = Kit(hook.rcpt(blocking=True)(leave))
    assert isinstance(await kit.chain.decide("rcpt", SESSION, RCPT), Defer)
    assert "SystemExit" in kit.failures[0]
    kit.chain.close()


async def test_a_blocking_hook_that_hangs_costs_its_thread_and_no_more() -> None:
    entered, release = threading.Event(), threading.Event()

    @hook.rcpt(blocking=True)
    def hangs(session: object, rcpt: object) -> None:
        entered.set()
        release.wait(10)

    one = msgspec.structs.replace(
        SETTINGS, blocking_threads_max=1, blocking_waiting_max=1
    )
    kit = Kit(hangs, settings=one)
    running = asyncio.create_task(kit.chain.decide("rcpt", SESSION, RCPT))
    await asyncio.to_thread(entered.wait, 10)
    waiting = asyncio.create_task(kit.chain.decide("rcpt", SESSION, RCPT))
    await asyncio.sleep(0)
    assert isinstance(await kit.chain.decide("rcpt", SESSION, RCPT), Defer)
    assert kit.failures == ["PoolFull: too many blocking hooks wait for a thread"]
    release.set()
    assert list(await asyncio.gather(running, waiting)) == [Accept()] * 2
    kit.chain.close()


async def test_threads_that_cannot_be_started_are_started_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kit = Kit(hook.rcpt(blocking=True)(lambda s, r: reject("5.7.1", "no")))

    def fail(self: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        for _ in range(SETTINGS.blocking_threads_max + 1):
            assert isinstance(await kit.chain.decide("rcpt", SESSION, RCPT), Defer)
    assert kit.failures[0].startswith("RuntimeError: can't start new thread")
    assert isinstance(await kit.chain.decide("rcpt", SESSION, RCPT), Reject)
    kit.chain.close()


async def test_a_blocking_hook_that_takes_too_long() -> None:
    release = threading.Event()

    @hook.rcpt(blocking=True)
    def hangs(session: object, rcpt: object) -> None:
        release.wait(10)

    kit = Kit(hangs, settings=SHORT)
    assert isinstance(await kit.chain.decide("rcpt", SESSION, RCPT), Defer)
    assert kit.failures == ["took longer than 1ms"]
    release.set()
    kit.chain.close()


# message, route, outcome


def test_changes_of_all_hooks_are_gathered() -> None:
    subject = make_message("A: b\n\nc\n")
    kit = Kit(
        hook.message(lambda s, m: accept(add_header("X", "1"), quarantine("first"))),
        hook.message(lambda s, m: None),
        hook.message(lambda s, m: accept(quarantine("second"), add_header("X", "2"))),
        hook.message(lambda s, m: accept()),
        hook.message(lambda s, m: reject("5.7.1", "not asked")),
    )
    verdict = kit.chain.decide_now("message", SESSION, subject)
    assert verdict == Accept(
        (add_header("X", "1"), Quarantine("first"), add_header("X", "2"))
    )


def test_a_refusal_forgets_the_changes() -> None:
    kit = Kit(
        hook.message(lambda s, m: accept(add_header("X", "1"))),
        hook.message(lambda s, m: reject("5.7.1", "no")),
    )
    verdict = kit.chain.decide_now("message", SESSION, make_message("A: b\n\n"))
    assert isinstance(verdict, Reject)


USUAL = Route("smtp", "gonzo.test", "router")
OTHER = Route("smtp", "[relay.test]", "site")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (None, USUAL),
        (accept(), USUAL),
        (OTHER, OTHER),
        (discard("x"), Discard("x")),
    ],
)
async def test_choosing_a_route(answer: object, expected: object) -> None:
    kit = Kit(hook.route(lambda session, subject: answer))
    assert await kit.chain.choose(SESSION, RouteSubject(JOE, USUAL)) == expected


async def test_choosing_a_route_takes_its_time() -> None:
    @hook.route
    async def slowly(session: object, subject: object) -> Route:
        await asyncio.sleep(0)
        return OTHER

    kit = Kit(slowly, hook.route(lambda session, subject: USUAL))
    assert await kit.chain.choose(SESSION, RouteSubject(JOE, USUAL)) == OTHER


async def test_a_route_hook_that_fails_defers() -> None:
    kit = Kit(hook.route(boom))
    chosen = await kit.chain.choose(SESSION, RouteSubject(JOE, USUAL))
    assert isinstance(chosen, Defer)


async def test_observers_are_all_told_whatever_they_do() -> None:
    told: list[str] = []

    @hook.outcome
    async def waits(session: object, subject: OutcomeSubject) -> None:
        await asyncio.sleep(0)
        told.append(subject.outcome.status)

    kit = Kit(
        hook.outcome(boom),
        hook.outcome(lambda s, o: accept()),
        waits,
    )
    subject = OutcomeSubject("x", JOE, Delivered("2.0.0", "ok"))  # type: ignore[arg-type]
    await kit.chain.observe(SESSION, subject)
    assert told == ["2.0.0"]
    assert len(kit.failures) == 2
    assert "only observes" in kit.failures[1]


def test_hooks_cannot_change_what_they_are_shown() -> None:
    @hook.mail
    def meddles(session: Any, mail: Any) -> None:
        mail.address = JOE

    kit = Kit(meddles)
    assert isinstance(kit.chain.decide_now("mail", SESSION, Mail(JOE)), Defer)
    assert "immutable" in kit.failures[0]
