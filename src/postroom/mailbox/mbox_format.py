r"""The mbox format: From_ lines, quoting, and where messages begin.

A message is a From_ line, the content with LF, and an empty line. Content lines that
match ``>*From `` get one more ``>`` and lose it again when read (the *mboxrd* way), so
every content survives. What we deliver has a line ``X-UIDL: queue id.number`` right
behind the From_ line; it belongs to that line and is not part of the content: it is
the message's unique id, and lets a repeated delivery recognise itself. While a message
is being written the id is a row of ``#``; so what a crash left half-written is known.
"""

import re
import time
from collections.abc import Iterator

from postroom.mail.now import SECOND_US

_DAY = rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_MONTH = rb"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_LINE_OCTETS_MAX = 1024
# A From_ line has a date and stands after an empty line or at the beginning.
# The look behind comes second, so that the search can race for the literal.
_FROM = re.compile(
    rb"From (?:(?<=\n\nFrom )|(?<=\n\r\nFrom ))[^\n]{1,900}?" + _DAY + rb",? +"
    rb"(?:" + _MONTH + rb" +\d{1,2}|\d{1,2} +" + _MONTH + rb")[^\n]{1,60}\n"
)
_MARK = re.compile(rb"X-UIDL: ([0-9A-Za-z#]{11}\.[0-9#]{1,10})\r?\n")
_BLANKS = re.compile(r"[\s\x00-\x1f\x7f]+")
SCAN_OCTETS = 1024 * 1024


def from_line(sender: str, utc_us: int) -> bytes:
    """Return the From_ line of a message that arrived at ``utc_us``."""
    name = _BLANKS.sub("_", sender) or "MAILER-DAEMON"
    date = time.asctime(time.gmtime(utc_us // SECOND_US))
    return f"From {name[:800]} {date}\n".encode("utf-8", "replace")


def mark_line(uid: str) -> bytes:
    """Return the line that names a message of ours."""
    return f"X-UIDL: {uid}\n".encode()


def blank_of(uid: str) -> str:
    """Return what stands for a unique id until the message is whole."""
    return "#" * 11 + "." + "#" * (len(uid) - 12)


class _LineStarts:
    """Replaces a pattern at line starts, over the pieces of one content.

    Args:
        pattern: what begins a line; ends in ``From `` after any number of ``>``.
        replacement: what it becomes.
        held: what at the end of a piece may be the pattern's beginning.
    """

    def __init__(self, pattern: bytes, replacement: bytes, held: bytes) -> None:
        self._pattern = re.compile(rb"(?m)^" + pattern)
        self._replacement = replacement
        self._hold = re.compile(held + rb"\Z")
        self._held = b""
        self._is_at_start = True  # nothing but ">" since the line began

    def feed(self, data: bytes) -> bytes:
        """Return what can be said so far."""
        data = self._held + data
        found = self._hold.search(data, max(0, len(data) - 5))
        cut = found.start() if found else len(data)
        self._held, data = data[cut:], data[:cut]
        if not data:
            return b""
        was_at_start = self._is_at_start
        line = data.rfind(b"\n") + 1
        is_new = line > 0 or was_at_start
        self._is_at_start = is_new and not data[line:].strip(b">")
        if b"From " not in data:
            return data
        start = 0 if was_at_start else data.find(b"\n") + 1
        if not start and not was_at_start:
            return data
        changed = self._pattern.sub(self._replacement, data[start:])
        return data[:start] + changed

    def end(self) -> bytes:
        """Return the rest."""
        rest, self._held = self._held, b""
        return rest


def quoting() -> _LineStarts:
    """Return what quotes a content in LF form."""
    return _LineStarts(rb"(>*From )", rb">\1", rb"F(?:r(?:om?)?)?")


def unquoting() -> _LineStarts:
    """Return what takes quoting away."""
    return _LineStarts(rb">(>*From )", rb"\1", rb">(?:F(?:r(?:om?)?)?)?")


class Start:
    """Where a message begins: its From_ line, its content, and our mark."""

    __slots__ = ("from_offset", "offset", "uid")

    def __init__(self, from_offset: int, offset: int, uid: str) -> None:
        self.from_offset = from_offset
        self.offset = offset
        self.uid = uid

    @property
    def is_torn(self) -> bool:
        """Whether it was never written to its end."""
        return "#" in self.uid


class Scanner:
    """Finds where messages begin, over the pieces of a file.

    A line over 1 KiB is no From_ line, and memory is bounded by the pieces.
    """

    def __init__(self, offset: int = 0) -> None:
        # As if an empty line stood before the file.
        self._window = b"\n\n"
        self._offset = offset - 2
        self._from = 2

    def feed(self, data: bytes, *, is_last: bool) -> Iterator[Start]:
        """Yield the beginnings that are certain; the rest with ``is_last``."""
        self._window += data
        window = self._window
        # A From_ line is complete only with the line behind it, where our mark is.
        limit = len(window) if is_last else len(window) - 2 * _LINE_OCTETS_MAX
        for found in _FROM.finditer(window, self._from):
            if found.start() >= limit:
                break
            mark = _MARK.match(window, found.end())
            yield Start(
                self._offset + found.start(),
                self._offset + (mark.end() if mark else found.end()),
                mark[1].decode() if mark else "",
            )
        keep = max(self._from, limit)
        # Looked-behind octets stay in front of where the search goes on.
        drop = max(0, keep - 3)
        self._window = window[drop:]
        self._offset += drop
        self._from = keep - drop
