"""Where events go: a log file, or a stream such as standard output.

The loop's thread only puts an event in a queue; a thread of the sink makes lines of
them and writes many at a time. A log that cannot be written (disk full) is tried again
every second and nothing is dropped: the sink becomes ``full`` and acceptance has to
wait in ``drained``. Several processes may append to one file: what is written at a
time is whole lines, in one system call.
"""

import asyncio
import os
import stat
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from postroom.observe.events import AnyEvent, SessionClosed, SessionOpened
from postroom.observe.render import json_line, syslog_line
from postroom.observe.settings import LogSettings

ToLine = Callable[[AnyEvent], bytes]
"""Makes a line, with its line end, of an event; ``b""`` for none."""
OpenFile = Callable[[str], int]
"""Opens a log file to append to, made if it is not there; returns a descriptor."""
ZoneOffset = Callable[[int], int]
"""Gives the seconds east of UTC at a moment in microseconds."""

BATCH_S = 0.02
BATCH_EVENTS_MAX = 1000
RETRY_S = 1.0
CLOSE_S_MAX = 5.0
OVERFULL = 5
"""So many times ``waiting_max`` events wait, at the most, for a log that is full:
deliveries go on for a while, as they give space back to a full disk."""
FILE_OCTETS_MAX = 1 << 20
PIPE_OCTETS_MAX = 4096  # PIPE_BUF: what a pipe takes without mixing writers


def sendmail_lines(
    hostname: str, zone_offset_s: ZoneOffset, *, sessions: bool = False
) -> ToLine:
    """Return what makes lines as sendmail writes them."""
    pid = os.getpid()

    def to_line(event: AnyEvent) -> bytes:
        if not sessions and _is_routine(event):
            return b""
        offset_s = zone_offset_s(event.utc_us)
        line = syslog_line(event, hostname=hostname, pid=pid, zone_offset_s=offset_s)
        return line.encode() + b"\n"

    return to_line


def json_lines(*, sessions: bool = False) -> ToLine:
    """Return what makes a JSON object a line."""

    def to_line(event: AnyEvent) -> bytes:
        if not sessions and _is_routine(event):
            return b""
        return json_line(event) + b"\n"

    return to_line


