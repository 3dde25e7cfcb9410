"""Queue entries as rows of the tables, and back.

Writing turns a ``NewMessage`` into tuples, once, on the loop thread; reading turns
rows into leases. What cannot be read raises ``Unreadable``, and the entry is put aside.
"""

import msgspec

from postroom.mail.address import Address, AddressError
from postroom.mail.envelope import BodyType, Envelope, Origin, Recipient
from postroom.mail.ids import QueueId, from_number, to_number
from postroom.mail.message import Body, Edit, MemoryBody, Message
from postroom.mail.route import Route
from postroom.spool.bodies import FileBody
from postroom.spool.spool import (
    Lease,
    NewMessage,
    NewRecipient,
    RecipientState,
    Settle,
)

Value = int | str | bytes | None
Row = tuple[Value, ...]

ORIGINAL = -1
"""The parent of a recipient that came with the message, not from an alias."""

EDITS = msgspec.msgpack.Encoder()
_EDITS_DECODER = msgspec.msgpack.Decoder(tuple[Edit, ...])
_STATES = tuple(RecipientState)
_READY = RecipientState.READY
_EXPANDING = RecipientState.EXPANDING


class Unreadable(Exception):
    """A stored entry makes no sense; the text says what."""


class MessageRows(msgspec.Struct, frozen=True):
    """What one message adds to the tables.

    ``body_of`` is the number of the message whose body this one shares; the writer
    looks up the body behind it. ``octets`` is what the group grows by.
    """

    message: Row
    body: Row | None
    body_of: int
    recipients: list[Row]
    size: int
    octets: int


class MessageRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A row of ``messages`` without its edits, with what is needed of its body."""

    body: int
    size: int
    arrival: int
    sender: str
    message_id: str
    warned: int
    body_type: BodyType
    declared_size: int
    smtputf8: int
    ret: str
    envid: str
    auth: str
    requiretls: int
    deliver_by: str
    hold_until: int
    priority: int
    protocol: str
    client_ip: str
    client_port: int
    client_name: str
    helo: str
    login: str
    listener: str


MESSAGE_FIELDS = ", ".join(MessageRow.__struct_fields__)


class BodyRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The small columns of a row of ``bodies``."""

    has_separator: int
    size: int
    file: str | None


BODY_FIELDS = ", ".join(BodyRow.__struct_fields__)


class RecipientRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A row of ``recipients`` as far as a lease needs it."""

    message: int
    number: int
    state: RecipientState
    hop: str
    lane: int
    tries: int
    cursor: int
    address: str
    agent: str
    rule: str
    notify: str
    orcpt: str


RECIPIENT_FIELDS = ", ".join(RecipientRow.__struct_fields__)


def message_rows(new: NewMessage) -> MessageRows:
    """Turn a new message into rows.

    Raises:
        TypeError: its body is neither in memory nor a body file of this spool.
    """
    number = to_number(new.queue_id)
    envelope, message = new.envelope, new.message
    origin = envelope.origin
    body_of = 0 if new.body_of is None else to_number(new.body_of)
    body, size, octets = None, message.size, 0
    if not body_of:
        body, octets = _body_row(number, message)
    row: Row = (
        number,
        number,
        size,
        envelope.arrival_us,
        envelope.sender.to_text(),
        new.message_id,
        len(new.recipients),
        len(new.recipients),
        0,
        0,
        envelope.body.value,
        envelope.size,
        envelope.smtputf8,
        envelope.ret,
        envelope.envid,
        envelope.auth,
        envelope.requiretls,
        envelope.deliver_by,
        envelope.hold_until_us,
        envelope.priority,
        origin.protocol,
        origin.client_ip,
        origin.client_port,
        origin.client_name,
        origin.helo,
        origin.login,
        origin.listener,
        EDITS.encode(message.edits) if message.edits else b"",
    )
    recipients = [
        recipient_row(number, i, recipient, ORIGINAL)
        for i, recipient in enumerate(new.recipients)
    ]
    return MessageRows(row, body, body_of, recipients, size, octets)


def _body_row(number: int, message: Message) -> tuple[Row, int]:
    body, header = message.body, message.header
    match body:
        case MemoryBody():
            data = body.data
            row: Row = (number, message.has_separator, len(data), None, header, data)
            return row, len(header) + len(data)
        case FileBody():
            row = (number, message.has_separator, body.size, body.name, header, None)
            return row, len(header)
        case _:
            raise TypeError(f"a {type(body).__name__} cannot be queued: use a writer")


def recipient_row(message: int, number: int, new: NewRecipient, parent: int) -> Row:
    """Turn one new recipient into a row."""
    route, state = new.route, new.state
    if route is None:
        hop, agent, rule = "", "", ""
        if state is _READY:
            state = _EXPANDING
    else:
        hop, agent, rule = route.hop, route.agent, route.rule
    return (
        message,
        number,
        state,
        hop,
        new.lane,
        new.due_us,
        0,
        0,
        0,
        parent,
        new.address.to_text(),
        agent,
        rule,
        new.status_text,
        new.notify,
        new.orcpt,
    )


def later_row(message: int, each: Settle, state: RecipientState, last_us: int) -> Row:
    """Turn the result of a recipient that waits on into a row of changes."""
    route = each.route
    hop, agent, rule = (
        ("", "", "") if route is None else (route.hop, route.agent, route.rule)
    )
    return (
        message,
        each.number,
        state,
        each.due_us,
        1,
        last_us,
        each.status_text,
        route is not None,
        hop,
        agent,
        rule,
    )


class StoredMessage(msgspec.Struct, frozen=True):
    """A message read back: what all its leases share."""

    row: MessageRow
    sender: Address
    message: Message


def stored_message(row: MessageRow, edits: bytes, message: Message) -> StoredMessage:
    """Put a message together from its row and content.

    Raises:
        Unreadable: a column makes no sense.
    """
    try:
        if edits:
            done = _EDITS_DECODER.decode(edits)
            message = Message(message.header, message.body, done, message.has_separator)
        return StoredMessage(row, Address.from_text(row.sender), message)
    except (msgspec.MsgspecError, AddressError) as error:
        raise Unreadable(f"message row: {error}") from error


def content(row: BodyRow, header: bytes, body: Body) -> Message:
    """Put the content together.

    Raises:
        Unreadable: the content is not as long as it was.
    """
    if body.size != row.size:
        raise Unreadable(f"body has {body.size} octets instead of {row.size}")
    return Message(header, body, (), bool(row.has_separator))


def envelope_of(stored: StoredMessage, recipients: tuple[Recipient, ...]) -> Envelope:
    """Return the envelope of a stored message for some of its recipients."""
    row = stored.row
    return Envelope(
        sender=stored.sender,
        recipients=recipients,
        origin=Origin(
            row.protocol,
            row.client_ip,
            row.client_port,
            row.client_name,
            row.helo,
            row.login,
            row.listener,
        ),
        body=row.body_type,
        size=row.declared_size,
        smtputf8=bool(row.smtputf8),
        ret=row.ret,
        envid=row.envid,
        auth=row.auth,
        requiretls=bool(row.requiretls),
        deliver_by=row.deliver_by,
        hold_until_us=row.hold_until,
        priority=row.priority,
        arrival_us=row.arrival,
    )


def lease_of(stored: StoredMessage, rows: list[RecipientRow], fence: int) -> Lease:
    """Make the lease for recipients of one message that share route and lane.

    Raises:
        Unreadable: a recipient's address makes no sense.
    """
    first = rows[0]
    try:
        recipients = tuple(
            Recipient(Address.from_text(row.address), row.notify, row.orcpt)
            for row in rows
        )
    except AddressError as error:
        raise Unreadable(f"recipient row: {error}") from error
    expanding = first.state is _EXPANDING
    return Lease(
        queue_id=QueueId(from_number(first.message)),
        fence=fence,
        route=None if expanding else Route(first.agent, first.hop, first.rule),
        lane=first.lane,
        envelope=envelope_of(stored, recipients),
        numbers=tuple(row.number for row in rows),
        tries=tuple(row.tries for row in rows),
        warned=bool(stored.row.warned),
        message=stored.message,
        cursor=first.cursor,
        message_id=stored.row.message_id,
    )


def new_leases(new: NewMessage, fence: int, now_us: int) -> list[Lease]:
    """Make the leases of a message just accepted from what is in memory.

    One for each route and lane, and one for each recipient still to be expanded;
    only of recipients that are due.
    """
    chosen: dict[tuple[Route, int], list[int]] = {}
    alone: list[int] = []
    for number, recipient in enumerate(new.recipients):
        if recipient.state > _EXPANDING or recipient.due_us > now_us:
            continue
        if recipient.route is None:
            alone.append(number)
        else:
            key = (recipient.route, recipient.lane)
            chosen.setdefault(key, []).append(number)
    leases = [_new_lease(new, numbers, fence) for numbers in chosen.values()]
    leases += [_new_lease(new, [number], fence) for number in alone]
    return leases


def _new_lease(new: NewMessage, numbers: list[int], fence: int) -> Lease:
    first = new.recipients[numbers[0]]
    chosen = [new.recipients[number] for number in numbers]
    wanted = tuple([Recipient(r.address, r.notify, r.orcpt) for r in chosen])
    envelope = new.envelope
    if envelope.recipients != wanted:
        envelope = msgspec.structs.replace(envelope, recipients=wanted)
    return Lease(
        queue_id=new.queue_id,
        fence=fence,
        route=first.route,
        lane=first.lane,
        envelope=envelope,
        numbers=tuple(numbers),
        tries=(0,) * len(numbers),
        warned=False,
        message=new.message,
        message_id=new.message_id,
    )
