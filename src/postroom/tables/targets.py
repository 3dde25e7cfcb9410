r"""The right side of an alias: a list of targets, split and brought to one form. Pure.

A target is a text: an address (``joe``, ``joe@whizzer.test``), ``\joe`` (the user,
no further alias), ``|command``, ``/file``, or ``:include:/path``. Phrases, comments
and angle brackets around addresses are taken away (RFC 5322 §3.4). What is none of
these raises ``ValueError`` with a sentence for a person.
"""

import re

from postroom.mail.address import Address, AddressError

# One piece of a list: a quoted string, a comment without nesting, a comma, or text.
_PIECE = re.compile(
    r'(?P<quoted>"(?:[^"\\]|\\.)*")|(?P<comment>\([^()]*\))|(?P<comma>,)'
    r'|(?P<text>\\.|[^",()\\]+)'
)
_PLAIN = re.compile(r"[A-Za-z0-9_.+\-]+(?:@[A-Za-z0-9.\-]+)?")
_ANGLE = re.compile(r"[^<>]*<([^<>]+)>\s*")
INCLUDE = ":include:"
DEV_NULL = "/dev/null"
"""The one file that mail may go to: who is aliased to it wants no mail."""


def split_targets(value: str) -> tuple[str, ...]:
    """Return the targets of a value, in order.

    Raises:
        ValueError: a target cannot be understood; the message quotes it.
    """
    if '"' not in value and "(" not in value and "\\" not in value:
        pieces = value.split(",")  # most values; thousands of names in lists
    else:
        pieces = _split_quoted(value)
    stripped = (piece.strip() for piece in pieces)
    return tuple(_target(piece) for piece in stripped if piece)


def _split_quoted(value: str) -> list[str]:
    pieces, current, position = [], "", 0
    while position < len(value):
        match = _PIECE.match(value, position)
        if not match:
            raise ValueError(f"quote or bracket is not closed: {_short(value)}")
        position = match.end()
        if match["comma"]:
            pieces.append(current)
            current = ""
        elif not match["comment"]:
            current += match[0]
    return [*pieces, current]


def _target(piece: str) -> str:
    if _PLAIN.fullmatch(piece):
        return _address(piece)
    inner = _unquoted(piece)
    if inner.startswith("|"):
        return inner
    if inner.startswith("/"):
        return inner
    if inner.lower().startswith(INCLUDE):
        return _include(inner)
    if piece.startswith("\\"):
        return "\\" + _address(piece[1:])
    angle = _ANGLE.fullmatch(piece)
    return _address(angle[1] if angle else piece)


def _unquoted(piece: str) -> str:
    if len(piece) > 1 and piece[0] == piece[-1] == '"':
        return re.sub(r"\\(.)", r"\1", piece[1:-1])
    return piece


def _include(target: str) -> str:
    path = target[len(INCLUDE) :].strip()
    if not path.startswith("/"):
        raise ValueError(f"{INCLUDE} needs a full path: {_short(target)}")
    return INCLUDE + path


def _address(text: str) -> str:
    try:
        address = Address.from_text(text.strip())
    except AddressError as error:
        raise ValueError(f"{_short(text)}: {error}") from None
    if address.is_null:
        raise ValueError("a target is empty")
    return address.to_text()


def _short(text: str) -> str:
    return f'"{text if len(text) <= 60 else text[:57] + "..."}"'
