"""Turns the recipients that are aliases into those they stand for, after acceptance.

An alias is walked once, in chunks; each chunk is one transaction with the cursor where
to go on, so that a crash repeats nothing and loses nothing. Members of a list with an
owner get a second envelope, whose sender is the owner. What cannot be delivered to is
reported to the sender in the same transaction. If a table cannot answer now, the
recipient waits like any deferred one.

A list of 100,000 is minutes of work in small pieces: after each chunk the expansion
rests three times as long as it kept the worker busy, and what it makes is graded as a
list's, so that others' mail goes on as if nothing were there.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence

import msgspec

from postroom.agents.smtp_words import told
from postroom.limits.grades import Grade, grade_of
from postroom.mail.address import Address, AddressError
from postroom.mail.envelope import Recipient
from postroom.mail.now import SECOND_US, Now
from postroom.mail.outcome import Deferred, Delivered, Failed
from postroom.mail.redirection import (
    Redirection,
    Wishes,
    list_envelope,
    list_message,
    wishes_behind,
)
from postroom.mail.reported import ReportKind
from postroom.mail.route import Route
from postroom.mail.trace import was_delivered_to
from postroom.observe.events import AttemptDone, MessageQueued, RecipientExpanded
from postroom.route.drive import drive
from postroom.route.expansion import Child, Course, Expansion, Problem
from postroom.route.routing import RoutingFailed
from postroom.services.attempts import Observers, Span, Tried, events_of
from postroom.services.lanes import lane_of
from postroom.services.listeners import Listeners
from postroom.services.report import Reported, Reporter
from postroom.services.rerouting import rerouted
from postroom.services.settle import Settler
from postroom.services.workshop import Workshop
from postroom.spool.spool import Lease, NewMessage, NewRecipient

CHILDREN_MAX = 250
"""Recipients added in one transaction, and worked at without a pause."""
_REST = 3
"""Expansion has one part of the worker's time and leaves so many to others."""
_PASSED_ON = "Passed on to those whom the address stands for"

HopLane = tuple[str, int]
Look = Callable[[Iterable[HopLane]], None]
"""Told where mail has become due."""


