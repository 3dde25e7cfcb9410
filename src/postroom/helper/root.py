"""The helper's own side: a process that stays root, and does next to nothing.

It accepts a connection, makes sure by the kernel's word that a worker is at its other
end, and forks: the child reads one request, asks PAM, answers and is gone, at the
latest when its time is over. So whatever a PAM module does or leaks dies with the
child. It ends when its supervisor does. It reads no configuration and opens no file.
"""

import ctypes
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable

import msgspec

from postroom.helper.pam import check
from postroom.helper.requests import (
    HEAD_OCTETS,
    REQUEST_OCTETS_MAX,
    Answer,
    FrameError,
    Request,
    Start,
    length_in,
    read_request,
    to_frame,
)

CHECKS_MAX = 32
"""Checks at a time; further connections wait."""
PR_SET_DUMPABLE = 4
_RESTART_S = 1.0
_REAP_MS = 200

Check = Callable[[Request, str], Answer]


def main(argument: str) -> int:
    """Run until the supervisor ends; a crash of the serving process is mended."""
    start = msgspec.json.decode(argument, type=Start)
    # The lifeline tells when to end; what the terminal or systemd sends does not.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Nobody may read passwords out of our memory or out of a core file.
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        child = os.fork()
        if not child:
            os._exit(_serve_quietly(start))
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) == 0:
            return 0
        time.sleep(_RESTART_S)


def _serve_quietly(start: Start) -> int:
    try:
        serve(start, check)
    except BaseException as error:
        print(f"postroom helper: {error!r}", file=sys.stderr, flush=True)
        return 1
    return 0


def serve(start: Start, judge: Check) -> None:
    """Accept and fork until the lifeline ends."""
    listener = socket.socket(fileno=start.listener)
    # Of several that wake up for one connection, the losers must not wait in accept.
    listener.setblocking(False)
    children: set[int] = set()
    poll = select.poll()
    poll.register(start.lifeline, select.POLLIN)
    while True:
        children = {pid for pid in children if not _is_gone(pid)}
        poll.register(listener, select.POLLIN if len(children) < CHECKS_MAX else 0)
        ready = dict(poll.poll(_REAP_MS if children else None))
        if start.lifeline in ready:
            return
        if listener.fileno() in ready and (pid := _take(listener, start, judge)):
            children.add(pid)


def _take(listener: socket.socket, start: Start, judge: Check) -> int:
    """Take a connection; returns the process that serves it, 0 if there is none."""
    try:
        connection, _ = listener.accept()
    except OSError:
        return 0
    with connection:
        if peer_uid(connection) not in (start.uid, os.geteuid()):
            return 0
        pid = os.fork()
        if pid:
            return pid
        _answer_and_exit(connection, start, judge)
    return 0


def _answer_and_exit(connection: socket.socket, start: Start, judge: Check) -> None:
    """Serve one connection, in a process of its own."""
    code = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # whatever PAM is doing then
        signal.setitimer(signal.ITIMER_REAL, start.patience.seconds)
        connection.settimeout(start.patience.seconds)
        request = receive(connection)
        connection.sendall(to_frame(judge(request, start.service)))
        code = 0
    except (OSError, FrameError) as error:
        print(f"postroom helper: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def receive(connection: socket.socket) -> Request:
    """Read the one request of a connection.

    Raises:
        OSError: the connection broke, or took too long.
        FrameError: what came is no request.
    """
    length = length_in(_exactly(connection, HEAD_OCTETS), REQUEST_OCTETS_MAX)
    return read_request(_exactly(connection, length))


def peer_uid(connection: socket.socket) -> int:
    """Return who is at the other end, as the kernel vouches for."""
    octets = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    uid: int = struct.unpack("3i", octets)[1]
    return uid


def _exactly(connection: socket.socket, count: int) -> bytes:
    octets = b""
    while len(octets) < count:
        piece = connection.recv(count - len(octets))
        if not piece:
            raise FrameError("cut off")
        octets += piece
    return octets


def _is_gone(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG)[0] == pid
