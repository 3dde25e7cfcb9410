"""One mbox file, locked: appending, finding messages, and taking some out.

An append that fails is cut off again; one that a crash cut off is recognised by its
mark and cut off by the next. Messages are taken out in place, for other programs may
wait for a lock on this very file: what is to follow is first written to a file beside
it and synced, so that a crash at any point is made good when the mbox is next locked.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from hashlib import blake2b

from postroom.mail.message import CHUNK_OCTETS
from postroom.mailbox.folder import open_file, write_all
from postroom.mailbox.locks import DotLock, lock_file
from postroom.mailbox.mbox_format import (
    SCAN_OCTETS,
    Scanner,
    Start,
    blank_of,
    from_line,
    mark_line,
)
from postroom.mailbox.settings import MailboxSettings

_TAIL_OCTETS = 64 * 1024
_REDO = re.compile(
    rb"postroom-mbox 1 (\d+) (\d+) (\d+) ([0-9a-f]{32}) ([0-9a-f]{32})\n"
)
_REDO_LINE_OCTETS = 256


class MboxFile:
    """An mbox, locked against everyone until ``close``.

    Args:
        folder: handle of its directory; stays with the caller.
        name: its name there.
        settings: after what time a lock is stale.
        deadline_us: until when to wait for locks (monotonic).

    Raises:
        LockTimeout: another program has it.
        OSError: it cannot be opened.
    """

    def __init__(
        self, folder: int, name: str, settings: MailboxSettings, deadline_us: int
    ) -> None:
        self._folder = folder
        self._name = name
        self._redo_name = f".{name}.postroom-redo"
        self._dot_lock = DotLock(folder, name, int(settings.lock_stale))
        self._was_empty = False
        self.handle = self._lock(deadline_us)
        try:
            self._recover()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Unlock and let go."""
        self._dot_lock.release()
        os.close(self.handle)

    @property
    def size(self) -> int:
        """Its length in octets."""
        return os.fstat(self.handle).st_size

    def starts(self, offset: int = 0) -> Iterator[Start]:
        """Yield where messages begin, from a message boundary on."""
        scanner, size = Scanner(offset), self.size
        while offset < size:
            piece = os.pread(self.handle, SCAN_OCTETS, offset)
            if not piece:
                break
            offset += len(piece)
            yield from scanner.feed(piece, is_last=offset >= size)

    def has(self, uid: str, *, everywhere: bool) -> bool:
        """Whether the message is there; near the end, or everywhere."""
        offset = 0 if everywhere else self._tail_offset()
        return any(start.uid == uid for start in self.starts(offset))

    def trim(self) -> None:
        """Cut off messages at the end that a crash left half-written."""
        starts = list(self.starts(self._tail_offset()))
        while starts and starts[-1].is_torn:
            os.ftruncate(self.handle, starts.pop().from_offset)

    def append(
        self, sender: str, utc_us: int, uid: str, pieces: Iterable[bytes]
    ) -> int:
        """Append a message, still without its id; returns where the id belongs."""
        line = from_line(sender, utc_us)
        head = line + mark_line(blank_of(uid))
        self._was_empty = self._was_empty or not self.size
        self._end_last(head)
        at = self.size + len(line)
        self._write_at_end([head])
        self._write_at_end(pieces)
        self._write_at_end([b"\n"])
        return at

    def confirm(self, marks: Sequence[tuple[int, str]]) -> None:
        """Make appended messages durable, then their ids; now they are there."""
        os.fsync(self.handle)
        if self._was_empty:  # its name may be as new
            os.fsync(self._folder)
        for at, uid in marks:
            _write_at(self.handle, mark_line(uid), at)
        os.fsync(self.handle)

    def truncate(self, size: int) -> None:
        """Take back what was appended."""
        if size < self.size:  # else a torn head was cut off, and nothing followed
            os.ftruncate(self.handle, size)

    def remove(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Take out ranges of octets, given in order: all, or none (``OSError``)."""
        if not ranges:
            return
        size, first = self.size, ranges[0][0]
        kept, at = [], first
        for start, end in ranges:
            kept.append((at, start))
            at = end
        kept.append((at, size))
        if all(start == end for start, end in kept):
            # Nothing follows: it is done at once, and on a full disk, too.
            os.ftruncate(self.handle, first)
            return os.fsync(self.handle)
        self._write_redo(first, size, [(self.handle, *some) for some in kept])
        self._recover()

    # Within

    def _lock(self, deadline_us: int) -> int:
        while True:
            handle = open_file(self._folder, self._name, os.O_RDWR | os.O_CREAT)
            try:
                lock_file(handle, self._name, deadline_us)
                self._dot_lock.acquire(deadline_us)
            except BaseException:
                os.close(handle)
                raise
            if self._is_current(handle):
                return handle
            self._dot_lock.release()  # it was replaced while we waited
            os.close(handle)

    def _is_current(self, handle: int) -> bool:
        try:
            named = os.stat(self._name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(named, os.fstat(handle))

    def _tail_offset(self) -> int:
        """Return a message boundary not far from the end, 0 if none is near.

        What is read grows with the last message, not with the mbox.
        """
        size, window = self.size, _TAIL_OCTETS
        while window < size:
            # What stands before the window is not known, so its beginning is doubtful.
            doubtful = size - window + 2
            for start in self.starts(size - window):
                if start.from_offset > doubtful:
                    return start.from_offset
            window *= 2
        return 0

    def _end_last(self, head: bytes) -> None:
        """See to it that an empty line ends what is there."""
        size = self.size
        end = os.pread(self.handle, len(head) + 2, max(0, size - len(head) - 2))
        if not size or end.endswith((b"\n\n", b"\n\r\n")):
            return
        # An earlier try of this very message may have broken off within its head.
        for length in range(len(head) - 1, 0, -1):
            is_after_blank = length == size or end[:-length].endswith(b"\n\n")
            if is_after_blank and end.endswith(head[:length]):
                return os.ftruncate(self.handle, size - length)
        self._write_at_end([b"\n" if end.endswith(b"\n") else b"\n\n"])

    def _write_at_end(self, pieces: Iterable[bytes]) -> None:
        os.lseek(self.handle, 0, os.SEEK_END)
        for piece in pieces:
            write_all(self.handle, piece)

    def _write_redo(
        self, first: int, size: int, kept: Sequence[tuple[int, int, int]]
    ) -> None:
        """Note that from ``first`` on these (handle, start, end) are to follow."""
        new_name = f"{self._redo_name}.new"
        handle = open_file(self._folder, new_name, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            write_all(handle, b" " * _REDO_LINE_OCTETS)
            digest, octets = blake2b(digest_size=16), 0
            for source, start, end in kept:
                for piece in _pieces(source, start, end):
                    write_all(handle, piece)
                    digest.update(piece)
                    octets += len(piece)
            over = _digest(self.handle, first + octets, size)
            what = f"{first} {size} {octets} {digest.hexdigest()} {over}"
            os.pwrite(handle, f"postroom-mbox 1 {what}\n".encode(), 0)
            os.fsync(handle)
            folder = self._folder
            os.rename(new_name, self._redo_name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(new_name, dir_fd=self._folder)
            raise
        finally:
            os.close(handle)

    def _recover(self) -> None:
        """Do what the file beside says, if there is one."""
        folder, name = self._folder, self._redo_name
        try:
            redo = open_file(folder, name)
        except FileNotFoundError:
            return
        try:
            is_done = self._redo(redo)
        finally:
            os.close(redo)
        if is_done:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
        else:  # it makes no sense any more, but it may hold mail: keep it
            os.rename(name, f"{name}-saved", src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)

    def _redo(self, redo: int) -> bool:
        found = _REDO.match(os.pread(redo, _REDO_LINE_OCTETS, 0))
        if not found:
            return False
        first, old_size, octets = int(found[1]), int(found[2]), int(found[3])
        digest, start = found[4].decode(), _REDO_LINE_OCTETS
        if self.size != old_size:
            # It was done before, or another program has appended since, or both.
            end = first + octets
            is_copied = _digest(self.handle, first, end) == digest
            is_cut = _digest(self.handle, end, old_size) != found[5].decode()
            if (is_copied and is_cut) or self.size < old_size:
                return is_copied
            kept = [(redo, start, start + octets), (self.handle, old_size, self.size)]
            self._write_redo(first, self.size, kept)
            self._recover()
            return True
        if _digest(redo, start, start + octets) != digest:
            return False
        for piece in _pieces(redo, start, start + octets):
            _write_at(self.handle, piece, first)
            first += len(piece)
        os.fsync(self.handle)
        os.ftruncate(self.handle, first)
        os.fsync(self.handle)
        return True


def _pieces(handle: int, start: int, end: int) -> Iterator[bytes]:
    while start < end:
        piece = os.pread(handle, min(CHUNK_OCTETS * 4, end - start), start)
        if not piece:
            raise OSError("file is shorter than it was")
        yield piece
        start += len(piece)


def _write_at(handle: int, data: bytes, at: int) -> None:
    while data:
        written = os.pwrite(handle, data, at)
        data, at = data[written:], at + written


def _digest(handle: int, start: int, end: int) -> str:
    digest = blake2b(digest_size=16)
    with suppress(OSError):
        for piece in _pieces(handle, start, end):
            digest.update(piece)
        return digest.hexdigest()
    return ""
