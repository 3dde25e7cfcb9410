"""Acceptance: from a complete transaction to a durable queue entry.

Everything that takes mail (SMTP, the ``sendmail`` command, reports) ends here. What
the router said becomes the recipients' routes; the spool makes the message durable;
the dispatcher is told. If the spool cannot, ``SpoolError`` passes through and nothing
was acknowledged.
"""

from asyncio import Future
from collections.abc import Sequence
from typing import NamedTuple

from postroom.mail.address import Address
from postroom.mail.envelope import Envelope, Recipient
from postroom.mail.headers import find
from postroom.mail.ids import QueueId
from postroom.mail.message import Message
from postroom.mail.now import Now
from postroom.mail.outcome import Say
from postroom.mail.route import Route
from postroom.observe.events import MessageQueued
from postroom.route.routing import LocalUser, Routing
from postroom.services.dispatch import Dispatcher
from postroom.services.lanes import lane_of, prioritised
from postroom.services.workshop import Workshop
from postroom.spool.spool import NewMessage, NewRecipient, RecipientState


class Routed(NamedTuple):
    """A recipient with where the router sends it; None: an alias, to be expanded."""

    recipient: Recipient
    route: Route | None


def one_copy(address: Address, routing: Routing) -> object:
    """Return what recipients have in common who are one and get one copy.

    Domains in other letters are the same, and so are local users (RFC 5321 §2.4).
    """
    if isinstance(routing, LocalUser):
        return routing.user.lower(), routing.detail, address.domain_key
    if address.domain.islower():
        return address
    return Address(address.local, address.domain_key)


class Acceptor:
    """Queues messages and hands them on."""

    def __init__(self, shop: Workshop, dispatcher: Dispatcher) -> None:
        self._shop = shop
        self._dispatcher = dispatcher

    def next_id(self, now: Now) -> QueueId:
        """Return the id that the next message will have."""
        return self._shop.ids.next(now.utc_us)

    async def accept(
        self,
        queue_id: QueueId,
        envelope: Envelope,
        message: Message,
        routed: Sequence[Routed],
        *,
        held: str = "",
        say: Say | None = None,
    ) -> Future[None] | None:
        """Make a message durable and send it on its way; returns after the commit.

        ``held`` is the reason of a quarantine: the message is kept but waits for an
        operator. ``say`` is told the dialogue of the first attempts; the future that
        is returned then is done when every recipient has been tried once.

        Raises:
            SpoolError: it could not be kept; nothing was acknowledged.
        """
        now = self._shop.clock()
        lane = self._lane(envelope, message.size, len(routed), now)
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
        listeners = self._dispatcher.listeners
        waits = bool(held) or envelope.hold_until_us > envelope.arrival_us
        finished = None
        if say and not waits:  # else there is nothing to hear for a long time
            finished = listeners.add(queue_id, say, len(recipients))
        try:
            await self._queue(new, now, waits=waits)
        except BaseException:
            listeners.remove(queue_id)
            raise
        self._shop.emit(
            MessageQueued(
                utc_us=envelope.arrival_us,
                queue_id=queue_id,
                sender=envelope.sender,
                size_octets=message.size,
                recipients=len(routed),
                message_id=message_id,
                origin=envelope.origin,
                priority=envelope.priority,
            )
        )
        return finished

    def _lane(self, envelope: Envelope, size: int, recipients: int, now: Now) -> int:
        shop, sender = self._shop, envelope.sender
        name = f"{sender.local}@{sender.domain}"
        grade = shop.senders.grade(name, recipients, now.mono_us)
        if envelope.priority:  # RFC 6710 §5.1
            grade = prioritised(grade, envelope.priority)
        return lane_of(sender, size, shop.lanes, grade)

    async def _queue(self, new: NewMessage, now: Now, *, waits: bool) -> None:
        lane = new.recipients[0].lane
        hops = {r.route.hop if r.route else "" for r in new.recipients}
        # One hop is the common case and may go at once, without being read back.
        at_once = (
            not waits
            and len(hops) == 1
            and self._dispatcher.admit(next(iter(hops)), lane, now)
        )
        try:
            leases = await self._shop.spool.accept(new, claim=at_once)
        except BaseException:
            if at_once:
                self._dispatcher.withdraw(next(iter(hops)), lane)
            raise
        if leases:
            self._dispatcher.start(leases)
        elif at_once:  # the clock went back: it is not due yet
            self._dispatcher.withdraw(next(iter(hops)), lane)
            self._dispatcher.look_again()
        elif not waits:
            for hop in hops:
                self._dispatcher.due(hop, lane)
        else:
            self._dispatcher.look_again()


def _message_id(header: bytes) -> str:
    value = find(header, "Message-Id")
    return value.strip().decode("ascii", "replace")[:998] if value else ""
