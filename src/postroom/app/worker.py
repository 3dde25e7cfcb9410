"""One worker: its shard, its sockets, its generation, from start to end.

A reload builds a whole new generation and swaps it in by one assignment; sessions and
attempts keep theirs. When told to drain, or when its supervisor is gone, the worker
stops accepting, finishes what is in hand and ends with 0. It ends with 78 when its
configuration cannot be put in force, with 75 when its shard cannot be had: one that a
worker of a killed server still holds is waited for.
"""

import asyncio
import gc
import mmap
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import uvloop

from postroom.admin.control import ControlServer, control_path, serve_control
from postroom.admin.link import (
    Abort,
    Cannot,
    Commit,
    Drain,
    Job,
    ListenFd,
    Prepare,
    Prepared,
    Renew,
    ReopenLogs,
    SupervisorLink,
    ToWorker,
    open_link,
)
from postroom.app.adoption import Adoption
from postroom.app.assembly import Built, Ground, build, retire, unchangeable
from postroom.app.errands import Office
from postroom.app.logins import check_login, open_logins, open_users
from postroom.config.load import parse
from postroom.config.problems import ConfigError
from postroom.config.settings import Config
from postroom.limits.shared import SharedCounters
from postroom.mail.ids import QueueIds
from postroom.mailbox.stores import open_store
from postroom.net.clock import read_mono_us, read_now, zone_offset_s
from postroom.net.keys import Keys
from postroom.net.listener import Handler, Listener, listen, notice_loss
from postroom.net.stream import Stream
from postroom.observe.events import AnyEvent, Lifecycle
from postroom.observe.history import HistorySink, HistoryWriter
from postroom.observe.metrics import Metrics
from postroom.observe.sinks import open_log
from postroom.schedule.scheduler import Scheduler
from postroom.schedule.senders import Senders
from postroom.services.accept import Acceptor
from postroom.services.budget import Budget
from postroom.services.drop import DropDirectory
from postroom.services.entrance import PLAIN, Entrance, learn_client
from postroom.services.generation import Generation
from postroom.services.handshake import Guard
from postroom.services.letter import Desk
from postroom.services.line import Line, start_line
from postroom.services.pickup import PickupService
from postroom.services.receive import ReceiveService
from postroom.services.reception import Tools
from postroom.services.retrieve import RetrieveService, RetrieveTools
from postroom.services.submit import LocalSubmitter
from postroom.services.workshop import Workshop
from postroom.spool.engine import open_shard
from postroom.spool.lock import SpoolLocked
from postroom.spool.selection import QueueFilter
from postroom.spool.spool import SpoolError

Serve = Callable[[Stream, str], Coroutine[object, object, None]]
"""Serves a client of the listener that is named."""

EX_CONFIG = 78
EX_TEMPFAIL = 75
SWITCH_INTERVAL_S = 0.0005
"""How long a busy loop may keep the writer thread waiting for the interpreter."""
BACKLOG = 4096
"""As the supervisor has it; a shorter one would take the place of that."""
WATCH_S = 2.0
"""How often users and tables are looked at for changes."""
GO_ON_S = 5.0
"""After how long work that broke off is begun anew."""
LOCKED_PAUSE_S = 0.1
"""How often a shard that a former worker still has is tried."""
DELIVERY_THREADS = 4
_NO_LOG_SMTP = b"421 4.3.2 System not accepting mail, try again later\r\n"
_NO_LOG_POP3 = b"-ERR [SYS/TEMP] try again later\r\n"
"""What clients are told while the log cannot be written. No event: it would wait."""
DRAIN_SHARE = 0.9
"""How much of ``drain_s_max`` goes to what is in hand; the rest is for closing."""
LINGER_S = 10
"""So long after ``drain_s_max`` a worker is gone, though its supervisor be dead."""


