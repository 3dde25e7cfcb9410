"""The chain: asks the hooks of a phase in order and joins what they say.

Guards (the built-in hooks) come first and are always all asked; then the site's hooks
until one says ``accept()``. The first Reject, Defer or Discard is the verdict. A hook
that raises, is too slow or returns nonsense makes it ``451 4.3.0`` and is named in
``HookFailed``; never silent acceptance.

``decide_now`` is the way of the hot path: it returns a verdict at once when all hooks
of the phase are plain, and something to await only when one must be waited for.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from inspect import iscoroutine
from types import TracebackType
from typing import Any

from postroom.mail.now import Now
from postroom.mail.route import Route
from postroom.mail.verdict import Accept, Defer, Discard, Reject, Verdict
from postroom.observe.events import AnyEvent, HookFailed, HookSlow
from postroom.policy.answers import (
    ACCEPTED,
    TROUBLE,
    Answer,
    gathered,
    nonsense,
    worded,
)
from postroom.policy.hooks import PHASES, Hook, Kind, Phase
from postroom.policy.pool import BlockingPool
from postroom.policy.session import OutcomeSubject, RouteSubject, Session, Subject
from postroom.policy.settings import PolicySettings
from postroom.policy.watch import Watched

Emit = Callable[[AnyEvent], None]

_FAILED = object()
"""What a failed hook answers; distinct from all that a hook can return."""

_ERROR_LENGTH_MAX = 300


class Chain:
    """All hooks of one generation.

    Args:
        hooks: guards and the site's hooks; the order within each is kept.
        settings: time limits and the size of the thread pool.
        emit: takes ``HookFailed`` and ``HookSlow``.
        clock: reads the time for events.
        stopwatch: nanoseconds for measuring hooks.

    Attributes:
        is_sites: whether the site has hooks of its own.
    """

    def __init__(
        self,
        hooks: Iterable[Hook],
        settings: PolicySettings,
        emit: Emit,
        clock: Callable[[], Now],
        stopwatch: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        ordered = sorted(hooks, key=lambda one: not one.guard)
        self.is_sites = any(not one.guard for one in ordered)
        self._hooks: dict[Phase, tuple[Hook, ...]] = {
            phase: tuple(one for one in ordered if one.phase == phase)
            for phase in PHASES
        }
        self._settings = settings
        self._emit = emit
        self._clock = clock
        self._stopwatch = stopwatch
        self._slow_ns = int(settings.slow_after) * 1000
        self._pool = BlockingPool(
            settings.blocking_threads_max, settings.blocking_waiting_max
        )

    def has(self, phase: Phase) -> bool:
        """Whether anyone is to be asked in this phase; if not, make no subject."""
        return bool(self._hooks[phase])

    def waits(self, phase: Phase) -> bool:
        """Whether a hook of the phase may wait, so that asking may take a while."""
        return any(one.kind is not Kind.PLAIN for one in self._hooks[phase])

    def hooks(self, phase: Phase) -> tuple[Hook, ...]:
        """Return the hooks of a phase, in the order they are asked."""
        return self._hooks[phase]

    def decide_now(
        self, phase: Phase, session: Session, subject: Subject
    ) -> Verdict | Awaitable[Verdict]:
        """Ask the hooks; the verdict at once, or something to await for it.

        Not for the ``route`` and ``outcome`` phases: see ``choose`` and ``observe``.
        """
        # nonsense() lets a Route through in the route phase only.
        return self._ask(phase, session, subject)  # type: ignore[return-value]

    async def decide(self, phase: Phase, session: Session, subject: Subject) -> Verdict:
        """Ask the hooks of a phase; does not suspend when all of them are plain."""
        verdict = self.decide_now(phase, session, subject)
        if isinstance(verdict, Accept | Reject | Defer | Discard):
            return verdict
        return await verdict

    async def choose(
        self, session: Session, subject: RouteSubject
    ) -> Route | Reject | Defer | Discard:
        """Ask the ``route`` hooks: the first route chosen, else the router's own."""
        answer = self._ask("route", session, subject)
        if not isinstance(answer, Accept | Reject | Defer | Discard | Route):
            answer = await answer
        return subject.route if isinstance(answer, Accept) else answer

    async def observe(self, session: Session, subject: OutcomeSubject) -> None:
        """Tell the ``outcome`` hooks, all of them; their failures are only logged."""
        for one in self._hooks["outcome"]:
            if one.kind is Kind.PLAIN:
                answer = self._call(one, session, subject)
            else:
                answer = await self._wait(one, session, subject)
            if answer is not None and answer is not _FAILED:
                self._failed(one, "an outcome hook only observes: return None")

    def close(self) -> None:
        """Let the threads of blocking hooks end."""
        self._pool.close()

    def _ask(
        self, phase: Phase, session: Session, subject: Subject
    ) -> Answer | Awaitable[Answer]:
        verdict: Answer = ACCEPTED
        for index, one in enumerate(self._hooks[phase]):
            if one.kind is not Kind.PLAIN:
                return self._ask_on(phase, index, verdict, session, subject)
            answer = self._call(one, session, subject)
            if answer is not None:
                verdict, final = self._weigh(one, answer, verdict)
                if final:
                    return verdict
        return verdict

    async def _ask_on(
        self,
        phase: Phase,
        start: int,
        verdict: Answer,
        session: Session,
        subject: Subject,
    ) -> Answer:
        """Go on from the first hook that must be waited for."""
        for one in self._hooks[phase][start:]:
            if one.kind is Kind.PLAIN:
                answer = self._call(one, session, subject)
            else:
                answer = await self._wait(one, session, subject)
            if answer is not None:
                verdict, final = self._weigh(one, answer, verdict)
                if final:
                    break
        return verdict

    def _call(self, one: Hook, session: Session, subject: Subject) -> object:
        """Run a plain hook; measure it, unless it is one of our own."""
        try:
            if one.guard:
                return one.function(session, subject)
            began = self._stopwatch()
            answer: object = one.function(session, subject)
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            # Nothing can cancel us here: it comes from what the hook looked at.
            return self._failed(one, _described(one, error))
        self._told_if_slow(one, self._stopwatch() - began)
        return answer

    def _told_if_slow(self, one: Hook, spent_ns: int) -> None:
        if spent_ns > self._slow_ns:
            now = self._clock()
            self._emit(HookSlow(now.utc_us, one.name, one.phase, spent_ns // 1000))

    async def _wait(self, one: Hook, session: Session, subject: Subject) -> object:
        """Run a hook that may wait, for as long as it may."""
        blocking = one.kind is Kind.BLOCKING
        settings = self._settings
        usual = settings.blocking_timeout if blocking else settings.async_timeout
        limit = one.timeout or usual
        try:
            async with asyncio.timeout(limit.seconds) as timer:
                if blocking:
                    return await self._pool.run(lambda: one.function(session, subject))
                return await self._watched(one, one.function(session, subject))
        except (Exception, SystemExit) as error:
            if isinstance(error, TimeoutError) and timer.expired():
                return self._failed(one, f"took longer than {limit.to_text()}")
            return self._failed(one, _described(one, error))
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task and task.cancelling():
                raise  # the session itself is being ended
            return self._failed(one, _described(one, error))

    async def _watched(
        self, one: Hook, coroutine: Coroutine[Any, Any, object]
    ) -> object:
        watched = Watched(coroutine, self._stopwatch)
        try:
            return await watched
        finally:
            self._told_if_slow(one, watched.longest_ns)

    def _weigh(self, one: Hook, answer: object, verdict: Answer) -> tuple[Answer, bool]:
        """Join an answer to the verdict so far; and whether that is the last word."""
        if answer is _FAILED:
            return worded(one.phase, TROUBLE, one.name), True
        wrong = nonsense(one.phase, answer)
        if wrong:
            if iscoroutine(answer):
                answer.close()
            self._failed(one, wrong)
            return worded(one.phase, TROUBLE, one.name), True
        if not isinstance(answer, Accept):
            return worded(one.phase, answer, one.name), True  # type: ignore[arg-type]
        assert isinstance(verdict, Accept)
        final = not one.guard and not answer.changes
        return (gathered(verdict, answer) if answer.changes else verdict), final

    def _failed(self, one: Hook, error: str) -> object:
        self._emit(HookFailed(self._clock().utc_us, one.name, one.phase, error))
        return _FAILED


def _described(one: Hook, error: BaseException) -> str:
    """Say what was raised, and where in the hook's own file."""
    code = getattr(one.function, "__code__", None)
    line = 0
    trace: TracebackType | None = error.__traceback__
    while code and trace:
        if trace.tb_frame.f_code.co_filename == code.co_filename:
            line = trace.tb_lineno
        trace = trace.tb_next
    where = f" ({code.co_filename}:{line})" if code and line else ""
    try:
        text = str(error)[:_ERROR_LENGTH_MAX]
    except Exception:  # the site's own class may be broken, too
        text = "its text cannot be had"
    return f"{type(error).__name__}{': ' if text else ''}{text}{where}"
