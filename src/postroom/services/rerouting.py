"""What the site's ``route`` hooks say of those whom an alias stands for.

They are asked as for every recipient, only later: when the alias is expanded. Who is
refused is reported, who is discarded is told of in the log. Who is deferred waits by
himself and is asked for again; but a user of ours might be an alias as well, whose
other members must not get another copy: then the whole alias waits.
"""

from typing import assert_never

import msgspec

from postroom.mail.address import Address
from postroom.mail.redirection import list_envelope
from postroom.mail.route import Route
from postroom.mail.verdict import Defer, Discard, Reject
from postroom.observe.events import RecipientDiscarded
from postroom.policy.session import RouteSubject, Session
from postroom.route.expansion import Child, Expansion, Problem
from postroom.route.routing import LocalUser, Relay, RoutingFailed, Unroutable
from postroom.services.workshop import Workshop
from postroom.spool.spool import Lease


async def rerouted(
    found: Expansion, parent: Address, lease: Lease, shop: Workshop
) -> Expansion | RoutingFailed:
    """Return what has been found of an alias as the ``route`` hooks want it.

    ``parent`` is the recipient that is expanded. ``RoutingFailed``: not now.
    """
    chain = shop.generation().chain
    if not chain.has("route"):
        return found
    envelope = lease.envelope
    session = Session(origin=envelope.origin, opened_us=envelope.arrival_us)
    children: list[Child] = []
    problems = list(found.problems)
    for child in found.children:
        route, owner = child.route, child.owner
        if route is None:
            children.append(child)
            continue
        sender = list_envelope(envelope, owner).sender if owner else envelope.sender
        subject = RouteSubject(child.address, route, sender, lease.queue_id)
        choice = await chain.choose(session, subject)
        match choice:
            case Route():
                if choice != route:
                    child = msgspec.structs.replace(child, routing=Relay(choice))
                children.append(child)
            case Reject(reply):
                target, status = child.address.to_text(), reply.status or "5.0.0"
                problems.append(Problem(target, "", status, reply.text, owner))
            case Defer(reply, rule):
                if isinstance(child.routing, LocalUser) or child.address == parent:
                    return RoutingFailed(reply.text)
                status = reply.status or "4.0.0"
                waits = Unroutable(reply.text, rule, status, reply.code)
                children.append(msgspec.structs.replace(child, routing=waits))
            case Discard(reason):
                shop.emit(
                    RecipientDiscarded(
                        utc_us=shop.now_us(),
                        queue_id=lease.queue_id,
                        recipient=child.address,
                        reason=reason,
                    )
                )
            case _:
                assert_never(choice)
    return msgspec.structs.replace(
        found, children=tuple(children), problems=tuple(problems)
    )
