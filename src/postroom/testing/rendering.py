"""Conversion without a disk or a loop: as tests, fuzzers and properties want it."""

from postroom.mail.headers import split_message
from postroom.render.demand import Demand
from postroom.render.plan import Plan, Stretch, Unconvertible
from postroom.render.survey import survey


def in_windows(
    content: bytes, demand: Demand, octets: int, by: str = "gonzo.test id 0Abc"
) -> bytes | Unconvertible:
    """Convert a message that is looked at, and sent, in small pieces.

    Args:
        content: the message with its header.
        demand: what the hop demands.
        octets: the size of a window and of a piece.
        by: who converts.
    """
    header, body, has_separator = split_message(content)
    looking = survey(header, has_separator, len(body), demand, by)
    found: Plan | Unconvertible
    try:
        span = next(looking)
        while True:
            most = span.octets if span.is_whole else min(octets, span.octets)
            span = looking.send(body[span.offset : span.offset + most])
    except StopIteration as stop:
        found = stop.value
    if isinstance(found, Unconvertible):
        return found
    return _said(found, body, octets) if found.is_changed else content


def _said(plan: Plan, body: bytes, octets: int) -> bytes:
    out = [plan.head]
    for piece in plan.pieces:
        if not isinstance(piece, Stretch):
            out.append(piece.octets)
            continue
        data = body[piece.start : piece.end]
        encoder = piece.encoder()
        if encoder is None:
            out.append(data)
            continue
        cuts = range(0, len(data), octets)
        out.extend(encoder.feed(data[at : at + octets]) for at in cuts)
        out.append(encoder.finish())
    return b"".join(out)