def open_file(path: str) -> int:
    """Open a log file as anybody may.

    Raises:
        OSError: it cannot be opened.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    return os.open(path, flags, 0o640)


def open_log(
    settings: LogSettings,
    hostname: str,
    zone_offset_s: ZoneOffset,
    opens: OpenFile = open_file,
) -> "LogSink":
    """Open the log that the settings ask for; ``opens`` does so if it is a file.

    Raises:
        OSError: the file cannot be opened.
    """
    sessions = settings.sessions
    if settings.format == "json":
        to_line = json_lines(sessions=sessions)
    else:
        to_line = sendmail_lines(hostname, zone_offset_s, sessions=sessions)
    waiting_max = settings.waiting_max
    return LogSink(settings.to, to_line, waiting_max=waiting_max, opens=opens)


class LogSink:
    """Writes events as lines from a thread of its own.

    Args:
        target: ``stdout``, ``stderr``, the path of a file, or a descriptor, which
            stays the caller's.
        to_line: makes the lines.
        waiting_max: events that may wait; beyond it the sink is ``full``.
        opens: opens the file, now and for ``reopen``.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(
        self,
        target: str | int,
        to_line: ToLine,
        *,
        waiting_max: int = 20_000,
        opens: OpenFile = open_file,
    ) -> None:
        self._open = opens
        self._path, self._fd = _open_target(target, opens)
        self._to_line = to_line
        self._waiting_max = waiting_max
        self._waiting: deque[AnyEvent] = deque()
        self._blocked: deque[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = deque()
        self._pieces: deque[bytes] = deque()
        self._torn = b""
        self._is_awake = False
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._reopen = threading.Event()
        self._complained = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def emit(self, event: AnyEvent) -> None:
        """Have an event written soon. Never blocks, never drops."""
        self._waiting.append(event)
        if not self._is_awake:
            self._is_awake = True
            self._wake.set()

    @property
    def full(self) -> bool:
        """Whether acceptance has to wait in ``drained``."""
        return len(self._waiting) >= self._waiting_max

    @property
    def overfull(self) -> bool:
        """Whether what has been accepted has to wait, too: memory is finite."""
        return len(self._waiting) >= self._waiting_max * OVERFULL

    async def drained(self) -> None:
        """Wait until the sink is no longer full."""
        while self.full:
            freed = asyncio.Event()
            self._blocked.append((asyncio.get_running_loop(), freed))
            self._wake.set()
            await freed.wait()

    def reopen(self) -> None:
        """Go over to a new file of the same name, after the old one was moved."""
        self._reopen.set()
        self._wake.set()

    def close(self) -> None:
        """Write what waits (for at most some seconds) and end the thread."""
        self._stop.set()
        self._wake.set()
        self._thread.join(CLOSE_S_MAX)
        if self._path and not self._thread.is_alive():
            os.close(self._fd)

    def _run(self) -> None:
        while not self._stop.is_set() or self._waiting or self._pieces:
            self._wake.wait()
            self._wake.clear()
            self._stop.wait(BATCH_S)  # let a batch gather
            self._is_awake = False
            if self._reopen.is_set():
                self._go_over()
            if not self._write_waiting():
                self._wake.set()
                if self._stop.wait(RETRY_S):
                    break

    def _write_waiting(self) -> bool:
        """Write all that waits; False if the log could not be written."""
        octets_max = _write_octets_max(self._fd)
        try:
            self._write_pieces()
            while count := min(len(self._waiting), BATCH_EVENTS_MAX):
                events = (self._waiting.popleft() for _ in range(count))
                lines = (self._line(event) for event in events)
                self._pieces.extend(_join(lines, octets_max))
                self._write_pieces()
        except OSError as error:
            self._complain(error)
            return False
        finally:
            self._free_blocked()
        self._complained = False
        return True

    def _write_pieces(self) -> None:
        while self._pieces:
            piece = self._pieces[0]
            try:
                written = os.write(self._fd, piece)
            except OSError:
                self._mend_torn()
                raise
            if written < len(piece):
                self._torn = (self._torn + piece[:written]).rpartition(b"\n")[2]
                self._pieces[0] = piece[written:]
            else:
                self._torn = b""
                self._pieces.popleft()

    def _mend_torn(self) -> None:
        """Begin a line anew that is out in part: others will go on behind it."""
        if self._torn:
            self._pieces[0] = b"\n" + self._torn + self._pieces[0]
            self._torn = b""

    def _line(self, event: AnyEvent) -> bytes:
        try:
            return self._to_line(event)
        except Exception as error:  # a bug in rendering must not end the log
            return f"postroom: {type(event).__name__} not written: {error!r}\n".encode()

    def _free_blocked(self) -> None:
        while self._blocked and not self.full:
            loop, freed = self._blocked.popleft()
            if not loop.is_closed():
                loop.call_soon_threadsafe(freed.set)

    def _go_over(self) -> None:
        self._reopen.clear()
        if not self._path:
            return
        try:
            fresh = self._open(self._path)
        except OSError as error:
            self._complain(error)  # the old file goes on
            return
        os.close(self._fd)
        self._fd = fresh

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            what = self._path or f"descriptor {self._fd}"
            print(f"postroom: log {what}: {error}; trying again", file=sys.stderr)


def _open_target(target: str | int, opens: OpenFile) -> tuple[str, int]:
    if isinstance(target, int):
        return "", target
    if target in ("stdout", "stderr"):
        return "", 1 if target == "stdout" else 2
    return target, opens(target)


def _write_octets_max(fd: int) -> int:
    is_pipe = stat.S_ISFIFO(os.fstat(fd).st_mode)
    return PIPE_OCTETS_MAX if is_pipe else FILE_OCTETS_MAX


def _join(lines: Iterable[bytes], octets_max: int) -> Iterator[bytes]:
    """Join lines to pieces of at most ``octets_max``, unless one line is longer."""
    gathered: list[bytes] = []
    octets = 0
    for line in lines:
        if octets + len(line) > octets_max and gathered:
            yield b"".join(gathered)
            gathered, octets = [], 0
        gathered.append(line)
        octets += len(line)
    if octets:
        yield b"".join(gathered)


def _is_routine(event: AnyEvent) -> bool:
    return isinstance(event, SessionOpened) or (
        isinstance(event, SessionClosed) and event.how == "quit"
    )
