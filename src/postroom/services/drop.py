"""The drop directory: letters that were handed in while no server ran.

Anybody may put a file there, so nothing about it is believed that the kernel does not
vouch for: it must be a regular file with one name, and its owner is who submits. A
file without its end is being written, or was broken off: it is left alone, and told of
after a day. A letter leaves the directory only when it is durable in the queue, or when
a notice to its sender is; a crash in between can double it but never lose it.
"""

import asyncio
import os
import stat
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock

from postroom.mail.now import SECOND_US
from postroom.mail.units import Duration
from postroom.observe.events import AnyEvent, Lifecycle
from postroom.services.dropped import DroppedLetter, whole_octets
from postroom.services.frames import FrameError
from postroom.services.letter import Desk, Letter
from postroom.services.notice import send_notice
from postroom.services.people import People
from postroom.services.settings import DROP_REFUSED
from postroom.services.submission import (
    EX_OK,
    EX_TEMPFAIL,
    UsageError,
)

_FILES_PER_SCAN_MAX = 1000


class DropDirectory:
    """Takes in what lies in the drop directory.

    ``desk`` may be swapped at a reload. Several workers may share a directory: each
    file is locked while it is looked at.
    """

    def __init__(
        self,
        path: str,
        desk: Desk,
        people: People,
        emit: Callable[[AnyEvent], None],
    ) -> None:
        self.desk = desk
        self._path = path
        self._people = people
        self._emit = emit
        self._told: set[str] = set()
        self._last = ""

    async def run(self) -> None:
        """Search for ever, beginning now."""
        while True:
            await self.scan()
            interval: Duration = self.desk.settings.drop_scan_interval
            await asyncio.sleep(interval / SECOND_US)

    async def scan(self) -> int:
        """Take in what is there; returns how many letters were."""
        taken = 0
        for name in await asyncio.to_thread(self._names):
            try:
                taken += await self._take(name)
            except OSError as error:
                self._tell(name, f"cannot be read: {error.strerror}")
            except Exception as error:  # our mistake; the letter stays where it is
                self._tell(name, f"cannot be taken: {error!r}")
        return taken

    def _names(self) -> list[str]:
        try:
            names = sorted(os.listdir(self._path))  # oldest first
        except OSError as error:
            self._tell("", f"cannot be read: {error.strerror}")
            return []
        kept = [
            n for n in names if not n.endswith(DROP_REFUSED) and not n.startswith(".")
        ]
        self._told.intersection_update(names)
        if len(kept) <= _FILES_PER_SCAN_MAX:
            return kept
        # Go on where the last scan ended: anybody may leave any number of files that
        # are no letters, and they must not stand in the way of those that are.
        at = bisect_right(kept, self._last)
        some = (kept[at:] + kept[:at])[:_FILES_PER_SCAN_MAX]
        self._last = some[-1]
        return some

    async def _take(self, name: str) -> bool:
        with self._opened(name) as fd:
            if fd < 0:
                return False
            found = os.fstat(fd)
            octets = await asyncio.to_thread(whole_octets, fd, found.st_size)
            if octets is None:
                age_us = self.desk.clock().utc_us - found.st_mtime_ns // 1000
                if age_us > self.desk.settings.drop_warn_after:
                    self._tell(name, "has no end: its writer broke off")
                return False
            letter = DroppedLetter(fd, octets)
            return await self._submit(name, found.st_uid, letter)

    @contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        """Open and lock a file if it is one that a letter can be in, else yield -1."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(f"{self._path}/{name}", flags)
        except FileNotFoundError:  # another worker was faster
            yield -1
            return
        try:
            flock(fd, LOCK_EX | LOCK_NB)
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                self._tell(name, "is no letter: not a file with a single name")
                yield -1
            else:
                yield fd if found.st_nlink == 1 else -1
        except BlockingIOError:
            yield -1
        finally:
            os.close(fd)

    async def _submit(self, name: str, uid: int, letter: DroppedLetter) -> bool:
        person = await self._people.find(uid)
        try:
            invocation = await letter.invocation()
            submission = Letter(
                self.desk, person, invocation, letter, may_come_again=True
            )
            exit_code = await submission.submit()
        except UsageError as error:
            letter.out(str(error))
            exit_code = error.exit_code
        except FrameError as error:
            self._tell(name, f"is no letter: {error}")
            return False
        if exit_code == EX_TEMPFAIL:
            self._tell(name, f"has to wait: {'; '.join(letter.lines)}")
            return False
        if exit_code != EX_OK:
            letter.rewind()
            if not await send_notice(self.desk, person, letter):
                self._tell(name, f"is refused: {'; '.join(letter.lines)}")
                os.rename(f"{self._path}/{name}", f"{self._path}/{name}{DROP_REFUSED}")
                return False
        os.unlink(f"{self._path}/{name}")
        return True

    def _tell(self, name: str, what: str) -> None:
        if name in self._told:
            return
        self._told.add(name)
        path = f"{self._path}/{name}" if name else self._path
        now = self.desk.clock()
        self._emit(Lifecycle(utc_us=now.utc_us, what=f"{path} {what}", level="warning"))
