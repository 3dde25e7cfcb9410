"""The content that leaves for a hop: read piece by piece, converted where it must be.

Joins the pure ``render`` with bodies that are read. At most a few pieces of a body are
in memory at any time. What a disk does wrong is an ``OSError``.
"""

from collections.abc import AsyncIterator

from postroom.mail.message import CHUNK_OCTETS, Body, MemoryBody, Message
from postroom.render.demand import Demand, meets
from postroom.render.look import WINDOW_OCTETS_MIN
from postroom.render.plan import Inserted, Plan, Stretch, Unconvertible
from postroom.render.survey import Survey, survey


async def plan_for(
    message: Message, head: bytes, demand: Demand, by: str
) -> Plan | Unconvertible | None:
    """Return how a message is made fit for a hop; None: it is as it is.

    Args:
        message: what is to be sent.
        head: its header block with all edits, and the separator if it has one.
        demand: what the hop demands.
        by: who converts: host and queue id.

    Raises:
        OSError: the stored body cannot be read.
    """
    body = message.body
    if isinstance(body, MemoryBody) and meets(body.data, demand):
        return None
    header = head.removesuffix(b"\r\n") if message.has_separator else head
    looking = survey(header, message.has_separator, body.size, demand, by)
    found = await _answer(looking, body)
    if isinstance(found, Plan) and not found.is_changed:
        return None
    return found


async def _answer(looking: Survey, body: Body) -> Plan | Unconvertible:
    """Answer the questions of a survey; windows that overlap are read once."""
    at, window = 0, b""
    try:
        span = next(looking)
        while True:
            end = at + len(window)
            left = end - span.offset
            wanted = span.octets if span.is_whole else WINDOW_OCTETS_MIN
            enough = left >= min(span.octets, wanted) or (left > 0 and end >= body.size)
            is_there = span.offset >= at and enough
            if not is_there:
                at, window = span.offset, await read_piece(body, span.offset)
            start = span.offset - at
            data = window[start : start + span.octets]
            span = looking.send(data)
    except StopIteration as stop:
        found: Plan | Unconvertible = stop.value
        return found


async def read_piece(body: Body, offset: int) -> bytes:
    """Read a piece of a body, which is never empty before its end.

    Raises:
        OSError: the stored body cannot be read, or ends too early.
    """
    piece = await body.read(offset, CHUNK_OCTETS)
    if not piece:
        raise OSError(f"stored body ends at {offset} of {body.size} octets")
    return piece


async def pieces_of(body: Body, plan: Plan | None) -> AsyncIterator[bytes]:
    """Yield what leaves for a body, piece by piece.

    Raises:
        OSError: the stored body cannot be read.
    """
    if plan is None:
        offset, size = 0, body.size
        while offset < size:
            piece = await read_piece(body, offset)
            offset += len(piece)
            yield piece
        return
    for part in plan.pieces:
        if isinstance(part, Inserted):
            yield part.octets
            continue
        async for piece in _stretch(body, part):
            yield piece


async def _stretch(body: Body, stretch: Stretch) -> AsyncIterator[bytes]:
    encoder = stretch.encoder()
    offset = stretch.start
    while offset < stretch.end:
        octets = min(CHUNK_OCTETS, stretch.end - offset)
        piece = await body.read(offset, octets)
        if not piece:
            raise OSError(f"stored body ends at {offset} of {body.size} octets")
        offset += len(piece)
        made = piece if encoder is None else encoder.feed(piece)
        if made:
            yield made
    if encoder is not None and (rest := encoder.finish()):
        yield rest
