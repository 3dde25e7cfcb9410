"""Reading command lines (RFC 1939 §3, RFC 2449 §3): bytes in, a verb and argument out.

A line that is no command is a ``Malformed`` with its reason; nothing raises.
"""

import re

import msgspec

# RFC 1939 §3: a keyword of three or four letters; a single space before arguments.
_LINE = re.compile(rb"([A-Za-z]{3,4})(?: (.*))?", re.DOTALL)
_CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")
# RFC 1939 §5: message-numbers are decimal and count from 1.
_NUMBER = re.compile(r"0{0,9}([1-9][0-9]{0,9})")
_LINES = re.compile(r"[0-9]{1,10}")


class Command(msgspec.Struct, frozen=True, gc=False):
    """A verb in upper case, and the rest of the line as text, None if there is none."""

    verb: str
    argument: str | None


class Malformed(msgspec.Struct, frozen=True, gc=False):
    """The line is no command."""

    reason: str


def parse(line: bytes) -> Command | Malformed:
    """Read a line, which still has its line end."""
    if not line.endswith(b"\r\n"):
        return Malformed("line must end in CRLF")
    line = line[:-2]
    if _CONTROLS.search(line):
        return Malformed("line has control characters")
    found = _LINE.fullmatch(line)
    if not found:
        return Malformed("unknown command")
    argument = found[2]
    try:
        # Commands are ASCII (RFC 1939 §3); names and passwords may be UTF-8.
        text = None if argument is None else argument.decode("utf-8")
    except UnicodeDecodeError:
        return Malformed("argument is not UTF-8")
    return Command(found[1].decode("ascii").upper(), text)


def message_number(text: str) -> int | None:
    """Read a message-number; None if it is none."""
    found = _NUMBER.fullmatch(text)
    return int(found[1]) if found else None


def top_arguments(text: str) -> tuple[int, int] | None:
    """Read TOP's message-number and line count; None if they are not there."""
    first, _, second = text.partition(" ")
    number = message_number(first)
    if number is None or not _LINES.fullmatch(second):
        return None
    return number, int(second)
