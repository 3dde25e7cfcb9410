"""Whole messages read back for an operator: to look at, to export, to give up.

What makes no sense raises ``Unreadable``; its octets can still be had as they lie
there (``read_raw``). Everything here blocks.
"""

# ruff: noqa: S608 (statements are made of constants only; values are bound)
from collections.abc import Sequence

import apsw
import msgspec

from postroom.mail.envelope import Envelope
from postroom.mail.message import MemoryBody, Message
from postroom.spool import claims, rows
from postroom.spool.bodies import BodyDirectory, FileBody
from postroom.spool.conditions import Condition
from postroom.spool.rows import RecipientRow, StoredMessage, Unreadable
from postroom.spool.spool import Lease

RECIPIENTS_PER_REPORT_MAX = 1_000
"""How many recipients are given up in one transaction, with one report."""

_TAKEN = (
    f"SELECT CAST(json_array({rows.RECIPIENT_FIELDS}) AS BLOB), status_text"
    " FROM recipients AS r WHERE r.message = ?"
)
_ROW = msgspec.json.Decoder(RecipientRow)


class Kept(msgspec.Struct, frozen=True):
    """A message as it is kept; the envelope is without its recipients."""

    envelope: Envelope
    message: Message


def read_kept(
    connection: apsw.Connection, number: int, bodies: BodyDirectory
) -> Kept | None:
    """Read a message; None if it is not there.

    Raises:
        Unreadable: it makes no sense.
    """
    stored = _stored(connection, number, bodies)
    if stored is None:
        return None
    return Kept(rows.envelope_of(stored, ()), stored.message)


def read_raw(
    connection: apsw.Connection, number: int, bodies: BodyDirectory
) -> Message | None:
    """Read what is there of a message that cannot be read; None if there is nothing."""
    query = (
        "SELECT has_separator, file, header, content FROM bodies WHERE id ="
        " ifnull((SELECT body FROM messages WHERE id = ?1), ?1)"
    )
    found = connection.execute(query, (number,)).get
    if found is None:
        return None
    has_separator, file, header, content = found
    if file is None:
        return Message(
            bytes(header), MemoryBody(bytes(content or b"")), (), bool(has_separator)
        )
    try:
        size = bodies.files.size(bodies.file(file))
    except OSError:
        return Message(bytes(header), MemoryBody(b""), (), bool(has_separator))
    body = FileBody(bodies, file, size)
    return Message(bytes(header), body, (), bool(has_separator))


def read_taken(
    connection: apsw.Connection,
    number: int,
    chosen: Condition,
    bodies: BodyDirectory,
) -> list[tuple[Lease, Sequence[str]]]:
    """Read recipients of any state with their message, and why each one waits.

    The leases are carriers only: nobody holds them, and their fence is 0.

    Raises:
        Unreadable: the message or a recipient makes no sense.
    """
    stored = _stored(connection, number, bodies)
    if stored is None:
        return []
    where = f" AND {chosen.recipients}" if chosen.recipients else ""
    bound = (number, *chosen.recipient_values)
    taken, reasons = [], []
    for packed, reason in connection.execute(f"{_TAKEN}{where} ORDER BY number", bound):
        try:
            taken.append(_ROW.decode(packed))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Unreadable(f"recipient row: {error}") from error
        reasons.append(str(reason))
    step = RECIPIENTS_PER_REPORT_MAX
    return [
        (rows.lease_of(stored, taken[at : at + step], 0), reasons[at : at + step])
        for at in range(0, len(taken), step)
    ]


def _stored(
    connection: apsw.Connection, number: int, bodies: BodyDirectory
) -> StoredMessage | None:
    there = connection.execute("SELECT 1 FROM messages WHERE id = ?", (number,)).get
    if there is None:
        return None
    return claims.read_messages(connection, [number], bodies)[number]
