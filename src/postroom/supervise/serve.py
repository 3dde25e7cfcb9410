"""``postroom serve``: from a configuration to a running server, and back.

Whatever stands in the way of starting is said in one sentence on standard error, with
the remedy, and ends with a status of sysexits.h. Once it runs, the log tells.
"""

import asyncio
import os
import resource
import signal
import sys
from contextlib import ExitStack, suppress
from functools import partial
from typing import NamedTuple

from postroom.net.clock import read_now, zone_offset_s
from postroom.observe.events import Lifecycle
from postroom.observe.sinks import open_log
from postroom.supervise.helper import helper_for
from postroom.supervise.identity import (
    IdentityError,
    RunAs,
    become,
    choose_identity,
    give_up_capabilities,
    make_directory,
    open_log_file,
    raise_file_limit,
)
from postroom.supervise.keys import Keyring, KeysError, read_keys, wanted_of
from postroom.supervise.lock import AlreadyRunning, WorkersLock, take_lock
from postroom.supervise.plan import PLAN_ERRORS, LoadPlan, Plan
from postroom.supervise.single import RunWorker, run_single
from postroom.supervise.sockets import BindError, Bound, bind_all
from postroom.supervise.supervisor import Means, Supervisor
from postroom.supervise.systemd import (
    Notifier,
    Passed,
    PassedError,
    notifier_from,
    take_sockets,
)

WORKER_COMMAND = (sys.executable, "-m", "postroom.app")

EX_UNAVAILABLE = 69
EX_OSERR = 71
EX_CANTCREAT = 73
EX_NOPERM = 77
EX_CONFIG = 78


def serve(
    load: LoadPlan, run_worker: RunWorker, command: tuple[str, ...] = WORKER_COMMAND
) -> int:
    """Run a server in the foreground until TERM or INT; returns the exit status.

    Args:
        load: reads the configuration.
        run_worker: runs a worker in this process, for ``workers = 0``.
        command: the program of workers, else.
    """
    os.umask(0o077)
    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, _not_yet)
    notifier = notifier_from(os.environ, os.getpid())
    try:
        passed = take_sockets(os.environ, os.getpid())
        plan = load()
        run_as = choose_identity(plan.process, os.geteuid())
    except (*PLAN_ERRORS, IdentityError) as error:
        code = EX_NOPERM if isinstance(error, IdentityError) else EX_CONFIG
        return _refuse(error, code)
    except PassedError as error:
        return _refuse(error, EX_UNAVAILABLE)
    files = raise_file_limit()
    with ExitStack() as held:
        try:
            _make_directories(plan, run_as)
            _take_locks(plan, held)
            log = _Log(plan, run_as)
            held.callback(log.close)
            if few := _too_few_files(files, plan):
                log.tell(few, "warning")
            held.enter_context(helper_for(plan, run_as))
        except (AlreadyRunning, BindError) as error:
            return _refuse(error, EX_UNAVAILABLE)
        except OSError as error:
            return _refuse(_unwritable(error), EX_CANTCREAT)
        try:
            wanted = wanted_of(plan, run_as)
            keyring = Keyring(wanted, read_keys(wanted), log.tell)
        except KeysError as error:
            return _refuse(error, EX_CONFIG)
        try:
            start = _Start(plan, load, run_as, log, notifier, keyring)
            return start.run(passed, run_worker, command)
        except BindError as error:
            return _refuse(error, EX_UNAVAILABLE)


def _not_yet(number: int, frame: object) -> None:
    """Do not die of a reload or a rotated log while still waiting for an address."""


