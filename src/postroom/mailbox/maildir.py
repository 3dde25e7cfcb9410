"""Maildir: a file per message, written in ``tmp``, synced, then renamed into ``new``.

A delivery is done when the file, and the directory that names it, are on disk. Several
deliveries share the directory's sync. A file's name is made from queue id and recipient
number, so a repeated delivery meets its own file: in ``new`` by its exact name, in
``cur``, where other programs put it under other flags, by a search that is made only
when an earlier try is possible. Whatever goes wrong leaves at most a file in ``tmp``,
which the next try replaces.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress

from postroom.mail.outcome import Delivered, Outcome
from postroom.mailbox.folder import (
    MODE_FILE,
    enter,
    open_folder,
    write_all,
)
from postroom.mailbox.line_ends import ToLf, crlf_octets
from postroom.mailbox.maildir_name import name_of, safe_host, stem_of
from postroom.mailbox.maildir_session import open_session
from postroom.mailbox.name import MailboxName, MailboxNameError, place_of
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

_SENT = Delivered("2.0.0", "Sent")
_SENT_BEFORE = Delivered("2.0.0", "Sent (by an earlier try)")


class Maildirs:
    """All Maildirs under one path template."""

    def __init__(self, settings: MailboxSettings, hostname: str) -> None:
        self._settings = settings
        self._host = safe_host(hostname)

    def deliver(self, parcels: Sequence[Parcel]) -> list[Outcome]:
        """Deliver several; durable on return. One outcome each, in order."""
        folders: dict[MailboxName, _Folders] = {}
        try:
            arrivals = [self._write(parcel, folders) for parcel in parcels]
            outcomes = [_published(arrival) for arrival in arrivals]
            self._sync(parcels, outcomes, folders)
            return outcomes
        finally:
            for opened in folders.values():
                opened.close()

    def deliver_at_once(self, parcels: Sequence[Parcel]) -> list[Outcome | Locked]:
        """Deliver several; there are no locks to wait for."""
        return [*self.deliver(parcels)]

    def begin(self, parcel: Parcel) -> Incoming | Outcome:
        """Begin the delivery of a message too large for memory."""
        arrival = self._attempt(parcel, self._open)
        return arrival if not isinstance(arrival, _Arrival) else _Alone(arrival)

    def open(self, mailbox: MailboxName) -> Session | InUse | Unusable:
        """Open a mailbox for one reader; a missing one is made, empty."""
        try:
            place = place_of(self._settings.path, mailbox)
        except MailboxNameError as error:
            return Unusable(str(error), is_temporary=False)
        return open_session(mailbox, place)

    def _open(self, mailbox: MailboxName) -> "_Folders":
        return _Folders(self._settings.path, mailbox)

    def _write(
        self, parcel: Parcel, folders: dict[MailboxName, "_Folders"]
    ) -> "_Arrival | Outcome":
        def kept_open(mailbox: MailboxName) -> _Folders:
            if mailbox not in folders:
                folders[mailbox] = self._open(mailbox)
            return folders[mailbox]

        arrival = self._attempt(parcel, kept_open)
        if not isinstance(arrival, _Arrival):
            return arrival
        try:
            arrival.write(parcel.content)
            arrival.sync()
        except OSError as error:
            arrival.abandon()
            return deferral(parcel.mailbox, error)
        return arrival

    def _attempt(
        self, parcel: Parcel, folders_of: Callable[[MailboxName], "_Folders"]
    ) -> "_Arrival | Outcome":
        host = self._host
        stem = stem_of(parcel.queue_id, parcel.number, parcel.arrival_us, host)
        try:
            return _Arrival(parcel, stem, folders_of(parcel.mailbox))
        except MailboxNameError as error:
            return no_such_name(error)
        except OSError as error:
            return deferral(parcel.mailbox, error)

    def _sync(
        self,
        parcels: Sequence[Parcel],
        outcomes: list[Outcome],
        folders: dict[MailboxName, "_Folders"],
    ) -> None:
        for mailbox, opened in folders.items():
            try:
                os.fsync(opened.new)
            except OSError as error:
                failed = deferral(mailbox, error)
                for i, parcel in enumerate(parcels):
                    if parcel.mailbox == mailbox and isinstance(outcomes[i], Delivered):
                        outcomes[i] = failed


class _Folders:
    """Handles on one Maildir's directories."""

    def __init__(self, template: str, mailbox: MailboxName) -> None:
        place = place_of(template, mailbox)
        self.maildir = open_folder(place, create=True)
        self.tmp = self.new = -1
        try:
            self.tmp = enter(self.maildir, "tmp", create=True)
            self.new = enter(self.maildir, "new", create=True)
        except OSError:
            self.close()
            raise

    def holds_elsewhere(self, stem: str) -> bool:
        """Whether ``cur`` has the message under whatever flags."""
        cur = enter(self.maildir, "cur", create=True)
        try:
            start = stem + ","
            return any(name.startswith(start) for name in os.listdir(cur))
        finally:
            os.close(cur)

    def close(self) -> None:
        """Let go of all handles."""
        for handle in (self.tmp, self.new, self.maildir):
            if handle >= 0:
                os.close(handle)


