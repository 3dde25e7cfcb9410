"""The connections to one destination, and the jobs that wait for one of them.

A job goes to an idle connection, to a new one while the window allows, or waits until
one has room. If no connection can be made and none is left, all that wait are settled
with the reason; while others work, a failed attempt at one more only ends the growth
for a while.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from postroom.agents.job import Job
from postroom.agents.session import Session
from postroom.limits.shared import SharedCounters
from postroom.mail.now import SECOND_US
from postroom.mail.outcome import Deferred, Failed
from postroom.net.clock import read_mono_us

Open = Callable[[Job], Awaitable[Session | Deferred | Failed]]
"""Makes a connection for a job: greeted and ready, or the reason why not."""

_GROWTH_PAUSE_US = 5 * SECOND_US
_SLOT_PAUSE_S = 0.1
_CLOSING = Deferred("4.3.2", "This system is shutting down")


class Slots:
    """Room for connections to one destination, counted over all workers."""

    def __init__(
        self, counters: SharedCounters, key: str, bound: int, wait_max_us: int
    ) -> None:
        self._counters = counters
        self._key = key
        self._bound = bound
        self._wait_max_us = wait_max_us

    async def take(self) -> bool:
        """Wait for room; False: there was none for too long."""
        give_up_us = read_mono_us() + self._wait_max_us
        while not self._counters.add(self._key, 1, self._bound):
            if read_mono_us() >= give_up_us:
                return False
            await asyncio.sleep(_SLOT_PAUSE_S)
        return True

    def free(self) -> None:
        """Give the room back."""
        self._counters.release(self._key)


class Pool:
    """The connections of this worker to one destination.

    Args:
        name: the destination's.
        open_session: makes a connection.
        slots: the room for connections in the whole system.
        on_empty: told when nothing is left, so that it can be forgotten.
    """

    def __init__(
        self,
        name: str,
        open_session: Open,
        slots: Slots,
        on_empty: Callable[[str], None],
    ) -> None:
        self.name = name
        self.window = 1
        self._open = open_session
        self._slots = slots
        self._on_empty = on_empty
        self._waiting: deque[Job] = deque()
        self._idle: list[Session] = []
        self._sessions: set[Session] = set()
        self._opening = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._grow_after_us = 0
        self._closing = False

    def put(self, job: Job, window: int) -> None:
        """Take a job; at most ``window`` connections are to be used."""
        self.window = window
        while self._idle:
            session = self._idle.pop()
            if session.takes_more:
                if not session.start(job):
                    self._idle.append(session)
                return
            session.leave()
        self._waiting.append(job)
        self._grow()

    async def aclose(self, seconds: float) -> None:
        """Let what is in hand finish for so long, then break it off."""
        self._closing = True
        for session in self._idle:
            session.leave()
        self._idle.clear()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for session in self._sessions:
            session.abort()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        while self._waiting:
            self._waiting.popleft().settle_all(_CLOSING)

    def _grow(self) -> None:
        """Open one more connection if there is work for it and it is allowed."""
        count = len(self._sessions) + self._opening
        if self._opening >= len(self._waiting) or count >= max(1, self.window):
            return
        if self._closing:
            return
        if count and read_mono_us() < self._grow_after_us:
            return
        self._opening += 1
        task = asyncio.create_task(self._run(self._waiting[0]))
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not (self._tasks or self._waiting):
            self._on_empty(self.name)

    async def _run(self, job: Job) -> None:
        """Be one connection from its making to its end."""
        session = None
        has_slot = False
        try:
            has_slot = await self._slots.take()
            session = await self._connect(job, has_slot=has_slot)
            if session is not None:
                await session.serve()
        finally:
            if session is not None:
                self._sessions.discard(session)
                if session in self._idle:
                    self._idle.remove(session)
            if has_slot:
                self._slots.free()
            self._grow()

    async def _connect(self, job: Job, *, has_slot: bool) -> Session | None:
        made: Session | Deferred | Failed
        try:
            if has_slot:
                made = await self._open(job)
            else:
                text = f"Too many connections to {self.name} in use"
                made = Deferred("4.3.2", text)
        except Exception as error:  # a bug: nobody may be left waiting
            self._waiting_fail(error)
            return None
        finally:
            self._opening -= 1
        if not isinstance(made, Session):
            self._give_up(made)
            return None
        self._sessions.add(made)
        made.next_job = self._next
        made.give_back = self._waiting.appendleft
        made.on_idle = self._on_idle
        self._on_idle(made)
        self._grow()
        return made

    def _give_up(self, reason: Deferred | Failed) -> None:
        if self._sessions or self._opening:
            self._grow_after_us = read_mono_us() + _GROWTH_PAUSE_US
            return
        while self._waiting:
            self._waiting.popleft().settle_all(reason)

    def _waiting_fail(self, error: Exception) -> None:
        while self._waiting:
            self._waiting.popleft().fail(error)

    def _next(self) -> Job | None:
        while self._waiting:
            job = self._waiting.popleft()
            if not job.done.done():
                return job
        return None

    def _on_idle(self, session: Session) -> None:
        """Give it work, or keep it for a while, or let it go."""
        while session.takes_more and (job := self._next()) is not None:
            if session.start(job):
                return
        if session.takes_more and not self._closing:
            session.keep()
            self._idle.append(session)
        else:
            session.leave()
            self._grow()