class _Start(NamedTuple):
    """A server that nothing stands in the way of but its addresses."""

    plan: Plan
    load: LoadPlan
    run_as: RunAs | None
    log: "_Log"
    notifier: Notifier
    keyring: Keyring

    def run(
        self, passed: list[Passed], run_worker: RunWorker, command: tuple[str, ...]
    ) -> int:
        plan, log = self.plan, self.log
        workers = WorkersLock(plan.spool_directory)
        sockets = asyncio.run(bind_all(plan, passed, workers.is_held, self.run_as))
        try:
            give_up_capabilities()
            log.tell(f"starting: {_how_many(plan.workers)}, {_where(sockets)}")
            for hint in _hints(sockets, plan.workers):
                log.tell(hint)
            self.keyring.warn()
            means = Means(
                sockets, command, self.run_as, log, self.notifier, self.keyring
            )
            if plan.workers == 0:
                become(self.run_as)
                return run_single(plan, self.load, means, run_worker)
            means = means._replace(workers_fd=workers.hold())
            supervisor = Supervisor(plan, self.load, means)
            return asyncio.run(supervisor.run())
        finally:
            workers.close()
            for bound in sockets:
                bound.close()


def _make_directories(plan: Plan, run_as: RunAs | None) -> None:
    make_directory(plan.spool_directory, 0o700, run_as)
    make_directory(plan.run_directory, 0o755, run_as)
    if plan.drop_directory:  # anybody may leave a file, nobody else may list it
        make_directory(plan.drop_directory, 0o3733, run_as)
    for directory in (plan.mailbox_directory, plan.history_directory):
        if directory and run_as is not None:  # else workers make it
            make_directory(directory, 0o700, run_as)


def _take_locks(plan: Plan, held: ExitStack) -> None:
    """Be the one server of the spool, and of the sockets in the run directory."""
    held.callback(take_lock(plan.spool_directory).release)
    if not os.path.samefile(plan.spool_directory, plan.run_directory):
        held.callback(take_lock(plan.run_directory, "run directory").release)


def _too_few_files(limit: int, plan: Plan) -> str:
    """Say that the limit is too low for what is allowed, if it is."""
    if limit == resource.RLIM_INFINITY or limit >= plan.files_max:
        return ""
    return (
        f"open files are limited to {limit}, but a worker may need {plan.files_max}: "
        "beyond it clients are cut off without a word; raise the hard limit "
        '(LimitNOFILE= of systemd, "ulimit -Hn"), or lower the numbers of sessions'
    )


def _how_many(workers: int) -> str:
    match workers:
        case 0:
            return "all in one process"
        case 1:
            return "1 worker"
        case _:
            return f"{workers} workers"


def _where(sockets: list[Bound]) -> str:
    """Say what is served where, but for the submission socket."""
    return ", ".join(
        f"{one.listen.service} {one.listen.address}"
        + (" (bound by systemd)" if one.is_passed else "")
        for one in sockets
        if one.listen.port
    )


def _hints(sockets: list[Bound], workers: int) -> list[str]:
    """Say where workers share a socket, which deals out connections unevenly."""
    return [
        f"{one.listen.address}: {len(one.sockets)} passed for {workers} workers, who "
        f"share: for an even load let the socket unit name it {workers} times, with "
        "ReusePort=yes"
        for one in sockets
        if one.is_passed and one.listen.port and len(one.sockets) < workers
    ]


class _Log:
    """The supervisor's lines in the log that workers append to as well."""

    def __init__(self, plan: Plan, run_as: RunAs | None) -> None:
        self._path = "" if plan.log.to in ("stdout", "stderr") else plan.log.to
        self._opens = partial(open_log_file, run_as=run_as)
        self._make_file()
        self._sink = open_log(plan.log, plan.hostname, zone_offset_s, self._opens)

    def tell(self, what: str, level: str = "info") -> None:
        self._sink.emit(Lifecycle(read_now().utc_us, what, level))

    def reopen(self) -> None:
        with suppress(OSError):  # then the sink says so, and the old file goes on
            self._make_file()
        self._sink.reopen()

    def close(self) -> None:
        self._sink.close()

    def _make_file(self) -> None:
        """Make the file before anyone appends, as the workers' own."""
        if self._path:
            os.close(self._opens(self._path))


def _unwritable(error: OSError) -> str:
    what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return f'{what}; the server writes there: "postroom check" names the setting'


def _refuse(error: Exception | str, code: int) -> int:
    print(f"postroom: {error}", file=sys.stderr)
    return code
