"""Searching the history: what happened to messages, also to those that have left.

The files are read from front to back, in pieces; a line is decoded only if it holds
what is looked for. Memory is bounded by how many messages may be found. A line that
makes no sense (cut by a crash, or of another version) is passed over. Blocks.
"""

import os
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

import msgspec

from postroom.mail.ids import QueueId, number_of_time, parse_queue_id, to_number
from postroom.mail.now import HOUR_US
from postroom.observe.events import (
    AnyEvent,
    AttemptDone,
    CommandRejected,
    MessageDiscarded,
    MessageQueued,
    RecipientDiscarded,
    RecipientExpanded,
    ReportQueued,
)
from postroom.observe.history import begun_us, files_of

PIECE_OCTETS = 1 << 20
MESSAGES_MAX = 100
"""How many messages a search tells of, if not said otherwise: the newest."""
REFUSALS_MAX = 100
_ID = re.compile(rb'"(?:queue_id|about|clone)":"([0-9A-Za-z]{11})"')
_LITERALS = re.compile(r'[^*?@"\\]+')
_FEW = 4
_QUEUED = b'"type":"MessageQueued"'
_NEVER_US = 1 << 62
_event: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)


class Search(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is looked for; all that is given must match, empty fields match all.

    Texts are a part without regard to case; with ``*`` or ``?`` they stand for the
    whole.

    Attributes:
        queue_ids: these messages.
        senders: the envelope sender is one of these.
        recipients: one of these was a recipient, or was refused.
        message_ids: the field Message-Id is one of these.
        since_us: only what happened then or later.
        until_us: only what happened before; 0 for no end.
        messages_max: how many messages are told of: the newest.
    """

    queue_ids: tuple[str, ...] = ()
    senders: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    message_ids: tuple[str, ...] = ()
    since_us: int = 0
    until_us: int = 0
    messages_max: int = MESSAGES_MAX

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for queue_id in self.queue_ids:
            parse_queue_id(queue_id)
        if not 0 < self.messages_max <= 100_000:
            raise ValueError("between 1 and 100,000 messages can be told of")
        texts = (*self.senders, *self.recipients, *self.message_ids)
        if len(texts) > 100 or any(not 0 < len(text) <= 1_000 for text in texts):
            raise ValueError("up to 100 texts of 1 to 1,000 characters")


class Story(msgspec.Struct, frozen=True):
    """What happened to one message, oldest first.

    ``relation`` says why it is told beside another: ``report`` about it, ``clone`` of
    it for the members of a list; empty if it was looked for itself.
    """

    queue_id: str
    events: tuple[AnyEvent, ...]
    relation: str = ""
    of: str = ""


class Found(msgspec.Struct, frozen=True):
    """What a search found; ``more`` says that there were older messages, too."""

    stories: tuple[Story, ...] = ()
    refusals: tuple[CommandRejected, ...] = ()
    more: bool = False


class Traces:
    """The history of all writers below a directory.

    Methods raise ``PermissionError`` if it may not be read; without history they
    find nothing.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def of_message(self, queue_id: str) -> tuple[AnyEvent, ...]:
        """Return the events about one message, oldest first; none if it is secret."""
        try:
            found = self._events_of({queue_id}, 0)
        except PermissionError:
            return ()
        return tuple(found.get(queue_id, ()))

    def find(self, search: Search) -> Found:
        """Find messages, with the reports and second envelopes that came of them."""
        ids, more = self._ids(search)
        events = self._events_of(set(ids), search.since_us)
        stories: list[Story] = []
        kin = {
            each: (relation, queue_id)
            for queue_id in ids
            for relation, each in _kin(queue_id, events.get(queue_id, ()))
            if each not in ids
        }
        others = self._events_of(set(kin), search.since_us) if kin else {}
        for queue_id in ids:
            told = events.get(queue_id, [])
            if told:
                stories.append(Story(queue_id, tuple(told)))
            stories += [
                Story(each, tuple(others[each]), relation, of)
                for each, (relation, of) in kin.items()
                if of == queue_id and each in others
            ]
        return Found(tuple(stories), tuple(self._refusals(search)), more)

    def _ids(self, search: Search) -> tuple[list[str], bool]:
        """Return the ids of the messages that are meant, oldest first."""
        if search.queue_ids:
            return list(dict.fromkeys(search.queue_ids)), False
        tests = [
            (search.senders, _senders),
            (search.recipients, _recipients),
            (search.message_ids, _message_ids),
        ]
        wanted = [(texts, read) for texts, read in tests if texts]
        found: list[dict[str, None]] = [{} for _ in wanted] or [{}]
        for line in self._lines(search, _needles(search)):
            event = _decode(line)
            if event is None or not _is_within(event, search):
                continue
            queue_id = getattr(event, "queue_id", "")
            if not queue_id:
                continue
            if not wanted and isinstance(event, MessageQueued):
                found[0][queue_id] = None
            for ids, (texts, read) in zip(found, wanted, strict=False):
                values = read(event)
                if any(_is_like(text, value) for text in texts for value in values):
                    ids[queue_id] = None
        all_found = sorted(e for e in found[0] if all(e in one for one in found[1:]))
        newest = all_found[-search.messages_max :]
        return newest, len(all_found) > search.messages_max

    def _events_of(self, ids: set[str], since_us: int) -> dict[str, list[AnyEvent]]:
        """Return the events about some messages, in order of time."""
        found: dict[str, list[AnyEvent]] = {}
        if not ids:
            return found
        first = min(to_number(QueueId(queue_id)) for queue_id in ids)
        octets = {queue_id.encode() for queue_id in ids}
        for path, ended_us in self._files():
            # Nothing can be told of a message before it came, give or take a clock.
            if number_of_time(ended_us + HOUR_US) < first or ended_us < since_us:
                continue
            for line in _lines_with_id(path, octets):
                event = _decode(line)
                for queue_id in ids.intersection(_named(event)) if event else ():
                    if event is not None:
                        found.setdefault(queue_id, []).append(event)
        for events in found.values():
            events.sort(key=lambda event: event.utc_us)
        return found

    def _refusals(self, search: Search) -> Sequence[CommandRejected]:
        """Return refused commands that name a recipient, the newest."""
        found: list[CommandRejected] = []
        if not search.recipients or search.queue_ids:
            return found
        for line in self._lines(search, [b'"type":"commandrejected"']):
            event = _decode(line)
            if (
                isinstance(event, CommandRejected)
                and not event.queue_id
                and _is_within(event, search)
                and any(_is_like(text, event.argument) for text in search.recipients)
            ):
                found.append(event)
        found.sort(key=lambda event: event.utc_us)
        return found[-REFUSALS_MAX:]

    def _lines(self, search: Search, needles: list[bytes]) -> Iterator[bytes]:
        for path, ended_us in self._files():
            if ended_us < search.since_us:
                continue
            if search.until_us and begun_us(path) > search.until_us + HOUR_US:
                continue
            yield from _lines_with(path, needles)

    def _files(self) -> Iterator[tuple[str, int]]:
        """Yield files with the moment at which they ended."""
        try:
            homes = sorted(os.listdir(self._directory))
        except (FileNotFoundError, NotADirectoryError):
            return
        for home in homes:
            files = files_of(os.path.join(self._directory, home))
            for path, after in pairwise([*files, ""]):
                yield path, begun_us(after) if after else _NEVER_US


def _needles(search: Search) -> list[bytes]:
    """Return octets in lower case, one of which every line has that may match."""
    texts = search.senders or search.recipients or search.message_ids
    if not texts:
        return [_QUEUED.lower()]
    needles = []
    for text in texts:
        literals = _LITERALS.findall(text.replace("<>", ""))
        if not literals:
            return [b""]
        needles.append(max(literals, key=len).lower().encode())
    return needles


def _lines_with(path: str, needles: list[bytes]) -> Iterator[bytes]:
    """Yield the lines of a file that have one of some octets, whatever their case."""
    for piece in _pieces(path):
        yield from _lines_at(piece, _places(piece.lower(), needles))


def _lines_at(piece: bytes, places: set[int]) -> Iterator[bytes]:
    """Yield the lines of a piece that hold one of some places, each once."""
    seen = -1
    for at in sorted(places):
        if at > seen:
            start = piece.rfind(b"\n", 0, at) + 1
            seen = piece.find(b"\n", at)
            yield piece[start:seen]


def _places(piece: bytes, needles: list[bytes]) -> set[int]:
    """Return one place in each line of a piece that has one of the needles."""
    places = set()
    for needle in needles:
        at = piece.find(needle)
        while 0 <= at < len(piece):
            places.add(at)
            at = piece.find(needle, piece.find(b"\n", at) + 1)
    return places


def _lines_with_id(path: str, ids: set[bytes]) -> Iterator[bytes]:
    if len(ids) <= _FEW:  # each looked for by itself is quicker
        needles = [b'"%b"' % queue_id for queue_id in ids]
        for piece in _pieces(path):
            yield from _lines_at(piece, _places(piece, needles))
        return
    for piece in _pieces(path):
        seen = -1
        for match in _ID.finditer(piece):
            if match[1] not in ids or match.start() <= seen:
                continue
            start = piece.rfind(b"\n", 0, match.start()) + 1
            seen = piece.find(b"\n", match.end())
            yield piece[start : seen if seen >= 0 else len(piece)]


def _pieces(path: str) -> Iterator[bytes]:
    """Yield a file in pieces of whole lines."""
    try:
        file = open(path, "rb")  # noqa: SIM115 (closed below; it may be gone)
    except FileNotFoundError:
        return
    with file:
        rest = b""
        while data := file.read(PIECE_OCTETS):
            whole, newline, rest = (rest + data).rpartition(b"\n")
            if whole:
                yield whole + newline


def _decode(line: bytes) -> AnyEvent | None:
    try:
        return _event.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _named(event: AnyEvent) -> set[str]:
    """Return the messages that an event is about."""
    names = (getattr(event, name, "") for name in ("queue_id", "about", "clone"))
    return {name for name in names if name}


def _kin(queue_id: str, events: Sequence[AnyEvent]) -> Iterator[tuple[str, str]]:
    for event in events:
        match event:
            case ReportQueued() if event.about == queue_id:
                yield "report", event.queue_id
            case RecipientExpanded() if event.clone and event.queue_id == queue_id:
                yield "clone", event.clone


def _senders(event: AnyEvent) -> tuple[str, ...]:
    if isinstance(event, MessageDiscarded | MessageQueued) and event.sender is not None:
        return (event.sender.to_text() or "<>",)
    return ()


def _recipients(event: AnyEvent) -> tuple[str, ...]:
    match event:
        case (
            AttemptDone() | RecipientDiscarded() | RecipientExpanded() | ReportQueued()
        ):
            return (event.recipient.to_text(),)
        case _:
            return ()


def _message_ids(event: AnyEvent) -> tuple[str, ...]:
    return (event.message_id,) if isinstance(event, MessageQueued) else ()


def _is_within(event: AnyEvent, search: Search) -> bool:
    if event.utc_us < search.since_us:
        return False
    return not search.until_us or event.utc_us < search.until_us


def _is_like(text: str, value: str) -> bool:
    text, value = text.lower(), value.lower()
    if "*" in text or "?" in text:
        return _glob(text).fullmatch(value) is not None
    return text in value


def _glob(text: str) -> re.Pattern[str]:
    pieces = re.split(r"([*?])", re.sub(r"\*+", "*", text))
    signs = {"*": ".*", "?": "."}
    return re.compile("".join(signs.get(p) or re.escape(p) for p in pieces), re.DOTALL)
