"""mbox: one file per user, for programs that want it so.

A delivery locks the file (``fcntl`` and dot-lock), appends, syncs, and only then
writes the messages' ids, so that what a crash leaves half-written is no delivery.
Deliveries to one mailbox in one group share the locks and the syncs. What fails is cut
off again. A repeated delivery finds its id near the end of the file, or, when an
earlier try is possible, anywhere in it.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial

from postroom.mail.message import CHUNK_OCTETS
from postroom.mail.outcome import Delivered, Outcome
from postroom.mailbox.folder import open_file, open_folder, write_all
from postroom.mailbox.line_ends import ToLf
from postroom.mailbox.locks import LockTimeout, Patience, deadline_after
from postroom.mailbox.mbox_file import MboxFile
from postroom.mailbox.mbox_format import quoting
from postroom.mailbox.mbox_session import open_session
from postroom.mailbox.name import MailboxName, MailboxNameError, Place, place_of
from postroom.mailbox.settings import MailboxSettings
from postroom.mailbox.store import (
    Incoming,
    InUse,
    Locked,
    Parcel,
    Session,
    Unusable,
    deferral,
    no_such_name,
)

PATIENT_MAX = 2
"""How many threads may wait for locks for readers and large messages."""
Take = Callable[[Callable[[int], MboxFile]], MboxFile]
"""Opens an mbox by a function that is given how long to wait for its locks."""
_SENT = Delivered("2.0.0", "Sent")
_SENT_BEFORE = Delivered("2.0.0", "Sent (by an earlier try)")


class Mboxes:
    """All mbox files under one path template."""

    def __init__(self, settings: MailboxSettings) -> None:
        self._settings = settings
        self._patience = Patience(int(settings.lock_timeout), PATIENT_MAX)

    def deliver(self, parcels: Sequence[Parcel]) -> list[Outcome]:
        """Deliver several; durable on return. One outcome each, in order."""
        wait_us = int(self._settings.lock_timeout)
        found = self._deliver(parcels, deadline_after(wait_us))
        return [one.outcome if isinstance(one, Locked) else one for one in found]

    def deliver_at_once(self, parcels: Sequence[Parcel]) -> list[Outcome | Locked]:
        """Deliver to those mailboxes that no other program has locked."""
        return self._deliver(parcels, deadline_after(0))

    def _deliver(
        self, parcels: Sequence[Parcel], deadline_us: int
    ) -> list[Outcome | Locked]:
        outcomes: dict[int, Outcome | Locked] = {}
        by_mailbox: dict[MailboxName, list[int]] = {}
        for i, parcel in enumerate(parcels):
            by_mailbox.setdefault(parcel.mailbox, []).append(i)
        for mailbox, numbers in by_mailbox.items():
            mine = [(parcels[i], _stored(parcels[i].content)) for i in numbers]
            some = self._append(mailbox, mine, lambda lock: lock(deadline_us))
            outcomes.update(zip(numbers, some, strict=True))
        return [outcomes[i] for i in range(len(parcels))]

    def begin(self, parcel: Parcel) -> Incoming | Outcome:
        """Begin the delivery of a message too large for memory.

        It is written beside the mbox first, so that no lock is held meanwhile.
        """
        try:
            place = self._place(parcel.mailbox)
            return _Draft(self, parcel, place)
        except MailboxNameError as error:
            return no_such_name(error)
        except OSError as error:
            return deferral(parcel.mailbox, error)

    def open(self, mailbox: MailboxName) -> Session | InUse | Unusable:
        """Open a mailbox for one reader; a missing one is made, empty."""
        try:
            place = self._place(mailbox)
        except MailboxNameError as error:
            return Unusable(str(error), is_temporary=False)
        return open_session(mailbox, place, self._settings, self._patience)

    def append(self, parcel: Parcel, pieces: Iterator[bytes]) -> Outcome:
        """Deliver a message whose pieces are in stored form."""
        mine = [(parcel, pieces)]
        (found,) = self._append(parcel.mailbox, mine, self._patience.take)
        return found.outcome if isinstance(found, Locked) else found

    def _append(
        self,
        mailbox: MailboxName,
        mine: Sequence[tuple[Parcel, Iterator[bytes]]],
        take: Take,
    ) -> Sequence[Outcome | Locked]:
        try:
            with self._locked(mailbox, take) as mbox:
                return _append_all(mbox, mine)
        except MailboxNameError as error:
            return [no_such_name(error)] * len(mine)
        except LockTimeout as error:
            return [Locked(deferral(mailbox, error))] * len(mine)
        except OSError as error:
            return [deferral(mailbox, error)] * len(mine)

    def _place(self, mailbox: MailboxName) -> Place:
        place = place_of(self._settings.path, mailbox)
        if place.parts[-1].endswith(".lock"):
            raise MailboxNameError(f"mailbox {mailbox} would be a lock file")
        return place

    @contextmanager
    def _locked(self, mailbox: MailboxName, take: Take) -> Iterator[MboxFile]:
        place = self._place(mailbox)
        folder = open_folder(place, len(place.parts) - 1, create=True)
        try:
            mbox = take(partial(MboxFile, folder, place.parts[-1], self._settings))
            try:
                yield mbox
            finally:
                mbox.close()
        finally:
            os.close(folder)


class _Draft:
    """A large message, written beside the mbox."""

    def __init__(self, mboxes: Mboxes, parcel: Parcel, place: Place) -> None:
        self._mboxes = mboxes
        self._parcel = parcel
        self._to_lf = ToLf()
        self._quoting = quoting()
        self._name = f".{place.parts[-1]}.{_uid_of(parcel)}.draft"
        self._folder = open_folder(place, len(place.parts) - 1, create=True)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
            self._handle = open_file(self._folder, self._name, flags)
        except OSError:
            os.close(self._folder)
            raise

    def write(self, data: bytes) -> None:
        """Take more content, in CRLF form; raises ``OSError``."""
        write_all(self._handle, self._quoting.feed(self._to_lf.feed(data)))

    def finish(self) -> Outcome:
        """Make it durable and visible, or say why not."""
        try:
            rest = self._quoting.feed(self._to_lf.end()) + self._quoting.end()
            write_all(self._handle, rest)
            os.lseek(self._handle, 0, os.SEEK_SET)
            return self._mboxes.append(self._parcel, _file_pieces(self._handle))
        except OSError as error:
            return deferral(self._parcel.mailbox, error)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Leave no trace of it."""
        with suppress(OSError):
            os.unlink(self._name, dir_fd=self._folder)
        os.close(self._handle)
        os.close(self._folder)


def _append_all(
    mbox: MboxFile, mine: Sequence[tuple[Parcel, Iterator[bytes]]]
) -> list[Outcome]:
    mbox.trim()
    before = mbox.size
    outcomes: list[Outcome] = []
    marks: list[tuple[int, str]] = []
    try:
        for parcel, pieces in mine:
            uid = _uid_of(parcel)
            if mbox.has(uid, everywhere=parcel.look):
                outcomes.append(_SENT_BEFORE)
                continue
            at = mbox.append(parcel.sender, parcel.arrival_us, uid, pieces)
            marks.append((at, uid))
            outcomes.append(_SENT)
        if marks:
            mbox.confirm(marks)
    except OSError:
        mbox.truncate(before)
        raise
    return outcomes


def _uid_of(parcel: Parcel) -> str:
    return f"{parcel.queue_id}.{parcel.number}"


def _stored(content: bytes) -> Iterator[bytes]:
    to_lf, quotes = ToLf(), quoting()
    yield quotes.feed(to_lf.feed(content))
    yield quotes.feed(to_lf.end()) + quotes.end()


def _file_pieces(handle: int) -> Iterator[bytes]:
    while piece := os.read(handle, CHUNK_OCTETS * 4):
        yield piece
