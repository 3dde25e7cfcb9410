"""Starts the root helper, where the configuration asks for PAM, and ends it.

It is started before anything is given up and before any worker, so that it is there
when they are. Its socket lies in the run directory and is the workers' alone. It ends
when the lifeline does: when we close it, or die.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import msgspec

from postroom.helper.requests import SOCKET_NAME, Start
from postroom.supervise.identity import RunAs
from postroom.supervise.plan import Plan
from postroom.supervise.sockets import bind_unix

COMMAND = (sys.executable, "-m", "postroom.helper")
_BACKLOG = 128
_END_S = 30


@contextmanager
def helper_for(plan: Plan, run_as: RunAs | None) -> Iterator[None]:
    """Keep a helper running meanwhile, if the plan wants one.

    Raises:
        BindError: its socket cannot be made.
        OSError: it cannot be started.
    """
    if not plan.pam_service:
        yield
        return
    read_end, write_end = os.pipe()
    path = f"{plan.run_directory}/{SOCKET_NAME}"  # the workers' alone
    listener = bind_unix(path, mode=0o600, run_as=run_as, backlog=_BACKLOG)
    try:
        process = _start(plan, run_as, listener, read_end)
    finally:
        os.close(read_end)
        listener.close()
    try:
        yield
    finally:
        os.close(write_end)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)


def _start(
    plan: Plan, run_as: RunAs | None, listener: socket.socket, lifeline: int
) -> "subprocess.Popen[bytes]":
    start = Start(
        listener=listener.fileno(),
        lifeline=lifeline,
        uid=run_as.uid if run_as else os.geteuid(),
        service=plan.pam_service,
        timeout=int(plan.pam_timeout),
    )
    argument = msgspec.json.encode(start).decode()
    return subprocess.Popen(  # noqa: S603 - our own program
        (*COMMAND, argument),
        stdin=subprocess.DEVNULL,
        pass_fds=(listener.fileno(), lifeline),
        close_fds=True,
    )
