"""An operator's filter as SQL. Every value is bound, none becomes part of a statement.

``messages`` concerns a row ``m`` of the table messages, ``recipients`` a row ``r`` of
recipients. What SQL cannot say (parts of a queue id, which is stored as a number) is
``id_parts``, for the caller to apply to what was found.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from postroom.mail.ids import QueueId, to_number
from postroom.spool import statements
from postroom.spool.selection import (
    HELD_BY,
    Pattern,
    QueueFilter,
    lower,
    matches,
    pattern,
)
from postroom.spool.spool import RecipientState

_HELD_BY_OPERATOR = f"substr(r.status_text, 1, {len(HELD_BY)}) = '{HELD_BY}'"
_STATES = {
    "ready": f"r.state = {RecipientState.READY.value}",
    "expanding": f"r.state = {RecipientState.EXPANDING.value}",
    "held": f"r.state = {RecipientState.HELD.value}",
    "quarantined": f"(r.state = {RecipientState.HELD.value}"
    f" AND NOT {_HELD_BY_OPERATOR})",
    "shunted": f"r.state = {RecipientState.SHUNTED.value}",
    "delivering": "r.message IN carray(?)",
}
_NOBODY = (-1,)


class Condition(msgspec.Struct, frozen=True):
    """Pieces of SQL and their values. ``numbers`` are the only messages meant, if any.

    A piece that is empty is always true.
    """

    messages: str = ""
    message_values: tuple[Any, ...] = ()
    recipients: str = ""
    recipient_values: tuple[Any, ...] = ()
    numbers: tuple[int, ...] | None = None
    id_parts: tuple[str, ...] = ()

    def means(self, queue_id: str) -> bool:
        """Whether a queue id has the parts that were asked for."""
        return not self.id_parts or matches(self.id_parts, queue_id)


class _Terms:
    def __init__(self) -> None:
        self.sql: list[str] = []
        self.values: list[Any] = []

    def add(self, sql: str, *values: Any) -> None:
        self.sql.append(sql)
        self.values += values

    def texts(
        self, column: str, texts: tuple[str, ...], *, whole: bool = False
    ) -> None:
        """One of the wanted must match, and none of the unwanted."""
        patterns = [pattern(text, whole=whole) for text in texts]
        unwanted = [one for one in patterns if one.negated]
        wanted = [one for one in patterns if not one.negated]
        if wanted:
            pieces = [_match(column, one) for one in wanted]
            self.add(f"({' OR '.join(pieces)})", *map(_value, wanted))
        for one in unwanted:
            self.add(f"NOT {_match(column, one)}", _value(one))


def condition(
    wanted: QueueFilter, now_us: int, active: Sequence[int] = ()
) -> Condition:
    """Turn a filter into SQL; ``active`` are the messages being delivered."""
    messages, recipients = _Terms(), _Terms()
    messages.texts("m.sender", wanted.senders)
    if wanted.older_us:
        messages.add("m.arrival <= ?", now_us - wanted.older_us)
    if wanted.younger_us:
        messages.add("m.arrival > ?", now_us - wanted.younger_us)
    if wanted.larger_octets:
        messages.add("m.size > ?", wanted.larger_octets)
    if wanted.smaller_octets:
        messages.add("m.size < ?", wanted.smaller_octets)
    recipients.texts("r.address", wanted.recipients)
    domains = tuple(_domain(text) for text in wanted.domains)
    recipients.texts(domain_of("r.address"), domains, whole=True)
    recipients.texts("r.hop", wanted.hops, whole=True)
    recipients.texts(reason_of("r"), wanted.errors)
    if wanted.states:
        pieces = [_STATES[state] for state in dict.fromkeys(wanted.states)]
        bound = "delivering" in wanted.states
        values = [statements.numbers(active or _NOBODY)] if bound else []
        recipients.add(f"({' OR '.join(pieces)})", *values)
    ids = [to_number(QueueId(text)) for text in wanted.queue_ids]
    return Condition(
        " AND ".join(messages.sql),
        tuple(messages.values),
        " AND ".join(recipients.sql),
        tuple(recipients.values),
        tuple(sorted(set(ids))) if ids else None,
        wanted.id_parts,
    )


def reason_of(table: str) -> str:
    """Return SQL for why a recipient waits: its hop's rest, or what it was told."""
    rest = f"SELECT 'Deferred: ' || text FROM rests WHERE hop = {table}.hop"  # noqa: S608
    text = f"{table}.status_text"
    return f"(CASE {table}.state WHEN 0 THEN ifnull(({rest}), {text}) ELSE {text} END)"


def domain_of(column: str) -> str:
    """Return SQL for what stands behind the last ``@`` of an address, or nothing."""
    # Trimming all that is no "@" from the end leaves what is before the domain.
    front = f"rtrim({column}, replace({column}, '@', ''))"
    return (
        f"(CASE WHEN instr({column}, '@') THEN"
        f" substr({column}, length({front}) + 1) ELSE '' END)"
    )


def _match(column: str, one: Pattern) -> str:
    if one.is_glob:
        return f"lower({column}) GLOB ?"
    if one.is_whole:
        return f"lower({column}) = ?"
    return f"instr(lower({column}), ?) > 0"


def _value(one: Pattern) -> str:
    # GLOB knows sets in brackets, too; here a bracket is a bracket.
    return one.text.replace("[", "[[]") if one.is_glob else one.text


def _domain(text: str) -> str:
    negated = "!" if text.startswith("!") else ""
    name = lower(text.removeprefix("!")).removeprefix("@").rstrip(".")
    return negated + (name or "<>")
