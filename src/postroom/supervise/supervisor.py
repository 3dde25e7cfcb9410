"""The supervisor: keeps N workers alive, swaps generations, and ends them all.

It holds what must outlive workers (listening sockets, counters) and knows nothing of
mail. Its own end, however it comes, closes the links, by which workers know to stop.
"""

import asyncio
import mmap
import os
import signal
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple, Protocol

from postroom.admin.link import (
    Abort,
    Cannot,
    Commit,
    Drain,
    Job,
    ListenFd,
    Prepare,
    Prepared,
    Ready,
    Renew,
    ReopenLogs,
    ToSupervisor,
    ToWorker,
)
from postroom.limits.shared import SharedCounters, map_octets, prepare_map
from postroom.mail.now import SECOND_US
from postroom.net.clock import read_mono_us, read_now
from postroom.supervise.identity import RunAs
from postroom.supervise.keys import WATCH_S, Keyring, KeysError, read_keys, wanted_of
from postroom.supervise.plan import (
    PLAN_ERRORS,
    LoadPlan,
    Plan,
    changed_in_place,
)
from postroom.supervise.sockets import Bound
from postroom.supervise.systemd import Notifier
from postroom.supervise.worker import Ended, Worker, start_worker


class Log(Protocol):
    """Where the supervisor tells what happens."""

    def tell(self, what: str, level: str = "info") -> None:
        """Take a sentence about the system and its level (``info``, ``error``)."""

    def reopen(self) -> None:
        """Go over to a new file; returns when workers can append to it."""


EX_CONFIG = 78
EX_OSERR = 71
BACKOFF_FIRST_US = SECOND_US // 4
REAP_S = 10
"""How long killed workers may take to be gone."""
STEADY_US = 60 * SECOND_US
"""A worker that lived this long is not counted as crashing in a row."""

_TOO_FEW_SLOTS = (
    "sessions_max is raised by so much that clients may be refused before it is "
    "reached: restart the server to make room for their counters"
)


class Means(NamedTuple):
    """What a supervisor works with, for life.

    Attributes:
        sockets: the bound listening sockets.
        command: the worker program.
        run_as: the workers' identity, None for our own.
        log: is told what happens.
        notifier: is told how we are.
        keyring: has the certificates and keys in force.
        workers_fd: the locked file that every worker holds; -1 for none.
    """

    sockets: Sequence[Bound]
    command: tuple[str, ...]
    run_as: RunAs | None
    log: Log
    notifier: Notifier
    keyring: Keyring
    workers_fd: int = -1


