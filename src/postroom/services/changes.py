"""Applying what the ``message`` phase wants changed."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, assert_never

from postroom.mail.address import Address
from postroom.mail.envelope import Recipient
from postroom.mail.message import (
    Add,
    MemoryBody,
    Message,
    Prepend,
    Remove,
    Replace,
)
from postroom.mail.reply import Reply
from postroom.mail.verdict import (
    AddRecipient,
    Change,
    Quarantine,
    RefuseRecipient,
    RemoveRecipient,
    ReplaceBody,
)
from postroom.route.drive import Facts, drive
from postroom.route.router import Router
from postroom.services.accept import Routed


class Changed(NamedTuple):
    """A message on its way into the queue; ``held`` is the reason of a quarantine.

    ``refused`` are the recipients that do not get it, with what the client is told;
    ``unknown`` those that were to be added and are nobody, ``removed`` those that were
    accepted and are taken away.
    """

    message: Message
    routed: Sequence[Routed]
    held: str = ""
    refused: Mapping[Address, Reply] = MappingProxyType({})
    unknown: Sequence[Address] = ()
    removed: Sequence[Address] = ()


async def apply_changes(
    begun: Changed, changes: Sequence[Change], router: Router, facts: Facts
) -> Changed:
    """Return the message, its recipients and its state with all changes made.

    A recipient that is added goes through the router like any other; one the router
    does not know, or that is there already, is left out. One that cannot be looked up
    now is looked up after acceptance, as an alias is. The case of recipients does not
    matter, so that none is missed. What was received stays as it is: changes to the
    header are kept as edits.
    """
    message, held = begun.message, begun.held
    people: dict[tuple[str, str], list[Routed]] = {}
    for one in begun.routed:
        people.setdefault(_key(one.recipient.address), []).append(one)
    refused: dict[Address, Reply] = {}
    unknown: list[Address] = []
    removed: list[Address] = []
    for change in changes:
        match change:
            case Prepend() | Add() | Remove() | Replace():
                edits = (*message.edits, change)
                message = Message(
                    message.header,
                    message.body,
                    edits,
                    has_separator=message.has_separator,
                )
            case ReplaceBody(body):
                message = Message(message.header, MemoryBody(body), message.edits)
            case AddRecipient(address, notify):
                routing = await drive(router.classify(address), facts)
                if routing.kind == "unknown":
                    unknown.append(address)
                else:
                    added = Routed(Recipient(address, notify), routing.to_route())
                    people.setdefault(_key(address), [added])
            case RefuseRecipient(address, reply):
                those = people.pop(_key(address), [])
                refused |= {one.recipient.address: reply for one in those}
            case RemoveRecipient(address):
                those = people.pop(_key(address), [])
                removed += (one.recipient.address for one in those)
            case Quarantine(reason):
                held = reason
            case _:
                assert_never(change)
    routed = [one for those in people.values() for one in those]
    return Changed(message, routed, held, refused, unknown, removed)


def _key(address: Address) -> tuple[str, str]:
    return address.local.lower(), address.domain_key
