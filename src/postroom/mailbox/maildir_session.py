"""One reader's look at a Maildir: what is there, its sizes and ids, without opening it.

Sizes come from the files' names where these tell them (``W=``), else from the index,
else from reading the file, once. A file that another program moves (new flags, ``new``
to ``cur``) during the session is found again by its unique name. Opening a session
takes the lock that keeps other sessions out, over all workers.
"""

import os
from collections.abc import Iterator, Sequence

import apsw

from postroom.mail.message import CHUNK_OCTETS
from postroom.mailbox.folder import enter, open_file, open_folder
from postroom.mailbox.index import Index, open_index, stamp_of
from postroom.mailbox.line_ends import ToCrlf, to_crlf
from postroom.mailbox.locks import session_lock
from postroom.mailbox.maildir_name import hashed, split_name, uid_of
from postroom.mailbox.name import MailboxName, Place
from postroom.mailbox.store import InUse, Unusable, unusable

LOCK_NAME = "postroom.lock"
INDEX_NAME = "postroom.index"
_SURPLUS_OCTETS_MAX = 1024 * 1024


class _File:
    """One message file: which directory, its name, its unique part, its size."""

    __slots__ = ("folder", "name", "octets", "stem")

    def __init__(self, folder: int, name: str, stem: str, octets: int | None) -> None:
        self.folder = folder
        self.name = name
        self.stem = stem
        self.octets = octets


class MaildirSession:
    """A session over a Maildir. Made by ``open_session``."""

    def __init__(self, place: Place, lock: int, folders: tuple[int, int]) -> None:
        self._lock = lock
        self._handles = folders
        self._absent: set[str] = set()
        self._gone: set[str] = set()
        files = _list(folders)
        _measure(place, files)
        # What vanished or cannot be read while it was measured is left out.
        self._files = [file for file in files if file.octets is not None]
        self.sizes: Sequence[int] = [file.octets or 0 for file in self._files]
        self.uids: Sequence[str] = _uids(self._files)

    def read(self, first: int, count_max: int, octets_max: int) -> list[bytes | None]:
        """Read some messages whole, from ``first`` on, in CRLF form."""
        out: list[bytes | None] = []
        for index in range(first, min(first + count_max, len(self._files))):
            octets_max -= self.sizes[index]
            if octets_max < 0 and out:
                break
            out.append(self._whole(index))
        return out

    def pieces(self, index: int) -> Iterator[bytes]:
        """Read one message in CRLF form, in pieces; raises ``OSError``."""
        handle = self._open(self._files[index])
        try:
            ends = ToCrlf()
            while piece := os.read(handle, CHUNK_OCTETS):
                yield ends.feed(piece)
            yield ends.end()
        finally:
            os.close(handle)

    def remove(self, indexes: Sequence[int]) -> int:
        """Delete messages for good; returns how many could not be deleted."""
        failed = 0
        for index in indexes:
            try:
                self._unlink(self._files[index])
            except OSError:
                failed += 1
        if indexes:
            for handle in self._handles:
                try:
                    os.fsync(handle)
                except OSError:
                    return len(indexes)
        return failed

    def close(self) -> None:
        """Give the mailbox free."""
        for handle in (*self._handles, self._lock):
            os.close(handle)

    def _whole(self, index: int) -> bytes | None:
        try:
            handle = self._open(self._files[index])
        except OSError:
            return None
        try:
            stored = os.read(handle, self.sizes[index] + 1)
            if len(stored) > self.sizes[index]:  # longer than its name says
                if os.fstat(handle).st_size > len(stored) + _SURPLUS_OCTETS_MAX:
                    return None  # too much for memory: it can be had in pieces
                stored += _rest(handle)
        except OSError:
            return None
        finally:
            os.close(handle)
        content = to_crlf(stored)
        return content if content.endswith(b"\n") or not content else content + b"\r\n"

    def _open(self, file: _File) -> int:
        try:
            return open_file(file.folder, file.name)
        except FileNotFoundError:
            self._find_again(file)
            return open_file(file.folder, file.name)

    def _unlink(self, file: _File) -> None:
        try:
            os.unlink(file.name, dir_fd=file.folder)
        except FileNotFoundError:
            try:
                self._find_again(file)
            except FileNotFoundError:
                return  # somebody else deleted it: so be it
            os.unlink(file.name, dir_fd=file.folder)

    def _find_again(self, missing: _File) -> None:
        """Learn the present names of all files; raises ``FileNotFoundError``.

        Who was missing twice is gone, and is not looked for again: a list may lack a
        file that is renamed just then, and many may have been deleted at once.
        """
        if missing.stem in self._gone:
            raise FileNotFoundError(missing.name)
        present = {file.stem: file for file in _list(self._handles)}
        absent = set()
        for file in self._files:
            if there := present.get(file.stem):
                file.folder, file.name = there.folder, there.name
            else:
                absent.add(file.stem)
        self._gone |= absent & self._absent
        self._absent = absent
        if missing.stem in absent:
            raise FileNotFoundError(missing.name)


