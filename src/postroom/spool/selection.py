"""Which queued messages an operator means: one filter for every command.

A filter is checked once, where it is made or decoded; whoever holds one may rely on
it. What makes no sense raises ``ValueError`` with a sentence for a person.

Texts are patterns without regard to case (of ASCII letters). A plain text means a
part; with ``*`` (anything) or ``?`` (one character) the pattern stands for the whole;
``!`` in front means those that do not match. Of several texts in one field one must
match, and none of those with ``!`` may; all fields that are given must match.
"""

from typing import NamedTuple

import msgspec

from postroom.mail.ids import parse_queue_id

STATES = ("ready", "expanding", "held", "quarantined", "shunted", "delivering")
"""What may be said of a recipient's state; ``held`` covers ``quarantined``."""

HELD_BY = "held by "
"""Begins the reason of what an operator holds; other reasons are a quarantine's."""

TERMS_MAX = 100
"""How many texts a field may have."""
IDS_MAX = 2_000
"""How many messages a filter may name by id."""
TEXT_CHARACTERS_MAX = 1_000

_TEXTS = ("id_parts", "senders", "recipients", "domains", "hops", "errors")
_AMOUNTS = ("older_us", "younger_us", "larger_octets", "smaller_octets")


class QueueFilter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which entries are meant; empty fields match all.

    What is said of recipients (``recipients``, ``domains``, ``hops``, ``errors``,
    ``states``) must all be true of one and the same recipient.

    Attributes:
        queue_ids: exact ids.
        id_parts: patterns of ids, as sendmail's ``-qI``.
        senders: patterns of the envelope sender; ``<>`` is the null sender.
        recipients: patterns of an address.
        domains: a recipient's whole domain, or a pattern of it with ``*``.
        hops: where it goes next, whole, or a pattern with ``*``.
        errors: patterns of the reason why a recipient waits or is held.
        states: any of ``STATES``.
        older_us: arrived at least so long ago.
        younger_us: arrived less than so long ago.
        larger_octets: has more octets than that.
        smaller_octets: has fewer octets than that.
    """

    queue_ids: tuple[str, ...] = ()
    id_parts: tuple[str, ...] = ()
    senders: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    hops: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    older_us: int = 0
    younger_us: int = 0
    larger_octets: int = 0
    smaller_octets: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if len(self.queue_ids) > IDS_MAX:
            raise ValueError(f"more than {IDS_MAX} ids at a time")
        for queue_id in self.queue_ids:
            parse_queue_id(queue_id)
        for name in _TEXTS:
            _check_texts(getattr(self, name))
        for state in self.states:
            if state not in STATES:
                known = ", ".join(STATES)
                raise ValueError(f'"{state}" is no state: they are {known}')
        for name in _AMOUNTS:
            if not 0 <= getattr(self, name) < 1 << 62:
                raise ValueError(f"{name} is out of range")

    @property
    def is_empty(self) -> bool:
        """Whether it matches everything."""
        return self == _EMPTY

    @property
    def names_waiting_states(self) -> bool:
        """Whether it speaks of what waits for an operator: held or put aside."""
        return bool({"held", "quarantined", "shunted"}.intersection(self.states))


class Pattern(NamedTuple):
    """One text of a filter, understood; all letters in lower case.

    ``is_whole`` says that the text stands for the whole value, ``is_glob`` that it
    has ``*`` or ``?``, ``negated`` that it must not match.
    """

    text: str
    is_glob: bool
    is_whole: bool
    negated: bool

    def matches(self, value: str) -> bool:
        """Whether a value matches, apart from ``negated``."""
        value = lower(value)
        if self.is_glob:
            return _glob_matches(self.text, value)
        return self.text == value if self.is_whole else self.text in value


def pattern(text: str, *, whole: bool = False) -> Pattern:
    """Read one text of a filter; ``whole`` where a part would not be enough."""
    negated = text.startswith("!")
    text = lower(text[1:] if negated else text)
    if text == "<>":
        return Pattern("", False, True, negated)
    is_glob = "*" in text or "?" in text
    return Pattern(text, is_glob, whole or is_glob, negated)


def matches(texts: tuple[str, ...], value: str) -> bool:
    """Whether a value is one of those that a filter's field means."""
    found = [pattern(text) for text in texts]
    wanted = [one for one in found if not one.negated]
    if wanted and not any(one.matches(value) for one in wanted):
        return False
    return not any(one.matches(value) for one in found if one.negated)


def lower(text: str) -> str:
    """Return a text with its ASCII letters in lower case, as SQLite does it."""
    if text.isascii():
        return text.lower()
    return "".join(c.lower() if c.isascii() else c for c in text)


def _check_texts(texts: tuple[str, ...]) -> None:
    if len(texts) > TERMS_MAX:
        raise ValueError(f"more than {TERMS_MAX} texts for one field")
    for text in texts:
        if len(text) > TEXT_CHARACTERS_MAX:
            raise ValueError(f"a text is longer than {TEXT_CHARACTERS_MAX} characters")
        if not text.removeprefix("!"):
            raise ValueError("an empty text matches everything: leave it out")
        if "\0" in text or not text.isprintable():
            raise ValueError("a text has characters that cannot be printed")


def _glob_matches(glob: str, value: str) -> bool:
    """Match with one step back to the last star: linear in practice, no blow-up."""
    at = star = restart = -1
    at, place = 0, 0
    while place < len(value):
        if at < len(glob) and glob[at] == "*":
            star, restart, at = at, place, at + 1
        elif at < len(glob) and glob[at] in ("?", value[place]):
            at, place = at + 1, place + 1
        elif star >= 0:
            restart += 1
            at, place = star + 1, restart
        else:
            return False
    return not glob[at:].strip("*")


_EMPTY = QueueFilter()