def run_worker(job: Job, *, takes_signals: bool = False) -> int:
    """Run a worker until it has drained; returns the exit status.

    Args:
        job: what it has to do.
        takes_signals: whether those that are sent to this process are for it.
    """
    os.umask(0o077)
    # Without it libuv asks io_uring for each close: 0.01 ms more per connection.
    os.environ.setdefault("UV_USE_IO_URING", "0")
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            worker = _Worker(job, end_within)
            if takes_signals:
                worker.take_signals(runner.get_loop())
            return runner.run(worker.run())
    except (ConfigError, ValueError) as error:
        print(f"postroom: worker {job.worker}: {error}", file=sys.stderr)
        return EX_CONFIG
    except (SpoolError, OSError) as error:
        print(f"postroom: worker {job.worker}: {error}", file=sys.stderr)
        return EX_TEMPFAIL
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def end_within(seconds: float) -> None:
    """Have the kernel end this process then, whatever keeps it from ending itself.

    A thread that hangs (a policy module, a dead file server) would make it keep its
    shard and its addresses for ever where no supervisor lives to kill it.
    """
    signal.setitimer(signal.ITIMER_REAL, seconds)


_EXPECTED = (ConfigError, ValueError, SpoolError, OSError)
"""What a configuration or a disk can do to a worker; all else is a bug."""


class _Unwanted(Exception):
    """Told to end before having begun."""


