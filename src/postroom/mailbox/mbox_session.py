"""One reader's look at an mbox: where its messages lie, and taking some of them out.

The mbox is locked while it is looked through and while messages are taken out, not in
between: deliveries need not wait for a slow client, for they only append. Another
session is kept out by a lock of its own. Should another program have changed the file
meanwhile, each message is read and removed only after its id was found unchanged at its
place. A second login reads nothing of an unchanged file: the index has it.
"""

import os
import re
from collections.abc import Iterator, Sequence
from functools import partial

import apsw

from postroom.mail.headers import find
from postroom.mail.message import CHUNK_OCTETS
from postroom.mailbox.folder import open_folder
from postroom.mailbox.index import Spot, is_grown, open_index, stamp_of
from postroom.mailbox.line_ends import ToCrlf
from postroom.mailbox.locks import Patience, session_lock
from postroom.mailbox.maildir_name import hashed
from postroom.mailbox.mbox_file import MboxFile
from postroom.mailbox.mbox_format import Scanner, Start, unquoting
from postroom.mailbox.name import MailboxName, Place
from postroom.mailbox.settings import MailboxSettings
from postroom.mailbox.store import InUse, Unusable, unusable

_HEADER_OCTETS = 64 * 1024
_UID = re.compile(rb"[!-~]{1,70}")  # RFC 1939 §7
_BOUNDARY = re.compile(rb"((?:\r?\n){0,2})(?:From |\Z)")
# Fields that readers of mbox files change; they must not change the id.
_CHANGING = re.compile(
    rb"(?im)^(?:Status|X-Status|X-Keywords|Content-Length|X-UID):[^\n]*\n"
)


class MboxSession:
    """A session over an mbox. Made by ``open_session``."""

    def __init__(
        self,
        folder: int,
        place: Place,
        lock: int,
        settings: MailboxSettings,
        patience: Patience,
    ) -> None:
        self._folder = folder
        self._name = place.parts[-1]
        self._lock = lock
        self._settings = settings
        self._patience = patience
        mbox = self._locked()
        try:
            mbox.trim()
            self._stamp = stamp_of(os.fstat(mbox.handle))
            self._end = mbox.size
            self._spots = _spots(mbox, place, self._stamp)
            self._handle = os.open(f"/proc/self/fd/{mbox.handle}", os.O_RDONLY)
        finally:
            mbox.close()
        self.sizes: Sequence[int] = [spot.octets for spot in self._spots]
        self.uids: Sequence[str] = [spot.uid for spot in self._spots]

    def read(self, first: int, count_max: int, octets_max: int) -> list[bytes | None]:
        """Read some messages whole, from ``first`` on, in CRLF form."""
        out: list[bytes | None] = []
        for index in range(first, min(first + count_max, len(self._spots))):
            octets_max -= self.sizes[index]
            if octets_max < 0 and out:
                break
            try:
                out.append(b"".join(self.pieces(index)))
            except OSError:
                out.append(None)
        return out

    def pieces(self, index: int) -> Iterator[bytes]:
        """Read one message in CRLF form, in pieces; raises ``OSError``."""
        spot = self._spots[index]
        self._check(self._handle, index)
        yield from _contents(self._handle, spot.offset, spot.stored_octets)

    def remove(self, indexes: Sequence[int]) -> int:
        """Delete messages for good; returns how many could not be deleted."""
        if not indexes:
            return 0
        try:
            mbox = self._locked()
        except OSError:
            return len(indexes)
        try:
            if not os.path.samestat(os.fstat(mbox.handle), os.fstat(self._handle)):
                return len(indexes)
            for index in indexes:
                self._check(mbox.handle, index)
            mbox.remove([self._whole(mbox.handle, index) for index in sorted(indexes)])
        except OSError:
            return len(indexes)
        finally:
            mbox.close()
        return 0

    def close(self) -> None:
        """Give the mailbox free."""
        for handle in (self._handle, self._lock, self._folder):
            os.close(handle)

    def _locked(self) -> MboxFile:
        open_until = partial(MboxFile, self._folder, self._name, self._settings)
        return self._patience.take(open_until)

    def _range(self, index: int) -> tuple[int, int]:
        following = self._spots[index + 1 : index + 2]
        end = following[0].from_offset if following else self._end
        return self._spots[index].from_offset, end

    def _check(self, handle: int, index: int) -> None:
        """Make sure that a message is where it was; raises ``OSError``."""
        if stamp_of(os.fstat(handle)) == self._stamp:
            return
        start, end = self._range(index)
        window = os.pread(handle, min(end - start, _HEADER_OCTETS), start)
        found = next(Scanner(start).feed(window, is_last=True), None)
        spot = self._spots[index]
        # Ids that were made unique by a number are compared without it.
        if (
            found is None
            or found.offset != spot.offset
            or _own_uid(handle, found, end) != spot.uid.partition("+")[0]
            or _gap(handle, end) is None
        ):
            raise OSError(f"{self._name} was changed by another program")

    def _whole(self, handle: int, index: int) -> tuple[int, int]:
        start, end = self._range(index)
        return start, end + (_gap(handle, end) or 0)


