"""Turns the recipients that are aliases into those they stand for, after acceptance.

An alias is walked once, in chunks; each chunk is one transaction with the cursor where
to go on, so that a crash repeats nothing and loses nothing. Members of a list with an
owner get a second envelope, whose sender is the owner. What cannot be delivered to is
reported to the sender in the same transaction. If a table cannot answer now, the
recipient waits like any deferred one.
"""

from collections.abc import Sequence

import msgspec

from postroom.mail.address import Address
from postroom.mail.envelope import Recipient
from postroom.mail.now import Now
from postroom.mail.outcome import Deferred, Failed
from postroom.mail.route import Route
from postroom.observe.events import AttemptDone, RecipientExpanded
from postroom.route.drive import drive
from postroom.route.expansion import Child, Expansion, Problem
from postroom.route.routing import RoutingFailed
from postroom.services.lanes import lane_of
from postroom.services.listeners import Listeners
from postroom.services.report import Reported, Reporter
from postroom.services.settle import Settler
from postroom.services.workshop import Workshop
from postroom.spool.spool import Lease, NewMessage, NewRecipient

CHILDREN_MAX = 1000
"""Recipients added in one transaction."""

HopLane = tuple[str, int]


class Expander:
    """Expands what one worker has leased for it."""

    def __init__(
        self,
        shop: Workshop,
        settler: Settler,
        reporter: Reporter,
        listeners: Listeners,
    ) -> None:
        self._shop = shop
        self._settler = settler
        self._reporter = reporter
        self._listeners = listeners

    async def expand(self, lease: Lease) -> set[HopLane]:
        """Expand every recipient of a lease; returns where mail is due now.

        Raises:
            SpoolError: it could not be kept; what was not done is done again later.
        """
        due: set[HopLane] = set()
        for index in range(len(lease.numbers)):
            due |= await self._expand_one(lease, index)
        return due

    async def _expand_one(self, lease: Lease, index: int) -> set[HopLane]:
        generation = self._shop.generation()
        recipient = lease.envelope.recipients[index]
        walk = generation.router.walk(recipient.address, lease.cursor)
        due: set[HopLane] = set()
        children = 0
        while True:
            found = await drive(walk.chunk(CHILDREN_MAX), generation.facts)
            if isinstance(found, RoutingFailed):
                await self._defer(lease, index, found)
                return due
            self._narrate(lease, found)
            new = await self._second_envelopes(lease, recipient, found)
            own = [
                self._child(child, recipient, lease)
                for child in found.children
                if child.owner is None
            ]
            now = self._shop.clock()
            reports = await self._reports(lease, recipient, found.problems, now)
            number = lease.numbers[index]
            added = (*new, *reports)
            spool = self._shop.spool
            children += await spool.expand(lease, number, own, found.cursor, added)
            for clone in new:
                members = len(clone.recipients)
                self._listeners.follow(lease.queue_id, clone.queue_id, members)
            self._tell(lease, recipient, found, now)
            due |= {(_hop(c.route), c.lane) for c in own}
            due |= {(_hop(r.route), r.lane) for n in added for r in n.recipients}
            if found.cursor is None:
                self._listeners.tried(lease.queue_id, 1, more=children)
                return due

    def _child(self, child: Child, parent: Recipient, lease: Lease) -> NewRecipient:
        now = self._shop.clock()
        return NewRecipient(
            address=child.address,
            route=child.route,
            lane=lane_of(lease.envelope.sender, lease.message.size, self._shop.lanes),
            due_us=now.utc_us,
            notify=parent.notify,
            orcpt=parent.orcpt,
        )

    async def _second_envelopes(
        self, lease: Lease, parent: Recipient, found: Expansion
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
                    envelope=msgspec.structs.replace(lease.envelope, sender=owner),
                    message=lease.message,
                    recipients=tuple(
                        self._child(child, parent, lease) for child in children
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
            by_owner.setdefault(problem.owner, []).append(Reported(recipient, failed))
            self._shop.emit(
                AttemptDone(
                    utc_us=now.utc_us,
                    queue_id=lease.queue_id,
                    recipient=recipient.address,
                    outcome=failed,
                    agent="alias",
                    tries=1,
                    delay_us=max(now.utc_us - lease.envelope.arrival_us, 0),
                    transfer_us=0,
                )
            )
        for owner, reported in by_owner.items():
            told = lease
            if owner is not None:
                envelope = msgspec.structs.replace(lease.envelope, sender=owner)
                told = msgspec.structs.replace(lease, envelope=envelope)
            new.extend(await self._reporter.report(told, reported, (), now))
        return tuple(new)

    async def _defer(self, lease: Lease, index: int, found: RoutingFailed) -> None:
        one = _only(lease, index)
        now = self._shop.clock()
        outcome = Deferred("4.3.0", found.reason)
        settled, new = await self._settler.judge(one, [outcome], now)
        await self._shop.spool.settle(one, settled, new)
        self._listeners.tried(lease.queue_id, 1)

    def _narrate(self, lease: Lease, found: Expansion) -> None:
        say = self._listeners.say_of(lease.queue_id)
        if say is not None:
            for line in found.trace:
                say(line)
            for problem in found.problems:
                say(f"{problem.target}... {problem.text}")

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


def _hop(route: Route | None) -> str:
    return route.hop if route else ""
