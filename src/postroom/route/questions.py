"""The facts that routing asks for midway, and what can be said to them. Pure.

A decision that needs facts is a generator: it yields a question and is sent an
answer. ``Failed`` means that nobody could say now; it always ends in a deferral and
is never taken for "not found".
"""

from typing import Literal

import msgspec

ALIASES = "aliases"
ROUTES = "routes"
SENDERS = "senders"


class Lookup(msgspec.Struct, frozen=True, gc=False):
    """What does a table have for a key (in lower case)?"""

    table: str
    key: str


class Resolve(msgspec.Struct, frozen=True, gc=False):
    """Which records of a type does a domain name have?"""

    name: str
    rdtype: Literal["MX", "A", "AAAA", "TXT", "PTR", "CNAME"]


class UserExists(msgspec.Struct, frozen=True, gc=False):
    """Is there a local user of this name (in lower case)?"""

    name: str


class ReadInclude(msgspec.Struct, frozen=True, gc=False):
    """Which targets does the list in this file have?"""

    path: str


Question = Lookup | Resolve | UserExists | ReadInclude


class Found(msgspec.Struct, frozen=True):
    """Here it is: the targets of an alias, the records of a name, or one value."""

    values: tuple[str, ...] = ()

    @property
    def value(self) -> str:
        """The first value, empty if there is none."""
        return self.values[0] if self.values else ""


class NotFound(msgspec.Struct, frozen=True, gc=False):
    """There is none, for certain. ``reason`` may say why."""

    reason: str = ""


class Failed(msgspec.Struct, frozen=True, gc=False):
    """Nobody could say now."""

    reason: str


Answer = Found | NotFound | Failed


def to_text(said: Question | Answer) -> str:
    """Write a question or an answer for a person."""
    match said:
        case Lookup(table, key):
            return f"{table}: {key}?"
        case Resolve(name, rdtype):
            return f"DNS: {name} {rdtype}?"
        case UserExists(name):
            return f"users: {name}?"
        case ReadInclude(path):
            return f"file: {path}?"
        case Found(()):
            return "yes"
        case Found(values):
            shown = ", ".join(values[:10])
            return shown if len(values) <= 10 else f"{shown}, ... ({len(values)})"
        case NotFound(reason):
            return f"no: {reason}" if reason else "no"
        case Failed(reason):
            return f"cannot say now: {reason}"