def open_session(
    mailbox: MailboxName, place: Place
) -> MaildirSession | InUse | Unusable:
    """Open a Maildir for one reader, making it if there is none."""
    held: list[int] = []
    try:
        maildir = open_folder(place, create=True)
        held.append(maildir)
        lock = session_lock(maildir, LOCK_NAME)
        if lock is None:
            os.close(maildir)
            return InUse()
        held.append(lock)
        held.append(enter(maildir, "new", create=True))
        held.append(enter(maildir, "cur", create=True))
        session = MaildirSession(place, lock, (held[2], held[3]))
        os.close(maildir)
    except BaseException as error:  # whatever it is, the lock must not stay
        for handle in held:
            os.close(handle)
        if not isinstance(error, OSError):
            raise
        return unusable(mailbox, error)
    return session


def _list(folders: tuple[int, int]) -> list[_File]:
    # A file that moves from new to cur meanwhile is seen twice rather than never.
    found: dict[str, _File] = {}
    for folder in folders:
        for name in os.listdir(folder):
            if name[0] != ".":
                stem, octets = split_name(name)
                if stem in found and found[stem].folder == folder:
                    stem = name  # two files that share their unique part
                found[stem] = _File(folder, name, stem, octets)
    return sorted(found.values(), key=_by_arrival)


def _by_arrival(file: _File) -> tuple[int, str]:
    seconds = file.stem.partition(".")[0]
    is_time = seconds.isascii() and seconds.isdigit() and len(seconds) < 16
    return (int(seconds) if is_time else 0, file.stem)


def _uids(files: Sequence[_File]) -> list[str]:
    uids = [uid_of(file.stem) for file in files]
    if len(set(uids)) < len(uids):  # a name that looks like another's hash
        uids = [hashed(os.fsencode(file.stem)) for file in files]
    return uids


def _measure(place: Place, files: list[_File]) -> None:
    foreign = [file for file in files if file.octets is None]
    if not foreign:
        return
    index = open_index(place, INDEX_NAME)
    try:
        known = index.maildir_files() if index else {}
    except apsw.Error:
        known = {}
    learnt: dict[str, tuple[int, str]] = {}
    for file in foreign:
        if entry := _look_up(file, known):
            learnt[file.stem] = entry
    if index:
        names = {file.stem for file in foreign}
        _remember(index, learnt, [name for name in known if name not in names])


def _look_up(file: _File, known: dict[str, tuple[int, str]]) -> tuple[int, str] | None:
    """Set a file's size; returns what the index should learn of it, if anything."""
    try:
        status = os.stat(file.name, dir_fd=file.folder, follow_symlinks=False)
        stamp = stamp_of(status)
        octets, old = known.get(file.stem, (0, ""))
        if old == stamp:
            file.octets = octets
            return None
        file.octets = _count(file)
    except OSError:
        return None
    return file.octets, stamp


def _remember(
    index: Index, learnt: dict[str, tuple[int, str]], gone: list[str]
) -> None:
    try:
        if learnt or gone:
            index.set_maildir_files(learnt, gone)
    except apsw.Error:
        pass  # the next login measures again
    finally:
        index.close()


def _count(file: _File) -> int:
    handle = open_file(file.folder, file.name)
    try:
        ends, octets = ToCrlf(), 0
        while piece := os.read(handle, CHUNK_OCTETS):
            octets += len(ends.feed(piece))
        return octets + len(ends.end())
    finally:
        os.close(handle)


def _rest(handle: int) -> bytes:
    pieces = []
    while piece := os.read(handle, CHUNK_OCTETS):
        pieces.append(piece)
    return b"".join(pieces)
