"""What a mailbox format does: take deliveries, and serve one reader at a time.

Everything here waits for the disk and is called in a thread, never on the loop. What
a disk, a lock or a name did wrong is a value: an outcome of a delivery, or an
``InUse`` or ``Unusable`` instead of a session.
"""

import errno
from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec

from postroom.mail.ids import QueueId
from postroom.mail.outcome import Deferred, Failed, Outcome
from postroom.mailbox.name import MailboxName, MailboxNameError


class Parcel(msgspec.Struct, frozen=True):
    """One message for one mailbox.

    ``queue_id`` and ``number`` (of the recipient) name it for ever, so that a repeated
    delivery is recognised. ``arrival_us`` is when the message came into the system,
    and must be the same at each try. ``content`` is in CRLF form, with its trace
    fields in front; empty if it is written in pieces. ``look`` asks for a search for an
    earlier delivery in all places, at a price.
    """

    mailbox: MailboxName
    queue_id: QueueId
    number: int
    sender: str
    arrival_us: int
    content: bytes = b""
    look: bool = False


class Incoming(Protocol):
    """A large message on its way into a mailbox, in pieces."""

    def write(self, data: bytes) -> None:
        """Take more content, in CRLF form.

        Raises:
            OSError: it cannot be written; ``abandon`` is to be called.
        """

    def finish(self) -> Outcome:
        """Make it durable and visible, or say why not."""

    def abandon(self) -> None:
        """Leave no trace of it."""


class InUse(msgspec.Struct, frozen=True):
    """Another session has the mailbox."""


class Unusable(msgspec.Struct, frozen=True):
    """The mailbox cannot be opened; ``reason`` is for the operator."""

    reason: str
    is_temporary: bool


class Locked(msgspec.Struct, frozen=True):
    """Another program has the mailbox's lock; ``outcome`` if that stays so."""

    outcome: Deferred


class Session(Protocol):
    """One reader's exclusive look at a mailbox, as it was when opened.

    Messages are counted from 0, in order of arrival. ``sizes`` are octets in CRLF form;
    ``uids`` are unique and stable (RFC 1939 §7).
    """

    @property
    def sizes(self) -> Sequence[int]:
        """Octets of each message in CRLF form."""

    @property
    def uids(self) -> Sequence[str]:
        """The unique id of each message."""

    def read(self, first: int, count_max: int, octets_max: int) -> list[bytes | None]:
        """Read some messages whole, from ``first`` on, in CRLF form.

        Returns at least one; more while they fit in ``octets_max``. None stands for
        a message that is gone or cannot be read, or is far
        longer than its size says: ``pieces`` may still give it.
        """

    def pieces(self, index: int) -> Iterator[bytes]:
        """Read one message in CRLF form, in pieces.

        Raises:
            OSError: at any step: it is gone, or cannot be read.
        """

    def remove(self, indexes: Sequence[int]) -> int:
        """Delete messages for good; returns how many could not be deleted."""

    def close(self) -> None:
        """Give the mailbox free."""


class Store(Protocol):
    """All mailboxes of one format."""

    def deliver(self, parcels: Sequence[Parcel]) -> list[Outcome]:
        """Deliver several; durable on return. One outcome each, in order.

        Locks of other programs are waited for, for all of the parcels together.
        """

    def deliver_at_once(self, parcels: Sequence[Parcel]) -> list[Outcome | Locked]:
        """Deliver as ``deliver`` does, but wait for nobody's lock."""

    def begin(self, parcel: Parcel) -> Incoming | Outcome:
        """Begin the delivery of a message too large for memory."""

    def open(self, mailbox: MailboxName) -> Session | InUse | Unusable:
        """Open a mailbox for one reader; a missing one is empty."""


_STATUS = {
    errno.EAGAIN: "4.2.0",
    errno.ENOSPC: "4.3.1",
    errno.EDQUOT: "4.2.2",
    errno.EFBIG: "4.2.2",
    errno.EACCES: "4.3.5",
    errno.EPERM: "4.3.5",
    errno.EROFS: "4.3.5",
    errno.ELOOP: "4.3.5",
    errno.ENOTDIR: "4.3.5",
}


def deferral(mailbox: MailboxName, error: OSError) -> Deferred:
    """Say why a mailbox could not be written to (RFC 3463 §3.4)."""
    reason = error.strerror or str(error)
    status = _STATUS.get(error.errno or 0, "4.3.0")
    return Deferred(status, f"cannot write to mailbox {mailbox}: {reason}")


def no_such_name(error: MailboxNameError) -> Failed:
    """Say that a recipient cannot have a mailbox."""
    return Failed("5.1.1", str(error))


def unusable(mailbox: MailboxName, error: OSError) -> Unusable:
    """Say why a mailbox could not be opened."""
    reason = error.strerror or str(error)
    temporary = error.errno not in (errno.EACCES, errno.ELOOP, errno.ENOTDIR)
    return Unusable(f"cannot open mailbox {mailbox}: {reason}", temporary)
