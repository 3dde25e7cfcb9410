"""What a peer's replies and silences mean for each recipient, in sendmail's words.

Pure: replies in, outcomes out. Whatever a peer says, each recipient gets an outcome.
"""

import errno
import os
from collections.abc import Sequence

import msgspec

from postroom.mail.outcome import Deferred, Delivered, Failed, Outcome
from postroom.mail.reply import Reply
from postroom.smtp.dialogue import Verb

# What a code without an enhanced status means, as sendmail reads it.
_STATUSES = {
    421: "4.3.2",
    450: "4.2.0",
    451: "4.3.0",
    452: "4.3.1",
    454: "4.7.0",
    500: "5.5.2",
    501: "5.5.4",
    502: "5.5.1",
    503: "5.5.1",
    504: "5.5.4",
    521: "5.3.2",
    530: "5.7.0",
    550: "5.2.0",
    551: "5.1.6",
    552: "5.2.2",
    553: "5.1.3",
    554: "5.6.0",
    556: "5.1.10",
}
TOO_MANY_STATUS = "4.5.3"
LOST_STATUS = "4.4.2"
"""The status of a connection that broke."""
_TOO_MANY = frozenset({"", "5.5.3", TOO_MANY_STATUS})
_HOST_ERRORS = {
    errno.ECONNREFUSED: "Connection refused by {}",
    errno.ECONNRESET: "Connection reset by {}",
    errno.EPIPE: "Connection reset by {}",
    errno.ETIMEDOUT: "Connection timed out with {}",
    errno.EHOSTDOWN: "Host {} is down",
}
_OURS = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL}
)
TEXT_CHARS_MAX = 500
"""Longer texts of peers are cut."""
SAID_LINES_MAX = 20
"""Of longer replies a report shows so many lines."""


class Peer(msgspec.Struct, frozen=True):
    """One address of one host, as it is tried.

    ``label`` is how people are told: ``mx.whizzer.test.`` with its final dot,
    ``[192.0.2.1]`` for a literal. ``path`` is the socket's, for LMTP on this machine.
    ``is_final`` says that mail is not passed on from there (LMTP).
    ``reports`` says that it offered DSN, so that it sends the reports asked for.
    """

    name: str
    ip: str
    port: int
    path: str = ""
    is_final: bool = False
    reports: bool = False

    @property
    def label(self) -> str:
        """The host as sendmail prints it."""
        return self.name if self.path or self.name.startswith("[") else f"{self.name}."

    @property
    def text(self) -> str:
        """The host as outcomes name it: ``mx.example [192.0.2.1]``."""
        return f"{self.name} [{self.ip}]" if self.ip else self.name


def status_of(reply: Reply) -> str:
    """Return the reply's enhanced status, or what its code means without one."""
    if reply.status and reply.status[0] == str(reply.code)[0]:
        return reply.status
    return _STATUSES.get(reply.code, f"{reply.code // 100}.0.0")


def outcome_of(reply: Reply, verb: Verb | None, peer: Peer) -> Outcome:
    """Return what a reply to MAIL, RCPT, DATA or the content means.

    Without a verb it is the client core's own: the peer was not asked.
    """
    text = reply.text[:TEXT_CHARS_MAX]
    if verb is None and not reply.is_positive and reply.code != 421:
        ours = Deferred if reply.is_transient else Failed
        return ours(reply.status, text, peer.text)
    if 200 <= reply.code < 300:
        relayed = not peer.is_final
        return Delivered(
            status_of(reply), text, peer.text, relayed, reports=peer.reports
        )
    if is_too_many(reply, verb):
        # RFC 5321 §4.5.3.1.10: 552 to RCPT is to be taken as 452
        return Deferred(
            TOO_MANY_STATUS,
            _coded(reply, text),
            peer.text,
            reply.code,
            verb=str(verb),
            said=_said(reply),
        )
    verb_text = str(verb or "")
    if 500 <= reply.code < 600:
        return Failed(
            status_of(reply), text, peer.text, reply.code, verb_text, _said(reply)
        )
    status = status_of(reply)
    if status[0] != "4":  # 354 or the like where it cannot be
        status = "4.5.0"
    hop_failed = reply.code == 421
    return Deferred(
        status,
        _coded(reply, text),
        peer.text,
        reply.code,
        hop_failed,
        verb_text,
        _said(reply),
    )


