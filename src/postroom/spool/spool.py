"""The interface of the queue: what every spool engine does, and the values it speaks.

All methods are asynchronous and may be called from the event loop only; the engine
does its disk work elsewhere and gathers what is pending into few large commits.

The life of a recipient::

    accept -> READY | EXPANDING(cursor)      EXPANDING -> children READY, itself gone
    READY -> claimed (a lease, in memory) -> gone | READY with a later due time
    HELD and SHUNTED wait for an operator.

A message is gone when its last recipient is.
"""

import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

import msgspec

from postroom.mail.address import Address
from postroom.mail.envelope import Envelope
from postroom.mail.ids import QueueId
from postroom.mail.message import Body, Edit, Message
from postroom.mail.now import Now
from postroom.mail.route import Route
from postroom.spool.selection import HELD_BY, QueueFilter

if TYPE_CHECKING:
    from postroom.spool.kept import Kept
    from postroom.spool.shape import Shape


class SpoolError(Exception):
    """The spool could not do it now. Nothing was acknowledged; a 4yz is due."""


class SpoolFull(SpoolError):
    """No space, or the reserve is reached: 452 4.3.1."""


def disk_error(error: OSError) -> SpoolError:
    """Say what a failed file operation means to a client."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    if error.errno in (errno.EACCES, errno.EPERM):
        what += ": it has to belong to the user that the server runs as"
    return (SpoolFull if full else SpoolError)(what)


class Fenced(SpoolError):
    """The lease is stale: another worker has the message now. Drop the result."""


class RecipientState(IntEnum):
    """Where a recipient stands."""

    READY = 0
    EXPANDING = 1
    HELD = 2
    SHUNTED = 3


class NewRecipient(msgspec.Struct, frozen=True, gc=False):
    """A recipient to be queued.

    ``route`` is where it goes; None means that it is an alias still to be expanded.
    ``lane`` is a small number by which one sender or size class cannot fill a hop.
    """

    address: Address
    route: Route | None
    lane: int = 0
    due_us: int = 0
    notify: str = ""
    orcpt: str = ""
    state: RecipientState = RecipientState.READY
    status_text: str = ""


class NewMessage(msgspec.Struct, frozen=True):
    """A message to be accepted: durable when ``Spool.accept`` returns.

    ``envelope.recipients`` is ignored: ``recipients`` counts. ``body_of`` names a
    queued message whose header and body are shared (a list's second envelope); of
    ``message`` then only the edits count. ``message_id`` is the text of the field
    Message-Id, for logs and operators.
    """

    queue_id: QueueId
    envelope: Envelope
    message: Message
    recipients: tuple[NewRecipient, ...]
    body_of: QueueId | None = None
    message_id: str = ""


class Lease(msgspec.Struct, frozen=True):
    """The right to try some recipients of one message at one hop, once.

    ``envelope.recipients`` are just these; ``numbers``, ``tries`` and
    ``expanding_cursor`` describe them. ``warned`` says that the sender was told of a
    delay. ``fence`` grows when a shard changes hands. ``message_id`` is for logs.
    """

    queue_id: QueueId
    fence: int
    route: Route | None
    lane: int
    envelope: Envelope
    numbers: tuple[int, ...]
    tries: tuple[int, ...]
    warned: bool
    message: Message
    cursor: int = 0
    message_id: str = ""


class Settle(msgspec.Struct, frozen=True, gc=False):
    """What becomes of one leased recipient.

    ``due_us`` None: it is done with and goes. Otherwise it waits until then, one try
    older, with ``status_text`` as the reason to show. ``warned`` marks the message as
    having had its delay warning.
    """

    number: int
    due_us: int | None = None
    status_text: str = ""
    warned: bool = False
    route: Route | None = None
    state: RecipientState = RecipientState.READY


class Rest(msgspec.Struct, frozen=True, gc=False):
    """A hop is left alone until ``until_us`` (UTC), because of a failure.

    ``status`` is the failure's enhanced code, ``text`` what is said of it.
    """

    until_us: int
    status: str
    text: str


class Patience(msgspec.Struct, frozen=True, gc=False):
    """At what age a message has to be looked at, though its hop rests.

    To warn its sender of the delay (0: never), to give it up, and to give it up if its
    sender is null; microseconds.
    """

    warn_after_us: int
    expire_us: int
    bounce_expire_us: int


class DueHop(msgspec.Struct, frozen=True, gc=False):
    """A hop and lane with something due: at the earliest, and about how many."""

    hop: str
    lane: int
    due_us: int


class Hold(msgspec.Struct, frozen=True, tag="hold"):
    """Keep what waits from being tried; ``text`` is the reason to show."""

    text: str


class Release(msgspec.Struct, frozen=True, tag="release"):
    """Let what is held or put aside be tried now."""


class Retry(msgspec.Struct, frozen=True, tag="retry"):
    """Make what waits due now; what is held or put aside only if its state is named."""


class Requeue(msgspec.Struct, frozen=True, tag="requeue"):
    """Expand and route what waits anew; the rest only if its state is named."""


class TakeOut(msgspec.Struct, frozen=True, tag="remove"):
    """Remove whole messages for good; nobody is told."""


Order = Hold | Release | Retry | Requeue | TakeOut
"""What an operator may want done with messages."""


class Handled(msgspec.Struct, frozen=True):
    """What came of an order, for some of the messages that were meant.

    ``queue_ids`` are done; ``busy`` are being delivered just now, and ``unreadable``
    cannot be read: both were left alone. ``hops`` is where those that are done go.
    """

    queue_ids: tuple[str, ...] = ()
    busy: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    hops: tuple[str, ...] = ()


class EntryRecipient(msgspec.Struct, frozen=True):
    """One recipient as an operator sees it.

    ``parent`` is the number of the alias it came from, -1 for one of the message.
    """

    number: int
    address: str
    state: str
    hop: str
    rule: str
    tries: int
    due_us: int
    last_us: int
    status_text: str
    active: bool
    agent: str = ""
    parent: int = -1

    @property
    def is_quarantined(self) -> bool:
        """Whether a policy holds it, and not an operator."""
        return self.state == "held" and not self.status_text.startswith(HELD_BY)


class Entry(msgspec.Struct, frozen=True):
    """One queued message as an operator sees it.

    ``recipients`` holds the first thousand of ``recipients_count``.
    """

    queue_id: str
    shard: int
    sender: str
    size_octets: int
    arrival_us: int
    origin: str
    message_id: str
    recipients: tuple[EntryRecipient, ...]
    body: str = ""
    recipients_count: int = 0


class BodyWriter(Protocol):
    """Takes a body too large for memory, in pieces, into the spool."""

    async def write(self, data: bytes) -> None:
        """Append. Raises ``SpoolError`` (``SpoolFull``) when it cannot."""

    async def finish(self) -> Body:
        """Sync it to disk and return it, to be named in a ``NewMessage``."""

    async def abandon(self) -> None:
        """Throw it away."""


class InHand(Protocol):
    """Remembers over a crash which messages were being attempted.

    A message that was in hand at several crashes (``crashes_max``) is put aside.
    """

    def begin(self, queue_id: QueueId) -> None:
        """Note that an attempt begins."""

    def done(self, queue_id: QueueId) -> None:
        """Note that one attempt of this message is over."""


class Spool(Protocol):
    """One shard of the queue, held by one worker."""

    @property
    def shard(self) -> int:
        """The number of this shard."""

    @property
    def last_number(self) -> int:
        """The largest number of a queue id ever given out here, 0 if none was."""

    @property
    def body_memory_octets_max(self) -> int:
        """Bodies up to this size are kept in the row; larger ones want a writer."""

    def body_writer(self, queue_id: QueueId) -> BodyWriter:
        """Begin a large body."""

    def check_space(self, octets: int) -> bool:
        """Whether about ``octets`` more may be taken: a cached answer, no disk work."""

    def expect(self, messages: int) -> None:
        """Take the hint that so many more messages are being received.

        Negative when they have come, or will not. While some are on their way a
        commit may be delayed by a few milliseconds, to be shared by more of them.
        """

    @property
    def is_receiving(self) -> bool:
        """Whether messages are on their way, as ``expect`` was told."""

    @property
    def is_counting(self) -> bool:
        """Whether an operator waits for a ``shape``."""

    async def accept(
        self, message: NewMessage, *, claim: bool = False
    ) -> Sequence[Lease]:
        """Make a message durable; returns after the commit.

        With ``claim``, its READY and EXPANDING recipients that are due are leased at
        once, one lease per route, so that they need not be read back.

        Raises:
            SpoolError: nothing was kept.
        """

    async def claim(
        self, hop: str, lane: int | None, count: int, now: Now
    ) -> Sequence[Lease]:
        """Lease up to ``count`` messages that are due for a hop, oldest due first.

        Each lease has up to ``recipients_per_lease_max`` recipients of one message.
        The hop ``""`` means recipients still to be expanded.
        """

    async def settle(
        self,
        lease: Lease,
        settled: Sequence[Settle],
        new: Sequence[NewMessage] = (),
    ) -> None:
        """Give back a lease with results, and queue reports, in one transaction.

        Leased recipients that ``settled`` does not name go back unchanged.

        Raises:
            Fenced: the lease is stale; nothing was changed.
            SpoolError: nothing was changed; the lease is still held.
        """

    async def expand(
        self,
        lease: Lease,
        number: int,
        children: Sequence[NewRecipient],
        cursor: int | None,
        new: Sequence[NewMessage] = (),
    ) -> int:
        """Add children of an EXPANDING recipient, at most 1,000 a call.

        Returns how many were added: they are unique per message and address, and
        those already there are skipped.
        ``cursor`` is where to go on after a crash; None ends the expansion, and the
        parent is gone. ``new`` are second envelopes (lists with an owner).
        """

    async def due_hops(self, now: Now, limit: int) -> Sequence[DueHop]:
        """Return hops with something due now and not leased, earliest first.

        Those that rest are left out.
        """

    async def next_due_us(self) -> int | None:
        """When the next recipient that is not leased falls due; None if none waits.

        Nothing at a hop that rests is due before the end of the rest.
        """

    @property
    def has_rests(self) -> bool:
        """Whether some hop rests, or did and has not been heard of since."""

    def rest_of(self, hop: str) -> Rest | None:
        """Return a hop's rest, which may be over by now; None if it has none."""

    async def rest(self, hop: str, rest: Rest) -> None:
        """Leave a hop alone for a while: no recipient is changed by that.

        It is kept over a restart. Operators see its text as the reason, and its end as
        the time of the next try, of all that waits for the hop.
        """

    async def end_rests(self, hops: Sequence[str] | None = None) -> None:
        """Let hops be found due again; without ``hops`` all of them."""

    async def claim_elders(
        self, patience: Patience, now: Now
    ) -> Sequence[Lease] | None:
        """Lease some messages at resting hops that are older than ``patience`` bears.

        The sender was not warned yet, or they are to be given up. Each call goes on
        behind the one before, looking at a bounded number of messages; None says that
        the round is over, and the next call begins another.
        """

    async def claim_messages(
        self, queue_ids: Sequence[QueueId], now: Now
    ) -> Sequence[Lease]:
        """Lease recipients of some messages that wait for resting hops."""

    def entries(
        self, wanted: QueueFilter, *, page: int = 200
    ) -> AsyncIterator[Sequence[Entry]]:
        """Yield matching entries, oldest first, in short pages."""

    async def counts(self) -> dict[str, int]:
        """Return ``messages``, ``recipients``, ``octets`` and counts per state."""

    def carry_out(
        self, order: Order, wanted: QueueFilter, now: Now
    ) -> AsyncIterator[Handled]:
        """Do what an operator orders to matching messages; yields after each page.

        ``Hold``, ``Release``, ``Retry`` and ``Requeue`` concern matching recipients,
        ``TakeOut`` whole messages.

        Raises:
            SpoolError: it could not be done; the pages before were.
        """

    def give_up(
        self,
        wanted: QueueFilter,
        now: Now,
        farewell: Callable[[Lease, Sequence[str]], Awaitable[Sequence[NewMessage]]],
    ) -> AsyncIterator[Handled]:
        """Take matching recipients of any state out, with reports about them.

        ``farewell`` is given the recipients of one message, and why each waited; the
        reports it makes are queued in the transaction that takes the recipients out.

        Raises:
            SpoolError: it could not be done; the messages before were.
        """

    async def recipients(
        self, queue_id: QueueId, after: int, limit: int
    ) -> Sequence[EntryRecipient]:
        """Return recipients of a message behind number ``after``, in order."""

    async def kept(self, queue_id: QueueId) -> "Kept | None":
        """Return a message with its content, None if it is not here.

        Raises:
            SpoolError: it is here and cannot be read.
        """

    async def raw(self, queue_id: QueueId) -> Message | None:
        """Return the stored octets of a message, readable or not, without edits."""

    async def shape(self, now: Now) -> "Shape":
        """Count exactly what waits, by destination and age, and by sender's domain."""

    async def retry(self, wanted: QueueFilter, now: Now) -> int:
        """Make matching waiting recipients due now; returns how many messages."""

    async def remove(self, wanted: QueueFilter) -> Sequence[QueueId]:
        """Remove matching messages that are not being delivered; returns their ids."""

    async def hold(self, wanted: QueueFilter, reason: str) -> int:
        """Keep matching waiting recipients from being tried; returns messages."""

    async def release(self, wanted: QueueFilter, now: Now) -> int:
        """Let matching held and shunted recipients be tried now; returns messages."""

    @property
    def in_hand(self) -> InHand:
        """Where the worker notes what it is attempting, for the case of a crash."""

    async def aclose(self) -> None:
        """Finish what is pending, then let go of the shard."""


__all__ = [
    "BodyWriter",
    "DueHop",
    "Edit",
    "Entry",
    "EntryRecipient",
    "Fenced",
    "Handled",
    "Hold",
    "InHand",
    "Lease",
    "NewMessage",
    "NewRecipient",
    "Order",
    "Patience",
    "QueueFilter",
    "RecipientState",
    "Release",
    "Requeue",
    "Rest",
    "Retry",
    "Settle",
    "Spool",
    "SpoolError",
    "SpoolFull",
    "TakeOut",
    "disk_error",
]