class _Arrival:
    """One message on its way: written, synced, published."""

    def __init__(self, parcel: Parcel, stem: str, folders: _Folders) -> None:
        self.parcel = parcel
        self.folders = folders
        self._stem = stem
        self._to_lf = ToLf()
        self._stored_octets = 0
        self._crlf_octets = 0
        self._handle = _create(stem, folders.tmp)

    def write(self, data: bytes) -> None:
        """Take content in CRLF form; raises ``OSError``."""
        self._store(self._to_lf.feed(data))

    def sync(self) -> None:
        """Bring what was written to disk; raises ``OSError``."""
        self._store(self._to_lf.end())
        os.fsync(self._handle)
        handle, self._handle = self._handle, -1
        os.close(handle)

    def publish(self) -> Outcome:
        """Give the file its name in ``new``; raises ``OSError``."""
        name = name_of(self._stem, self._stored_octets, self._crlf_octets)
        if self._was_delivered(name):
            self.abandon()
            return _SENT_BEFORE
        folders = self.folders
        os.rename(self._stem, name, src_dir_fd=folders.tmp, dst_dir_fd=folders.new)
        return _SENT

    def abandon(self) -> None:
        """Remove what was written."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        with suppress(OSError):  # in tmp nobody looks, and the next try replaces it
            os.unlink(self._stem, dir_fd=self.folders.tmp)

    def _store(self, data: bytes) -> None:
        if data:
            write_all(self._handle, data)
            self._stored_octets += len(data)
            self._crlf_octets += crlf_octets(data)

    def _was_delivered(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self.folders.new, follow_symlinks=False)
        except FileNotFoundError:
            return self.parcel.look and self.folders.holds_elsewhere(self._stem)
        return True


class _Alone:
    """A large message: an arrival with directories of its own."""

    def __init__(self, arrival: _Arrival) -> None:
        self._arrival = arrival

    def write(self, data: bytes) -> None:
        """Take more content, in CRLF form; raises ``OSError``."""
        self._arrival.write(data)

    def finish(self) -> Outcome:
        """Make it durable and visible, or say why not."""
        arrival = self._arrival
        try:
            arrival.sync()
            outcome = _published(arrival)
            if isinstance(outcome, Delivered):
                os.fsync(arrival.folders.new)
        except OSError as error:
            outcome = deferral(arrival.parcel.mailbox, error)
            arrival.abandon()
        arrival.folders.close()
        return outcome

    def abandon(self) -> None:
        """Leave no trace of it."""
        self._arrival.abandon()
        self._arrival.folders.close()


def _published(arrival: _Arrival | Outcome) -> Outcome:
    if not isinstance(arrival, _Arrival):
        return arrival
    try:
        return arrival.publish()
    except OSError as error:
        arrival.abandon()
        return deferral(arrival.parcel.mailbox, error)


def _create(stem: str, tmp: int) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(stem, flags, MODE_FILE, dir_fd=tmp)
    except FileExistsError:  # left by a try that was cut off
        os.unlink(stem, dir_fd=tmp)
        return os.open(stem, flags, MODE_FILE, dir_fd=tmp)