def is_too_many(reply: Reply, verb: Verb | None) -> bool:
    """Whether RCPT was refused only because there were too many before it."""
    if verb is not Verb.RCPT:
        return False
    if reply.code == 552:
        return reply.status in _TOO_MANY
    return reply.code == 452 and reply.status in _TOO_MANY


def is_too_many_outcome(outcome: Outcome) -> bool:
    """Whether a recipient may be taken at once, in a transaction of its own."""
    return isinstance(outcome, Deferred) and outcome.status == TOO_MANY_STATUS


def outcomes_of(
    results: Sequence[Reply | None],
    verbs: Sequence[Verb | None],
    peer: Peer,
    lost: Deferred,
) -> list[Outcome]:
    """Return one outcome per recipient; ``lost`` for those nobody answered about."""
    return [
        lost if reply is None else outcome_of(reply, verb, peer)
        for reply, verb in zip(results, verbs, strict=True)
    ]


def turned_away(reply: Reply, peer: Peer) -> Deferred:
    """Return the outcome of a greeting or hello that is no welcome."""
    status = status_of(reply)
    if status[0] != "4":
        # A host that refuses all is no fault of the message: another host, or
        # another time.
        status = "4.3.2"
    text = _coded(reply, reply.text[:TEXT_CHARS_MAX])
    return Deferred(
        status, text, peer.text, reply.code, hop_failed=True, said=_said(reply)
    )


def unreachable(error: OSError, peer: Peer) -> Deferred:
    """Return the outcome of a connection that could not be made or broke."""
    number = error.errno or 0
    words = _HOST_ERRORS.get(number)
    text = words.format(peer.label) if words else _why(error)
    # What this machine lacks is not the peer's fault, but it makes no difference to
    # which mail can go there: all of it waits.
    status = "4.3.0" if number in _OURS else "4.4.1"
    return Deferred(status, text, peer.text, hop_failed=True)


def timed_out(peer: Peer) -> Deferred:
    """Return the outcome of waiting in vain for a connection."""
    text = f"Connection timed out with {peer.label}"
    return Deferred("4.4.1", text, peer.text, hop_failed=True)


def lost_connection(peer: Peer, *, overdue: bool = False) -> Deferred:
    """Return the outcome for those about whom no reply came before the end."""
    if overdue:
        text = f"Connection timed out with {peer.label}"
    else:
        text = f"Connection reset by {peer.label}"
    return Deferred(LOST_STATUS, text, peer.text, hop_failed=True)


def nonsense(text: str, peer: Peer) -> Deferred:
    """Return the outcome of a peer that does not speak the protocol."""
    words = f"{peer.label} does not speak SMTP properly: {text[:TEXT_CHARS_MAX]}"
    return Deferred("4.5.0", words, peer.text, hop_failed=True)


def told(outcome: Outcome) -> str:
    """Return an outcome as ``sendmail -v`` prints it behind the address."""
    match outcome:
        case Delivered():
            return f"Sent ({outcome.text})" if outcome.text else "Sent"
        case Deferred():
            return f"Deferred: {outcome.text}"
        case Failed(status="5.1.1" | "5.1.3"):
            return "User unknown"
        case Failed(code=0):
            return outcome.text
        case Failed():
            return "Service unavailable"


def _coded(reply: Reply, text: str) -> str:
    return f"{reply.code} {reply.status} {text}".replace("  ", " ").rstrip()


def _said(reply: Reply) -> tuple[str, ...]:
    """Return the lines as they came on the wire (RFC 3461 §9.2), bounded."""
    status = f"{reply.status} " if reply.status else ""
    lines = reply.lines[:SAID_LINES_MAX]
    last = len(lines) - 1
    return tuple(
        f"{reply.code}{' ' if i == last else '-'}{status}{line[:TEXT_CHARS_MAX]}"
        for i, line in enumerate(lines)
    )


def _why(error: OSError) -> str:
    if error.errno:
        return os.strerror(error.errno)
    return str(error) or "Connection failed"
