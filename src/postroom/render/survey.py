"""Looking through a message for what a hop cannot take, part by part.

``survey`` is a generator: it asks for windows of the body (``Span``), is sent them, and
returns the plan. As sendmail does it: each part is judged by itself and encoded as
quoted-printable, or as base64 if more than an eighth of it is outside ASCII; its header
stays apart from Content-Transfer-Encoding, and X-MIME-Autoconverted tells what was
done. Messages within messages are walked as well (RFC 2046 §5.2.1 allows them no
encoding). What is signed stays as it is, and so does what cannot be understood.

Nothing is done twice: work is linear in the body, the numbers of sections and of
boundaries are bounded. With too many of them the rest stays as it is.
"""

from collections.abc import Generator
from typing import Final

from postroom.mail.headers import fields, find, split_message
from postroom.mail.message import CHUNK_OCTETS
from postroom.render.demand import Demand
from postroom.render.look import Contents, Delimiter, Delimiters, Span, look_through
from postroom.render.plan import Inserted, Plan, Stretch, Unconvertible, Way
from postroom.render.section import Section, Shape, read_section

SECTIONS_MAX: Final = 2_000
"""Parts of a message that are looked at one by one."""
MULTIPARTS_MAX: Final = 100
"""Multiparts of a message."""
NESTING_MAX: Final = 20
"""Multiparts and messages within one another; sendmail has the same bound."""

Survey = Generator[Span, bytes, Plan | Unconvertible]
_Walk = Generator[Span, bytes, Delimiter]

_BASE64_SHARE: Final = 8
_HEADER_OCTETS: Final = 4 * 1024
_UNPLACED: Final = -1
_TOP: Final = -2
_LOSS: Final = "Binary content in a part that must not be encoded"


def survey(
    header: bytes, has_separator: bool, size: int, demand: Demand, by: str
) -> Survey:
    """Look through a message and say how it is made fit.

    Args:
        header: the block with its edits, each field ended by CRLF.
        has_separator: whether the empty line stands behind it.
        size: the octets of the body.
        demand: what the hop demands.
        by: who converts, for X-MIME-Autoconverted: host and queue id.
    """
    surveyor = _Surveyor(size, demand, by)
    top = _Header(header, 0, 0, is_message=True)
    top.place = _TOP
    yield from surveyor.content(read_section(header), top, 0, Delimiters(), 0)
    if surveyor.is_lossy:
        return Unconvertible(_LOSS)
    is_changed = surveyor.changes > 0
    separator = b"\r\n" if has_separator or is_changed else b""
    return Plan(top.octets + separator, surveyor.pieces(), is_changed)


class _Header:
    """A section's header: its fields, and where it stands in the body.

    Attributes:
        octets: the block; for the message's own header what becomes of it.
        start, end: from its first field to where the content begins.
        is_message: it is that of a message, not of a part.
        place: its place in the plan, if one is reserved; the message's own has none.
    """

    __slots__ = ("end", "is_message", "octets", "place", "start")

    def __init__(
        self, octets: bytes, start: int, end: int, *, is_message: bool = False
    ) -> None:
        self.octets = octets
        self.start = start
        self.end = end
        self.is_message = is_message
        self.place = _UNPLACED


