"""What is asked of a worker about its queue, and the parts of the answers.

These values travel as JSON between a command and a worker's control socket.
"""

from typing import Literal

import msgspec

from postroom.mail.envelope import Envelope
from postroom.spool.selection import HELD_BY, TEXT_CHARACTERS_MAX, QueueFilter
from postroom.spool.spool import Entry, Hold, Order

PIECE_OCTETS = 256 * 1024
"""How much of a body travels at a time."""


class Ordered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An order and the messages that are meant.

    ``by`` names on whose behalf a worker asks another; from anybody else it is
    ignored. ``quarantine`` makes the text of ``Hold`` the reason of a quarantine, as
    it stands.
    """

    order: Order
    wanted: QueueFilter
    by: str = ""
    quarantine: bool = False

    def __post_init__(self) -> None:
        """Refuse a reason that is none."""
        if isinstance(self.order, Hold):
            check_reason(self.order.text)

    def order_of(self, user: str) -> Order:
        """Return the order as it is carried out for ``user``: the reason names them."""
        order = self.order
        if not isinstance(order, Hold):
            return order
        if self.quarantine and order.text:
            return order
        return Hold(f"{HELD_BY}{user}: {order.text}".removesuffix(": "))


class GivenUp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Return matching recipients to the sender now; the reason is told."""

    wanted: QueueFilter
    reason: str = ""
    by: str = ""

    def __post_init__(self) -> None:
        """Refuse a reason that is none."""
        check_reason(self.reason)


class Letters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Send matching messages whole; ``raw`` as they lie there, without our edits.

    ``head_only`` leaves the bodies out.
    """

    wanted: QueueFilter
    raw: bool = False
    head_only: bool = False


class Recipients(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Send the recipients of a message behind number ``after``."""

    queue_id: str
    after: int


class Letter(msgspec.Struct, frozen=True, tag="letter"):
    """The beginning of a message; ``Piece`` by ``Piece`` its body follows.

    Attributes:
        entry: what stands in the queue.
        envelope: the whole envelope without recipients; None if it cannot be read.
        head: the header block, our edits applied, and the empty line.
        body_octets: how much follows.
        problem: why it cannot be read; then ``head`` is as stored.
    """

    entry: Entry
    envelope: Envelope | None
    head: bytes
    body_octets: int
    problem: str = ""


class Piece(msgspec.Struct, frozen=True, tag="piece"):
    """A part of a body."""

    data: bytes


LetterPart = Letter | Piece


class Counted(msgspec.Struct, frozen=True):
    """How much matches: in all, or what a page adds."""

    messages: int = 0
    recipients: int = 0
    octets: int = 0

    def __add__(self, other: "Counted") -> "Counted":
        """Return the sums."""
        return Counted(
            self.messages + other.messages,
            self.recipients + other.recipients,
            self.octets + other.octets,
        )


class QueueCounts(msgspec.Struct, frozen=True):
    """What lies in one or more shards, by name as ``Spool.counts`` gives it."""

    counts: dict[str, int] = {}

    def __add__(self, other: "QueueCounts") -> "QueueCounts":
        """Return the sums."""
        names = [*self.counts, *(n for n in other.counts if n not in self.counts)]
        mine, theirs = self.counts, other.counts
        return QueueCounts({n: mine.get(n, 0) + theirs.get(n, 0) for n in names})


class HopNow(msgspec.Struct, frozen=True):
    """How a worker gets on with a destination just now.

    ``rests_us`` is for how long it is still left alone, 0 if it is not; ``window`` how
    many connections it is trusted with.
    """

    hop: str
    rests_us: int
    window: int


Act = Literal["hold", "release", "retry", "requeue", "remove", "bounce"]


def check_reason(text: str) -> None:
    """Check what an operator gives as a reason.

    Raises:
        ValueError: it would not fit on a line.
    """
    if len(text) > TEXT_CHARACTERS_MAX or not text.isprintable():
        raise ValueError(f"a reason is one line of up to {TEXT_CHARACTERS_MAX} letters")
