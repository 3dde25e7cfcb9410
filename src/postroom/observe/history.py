"""The history: what happened to messages, kept for a while after they have left.

Events about messages are appended, one JSON object a line, to files of some MiB each,
one directory per writer, so that no two write the same file. It is no promise: nothing
is synced, a line that a crash cut is passed over, and a disk that is full costs history
and never mail. Files that are too old, or too much together, are removed, oldest
first. The loop's thread only puts events in a queue.
"""

import errno
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from types import TracebackType

import msgspec

from postroom.observe.events import (
    AnyEvent,
    AttemptDone,
    CommandRejected,
    MessageDiscarded,
    MessageOrdered,
    MessageQueued,
    MessageRemoved,
    MessageShunted,
    RecipientDiscarded,
    RecipientExpanded,
    ReportDropped,
    ReportQueued,
)
from postroom.observe.owner import acting_as
from postroom.observe.render import json_line
from postroom.observe.settings import HistorySettings

BATCH_S = 0.25
BATCH_EVENTS_MAX = 100
"""Events that become lines in one step, which holds the interpreter lock."""
WAITING_MAX = 100_000
"""Events that may wait while the disk is slow; beyond that history is lost."""
CLOSE_S_MAX = 5.0
_FILES_MIN = 8
"""In at least so many files the time for which history is kept is cut up."""
SUFFIX = ".jsonl"
KEPT = (
    MessageQueued,
    MessageDiscarded,
    RecipientDiscarded,
    MessageRemoved,
    MessageOrdered,
    MessageShunted,
    RecipientExpanded,
    AttemptDone,
    ReportQueued,
    ReportDropped,
    CommandRejected,
)
"""The events that are history."""

_KEPT = frozenset(KEPT)
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_encoder = msgspec.json.Encoder()


class HistoryWriter:
    """Appends events to the files of one writer. Blocks.

    Args:
        directory: of all history; empty to keep none.
        settings: how much is kept.
        name: of this writer; the default is for commands, which write little.
    """

    def __init__(
        self, directory: str, settings: HistorySettings, name: str = "commands"
    ) -> None:
        self._home = os.path.join(directory, name)
        self._directory = directory
        self._settings = settings
        self._is_kept = bool(directory) and settings.enabled
        self._fd = -1
        self._octets = 0
        self._begun_us = 0

    def __enter__(self) -> "HistoryWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def write(self, event: AnyEvent) -> None:
        """Keep one event, if it is history. Failures cost the event only."""
        if type(event) in _KEPT:
            with suppress(OSError):
                self.append([event])

    def append(self, events: Sequence[AnyEvent]) -> None:
        """Keep some events.

        Raises:
            OSError: they could not be written.
        """
        if not self._is_kept or not events:
            return
        lines = lines_of(events)
        now_us = events[-1].utc_us
        if self._fd < 0:
            self._take_up()
        if self._fd < 0 or self._is_full(now_us):
            self._go_on(now_us)
        while lines:
            written = os.write(self._fd, lines)
            self._octets += written
            lines = lines[written:]

    def give_way(self) -> bool:
        """Remove the oldest file, for space; returns whether there was one."""
        files = files_of(self._home)
        if len(files) > (self._fd >= 0):
            with suppress(OSError):
                os.unlink(files[0])
                return True
        return False

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _is_full(self, now_us: int) -> bool:
        settings = self._settings
        too_old = (now_us - self._begun_us) * _FILES_MIN > settings.keep
        return self._octets >= settings.file_octets or too_old

    def _take_up(self) -> None:
        """Go on with the file of a former writer of this name."""
        for path in files_of(self._home)[-1:]:
            with self._as_owner():
                self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            self._octets = os.fstat(self._fd).st_size
            self._begun_us = begun_us(path)

    def _go_on(self, now_us: int) -> None:
        """Begin a file, named by the moment, and remove what is too old or too much."""
        self.close()
        path = os.path.join(self._home, f"{now_us:020}{SUFFIX}")
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        with self._as_owner():
            os.makedirs(self._home, 0o700, exist_ok=True)
            self._fd = os.open(path, flags, 0o600)
        self._octets, self._begun_us = os.fstat(self._fd).st_size, now_us
        self._clean(now_us)

    def _as_owner(self) -> AbstractContextManager[None]:
        """What root writes for the server's user is theirs, by their rights."""
        if os.geteuid() != 0:
            return nullcontext()
        place = os.path.abspath(self._directory)
        while not os.path.exists(place):  # it will be made there
            place = os.path.dirname(place)
        owner = os.stat(place)
        return acting_as(owner.st_uid, owner.st_gid)

    def _clean(self, now_us: int) -> None:
        files = files_of(self._home)
        octets = 0
        oldest_us = now_us - self._settings.keep
        for number, path in enumerate(reversed(files)):
            octets += self._settings.file_octets if not number else _size(path)
            # A file ends when the next one begins; only then it is old altogether.
            ended = files[len(files) - number] if number else ""
            is_old = bool(number) and begun_us(ended) < oldest_us
            if number and (is_old or octets > self._settings.octets_max):
                with suppress(OSError):
                    os.unlink(path)


