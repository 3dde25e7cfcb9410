"""Header blocks: where they end, what fields they hold, and how edits apply.

Everything here works on whole blocks of canonical bytes with compiled expressions,
never line by line in Python. Nothing is lost: header, separator and body always
join to what was split, and the fields of a block always join to the block. Text
that is no field begins the body.
"""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

import msgspec

from postroom.mail.message import Add, Edit, Message, Prepend, Remove, Replace

# RFC 5322 §3.6.8: field-name = 1*ftext, ftext = %d33-57 / %d59-126.
# RFC 5322 §4.5: blanks may stand between the name and its colon.
_NAME = rb"[!-9;-~]++[ \t]*+"
# Folding (RFC 5322 §2.2.3): lines that begin with a blank continue the field.
_REST = rb"[^\n]*+\n(?:[ \t][^\n]*+\n)*"
_FIELD = re.compile(rb"(" + _NAME + rb"):" + _REST)
# Groups are not repeated possessively: Python 3.11.2, Debian's, gets that wrong.
_BLOCK = re.compile(rb"(?:" + _NAME + rb":" + _REST + rb")*")
_FOLD = re.compile(rb"\r\n(?=[ \t])")


class Field(msgspec.Struct, frozen=True, gc=False):
    """One field of a header block.

    ``name`` is as written, without blanks; ``raw`` is the whole field with its name,
    folding and final CRLF.
    """

    name: str
    raw: bytes

    @property
    def key(self) -> str:
        """The name for comparison, in lower case (RFC 5322 §1.2.2)."""
        return self.name.lower()

    @property
    def value(self) -> bytes:
        """What follows the colon, unfolded and without outer blanks."""
        return _value(self.raw)


def split_message(content: bytes) -> tuple[bytes, bytes, bool]:
    """Part a message into its header block and its body (RFC 5322 §2.1).

    Args:
        content: the whole content, or at least all of its header, in CRLF form.

    Returns:
        The header block, each field ended by CRLF; the body; and whether the empty
        line stood between them. A content whose first line is no field has an empty
        header; the text that broke the header off belongs to the body.
    """
    matched = _BLOCK.match(content)
    end = matched.end() if matched else 0
    if content.startswith(b"\r\n", end):
        return content[:end], content[end + 2 :], True
    return content[:end], content[end:], False


def fields(header: bytes) -> Iterator[Field]:
    """Yield the fields of a header block in order; their ``raw`` join to it."""
    for match in _FIELD.finditer(header):
        yield Field(match[1].rstrip().decode("ascii"), match[0])


def find(header: bytes, name: str) -> bytes | None:
    """Return the value of the first field of this name, or None if there is none.

    The value is unfolded and without outer blanks; the case of the name does not
    matter.
    """
    match = _finder(name).search(b"\n" + header)
    return _value(match[0]) if match else None


def find_all(header: bytes, name: str) -> list[bytes]:
    """Return the values of all fields of this name, in order, as ``find`` does."""
    return [_value(match[0]) for match in _finder(name).finditer(b"\n" + header)]


def unfold(value: bytes) -> bytes:
    """Undo folding: take away each CRLF before a blank (RFC 5322 §2.2.3)."""
    return _FOLD.sub(b"", value) if b"\n" in value else value


def edited_header(message: Message) -> bytes:
    """Return the header block with the message's edits applied, first to last."""
    edits = message.edits
    if not edits:
        return message.header
    if all(type(edit) is Prepend for edit in edits):
        # The latest stands first; trace fields are nearly all that ever happens.
        front = [edit.field for edit in reversed(edits) if isinstance(edit, Prepend)]
        return b"".join((*front, message.header))
    return _edit(message.header, edits)


def _edit(header: bytes, edits: Iterable[Edit]) -> bytes:
    kept = list(fields(header))
    for edit in edits:
        match edit:
            case Prepend(field):
                kept.insert(0, _given(field))
            case Add(field):
                kept.append(_given(field))
            case Remove(name):
                kept = _without(kept, name)
            case Replace(name, field):
                kept = _replaced(kept, name, field)
    return b"".join(field.raw for field in kept)


def _without(kept: list[Field], name: str) -> list[Field]:
    key = name.lower()
    return [field for field in kept if field.key != key]


def _replaced(kept: list[Field], name: str, field: bytes) -> list[Field]:
    key = name.lower()
    at = next((i for i, old in enumerate(kept) if old.key == key), None)
    if at is None:  # there is nothing to stand in for
        return [*kept, _given(field)]
    return [*kept[:at], _given(field), *_without(kept[at:], name)]


def _given(field: bytes) -> Field:
    name = field.partition(b":")[0].rstrip(b" \t")
    return Field(name.decode("utf-8", "replace"), field)


@lru_cache(maxsize=256)
def _finder(name: str) -> re.Pattern[bytes]:
    # The line end in front and both cases of each letter are spelt out: the search
    # then races from line to line. The line end behind is left for the next field.
    letters = b"".join(
        f"[{c.lower()}{c.upper()}]".encode() if c.isalpha() else re.escape(c.encode())
        for c in name
    )
    rest = rb"[^\n]*+(?:\n[ \t][^\n]*+)*"
    return re.compile(rb"\n" + letters + rb"[ \t]*+:" + rest)


def _value(raw: bytes) -> bytes:
    return unfold(raw[raw.index(b":") + 1 :]).strip(b" \t\r\n")
