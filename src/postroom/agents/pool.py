"""The connections to one destination, and the jobs that wait for one of them.

A job goes to an idle connection, to a new one while the window allows, or waits until
one has room; single letters before what is sent in bulk. If no connection can be made
and none is left, all that wait are settled with the reason; while others work, a failed
attempt at one more only ends the growth for a while.

The bound on connections is shared with all workers. One that wants a connection and
finds all in use gets its share from the others, as soon as one of theirs has done with
the message in hand.
"""

import asyncio
from collections.abc import Awaitable, Callable

from postroom.agents.job import Job
from postroom.agents.session import Session, State
from postroom.agents.waiting import Waiting
from postroom.limits.places import Places
from postroom.mail.now import SECOND_US
from postroom.mail.outcome import Deferred, Failed
from postroom.net.clock import read_mono_us

Open = Callable[[Job], Awaitable[Session | Deferred | Failed]]
"""Makes a connection for a job: greeted and ready, or the reason why not."""

_GROWTH_PAUSE_US = 5 * SECOND_US
_PLACE_PAUSE_S = 0.02
_CLOSING = Deferred("4.3.2", "This system is shutting down")


class Pool:
    """The connections of this worker to one destination.

    Args:
        name: the destination's.
        open_session: makes a connection.
        places: the room for connections in the whole system.
        wait_max_us: how long to wait for a place when other workers have all.
        on_empty: told when nothing is left, so that it can be forgotten.
    """

    def __init__(
        self,
        name: str,
        open_session: Open,
        places: Places,
        wait_max_us: int,
        on_empty: Callable[[str], None],
    ) -> None:
        self.name = name
        self.window = 1
        self._open = open_session
        self._places = places
        self._wait_max_us = wait_max_us
        self._on_empty = on_empty
        self._waiting = Waiting()
        self._idle: list[Session] = []
        self._sessions: set[Session] = set()
        self._opening = 0
        self._is_seeking = False
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
        self._waiting.put(job)
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
        self._settle_waiting(_CLOSING)

    def _grow(self) -> None:
        """Open one more connection if there is work for it and it is allowed."""
        count = len(self._sessions) + self._opening
        if self._opening >= len(self._waiting) or count >= max(1, self.window):
            return
        if self._closing or self._is_seeking:
            return
        if count and read_mono_us() < self._grow_after_us:
            return
        self._opening += 1
        task = asyncio.create_task(self._run(self._waiting.first()))
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not (self._tasks or self._waiting):
            self._on_empty(self.name)

    async def _run(self, job: Job) -> None:
        """Be one connection from its making to its end."""
        session = None
        has_place = False
        try:
            has_place = self._places.take() or await self._wait_for_place()
            session = await self._connect(job, has_place=has_place)
            if session is not None:
                await session.serve()
        finally:
            if session is not None:
                self._sessions.discard(session)
                if session in self._idle:
                    self._idle.remove(session)
            if has_place:
                self._places.give_back()
            self._grow()

    async def _wait_for_place(self) -> bool:
        """Wait for a place; False: there was none for too long, or no need of it."""
        give_up_us = read_mono_us() + self._wait_max_us
        try:
            while self._waiting and read_mono_us() < give_up_us:
                self._is_seeking = True
                self._places.want(1)
                await asyncio.sleep(_PLACE_PAUSE_S)
                if self._places.take(waited=True):
                    return True
        finally:
            self._is_seeking = False
            self._places.want(0)
        return False

    async def _connect(self, job: Job, *, has_place: bool) -> Session | None:
        made: Session | Deferred | Failed
        try:
            if has_place:
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
        made.next_job = lambda: self._next(made)
        made.give_back = self._waiting.put_back
        made.on_idle = self._on_idle
        self._on_idle(made)
        self._grow()
        return made

    def _give_up(self, reason: Deferred | Failed) -> None:
        if not self._waiting:
            return
        if self._sessions or self._opening:
            self._grow_after_us = read_mono_us() + _GROWTH_PAUSE_US
            return
        self._settle_waiting(reason)

    def _settle_waiting(self, reason: Deferred | Failed) -> None:
        for job in self._waiting.clear():
            job.settle_all(reason)

    def _waiting_fail(self, error: Exception) -> None:
        for job in self._waiting.clear():
            job.fail(error)

    def _next(self, session: Session) -> Job | None:
        if not self._waiting or self._is_owed(session):
            return None
        return self._waiting.take()

    def _is_owed(self, session: Session) -> bool:
        """Whether another worker is to have the place of this session."""
        if not self._places.wanted_elsewhere:
            return False
        leaving = sum(one.state is not State.READY for one in self._sessions)
        return self._places.is_owed(leaving, session.served)

    def _on_idle(self, session: Session) -> None:
        """Give it work, or keep it for a while, or let it go."""
        while session.takes_more and (job := self._next(session)) is not None:
            if session.start(job):
                return
        ends = self._closing or self._places.is_unfair
        if session.takes_more and not ends:
            session.keep()
            self._idle.append(session)
        else:
            session.leave()
            self._grow()