class _Surveyor:
    """The state of one survey: what is planned so far, and up to where."""

    def __init__(self, size: int, demand: Demand, by: str) -> None:
        self._size = size
        self._demand = demand
        self._by = by.encode("ascii", "replace")
        self._pieces: list[Stretch | Inserted] = []
        self._planned = 0  # what lies before is in the pieces
        self._sections = 0
        self._multiparts = 0
        self._eight_bit_left = 0  # sections that stay as they are
        self.changes = 0
        self.is_lossy = False

    # -- walking -------------------------------------------------------------------

    def content(
        self, section: Section, here: _Header, at: int, outer: Delimiters, depth: int
    ) -> _Walk:
        """Walk what follows a header, up to a delimiter of an outer multipart."""
        self._sections += 1
        shape = section.shape
        self._multiparts += shape is Shape.MULTIPART
        if (
            self._sections > SECTIONS_MAX
            or self._multiparts > MULTIPARTS_MAX
            or depth > NESTING_MAX
        ):
            shape = Shape.OPAQUE
        if shape is Shape.MULTIPART:
            return (yield from self._multipart(section, here, at, outer, depth))
        if shape is Shape.MESSAGE:
            return (yield from self._embedded(section, here, at, outer, depth))
        contents = Contents()
        after = yield from look_through(at, self._size, outer, contents)
        if shape is Shape.LEAF and section.is_encodable:
            self._leaf(section, here, Stretch(at, after.start), contents)
        else:
            self._opaque(contents)
        return after

    def _multipart(
        self, section: Section, here: _Header, at: int, outer: Delimiters, depth: int
    ) -> _Walk:
        self._reserve(here)
        changes, left = self.changes, self._eight_bit_left
        inner = outer.within(section.boundary)
        found = yield from self._outside(at, inner)
        while found.level == inner.innermost and not found.is_last:
            if self._sections >= SECTIONS_MAX:
                found = yield from self._rest(found.after, outer)
                break
            found = yield from self._part(
                found.after, inner, depth + 1, in_digest=section.is_digest
            )
        if found.level == inner.innermost:
            found = yield from self._outside(found.after, outer)
        self._relabel(section, here, changes, left)
        return found

    def _embedded(
        self, section: Section, here: _Header, at: int, outer: Delimiters, depth: int
    ) -> _Walk:
        """Walk a message within a message, which has a header of its own."""
        self._reserve(here)
        changes, left = self.changes, self._eight_bit_left
        found = yield from self._part(at, outer, depth + 1, is_message=True)
        self._relabel(section, here, changes, left)
        return found

    def _part(
        self,
        at: int,
        delimiters: Delimiters,
        depth: int,
        *,
        in_digest: bool = False,
        is_message: bool = False,
    ) -> _Walk:
        """Walk a section that begins with a header."""
        block = yield from self._header(at, delimiters)
        if block is None:
            opaque = Section(Shape.OPAQUE)
            here = _Header(b"", at, at)
            return (yield from self.content(opaque, here, at, delimiters, depth))
        header, octets = block
        section = read_section(header, in_digest=in_digest)
        here = _Header(header, at, at + octets, is_message=is_message)
        return (yield from self.content(section, here, at + octets, delimiters, depth))

    def _header(
        self, at: int, delimiters: Delimiters
    ) -> Generator[Span, bytes, tuple[bytes, int] | None]:
        """Read a header; return it and its octets with the separator.

        None if it is larger than a window: who made that did not mean mail.
        """
        for octets in (_HEADER_OCTETS, CHUNK_OCTETS):
            window = b""
            if at < self._size:
                window = yield Span(at, octets, is_whole=octets == CHUNK_OCTETS)
            final = at + len(window) >= self._size
            if not final:  # whole lines only
                window = window[: window.rfind(b"\r\n") + 2]
            seen = window + b"\r\n" if final else window
            found = delimiters.at_start(seen, at)
            if found is None:
                found = delimiters.search(seen, at)
                # the CRLF of the delimiter ends the last field, too
                upto = found.start - at + 2 if found else len(window)
            else:
                upto = 0
            header, rest, has_separator = split_message(window[:upto])
            if found or final or rest or has_separator:
                return header, len(header) + 2 * has_separator
        return None

    def _rest(self, at: int, outer: Delimiters) -> _Walk:
        """Leave the rest of a multipart with too many parts as it is."""
        contents = Contents()
        found = yield from look_through(at, self._size, outer, contents)
        self._opaque(contents)
        return found

    def _outside(self, at: int, delimiters: Delimiters) -> _Walk:
        """Walk what belongs to no part: it is shown to nobody."""
        contents = Contents()
        found = yield from look_through(at, self._size, delimiters, contents)
        if contents.high and self._demand.seven_bit:
            self._plan(Stretch(at, found.start, Way.MASKED))
        return found

    # -- judging -------------------------------------------------------------------

    def _leaf(
        self, section: Section, here: _Header, stretch: Stretch, contents: Contents
    ) -> None:
        is_high = contents.high > 0 and self._demand.seven_bit
        if contents.is_canonical and not (is_high or contents.has_long_line):
            if section.encoding == b"binary":  # which it is not
                label = b"8bit" if contents.high else b"7bit"
                self._renew(here, [_encoding_field(label)])
            return
        way = Way.QUOTED_PRINTABLE
        # RFC 2045 §6.7: where CR and LF are data, only base64 is safe
        if not contents.is_canonical or (
            contents.octets // _BASE64_SHARE < contents.high
        ):
            way = Way.BASE64
        label = way.value.encode("ascii")
        before = section.encoding or (b"8bit" if contents.high else b"7bit")
        new = [_encoding_field(label)]
        if not section.is_labelled and contents.high:
            charset = b"utf-8" if contents.is_utf8 else b"unknown-8bit"  # RFC 1428 §3
            new.insert(0, b"Content-Type: text/plain; charset=%s\r\n" % charset)
        new.append(
            b"X-MIME-Autoconverted: from %s to %s by %s\r\n" % (before, label, self._by)
        )
        self._renew(here, new)
        closed = stretch.end >= self._size
        self._plan(Stretch(stretch.start, stretch.end, way, closed))

    def _opaque(self, contents: Contents) -> None:
        self._eight_bit_left += contents.high > 0
        if self._demand.was_binary and not contents.is_canonical:
            self.is_lossy = True

    def _relabel(
        self, section: Section, here: _Header, changes: int, left: int
    ) -> None:
        """Say of a section with sections inside what they are now (RFC 2045 §6.2)."""
        if self._eight_bit_left > left or not self._demand.seven_bit:
            label = b"8bit"
        else:
            label = b"7bit"
        if section.encoding == b"binary" or (section.encoding, label) == (
            b"8bit",
            b"7bit",
        ):
            self._renew(here, [_encoding_field(label)])
        elif self.changes > changes and here.is_message:
            self._renew(here, [])

    # -- planning ------------------------------------------------------------------

    def _reserve(self, here: _Header) -> None:
        """Keep a place for a header that is judged after what follows it."""
        if here.place == _UNPLACED:
            self._keep(here.start)
            here.place = len(self._pieces)
            self._pieces.append(Stretch(here.start, here.end))
            self._planned = here.end

    def _renew(self, here: _Header, new: list[bytes]) -> None:
        """Give a header new fields, which stand for those of their names."""
        names = {field.partition(b":")[0].decode("ascii").lower() for field in new}
        names.discard("x-mime-autoconverted")
        kept = [f.raw for f in fields(here.octets) if f.key not in names]
        if here.is_message and find(here.octets, "MIME-Version") is None:
            kept.append(b"MIME-Version: 1.0\r\n")  # RFC 2045 §4
        elif not new:
            return
        self.changes += 1
        here.octets = b"".join((*kept, *new))
        inserted = Inserted(here.octets + b"\r\n")
        if here.place >= 0:
            self._pieces[here.place] = inserted
        elif here.place == _UNPLACED:
            self._keep(here.start)
            self._pieces.append(inserted)
            self._planned = here.end

    def _plan(self, stretch: Stretch) -> None:
        self.changes += 1
        self._keep(stretch.start)
        self._pieces.append(stretch)
        self._planned = stretch.end

    def _keep(self, upto: int) -> None:
        if upto > self._planned:
            self._pieces.append(Stretch(self._planned, upto))
            self._planned = upto

    def pieces(self) -> tuple[Stretch | Inserted, ...]:
        """Return the plan for the whole body, what stays joined."""
        self._keep(self._size)
        joined: list[Stretch | Inserted] = []
        for piece in self._pieces:
            last = joined[-1] if joined else None
            if (
                isinstance(piece, Stretch)
                and isinstance(last, Stretch)
                and piece.way is Way.AS_IS is last.way
            ):
                joined[-1] = Stretch(last.start, piece.end)
            else:
                joined.append(piece)
        return tuple(joined)


def _encoding_field(label: bytes) -> bytes:
    return b"Content-Transfer-Encoding: %s\r\n" % label
