"""The one table of the dialogue: (state, verb, first digit of the reply) to next state.

It does not know which side it is on: server and client see the same commands and the
same replies in the same order, so both run this table and stay in step. A pair that is
missing is a mistake: of the peer (the client tells it as ``ProtocolError``) or of our
own code (``LocalProtocolError`` in the server).

Three rules shape it: a refused command changes nothing (RFC 5321 §4.1.4); 421 ends
the session whatever it answers (RFC 5321 §3.8); the end of data ends the transaction
whatever the reply (RFC 5321 §4.1.1.4), also where it comes as the last chunk.

A chunk (BDAT, RFC 3030) is answered once its octets have come. After the content 353
may announce a reply for each recipient and one for all (PRDR, draft-hall-prdr-00).
"""

from collections.abc import Iterator
from enum import StrEnum


class State(StrEnum):
    """Where a session stands, after the last reply."""

    CONNECTED = "connected"
    REFUSED = "refused"
    START = "start"
    READY = "ready"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BDAT = "bdat"
    PRDR = "prdr"
    AUTH = "auth"
    TLS = "tls"
    CLOSED = "closed"


class Verb(StrEnum):
    """What a reply can answer: the commands, and what has no word of its own."""

    GREETING = "(greeting)"
    CONTENT = "."
    RESPONSE = "(response)"
    HANDSHAKE = "(handshake)"
    BDAT_LAST = "BDAT LAST"
    """A chunk that ends the content (RFC 3030 §2)."""
    VERDICT = "(verdict)"
    """What 353 announced for one recipient."""
    EHLO = "EHLO"
    HELO = "HELO"
    LHLO = "LHLO"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    BDAT = "BDAT"
    RSET = "RSET"
    NOOP = "NOOP"
    VRFY = "VRFY"
    EXPN = "EXPN"
    HELP = "HELP"
    QUIT = "QUIT"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    ETRN = "ETRN"
    VERB = "VERB"
    XCLIENT = "XCLIENT"


WORDLESS = frozenset(
    {
        Verb.GREETING,
        Verb.CONTENT,
        Verb.RESPONSE,
        Verb.HANDSHAKE,
        Verb.BDAT_LAST,
        Verb.VERDICT,
    }
)
"""Verbs that are never the first word of a command line."""

COMMANDS = tuple(verb for verb in Verb if verb not in WORDLESS)

HELLOS = frozenset({Verb.EHLO, Verb.HELO, Verb.LHLO})

_GREETED = (State.START, State.READY, State.MAIL, State.RCPT, State.BDAT)
_TRANSACTION = (State.READY, State.MAIL, State.RCPT, State.BDAT)

Row = tuple[State, Verb, str, State]
"""State, verb, the first digits this row is for, next state."""


def _rows() -> Iterator[Row]:
    yield State.CONNECTED, Verb.GREETING, "2", State.START
    # RFC 5321 §3.1: after 554 the client may only QUIT
    yield State.CONNECTED, Verb.GREETING, "45", State.REFUSED
    for state in (State.REFUSED, *_GREETED):  # what is refused changes nothing
        for verb in COMMANDS:
            yield state, verb, "45", state
        yield state, Verb.BDAT_LAST, "45", state
        yield state, Verb.QUIT, "245", State.CLOSED
    for state in _GREETED:
        for verb in HELLOS:  # RFC 5321 §4.1.4: a hello is also a reset
            yield state, verb, "2", State.READY
        # RFC 5321 §4.1.4: these may come at any time
        for verb in (Verb.NOOP, Verb.VRFY, Verb.EXPN, Verb.HELP, Verb.VERB):
            yield state, verb, "2", state
    yield State.START, Verb.RSET, "2", State.START
    for state in _TRANSACTION:
        yield state, Verb.RSET, "2", State.READY
    yield State.READY, Verb.MAIL, "2", State.MAIL
    yield State.MAIL, Verb.RCPT, "2", State.RCPT
    yield State.RCPT, Verb.RCPT, "2", State.RCPT
    yield State.RCPT, Verb.DATA, "3", State.DATA
    # RFC 2920 §3.1: a server may say 354 though it took no recipient
    yield State.MAIL, Verb.DATA, "3", State.DATA
    yield State.DATA, Verb.CONTENT, "245", State.READY
    for state in (State.RCPT, State.BDAT):  # RFC 3030 §2
        yield state, Verb.BDAT, "2", State.BDAT
        yield state, Verb.BDAT_LAST, "245", State.READY
        yield state, Verb.BDAT_LAST, "3", State.PRDR
    yield State.DATA, Verb.CONTENT, "3", State.PRDR  # draft-hall-prdr-00 §4.5
    yield State.PRDR, Verb.VERDICT, "245", State.PRDR
    yield State.PRDR, Verb.CONTENT, "245", State.READY
    yield State.READY, Verb.ETRN, "2", State.READY  # RFC 1985 §5
    for state in (State.START, State.READY):  # who the client is begins anew
        yield state, Verb.XCLIENT, "2", State.START
    yield State.READY, Verb.AUTH, "2", State.READY  # RFC 4954 §4
    yield State.READY, Verb.AUTH, "3", State.AUTH
    yield State.AUTH, Verb.RESPONSE, "3", State.AUTH
    yield State.AUTH, Verb.RESPONSE, "245", State.READY
    yield State.READY, Verb.STARTTLS, "2", State.TLS  # RFC 3207 §4
    yield State.TLS, Verb.HANDSHAKE, "2", State.START  # RFC 3207 §4.2


Moves = dict[Verb, dict[int, State]]


def _table() -> dict[State, Moves]:
    table: dict[State, Moves] = {state: {} for state in State}
    for state, verb, digits, after in _rows():
        for digit in digits:
            table[state].setdefault(verb, {})[int(digit)] = after
    return table


TABLE = _table()
"""Next states by state, verb and first digit of the reply."""

VERDICTS_FOLLOW = 353
"""The one 3yz code that may answer content (draft-hall-prdr-00 §4.5)."""

ALLOWED = {
    state: frozenset(verb for verb, row in moves.items() if 2 in row or 3 in row)
    for state, moves in TABLE.items()
}
"""The verbs that can succeed in a state; others are a bad sequence (503)."""


def next_state(state: State, verb: Verb, code: int) -> State | None:
    """Return the state after ``verb`` was answered by ``code``; None: it cannot be."""
    if code == 421:  # RFC 5321 §3.8: the server closes the channel after it
        return None if state is State.CLOSED else State.CLOSED
    row = TABLE[state].get(verb)
    after = row.get(code // 100) if row else None
    if after is State.PRDR and code // 100 == 3 and code != VERDICTS_FOLLOW:
        return None
    return after
