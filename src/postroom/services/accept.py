"""Acceptance: from a complete transaction to a durable queue entry.

Everything that takes mail (SMTP, the ``sendmail`` command, reports) ends here. What
the router said becomes the recipients' routes; the spool makes the message durable;
the dispatcher is told. If the spool cannot, ``SpoolError`` passes through and nothing
was acknowledged.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple
from zlib import crc32

from postroom.mail.address import Address
from postroom.mail.envelope import Envelope, Recipient
from postroom.mail.headers import find
from postroom.mail.ids import QueueId, QueueIds
from postroom.mail.message import Message
from postroom.mail.now import Now
from postroom.mail.outcome import Say
from postroom.mail.route import Route
from postroom.observe.events import AnyEvent, MessageQueued
from postroom.services.dispatch import Dispatcher
from postroom.spool.spool import NewMessage, NewRecipient, RecipientState, Spool

LARGE_OCTETS = 128 * 1024
"""From this size on a message has lanes of its own beside the small ones'."""


class Routed(NamedTuple):
    """A recipient with where the router sends it; None: an alias, to be expanded."""

    recipient: Recipient
    route: Route | None


def lane_of(sender: Address, size: int, lanes: int) -> int:
    """Return the lane: a small hash of the sender, large messages apart."""
    lane = crc32(f"{sender.local}@{sender.domain}".encode()) % lanes
    return lane + lanes if size > LARGE_OCTETS else lane


class Acceptor:
    """Queues messages and hands them on."""

    def __init__(
        self,
        spool: Spool,
        ids: QueueIds,
        dispatcher: Dispatcher,
        emit: Callable[[AnyEvent], None],
        clock: Callable[[], Now],
        *,
        lanes: int,
    ) -> None:
        self._spool = spool
        self._ids = ids
        self._dispatcher = dispatcher
        self._emit = emit
        self._clock = clock
        self._lanes = lanes

    def next_id(self, now: Now) -> QueueId:
        """Return the id that the next message will have."""
        return self._ids.next(now.utc_us)

    async def accept(
        self,
        queue_id: QueueId,
        envelope: Envelope,
        message: Message,
        routed: Sequence[Routed],
        *,
        held: str = "",
        say: Say | None = None,
    ) -> None:
        """Make a message durable and send it on its way; returns after the commit.

        ``held`` is the reason of a quarantine: the message is kept but waits for an
        operator. ``say`` is told the dialogue of the first attempts.

        Raises:
            SpoolError: it could not be kept; nothing was acknowledged.
        """
        lane = lane_of(envelope.sender, message.size, self._lanes)
        state = RecipientState.HELD if held else RecipientState.READY
        recipients = tuple(
            NewRecipient(
                address=recipient.address,
                route=route,
                lane=lane,
                due_us=max(envelope.arrival_us, envelope.hold_until_us),
                notify=recipient.notify,
                orcpt=recipient.orcpt,
                state=state if route or held else RecipientState.EXPANDING,
                status_text=held,
            )
            for recipient, route in routed
        )
        message_id = _message_id(message.header)
        new = NewMessage(
            queue_id=queue_id,
            envelope=envelope,
            message=message,
            recipients=recipients,
            message_id=message_id,
        )
        if say is not None:
            self._dispatcher.listen(queue_id, say)
        waits = bool(held) or envelope.hold_until_us > envelope.arrival_us
        await self._queue(new, waits=waits)
        self._emit(
            MessageQueued(
                utc_us=envelope.arrival_us,
                queue_id=queue_id,
                sender=envelope.sender,
                size_octets=message.size,
                recipients=len(routed),
                message_id=message_id,
                origin=envelope.origin,
            )
        )

    async def _queue(self, new: NewMessage, *, waits: bool) -> None:
        lane = new.recipients[0].lane
        hops = {r.route.hop if r.route else "" for r in new.recipients}
        now = self._clock()
        # One hop is the common case and may go at once, without being read back.
        at_once = (
            not waits
            and len(hops) == 1
            and self._dispatcher.admit(next(iter(hops)), lane, now)
        )
        try:
            leases = await self._spool.accept(new, claim=at_once)
        except BaseException:
            if at_once:
                self._dispatcher.withdraw(next(iter(hops)), lane)
            raise
        if at_once:
            self._dispatcher.start(leases)
        elif not waits:
            for hop in hops:
                self._dispatcher.due(hop, lane)
        else:
            self._dispatcher.look_again()


def _message_id(header: bytes) -> str:
    value = find(header, "Message-Id")
    return value.strip().decode("ascii", "replace")[:998] if value else ""