class HistorySink:
    """Takes events on the loop and has a thread of its own write them.

    Args:
        writer: where they are written.
        tell: takes a sentence about what is wrong, in that thread.
    """

    def __init__(
        self, writer: HistoryWriter, tell: Callable[[str], None] = lambda _: None
    ) -> None:
        self._writer = writer
        self._tell = tell
        self._told = ""
        self._waiting: deque[AnyEvent] = deque()
        self._is_awake = False
        self._wake = threading.Event()
        self._stop = threading.Event()
        self.lost = 0
        """Events that could not be kept."""
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        self._thread.start()

    def emit(self, event: AnyEvent) -> None:
        """Have an event kept soon, if it is history. Never blocks."""
        if type(event) not in _KEPT:
            return
        self._waiting.append(event)
        if not self._is_awake:
            self._is_awake = True
            self._wake.set()

    def close(self) -> None:
        """Write what waits (for at most some seconds) and end the thread."""
        self._stop.set()
        self._wake.set()
        self._thread.join(CLOSE_S_MAX)
        if not self._thread.is_alive():
            self._writer.close()

    def _run(self) -> None:
        while not self._stop.is_set() or self._waiting:
            self._wake.wait()
            self._wake.clear()
            self._stop.wait(BATCH_S)  # let a batch gather
            self._is_awake = False
            self._write_waiting()

    def _write_waiting(self) -> None:
        waiting = self._waiting
        while len(waiting) > WAITING_MAX:
            waiting.popleft()
            self.lost += 1
        while count := min(len(waiting), BATCH_EVENTS_MAX):
            events = [waiting.popleft() for _ in range(count)]
            while True:
                try:
                    self._writer.append(events)
                except OSError as error:
                    # Mail needs the space more; and what cannot be kept is not.
                    if error.errno in _NO_SPACE and self._writer.give_way():
                        continue
                    self.lost += count
                    self._complain(error)
                else:
                    self._told = ""
                break

    def _complain(self, error: OSError) -> None:
        """Tell once why there is no history, until there is again or another reason."""
        if self._told != str(error):
            self._told = str(error)
            self._tell(f"history cannot be kept: {error}; mail goes on")


def lines_of(events: Sequence[AnyEvent]) -> bytes:
    """Return events as lines."""
    try:
        return _encoder.encode_lines(events)
    except (UnicodeEncodeError, msgspec.MsgspecError):  # octets of a peer, no UTF-8
        return b"".join(json_line(event) + b"\n" for event in events)


def files_of(home: str) -> list[str]:
    """Return the files of one writer, oldest first."""
    try:
        names = sorted(os.listdir(home))
    except OSError:
        return []
    return [os.path.join(home, name) for name in names if name.endswith(SUFFIX)]


def begun_us(path: str) -> int:
    """Return when a file was begun."""
    name = os.path.basename(path).removesuffix(SUFFIX)
    return int(name) if name.isdecimal() and name.isascii() else 0


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