class _Worker:
    """Holds what one worker is made of.

    Args:
        job: what it has to do.
        end_within: is told in how many seconds it has to be gone, once it ends.
    """

    def __init__(
        self, job: Job, end_within: Callable[[float], None] = lambda _: None
    ) -> None:
        self._job = job
        self._end_within = end_within
        self._config = config = parse(job.config_text, job.config_path)
        self._log = open_log(config.log, config.hostname, zone_offset_s)
        name = f"worker-{job.worker}"
        self._history = HistorySink(
            HistoryWriter(config.history_directory, config.history, name),
            lambda why: self._log.emit(Lifecycle(read_now().utc_us, why, "error")),
        )
        self._metrics = Metrics()
        self._counters = _counters(job)
        self._pool = ThreadPoolExecutor(DELIVERY_THREADS, "postroom-deliver")
        self._users = open_users(config, _domains(config), self.emit)
        workers = max(1, job.workers)
        self._logins = open_logins(
            config, self._users, self._counters, workers, self.emit
        )
        self._lines: list[Line] = []
        self._listeners: list[Listener] = []
        self._prepared: Built | None = None
        self._wanted = 0  # the generation that is being, or has been, prepared
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = asyncio.Event()

    def take_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        """Drain, and do not die, where somebody sends a signal to all processes.

        What dies counts as a crash, with what it has in hand.
        """
        for ending in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(ending, self._begin_to_drain)
        loop.add_signal_handler(signal.SIGUSR1, self._log.reopen)
        loop.add_signal_handler(signal.SIGHUP, self._log.reopen)

    def emit(self, event: AnyEvent) -> None:
        """Take an event: into the counters, and to the log."""
        self._metrics.count(event)
        self._log.emit(event)
        self._history.emit(event)

    async def run(self) -> int:
        """Start everything, serve, drain. The log is written to the end."""
        try:
            await self._serve()
        except Exception as error:  # the log tells why it ends, too
            why = error if isinstance(error, _EXPECTED) else repr(error)
            self._tell(f"worker {self._job.worker} ends: {why}", "error")
            raise
        finally:
            self._history.close()
            self._log.close()
        return 0

    async def _serve(self) -> None:
        link = await open_link(self._job) if self._job.link_fd >= 0 else None
        if link is not None:
            self._keep(self._obey(link))
        try:
            await self._open()
        except _Unwanted:
            return
        control = await serve_control(
            control_path(self._config.run_directory, self._job.worker),
            self._office.handlers(self.emit),
            operator_group=self._config.process.operator_group,
        )
        if control.operators_problem:
            problem = control.operators_problem
            self._tell(f"process.operator_group: {problem}", "warning")
        await self._listen()
        adoption = self._adoption()
        self._keep(self._go_on("looking at users and tables", self._watch))
        self._keep(self._go_on("taking letters from the drop", self._drop.run))
        adopting = self._keep(
            self._go_on("adopting shards", partial(adoption.run, self._draining))
        )
        gc.collect()
        gc.freeze()  # what lives from here on is not looked at again and again
        gc.set_threshold(20_000, 20, 50)
        if link is not None:
            link.ready()
        await self._draining.wait()
        await self._drain(control, adopting)
        if link is not None:
            link.close()

    # Start

    async def _open(self) -> None:
        config, job = self._config, self._job
        problem = await asyncio.to_thread(self._users.refresh)
        if problem is not None:
            self._tell(str(problem), "warning")
        ground = Ground(
            store=open_store(config.mailbox, config.hostname),
            pool=self._pool,
            users=self._users,
            counters=self._counters,
            emit=self.emit,
            clock=read_now,
            window=self._window,
            bind=self._bind,
        )
        self._ground = ground
        self._built = await asyncio.to_thread(
            build, job.generation, config, ground, None, job.keys
        )
        line = await self._open_own_line()
        tools = Tools(
            shop=line.shop,
            acceptor=Acceptor(line.shop, line.dispatcher),
            budget=Budget(config.receive.transaction_memory_max),
            counters=self._counters,
            logins=self._logins,
            flush=self._flush,
        )
        self._receive = ReceiveService(tools)
        self._office = Office(
            job.worker,
            config.run_directory,
            lambda: self._built,
            self._lines,
            self._receive,
            self._metrics,
        )
        submitter = LocalSubmitter(tools)
        self._desk = Desk(
            config.submission, config.hostname, submitter, read_now, zone_offset_s
        )
        self._pickup = PickupService(self._desk, self._office.errands(), self.emit)
        self._drop = DropDirectory(
            config.drop_directory, self._desk, self._pickup.people, self.emit
        )
        self._retrieve = RetrieveService(config.pop3, self._retrieve_tools())

    def _retrieve_tools(self) -> RetrieveTools:
        return RetrieveTools(
            store=self._ground.store,
            pool=self._pool,
            authenticate=partial(check_login, self._logins.accounts),
            counters=self._counters,
            emit=self.emit,
            clock=read_now,
            default_domain=self._config.mailbox.default_domain or self._config.hostname,
            domains=lambda: self._users.domains,
            guard=self._guard,
            penalties=self._logins.penalties,
        )

    async def _open_own_line(self) -> Line:
        """Open our shard, once a worker of a killed server has let go of it.

        Raises:
            SpoolError: it cannot be had.
            _Unwanted: told to end while waiting.
        """
        patience_us = self._config.process.bind_timeout
        until_us = read_mono_us() + patience_us
        is_told = False
        while True:
            try:
                return await self._open_line(self._job.shard)
            except SpoolLocked as error:
                if read_mono_us() >= until_us:
                    raise
                if not is_told:
                    is_told = True
                    self._tell(f"worker {self._job.worker} waits: {error}", "info")
            try:
                async with asyncio.timeout(LOCKED_PAUSE_S):
                    await self._draining.wait()
            except TimeoutError:
                continue
            raise _Unwanted

    async def _open_line(self, number: int) -> Line:
        config = self._config
        shard = await open_shard(
            config.spool.directory,
            number,
            config.spool,
            generation=self._job.generation,
            clock=read_now,
            emit=self.emit,
        )
        shop = Workshop(
            spool=shard,
            ids=QueueIds(number, shard.last_number),
            generation=self._generation,
            emit=self.emit,
            log=self._log,
            clock=read_now,
            zone_offset_s=zone_offset_s,
            lanes=config.deliver.lanes,
            senders=Senders(config.schedule.grades),
        )
        seed = self._job.generation + number
        line = start_line(shop, config.deliver, config.schedule, seed, self._counters)
        self._lines.append(line)
        return line

    async def _listen(self) -> None:
        for given in self._job.listeners:
            sock = socket.socket(fileno=given.fd)
            handler = self._handler(given)
            if given.service == "pop3":
                notice_loss(sock, self._config.pop3.loss_timeout)
            self._listeners.append(await listen(sock, handler, backlog=BACKLOG))

    def _handler(self, given: ListenFd) -> Handler:
        name = given.name
        match given.service:
            case "smtp" | "submission" | "lmtp":
                return lambda stream: self._let_in(self._receive.serve, name, stream)
            case "pop3":
                return lambda stream: self._let_in(self._retrieve.serve, name, stream)
            case "submit":
                return self._pickup.serve
            case other:
                raise ValueError(f"no service is called {other}")

    def _let_in(
        self, serve: Serve, name: str, stream: Stream
    ) -> Coroutine[object, object, None]:
        entrance = self._generation().entrances.get(name, PLAIN)
        if self._log.full:  # what cannot be told does not happen
            return _turn_away(stream, entrance)
        if entrance.proxy is None:
            return serve(stream, name)
        return self._let_in_by_proxy(entrance, serve, name, stream)

    async def _let_in_by_proxy(
        self, entrance: Entrance, serve: Serve, name: str, stream: Stream
    ) -> None:
        if await learn_client(stream, entrance, self.emit, read_now):
            await serve(stream, name)

    def _guard(self, listener: str) -> Guard | None:
        generation = self._generation()
        if not generation.entrances.get(listener, PLAIN).is_encrypted:
            return None
        return Guard(generation.tls, self.emit, read_now)

    # In force

    def _generation(self) -> Generation:
        return self._built.generation

    def _scheduler(self) -> Scheduler:
        return self._lines[0].scheduler

    async def _flush(self, wanted: QueueFilter) -> int:
        return await self._office.flush(wanted)

    def _window(self, hop: str) -> int:
        return self._scheduler().window(hop)

    def _bind(self, hop: str, destination: str) -> None:
        self._scheduler().bind(hop, destination)

    async def _go_on(
        self, what: str, work: Callable[[], Coroutine[None, None, None]]
    ) -> None:
        """Do what is done until the end, and go on with it when it breaks off.

        Exhausted descriptors, say, must not cost for good what they break off once.
        """
        while not self._draining.is_set():
            try:
                return await work()
            except Exception as error:
                why = f"worker {self._job.worker}: {what}: {error!r}; going on"
                self._tell(f"{why} in {GO_ON_S:g} s", "error")
            with suppress(TimeoutError):
                async with asyncio.timeout(GO_ON_S):
                    await self._draining.wait()

    async def _watch(self) -> None:
        """Take changed users and tables into force."""
        while True:
            await asyncio.sleep(WATCH_S)
            problem = await asyncio.to_thread(self._users.refresh)
            if problem is not None:
                self._tell(str(problem), "warning")
            for problems in await asyncio.to_thread(self._reload_tables):
                self.emit(problems)

    def _reload_tables(self) -> list[AnyEvent]:
        now = read_now()
        return [
            problem.to_event(now.utc_us)
            for table in self._built.tables
            if table is not None and table.is_changed()
            for problem in table.reload()
        ]

    def _adoption(self) -> Adoption:
        directory, job = self._config.spool.directory, self._job
        workers = max(1, job.workers)
        return Adoption(
            directory, job.worker, workers, self._lines, self._open_line, self._tell
        )

    # The supervisor's wishes

    async def _obey(self, link: SupervisorLink) -> None:
        try:
            async for message in link:
                await self._do(message, link)
        finally:
            self._begin_to_drain()  # the supervisor is gone

    async def _do(self, message: ToWorker, link: SupervisorLink) -> None:
        match message:
            case Prepare(generation):  # may take long: other orders are heard
                await self._forget_prepared()
                self._wanted = generation
                self._keep(self._prepare(message, link))
            case Renew(keys):
                self._renew(keys)
            case Commit(generation):
                self._swap(generation)
            case Abort():
                await self._forget_prepared()
            case Drain():
                self._begin_to_drain()
            case ReopenLogs():
                self._log.reopen()

    async def _prepare(self, wanted: Prepare, link: SupervisorLink) -> None:
        number = wanted.generation
        try:
            config = parse(wanted.config_text, self._job.config_path)
            if fixed := unchangeable(self._config, config):
                raise ValueError(f"only a restart can change {', '.join(fixed)}")
            built = await asyncio.to_thread(
                build, number, config, self._ground, self._built, wanted.keys
            )
        except (ConfigError, ValueError, OSError) as error:
            return link.send(Cannot(number, str(error)))
        except Exception as error:  # a bug must not end a worker that works
            return link.send(Cannot(number, repr(error)))
        if number != self._wanted:
            return await built.aclose()
        self._prepared = built
        link.send(Prepared(number))

    async def _forget_prepared(self) -> None:
        """Throw away what is prepared, or what will be."""
        prepared, self._prepared, self._wanted = self._prepared, None, 0
        if prepared is not None:
            await prepared.aclose()

    def _renew(self, keys: Keys) -> None:
        """Use changed certificates for handshakes from now on."""
        tls = self._built.generation.tls
        if tls is None:
            return
        try:
            tls.renew(keys)
        except ValueError as error:
            self._tell(f"tls: {error}; the certificates before stay in force", "error")

    def _swap(self, generation: int) -> None:
        if self._prepared is None or generation != self._wanted:
            return
        prepared, self._prepared = self._prepared, None
        before, self._built = self._built, prepared
        self._config = config = prepared.config
        self._retrieve.settings = config.pop3
        desk = self._desk._replace(settings=config.submission, domain=config.hostname)
        self._desk = self._pickup.desk = self._drop.desk = desk
        self._users.serve(_domains(config))
        self._keep(retire(before))

    # The end

    def _begin_to_drain(self) -> None:
        if not self._draining.is_set():
            self._end_within(self._config.process.drain_s_max + LINGER_S)
            self._draining.set()

    async def _drain(
        self, control: ControlServer, adopting: asyncio.Task[None]
    ) -> None:
        """End sessions and attempts, both within ``drain_s_max``, then let go."""
        seconds = self._config.process.drain_s_max * DRAIN_SHARE
        for listener in self._listeners:
            listener.close()  # a successor may be waiting for the address
            listener.interrupt()
        await asyncio.wait([adopting])  # it opens and closes no more shards
        sessions = asyncio.gather(*(one.drained() for one in self._listeners))
        attempts = asyncio.gather(
            *(line.dispatcher.drain(seconds) for line in self._lines)
        )
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await sessions
        for listener in self._listeners:
            await listener.abort_sessions()
        await attempts
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await control.aclose()
        for line in self._lines:
            await line.aclose()
        await self._built.aclose()
        self._pool.shutdown()

    def _keep(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._tell(f"worker {self._job.worker}: {error!r}", "error")

    def _tell(self, what: str, level: str) -> None:
        self.emit(Lifecycle(utc_us=read_now().utc_us, what=what, level=level))


async def _turn_away(stream: Stream, entrance: Entrance) -> None:
    """Close a connection, with a word where that can be read."""
    if not entrance.is_encrypted:
        is_pop3 = entrance.service == "pop3"
        stream.write(_NO_LOG_POP3 if is_pop3 else _NO_LOG_SMTP)
    await stream.aclose()


def _domains(config: Config) -> tuple[str, ...]:
    domains = (config.hostname, *config.route.local_domains)
    return tuple(domain.lower() for domain in domains)


def _counters(job: Job) -> SharedCounters:
    if job.counters_fd < 0:
        return SharedCounters.private()
    return SharedCounters(mmap.mmap(job.counters_fd, 0), job.workers, job.worker)