class Expander:
    """Expands what one worker has leased for it."""

    def __init__(
        self,
        shop: Workshop,
        settler: Settler,
        reporter: Reporter,
        listeners: Listeners,
        observers: Observers,
    ) -> None:
        self._observers = observers
        self._shop = shop
        self._settler = settler
        self._reporter = reporter
        self._listeners = listeners

    async def expand(self, lease: Lease, look: Look) -> None:
        """Expand every recipient of a lease; ``look`` is told of what becomes due.

        Raises:
            SpoolError: it could not be kept; what was not done is done again later.
        """
        for index in range(len(lease.numbers)):
            await self._expand_one(lease, index, look)

    async def _expand_one(self, lease: Lease, index: int, look: Look) -> None:
        generation = self._shop.generation()
        recipient = lease.envelope.recipients[index]
        if was_delivered_to(lease.message.header, recipient.address):
            text = f"mail forwarding loop for {recipient.address}"
            return await self._end(lease, index, Failed("5.4.6", text))
        walk = generation.router.walk(recipient.address, lease.cursor)
        course = Course(lease.cursor)
        children = 0
        while True:
            began_us = self._shop.clock().mono_us
            found = await drive(walk.chunk(CHILDREN_MAX), generation.facts)
            if isinstance(found, Expansion):
                found = await rerouted(found, recipient.address, lease, self._shop)
            if isinstance(found, RoutingFailed):
                return await self._end(lease, index, Deferred("4.3.0", found.reason))
            self._narrate(lease, found)
            lane = self._lane(lease, found, children)
            course.take(found)
            new = await self._second_envelopes(lease, recipient, found, lane)
            wishes = wishes_behind(recipient, course.of_members)
            own = [
                self._child(child, wishes, lane)
                for child in found.children
                if child.owner is None
            ]
            now = self._shop.clock()
            reports = await self._reports(lease, recipient, found.problems, now)
            if found.cursor is None and (kind := course.to_report) is not None:
                reported = Reported(recipient, Delivered("2.1.5", _PASSED_ON))
                happened = {kind: [reported]}
                reports += await self._reporter.report(lease, happened, now)
            number = lease.numbers[index]
            added = (*new, *reports)
            spool = self._shop.spool
            children += await spool.expand(lease, number, own, found.cursor, added)
            for clone in new:
                members = len(clone.recipients)
                self._listeners.follow(lease.queue_id, clone.queue_id, members)
                self._tell_queued(clone, lease, now)
            self._tell(lease, recipient, found, now)
            due = {(_hop(c.route), c.lane) for c in own}
            due |= {(_hop(r.route), r.lane) for n in added for r in n.recipients}
            look(due)
            if found.cursor is None:
                return self._listeners.tried(lease.queue_id, 1, more=children)
            await asyncio.sleep((now.mono_us - began_us) * _REST / SECOND_US)

    def _lane(self, lease: Lease, found: Expansion, before: int) -> int:
        """Return the lane of those that an alias stands for: a list's has its own."""
        grade = Grade(grade_of(lease.lane))
        count = before + len(found.children)
        is_part = lease.cursor > 0 or found.cursor is not None
        if is_part or count > self._shop.senders.list_recipients:
            grade = Grade.LIST
        sender, size = lease.envelope.sender, lease.message.size
        return lane_of(sender, size, self._shop.lanes, grade)

    def _child(self, child: Child, wishes: Wishes, lane: int) -> NewRecipient:
        now = self._shop.clock()
        return NewRecipient(
            address=child.address,
            route=child.route,
            lane=lane,
            due_us=now.utc_us,
            notify=wishes.notify,
            orcpt=wishes.orcpt,
        )

    async def _second_envelopes(
        self, lease: Lease, parent: Recipient, found: Expansion, lane: int
    ) -> list[NewMessage]:
        """Make one message per owner of a list, on the same body."""
        new = []
        for owner, children in found.by_owner().items():
            if owner is None:
                continue
            queue_id = self._shop.ids.next(self._shop.now_us())
            new.append(
                NewMessage(
                    queue_id=queue_id,
                    envelope=list_envelope(lease.envelope, owner),
                    message=list_message(lease.message, parent.address),
                    recipients=tuple(
                        self._child(child, Wishes(), lane) for child in children
                    ),
                    body_of=lease.queue_id,
                )
            )
            self._shop.emit(
                RecipientExpanded(
                    utc_us=self._shop.now_us(),
                    queue_id=lease.queue_id,
                    recipient=parent.address,
                    rule=f"owner={owner.to_text()}",
                    children=len(children),
                    clone=queue_id,
                )
            )
        return new

    async def _reports(
        self,
        lease: Lease,
        recipient: Recipient,
        problems: Sequence[Problem],
        now: Now,
    ) -> tuple[NewMessage, ...]:
        """Report targets that get nothing, to the list's owner or else the sender."""
        new: list[NewMessage] = []
        by_owner: dict[Address | None, list[Reported]] = {}
        for problem in problems:
            failed = Failed(problem.status, f"{problem.target}... {problem.text}")
            reported = Reported(_member(recipient, problem, self._shop), failed)
            by_owner.setdefault(problem.owner, []).append(reported)
            await self._tell_failed(lease, recipient, failed, now)
        for owner, failures in by_owner.items():
            told = lease
            if owner is not None:
                envelope = list_envelope(lease.envelope, owner)
                told = msgspec.structs.replace(lease, envelope=envelope)
            happened = {ReportKind.FAILED: failures}
            new.extend(await self._reporter.report(told, happened, now))
        return tuple(new)

    async def _end(self, lease: Lease, index: int, outcome: Deferred | Failed) -> None:
        """Settle a recipient that is not expanded now, or not at all."""
        one = _only(lease, index)
        now = self._shop.clock()
        settled, new = await self._settler.judge(one, [outcome], now)
        await self._shop.spool.settle(one, settled, new)
        tried = Tried(one, "alias", [outcome], settled, Span(now, now))
        for event in events_of(tried):
            self._shop.emit(event)
        if (say := self._listeners.say_of(lease.queue_id)) is not None:
            say(f"{one.envelope.recipients[0].address}... {told(outcome)}")
        self._listeners.tried(lease.queue_id, 1)
        await self._observers.tell(one.envelope, lambda: events_of(tried))

    async def _tell_failed(
        self, lease: Lease, recipient: Recipient, failed: Failed, now: Now
    ) -> None:
        event = AttemptDone(
            utc_us=now.utc_us,
            queue_id=lease.queue_id,
            recipient=recipient.address,
            outcome=failed,
            agent="alias",
            tries=1,
            delay_us=max(now.utc_us - lease.envelope.arrival_us, 0),
            transfer_us=0,
        )
        self._shop.emit(event)
        await self._observers.tell(lease.envelope, lambda: (event,))

    def _narrate(self, lease: Lease, found: Expansion) -> None:
        say = self._listeners.say_of(lease.queue_id)
        if say is not None:
            for line in found.told:
                say(line)

    def _tell_queued(self, clone: NewMessage, lease: Lease, now: Now) -> None:
        self._shop.emit(
            MessageQueued(
                utc_us=now.utc_us,
                queue_id=clone.queue_id,
                sender=clone.envelope.sender,
                size_octets=clone.message.size,
                recipients=len(clone.recipients),
                message_id=lease.message_id,
                origin=clone.envelope.origin,
                priority=clone.envelope.priority,
            )
        )

    def _tell(
        self, lease: Lease, recipient: Recipient, found: Expansion, now: Now
    ) -> None:
        own = sum(child.owner is None for child in found.children)
        if own:
            self._shop.emit(
                RecipientExpanded(
                    utc_us=now.utc_us,
                    queue_id=lease.queue_id,
                    recipient=recipient.address,
                    rule="alias",
                    children=own,
                )
            )


def _only(lease: Lease, index: int) -> Lease:
    """Return the lease narrowed to one of its recipients."""
    envelope = msgspec.structs.replace(
        lease.envelope, recipients=(lease.envelope.recipients[index],)
    )
    return msgspec.structs.replace(
        lease,
        envelope=envelope,
        numbers=(lease.numbers[index],),
        tries=(lease.tries[index],),
    )


def _member(parent: Recipient, problem: Problem, shop: Workshop) -> Recipient:
    """Return the target of an alias as a recipient, if it is an address."""
    wishes = Wishes() if problem.owner else wishes_behind(parent, Redirection.ALIAS)
    address = parent.address
    try:
        target = Address.from_text(problem.target.removeprefix("\\"))
    except AddressError:
        wishes = Wishes(wishes.notify, parent.orcpt)
    else:
        domain = target.domain or shop.generation().hostname
        address = Address(target.local, domain)
    return Recipient(address, wishes.notify, wishes.orcpt)


def _hop(route: Route | None) -> str:
    return route.hop if route else ""
