"""``workers = 0``: the one worker runs in the process that was started, for trials.

Two threads play the supervisor's part over the usual link: one gives the orders that
signals ask for, the other hears the answers. There is nobody to restart the worker.
"""

import os
import queue
import signal
import socket
import threading
from collections.abc import Callable
from itertools import count

from postroom.admin.link import (
    Cannot,
    Commit,
    Drain,
    Heartbeat,
    Job,
    ListenFd,
    Prepare,
    Prepared,
    Ready,
    Renew,
    ReopenLogs,
    ToWorker,
    decode_to_supervisor,
    encode_message,
)
from postroom.net.clock import read_mono_us, read_now
from postroom.net.keys import Keys
from postroom.supervise.keys import WATCH_S, KeysError, Wanted, read_keys, wanted_of
from postroom.supervise.plan import (
    PLAN_ERRORS,
    LoadPlan,
    Plan,
    changed_in_place,
)
from postroom.supervise.supervisor import REAP_S, Means

RunWorker = Callable[[Job], int]
"""Runs a worker to its end; returns the exit status."""


_STATUS = "one process accepts and delivers"


class _Orders:
    """The supervisor's part of the link."""

    def __init__(
        self, plan: Plan, load: LoadPlan, means: Means, link: socket.socket
    ) -> None:
        self.plan = plan
        self._load = load
        self._log = means.log
        self._notifier = means.notifier
        self._link = link
        self._keyring = means.keyring
        self._run_as = means.run_as
        self._generations = count(read_now().utc_us)
        self._prepared: Plan | None = None
        self._prepared_keys: tuple[Wanted, Keys] | None = None
        # Signal handlers may put into a SimpleQueue; None asks for a reload.
        self._asked: queue.SimpleQueue[ToWorker | None] = queue.SimpleQueue()

    def next_generation(self) -> int:
        return next(self._generations)

    def obey(self, number: int, _: object = None) -> None:
        """Take a signal."""
        match number:
            case signal.SIGHUP:
                self._reopen()
                self._asked.put(None)
            case signal.SIGUSR1:
                self._reopen()
            case _:
                self._asked.put(Drain())
                seconds = self.plan.process.drain_s_max
                self._notifier.stopping("stopping", seconds + REAP_S)

    def _reopen(self) -> None:
        self._log.reopen()
        self._asked.put(ReopenLogs())

    def end(self) -> None:
        """Have the thread that gives orders end, if it has not."""
        self._asked.put(Drain())

    def give(self) -> None:
        """Give orders until the last one (a thread)."""
        while True:
            try:
                order = self._asked.get(timeout=WATCH_S) or self._reload()
            except queue.Empty:
                keys = self._keyring.look()
                order = Renew(keys) if keys is not None else None
            if order is None:
                continue
            try:
                self._link.sendall(encode_message(order))
            except OSError:
                return
            if isinstance(order, Drain):
                return

    def hear(self) -> None:
        """Hear the worker until it is gone (a thread)."""
        with self._link.makefile("rb") as lines:
            for line in lines:
                match decode_to_supervisor(line):
                    case Heartbeat():
                        self._notifier.alive()
                    case Ready():
                        self._log.tell("ready")
                        self._notifier.ready(_STATUS)
                    case Prepared(generation):
                        self.plan = self._prepared or self.plan
                        if self._prepared_keys is not None:
                            self._keyring.take(*self._prepared_keys)
                        self._asked.put(Commit(generation))
                        self._log.tell("the new configuration is in force")
                        self._notifier.ready(_STATUS)
                    case Cannot(_, why):
                        self._refuse(why)

    def _reload(self) -> ToWorker | None:
        self._notifier.reloading(read_mono_us())
        try:
            plan = self._load()
        except PLAN_ERRORS as error:
            self._refuse(f"the new configuration is refused: {error}")
            return None
        if fixed := changed_in_place(self.plan, plan):
            self._refuse(f"only a restart can change {', '.join(fixed)}")
            return None
        wanted = wanted_of(plan, self._run_as)
        try:
            keys = read_keys(wanted)
        except KeysError as error:
            self._refuse(f"the new configuration is refused: {error}")
            return None
        self._prepared, self._prepared_keys = plan, (wanted, keys)
        return Prepare(self.next_generation(), plan.config_text, keys)

    def _refuse(self, why: str) -> None:
        why += "; the configuration in force stays"
        self._log.tell(why, "error")
        self._notifier.ready(why)


def run_single(plan: Plan, load: LoadPlan, means: Means, run_worker: RunWorker) -> int:
    """Run the worker here until TERM or INT; returns its exit status."""
    ours, theirs = socket.socketpair()
    orders = _Orders(plan, load, means, ours)
    job = Job(
        worker=0,
        workers=1,
        generation=orders.next_generation(),
        config_path=plan.config_path,
        config_text=plan.config_text,
        listeners=tuple(
            ListenFd(
                bound.listen.service,
                bound.listen.name,
                bound.listen.address,
                os.dup(sock.fileno()),
            )
            for bound in means.sockets
            for sock in bound.sockets
        ),
        link_fd=theirs.detach(),
        heartbeat=plan.process.heartbeat,
        keys=means.keyring.keys,
    )
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, orders.obey)
    giving = threading.Thread(target=orders.give, name="orders", daemon=True)
    hearing = threading.Thread(target=orders.hear, name="answers", daemon=True)
    giving.start()
    hearing.start()
    try:
        return run_worker(job)
    finally:
        orders.end()
        ours.close()
        means.log.tell("stopped")
