"""What is due: the questions that the schedule asks, answered in the reader thread.

A question is answered in few steps of SQLite, each returning many rows packed into
one JSON text, because every step must win the interpreter lock back from a busy loop.
What cannot be read in a batch is read again one by one; what then still makes no
sense is reported as unreadable, to be put aside, and never stops the rest.
"""

# ruff: noqa: S608 (statements are made of constants only; values are bound)
import errno
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain, zip_longest

import apsw
import msgspec

from postroom.mail.message import MemoryBody, Message
from postroom.spool import rows
from postroom.spool.bodies import BodyDirectory, FileBody
from postroom.spool.leases import Watch
from postroom.spool.rows import BodyRow, MessageRow, RecipientRow, StoredMessage
from postroom.spool.spool import DueHop, Lease, RecipientState, SpoolError

Held = Callable[[int], set[int]]
"""Tells which recipients of a message are leased."""

_SPARE_ROWS = 64
_PASSING = {errno.EINTR, errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
"""Errors of a file that say nothing against it: the claim fails, and is repeated."""
_MESSAGES_A_STEP = 8
_DUE = "state < 2 AND hop = ?1 AND lane = ?2 AND due <= ?3"

_RECIPIENTS = (
    f"SELECT CAST(json_group_array(json_array({rows.RECIPIENT_FIELDS})) AS BLOB)"
    f" FROM (SELECT {rows.RECIPIENT_FIELDS} FROM recipients"
    f" INDEXED BY recipients_due WHERE {_DUE} ORDER BY due LIMIT ?4)"
)
_RECIPIENTS_SINGLY = (
    f"SELECT message, number, CAST(json_array({rows.RECIPIENT_FIELDS}) AS BLOB)"
    f" FROM recipients INDEXED BY recipients_due WHERE {_DUE} ORDER BY due LIMIT ?4"
)
_FIRST_FREE = (
    "SELECT CAST(json_group_array(json_array(message, number, due)) AS BLOB)"
    " FROM (SELECT message, number, due FROM recipients"
    " INDEXED BY recipients_due WHERE state < 2 AND hop = ?1 AND lane = ?2"
    " ORDER BY due LIMIT ?3)"
)
# Walks from one (hop, lane) to the next by single look-ups in the index, so that the
# cost is the number of places, however many recipients wait there. The unary plus
# strips the affinity that would keep the look-up from using the index.
_PLACES = """
WITH RECURSIVE place(hop, lane) AS (
    SELECT ?1, ?2
    UNION ALL
    SELECT
        CASE WHEN lane IS NULL OR EXISTS(
            SELECT 1 FROM recipients INDEXED BY recipients_due
            WHERE state < 2 AND hop = +place.hop AND lane > +place.lane)
        THEN place.hop ELSE (
            SELECT hop FROM recipients INDEXED BY recipients_due
            WHERE state < 2 AND hop > +place.hop ORDER BY hop LIMIT 1)
        END, (
            SELECT lane FROM recipients INDEXED BY recipients_due
            WHERE state < 2 AND hop = +place.hop AND lane > ifnull(+place.lane, -1)
            ORDER BY lane LIMIT 1)
    FROM place WHERE hop IS NOT NULL
), due_place(hop, lane, until, due) AS (
    SELECT hop, lane,
        ifnull((SELECT until FROM rests WHERE hop = +place.hop), 0), (
        SELECT due FROM recipients INDEXED BY recipients_due
        WHERE state < 2 AND hop = +place.hop AND lane = +place.lane
        ORDER BY due LIMIT 1)
    FROM place WHERE lane >= 0 LIMIT -1 OFFSET {offset}
)
"""
_DUE_PLACES = """
SELECT CAST(json_group_array(json_array(hop, lane, due, until)) AS BLOB) FROM (
    SELECT hop, lane, due, until FROM due_place
    WHERE due <= ?3 AND until <= ?3 LIMIT ?4)
"""
_PLACES_FROM_START = _PLACES.format(offset=0) + _DUE_PLACES
_PLACES_AFTER = _PLACES.format(offset=1) + _DUE_PLACES
_NEXT_DUE = (
    _PLACES.format(offset=0)
    + """
SELECT min(max(due, until)) FROM due_place
WHERE (hop, lane) NOT IN (SELECT value ->> 0, value ->> 1 FROM json_each(?3))
"""
)
_REST_UNTIL = "SELECT until FROM rests WHERE hop = ?"

_LANES = """
WITH RECURSIVE found(lane) AS (
    SELECT min(lane) FROM recipients INDEXED BY recipients_due
    WHERE state < 2 AND hop = ?1
    UNION ALL
    SELECT (
        SELECT lane FROM recipients INDEXED BY recipients_due
        WHERE state < 2 AND hop = ?1 AND lane > +found.lane ORDER BY lane LIMIT 1)
    FROM found WHERE lane IS NOT NULL
)
SELECT lane FROM found WHERE lane IS NOT NULL AND EXISTS(
    SELECT 1 FROM recipients INDEXED BY recipients_due
    WHERE state < 2 AND hop = ?1 AND lane = +found.lane AND due <= ?2)
"""
_RECIPIENT_LIST = msgspec.json.Decoder(list[RecipientRow])
_RECIPIENT = msgspec.json.Decoder(RecipientRow)
_KEY_LIST = msgspec.json.Decoder(list[tuple[int, int, int]])
_PLACE_LIST = msgspec.json.Decoder(list[tuple[str, int, int, int]])
_MESSAGE = msgspec.json.Decoder(MessageRow)
_BODY = msgspec.json.Decoder(BodyRow)


class Broken(msgspec.Struct, frozen=True, gc=False):
    """An entry that cannot be read; without numbers the whole message is meant."""

    message: int
    numbers: tuple[int, ...]
    reason: str


class Found(msgspec.Struct, frozen=True):
    """What a claim found: leases to be admitted, and what must be put aside."""

    leases: list[Lease]
    broken: list[Broken]


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for all claims."""

    fence: int
    recipients_max: int
    octets_max: int


class Wanted(Bounds, frozen=True, kw_only=True):
    """What a claim asks for. ``leased`` is how many recipients there are leased."""

    hop: str
    lane: int | None
    count: int
    now_us: int
    leased: int


def claim(
    connection: apsw.Connection, wanted: Wanted, watch: Watch, bodies: BodyDirectory
) -> Found:
    """Find leases that may be given, oldest due first. Blocks."""
    broken: list[Broken] = []
    lanes = [
        _groups(connection, wanted, lane, watch.busy, broken)
        for lane in _lanes(connection, wanted)
    ]
    # Lanes take turns, so that one of them cannot crowd out the others.
    turns = chain.from_iterable(zip_longest(*lanes))
    groups = [group for group in turns if group][: wanted.count]
    return leases_of(connection, groups, wanted, watch, bodies, broken)


def leases_of(
    connection: apsw.Connection,
    groups: Sequence[list[RecipientRow]],
    bounds: Bounds,
    watch: Watch,
    bodies: BodyDirectory,
    broken: list[Broken],
) -> Found:
    """Read the messages of groups of recipients, each of which becomes a lease."""
    for group in groups:
        watch.choose(group[0].message, [row.number for row in group])
    stored: dict[int, StoredMessage] = {}
    leases, octets = [], 0
    for start in range(0, len(groups), _MESSAGES_A_STEP):
        step = groups[start : start + _MESSAGES_A_STEP]
        fresh = {g[0].message for g in step}.difference(stored)
        found = _messages(connection, sorted(fresh), bodies, broken)
        stored.update(found)
        octets += sum(_octets(message.message) for message in found.values())
        for group in step:
            message = stored.get(group[0].message)
            if message is not None:
                leases += _lease(message, group, bounds.fence, broken)
        if octets >= bounds.octets_max:
            break
    return Found(leases, broken)


def due_places(
    connection: apsw.Connection, after: tuple[str, int] | None, now_us: int, limit: int
) -> list[DueHop]:
    """Return hops and lanes with something due, in order of name. Blocks.

    Hops that rest are left out.
    """
    sql = _PLACES_FROM_START if after is None else _PLACES_AFTER
    hop, lane = after or ("", -1)
    packed = connection.execute(sql, (hop, lane, now_us, limit)).get
    return [
        DueHop(hop, lane, max(due_us, until_us))
        for hop, lane, due_us, until_us in _PLACE_LIST.decode(packed)
    ]


def next_due_us(
    connection: apsw.Connection, leased: dict[tuple[str, int], int], held: Held
) -> int | None:
    """Return when the next recipient falls due that is not leased. Blocks.

    Only a number comes back from SQLite, however many places there are.
    """
    places = msgspec.json.encode(list(leased)).decode()
    first: int | None = connection.execute(_NEXT_DUE, ("", -1, places)).get
    for (hop, lane), count in leased.items():
        due_us = _first_free_us(connection, DueHop(hop, lane, 0), count, held)
        if due_us is not None:
            until_us = connection.execute(_REST_UNTIL, (hop,)).get or 0
            due_us = max(due_us, int(until_us))
            first = due_us if first is None else min(first, due_us)
    return first


def free_places(
    connection: apsw.Connection,
    after: tuple[str, int] | None,
    now_us: int,
    limit: int,
    leased: dict[tuple[str, int], int],
    held: Held,
) -> list[DueHop]:
    """Return hops and lanes with something due that is not leased. Blocks.

    ``leased`` counts leased recipients by place, ``held`` tells which they are.
    """
    found = []
    for place in due_places(connection, after, now_us, limit):
        count = leased.get((place.hop, place.lane), 0)
        due_us = _first_free_us(connection, place, count, held) if count else None
        if not count:
            found.append(place)
        elif due_us is not None and due_us <= now_us:
            found.append(DueHop(place.hop, place.lane, due_us))
    return found


def _first_free_us(
    connection: apsw.Connection, place: DueHop, leased: int, held: Held
) -> int | None:
    """Return when the first recipient of a place that is not leased is due."""
    bound = (place.hop, place.lane, leased + 1)
    packed = connection.execute(_FIRST_FREE, bound).get
    for message, number, due_us in _KEY_LIST.decode(packed):
        if number not in held(message):
            return due_us
    return None


def _lanes(connection: apsw.Connection, wanted: Wanted) -> Sequence[int]:
    if wanted.lane is not None:
        return (wanted.lane,)
    bound = (wanted.hop, wanted.now_us)
    return [lane for (lane,) in connection.execute(_LANES, bound)]


def _groups(
    connection: apsw.Connection,
    wanted: Wanted,
    lane: int,
    held: Held,
    broken: list[Broken],
) -> list[list[RecipientRow]]:
    """Choose recipients of one lane, grouped as leases will be."""
    limit = wanted.count + wanted.leased + _SPARE_ROWS
    while True:
        bound = (wanted.hop, lane, wanted.now_us, limit)
        found = _recipients(connection, bound, broken)
        groups = grouped(found, wanted.recipients_max, held)
        # The last group may go on beyond what was read.
        if len(groups) > wanted.count or len(found) < limit - len(broken):
            return groups[: wanted.count]
        limit *= 4


def grouped(
    found: list[RecipientRow], recipients_max: int, held: Held
) -> list[list[RecipientRow]]:
    """Group recipients that are not held as leases will be."""
    open_groups: dict[tuple[int, str, str, str, int], list[RecipientRow]] = {}
    groups: list[list[RecipientRow]] = []
    for row in found:
        if row.number in held(row.message):
            continue
        key = (row.message, row.agent, row.rule, row.hop, row.lane)
        group = open_groups.get(key)
        expanding = row.state is RecipientState.EXPANDING
        if group is None or expanding or len(group) >= recipients_max:
            group = open_groups[key] = []
            groups.append(group)
        group.append(row)
    return groups


def _recipients(
    connection: apsw.Connection,
    bound: tuple[str, int, int, int],
    broken: list[Broken],
) -> list[RecipientRow]:
    try:
        return _RECIPIENT_LIST.decode(connection.execute(_RECIPIENTS, bound).get)
    except (msgspec.MsgspecError, UnicodeDecodeError, apsw.SQLError):
        found = []
        for message, number, packed in connection.execute(_RECIPIENTS_SINGLY, bound):
            try:
                found.append(_RECIPIENT.decode(packed))
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                broken.append(Broken(message, (number,), f"recipient row: {error}"))
        return found


def _messages(
    connection: apsw.Connection,
    numbers: Sequence[int],
    bodies: BodyDirectory,
    broken: list[Broken],
) -> dict[int, StoredMessage]:
    """Read messages with their bodies, at first together, then if need be singly."""
    if not numbers:
        return {}
    try:
        return read_messages(connection, numbers, bodies)
    except (rows.Unreadable, apsw.Error) as error:
        if isinstance(error, apsw.Error) and not _is_damage(error):
            raise
        if len(numbers) == 1:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno in _PASSING:
                raise SpoolError(str(error)) from cause
            broken.append(Broken(numbers[0], (), str(error)))
            return {}
    found: dict[int, StoredMessage] = {}
    for number in numbers:
        found.update(_messages(connection, [number], bodies, broken))
    return found


def _is_damage(error: apsw.Error) -> bool:
    """Whether one entry is damaged, as opposed to the disk or the whole file."""
    return isinstance(error, (apsw.CorruptError, apsw.SQLError, apsw.MismatchError))


def read_messages(
    connection: apsw.Connection, numbers: Sequence[int], bodies: BodyDirectory
) -> dict[int, StoredMessage]:
    """Read messages by number, in one step. Blocks.

    Raises:
        Unreadable: one of them makes no sense, or is not there.
    """
    count = 1 << (len(numbers) - 1).bit_length()
    bound = list(numbers) + [numbers[-1]] * (count - len(numbers))
    row = connection.execute(_message_query(count), bound).get
    found = {}
    for i, number in enumerate(numbers):
        packed, edits, packed_body, header, data = row[5 * i : 5 * i + 5]
        if packed is None or packed_body is None:
            raise rows.Unreadable("the row of the message or its body is missing")
        try:
            fields, body = _MESSAGE.decode(packed), _BODY.decode(packed_body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise rows.Unreadable(f"message row: {error}") from error
        message = _content(body, header, data, bodies)
        found[number] = rows.stored_message(fields, edits, message)
    return found


def _content(
    body: BodyRow, header: bytes, data: bytes | None, bodies: BodyDirectory
) -> Message:
    if body.file is None:
        return rows.content(body, header, MemoryBody(data or b""))
    try:
        size = bodies.files.size(bodies.file(body.file))
    except OSError as error:
        raise rows.Unreadable(f"body file {body.file}: {error.strerror}") from error
    return rows.content(body, header, FileBody(bodies, body.file, size))


@lru_cache(maxsize=8)
def _message_query(count: int) -> str:
    columns = []
    for i in range(1, count + 1):
        message = f"FROM messages WHERE id = ?{i}"
        body = f"FROM bodies WHERE id = (SELECT body {message})"
        columns += [
            f"(SELECT CAST(json_array({rows.MESSAGE_FIELDS}) AS BLOB) {message})",
            f"(SELECT edits {message})",
            f"(SELECT CAST(json_array({rows.BODY_FIELDS}) AS BLOB) {body})",
            f"(SELECT header {body})",
            f"(SELECT content {body})",
        ]
    return f"SELECT {', '.join(columns)}"


def _lease(
    stored: StoredMessage, group: list[RecipientRow], fence: int, broken: list[Broken]
) -> list[Lease]:
    try:
        return [rows.lease_of(stored, group, fence)]
    except rows.Unreadable as error:
        if len(group) == 1:
            row = group[0]
            broken.append(Broken(row.message, (row.number,), str(error)))
            return []
    leases = []
    for row in group:
        leases += _lease(stored, [row], fence, broken)
    return leases


def _octets(message: Message) -> int:
    body = message.body
    in_memory = 0 if isinstance(body, FileBody) else body.size
    return len(message.header) + in_memory
