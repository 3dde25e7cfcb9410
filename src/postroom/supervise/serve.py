"""``postroom serve``: from a configuration to a running server, and back.

Whatever stands in the way of starting is said in one sentence on standard error, with
the remedy, and ends with a status of sysexits.h. Once it runs, the log tells.
"""

import asyncio
import os
import sys
from contextlib import suppress

from postroom.net.clock import read_now, zone_offset_s
from postroom.observe.events import Lifecycle
from postroom.observe.sinks import open_log
from postroom.supervise.identity import (
    IdentityError,
    RunAs,
    become,
    choose_identity,
    make_directory,
    raise_file_limit,
)
from postroom.supervise.lock import AlreadyRunning, take_lock
from postroom.supervise.plan import PLAN_ERRORS, LoadPlan, Plan
from postroom.supervise.single import RunWorker, run_single
from postroom.supervise.sockets import BindError, bind_all
from postroom.supervise.supervisor import Supervisor

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
    try:
        plan = load()
        run_as = choose_identity(plan.process, os.geteuid())
    except (*PLAN_ERRORS, IdentityError) as error:
        code = EX_NOPERM if isinstance(error, IdentityError) else EX_CONFIG
        return _refuse(error, code)
    raise_file_limit()
    try:
        make_directory(plan.spool_directory, 0o700, run_as)
        make_directory(plan.run_directory, 0o755, run_as)
        if plan.drop_directory:  # anybody may leave a file, nobody else may list it
            make_directory(plan.drop_directory, 0o3733, run_as)
        if plan.mailbox_directory and run_as is not None:  # else workers make it
            make_directory(plan.mailbox_directory, 0o700, run_as)
        lock = take_lock(plan.spool_directory)
        log = _Log(plan, run_as)
    except AlreadyRunning as error:
        return _refuse(error, EX_UNAVAILABLE)
    except OSError as error:
        return _refuse(error, EX_CANTCREAT)
    try:
        sockets = asyncio.run(
            bind_all(
                plan.listens,
                plan.run_directory,
                plan.process.bind_timeout,
                plan.workers,
            )
        )
        where = ", ".join(f"{one.service} {one.address}" for one in plan.listens)
        log.tell(f"starting: {plan.workers} workers, {where}")
        try:
            if plan.workers == 0:
                become(run_as)
                return run_single(plan, load, sockets, run_worker, log)
            supervisor = Supervisor(plan, load, sockets, run_as, command, log)
            return asyncio.run(supervisor.run())
        finally:
            for bound in sockets:
                bound.close()
    except BindError as error:
        return _refuse(error, EX_UNAVAILABLE)
    finally:
        log.close()
        lock.release()


class _Log:
    """The supervisor's lines in the log that workers append to as well."""

    def __init__(self, plan: Plan, run_as: RunAs | None) -> None:
        self._path = "" if plan.log.to in ("stdout", "stderr") else plan.log.to
        self._run_as = run_as
        self._make_file()
        self._sink = open_log(plan.log, plan.hostname, zone_offset_s)

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
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            fd = os.open(self._path, flags, 0o640)
            if self._run_as is not None:
                os.fchown(fd, self._run_as.uid, self._run_as.gid)
            os.close(fd)


def _refuse(error: Exception, code: int) -> int:
    print(f"postroom: {error}", file=sys.stderr)
    return code