def _gap(handle: int, end: int) -> int | None:
    """Return how many octets part a message's end from the next; None: it is no end.

    There are some where the last message had no empty line and another came behind.
    """
    found = _BOUNDARY.match(os.pread(handle, 9, end))
    return found.end(1) if found else None


def open_session(
    mailbox: MailboxName,
    place: Place,
    settings: MailboxSettings,
    patience: Patience,
) -> MboxSession | InUse | Unusable:
    """Open an mbox for one reader, making it if there is none."""
    held: list[int] = []
    try:
        folder = open_folder(place, len(place.parts) - 1, create=True)
        held.append(folder)
        lock = session_lock(folder, f".{place.parts[-1]}.postroom-lock")
        if lock is None:
            os.close(folder)
            return InUse()
        held.append(lock)
        return MboxSession(folder, place, lock, settings, patience)
    except BaseException as error:  # whatever it is, the lock must not stay
        for handle in held:
            os.close(handle)
        if not isinstance(error, OSError):
            raise
        return unusable(mailbox, error)


def _spots(mbox: MboxFile, place: Place, stamp: str) -> list[Spot]:
    """Return where all messages lie: from the index, or by reading the file."""
    if not mbox.size:
        return []
    name = place.parts[-1]
    folder = Place(place.root, place.parts[:-1])
    index = open_index(folder, f".{name}.postroom-index")
    if index is None:
        return _scanned(mbox)
    try:
        before, spots = index.mbox_spots(name)
        if before != stamp:
            known = spots if is_grown(before, stamp) else []
            spots = _continued(mbox, known) or _scanned(mbox)
            index.set_mbox_spots(name, stamp, spots)
        return spots
    except apsw.Error:
        return _scanned(mbox)
    finally:
        index.close()


def _continued(mbox: MboxFile, known: list[Spot]) -> list[Spot]:
    """Read on from the last message that is known; empty if one lies elsewhere now."""
    if not known or any("+" in spot.uid for spot in known):
        return []
    last = known.pop()
    if not all(_is_from(mbox.handle, spot.from_offset) for spot in known):
        return []
    spots = _scanned(mbox, known, last.from_offset)
    found = spots[len(known)] if len(spots) > len(known) else None
    if found is None or (found.offset, found.uid) != (last.offset, last.uid):
        return []
    return spots


def _is_from(handle: int, offset: int) -> bool:
    start = os.pread(handle, 6, max(0, offset - 1))
    return start == b"\nFrom " or (not offset and start.startswith(b"From "))


def _scanned(mbox: MboxFile, known: Sequence[Spot] = (), offset: int = 0) -> list[Spot]:
    """Find all messages: those that are known, and those from an offset on."""
    starts = list(mbox.starts(offset))
    ends = [start.from_offset for start in starts[1:]] + [mbox.size][: len(starts)]
    spots = [*known]
    seen = dict.fromkeys([spot.uid for spot in known], 1)
    for start, end in zip(starts, ends, strict=True):
        uid = _own_uid(mbox.handle, start, end)
        seen[uid] = count = seen.get(uid, 0) + 1
        if count > 1:
            uid = f"{uid[:60]}+{count}"
        stored_octets = _content_end(mbox.handle, start.offset, end) - start.offset
        contents = _contents(mbox.handle, start.offset, stored_octets)
        octets = sum(map(len, contents))
        spots.append(Spot(start.from_offset, start.offset, stored_octets, octets, uid))
    return spots


def _own_uid(handle: int, start: Start, end: int) -> str:
    """Return a message's id: ours, the file's own (X-UIDL), or one of its header."""
    if start.uid and not start.is_torn:
        return start.uid
    begin = start.from_offset
    head = os.pread(handle, min(end - begin, _HEADER_OCTETS), begin)
    line, _, text = head.partition(b"\n")
    header = text.partition(b"\n\n")[0].replace(b"\r\n", b"\n") + b"\n"
    given = find(header.replace(b"\n", b"\r\n"), "X-UIDL")
    if given and _UID.fullmatch(given) and b"+" not in given:
        return given.decode("ascii")
    return hashed(line + b"\n" + _CHANGING.sub(b"", header))


def _content_end(handle: int, offset: int, end: int) -> int:
    """Return where the content ends: before the empty line that ends a message."""
    begin = max(offset, end - 4)
    last = os.pread(handle, end - begin, begin)
    if last.endswith(b"\r\n\r\n"):
        return end - 2
    if last.endswith(b"\n\n") or last == b"\n":
        return end - 1
    return end


def _contents(handle: int, offset: int, stored_octets: int) -> Iterator[bytes]:
    quotes, ends, end = unquoting(), ToCrlf(), offset + stored_octets
    while offset < end:
        piece = os.pread(handle, min(CHUNK_OCTETS * 4, end - offset), offset)
        if not piece:
            raise OSError("mbox is shorter than it was")
        offset += len(piece)
        yield ends.feed(quotes.feed(piece))
    yield ends.feed(quotes.end()) + ends.end()