class Supervisor:
    """One server. ``run`` it once.

    Args:
        plan: the configuration in force.
        load: reads the configuration anew, for HUP.
        means: all else that it needs.
    """

    def __init__(self, plan: Plan, load: LoadPlan, means: Means) -> None:
        self._plan = plan
        self._load = load
        self._sockets = means.sockets
        self._run_as = means.run_as
        self._command = means.command
        self._log = means.log
        self._tell = means.log.tell
        self._notifier = means.notifier
        self._keyring = means.keyring
        self._workers_fd = means.workers_fd
        self._workers: dict[int, Worker] = {}
        self._generations = count(read_now().utc_us)
        self._counter_slots = plan.counter_slots  # for life, whatever HUP brings
        made = _make_counters(plan.workers, plan.counter_slots)
        self._counters_fd, self._counters = made
        self._answers: dict[int, asyncio.Future[str]] = {}
        self._asked = 0  # the generation that answers are about; others come late
        self._swapping: asyncio.Task[None] | None = None
        self._swap_again = False
        self._stopping = asyncio.Event()
        self._ready = asyncio.Event()
        self._exit_code = 0

    async def run(self) -> int:
        """Run workers until told to stop; returns the exit status."""
        loop = asyncio.get_running_loop()
        for ending in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(ending, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        loop.add_signal_handler(signal.SIGUSR1, self.reopen_logs)
        pings = loop.create_task(self._ping())
        watching = loop.create_task(self._watch_keys())
        async with asyncio.TaskGroup() as keepers:
            for number in range(self._plan.workers):
                keepers.create_task(self._keep(number))
        pings.cancel()
        watching.cancel()
        if self._swapping is not None:
            self._swapping.cancel()
            await asyncio.wait([self._swapping])
        self._counters.close()
        os.close(self._counters_fd)
        self._tell("stopped")
        return self._exit_code

    def stop(self) -> None:
        """Have all workers drain; a second call kills them."""
        if self._stopping.is_set():
            self._kill_all("told to stop at once")
            return
        seconds = self._plan.process.drain_s_max
        what = f"stopping: workers have {seconds} s to finish"
        self._tell(what)
        self._notifier.stopping(what, seconds + REAP_S)
        self._stopping.set()
        self._send_all(Drain())
        loop = asyncio.get_running_loop()
        loop.call_later(seconds, self._kill_all, f"not finished after {seconds} s")

    def reload(self) -> None:
        """Swap to a new generation; when one is being swapped in, once more after.

        Logs are reopened as well: that is what many mean by HUP.
        """
        self.reopen_logs()
        if self._stopping.is_set():
            return
        if self._swapping is not None and not self._swapping.done():
            self._swap_again = True
            return
        self._swapping = asyncio.get_running_loop().create_task(self._swap())

    def reopen_logs(self) -> None:
        """Go over to a new log file, workers too."""
        self._log.reopen()
        self._send_all(ReopenLogs())

    # Keeping a worker alive

    async def _keep(self, number: int) -> None:
        crashes = 0
        while not self._stopping.is_set():
            job = self._job(number, crashes)
            try:
                worker = await start_worker(
                    self._command,
                    job,
                    self._plan.process,
                    self._run_as,
                    self._workers_fd,
                )
            except OSError as error:
                crashes += 1
                await self._not_started(error, crashes)
                continue
            self._workers[number] = worker
            if self._keyring.keys is not job.keys:  # they have changed meanwhile
                worker.send(Renew(self._keyring.keys))
            if self._stopping.is_set():
                worker.send(Drain())
            ended = await worker.wait(self._heard)
            del self._workers[number]
            self._answer(number, f"worker {number} {ended.text}")
            self._counters.zero_row(number)
            if self._stopping.is_set():
                return
            crashes = 1 if ended.lived_us > STEADY_US else crashes + 1
            await self._mourn(worker, ended, crashes)

    async def _mourn(self, worker: Worker, ended: Ended, crashes: int) -> None:
        who = f"worker {worker.number} (pid {worker.pid}) {ended.text}"
        if ended.code == EX_CONFIG and not self._ready.is_set():
            self._give_up(f"{who}: the configuration does not work", EX_CONFIG)
            return
        await self._pause(who, "starting it anew", crashes)

    async def _not_started(self, error: OSError, crashes: int) -> None:
        """Try again later, if it worked before: too many processes, no memory."""
        why = f"cannot start a worker{self._as_whom()}: {error}"
        if self._ready.is_set():
            await self._pause(why, "trying again", crashes)
        else:
            self._give_up(why)

    async def _pause(self, why: str, what: str, crashes: int) -> None:
        """Wait before the next start of a worker, the longer the more often."""
        wait_us = min(
            BACKOFF_FIRST_US << min(crashes - 1, 20),
            self._plan.process.restart_wait_max,
        )
        self._tell(f"{why}; {what} in {wait_us / SECOND_US:.3g} s", "error")
        self._tell_status()
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([stopping], timeout=wait_us / SECOND_US)
        stopping.cancel()

    def _heard(self, worker: Worker, message: ToSupervisor) -> None:
        match message:
            case Ready():
                self._tell(
                    f"worker {worker.number} (pid {worker.pid}) is ready", "info"
                )
                if self._is_complete() and not self._ready.is_set():
                    self._ready.set()
                    self._tell("ready")
                    self._notifier.ready(self._status())
                else:
                    self._tell_status()
            case Prepared(generation) if generation == self._asked:
                self._answer(worker.number, "")
            case Cannot(generation, why) if generation == self._asked:
                self._answer(worker.number, why or "no reason given")
            case _:
                pass

    def _job(self, number: int, crashes: int) -> Job:
        return Job(
            worker=number,
            workers=self._plan.workers,
            generation=next(self._generations),
            config_path=self._plan.config_path,
            config_text=self._plan.config_text,
            listeners=tuple(
                ListenFd(
                    service=bound.listen.service,
                    name=bound.listen.name,
                    address=bound.listen.address,
                    fd=sock.fileno(),
                )
                for bound in self._sockets
                for sock in bound.of_worker(number, self._plan.workers)
            ),
            counters_fd=self._counters_fd,
            heartbeat=self._plan.process.heartbeat,
            crashes=crashes,
            keys=self._keyring.keys,
        )

    # Swapping generations: all or none

    async def _swap(self) -> None:
        while True:
            self._swap_again = False
            self._notifier.reloading(read_mono_us())
            try:
                why = await self._try_swap()
            except Exception as error:  # a bug: what works goes on
                why = f"the new configuration is refused: {error!r}"
            if why:
                why += "; the configuration in force stays"
                self._tell(why, "error")
            if not self._swap_again:
                self._notifier.ready(why or self._status())
                return

    async def _try_swap(self) -> str:
        """Swap; returns why not, or nothing."""
        try:
            plan = self._load()
        except PLAN_ERRORS as error:
            return f"the new configuration is refused: {error}"
        if fixed := changed_in_place(self._plan, plan):
            return f"only a restart can change {', '.join(fixed)}"
        wanted = wanted_of(plan, self._run_as)
        try:
            keys = await asyncio.to_thread(read_keys, wanted)
        except KeysError as error:
            return f"the new configuration is refused: {error}"
        if not self._is_complete():
            return "not all workers are up: try again"
        generation = next(self._generations)
        prepare = Prepare(generation, plan.config_text, keys)
        refusals = await self._prepare_all(prepare)
        if refusals:
            self._send_all(Abort(generation))
            return f"a worker cannot take the new configuration: {refusals[0]}"
        self._plan = plan
        self._keyring.take(wanted, keys)
        self._send_all(Commit(generation))
        self._tell("the new configuration is in force")
        if plan.counter_slots > 2 * self._counter_slots:
            self._tell(_TOO_FEW_SLOTS, "warning")
        return ""

    async def _prepare_all(self, prepare: Prepare) -> list[str]:
        loop = asyncio.get_running_loop()
        asked = dict(self._workers)
        self._answers = {number: loop.create_future() for number in asked}
        self._asked = prepare.generation
        self._send_all(prepare)
        patience_s = self._plan.process.start_timeout.seconds
        await asyncio.wait(self._answers.values(), timeout=patience_s)
        late = f"no answer within {patience_s:g} s"
        answers = [a.result() if a.done() else late for a in self._answers.values()]
        self._answers = {}
        if asked != self._workers:  # one that was prepared has died since
            answers.append("not all workers are up: try again")
        return [why for why in answers if why]

    def _answer(self, number: int, why: str) -> None:
        answer = self._answers.get(number)
        if answer is not None and not answer.done():
            answer.set_result(why)

    async def _watch_keys(self) -> None:
        """Put changed certificates in force, but not amid a swap."""
        while True:
            await asyncio.sleep(WATCH_S)
            is_swapping = self._swapping is not None and not self._swapping.done()
            if self._keyring.keys.pairs and not is_swapping:
                try:
                    keys = await asyncio.to_thread(self._keyring.look)
                except Exception as error:  # a bug, or no thread to be had
                    self._tell(f"tls: looking at certificates: {error!r}", "error")
                    continue
                if keys is not None:
                    self._send_all(Renew(keys))

    # How we are

    async def _ping(self) -> None:
        """Tell systemd that we live, as long as no worker hangs."""
        while self._notifier.ping_us:
            if self._is_well():
                self._notifier.alive()
            await asyncio.sleep(self._notifier.ping_us / SECOND_US)

    def _is_well(self) -> bool:
        """Whether what runs does its work.

        A worker that has died is no reason for systemd to step in: it is being started
        anew. One that hangs is, until it has been killed and reaped; so are none.
        """
        if not self._ready.is_set() or self._stopping.is_set():
            return True
        workers = self._workers.values()
        if any(worker.is_overdue for worker in workers):
            return False
        return any(worker.is_ready for worker in workers)

    def _status(self) -> str:
        ready = sum(worker.is_ready for worker in self._workers.values())
        return f"{ready} of {self._plan.workers} workers accept and deliver"

    def _tell_status(self) -> None:
        if not self._stopping.is_set():
            self._notifier.status(self._status())

    # All of them

    def _is_complete(self) -> bool:
        ready = [worker for worker in self._workers.values() if worker.is_ready]
        return len(ready) == self._plan.workers

    def _send_all(self, message: ToWorker) -> None:
        for worker in self._workers.values():
            worker.send(message)

    def _kill_all(self, why: str) -> None:
        for worker in self._workers.values():
            worker.kill(why)

    def _give_up(self, why: str, code: int = EX_OSERR) -> None:
        self._tell(why, "error")
        self._exit_code = code
        self._stopping.set()
        self._send_all(Drain())
        seconds = self._plan.process.drain_s_max
        loop = asyncio.get_running_loop()
        loop.call_later(seconds, self._kill_all, f"not finished after {seconds} s")

    def _as_whom(self) -> str:
        if self._run_as is None:
            return ""
        return f' as the user "{self._run_as.name}" (can it read the program?)'


def _make_counters(workers: int, slots: int) -> tuple[int, SharedCounters]:
    octets = map_octets(workers, slots)
    fd = os.memfd_create("postroom-counters", os.MFD_CLOEXEC)
    os.ftruncate(fd, octets)
    shared = mmap.mmap(fd, octets)
    prepare_map(shared)
    return fd, SharedCounters(shared, workers, 0)
