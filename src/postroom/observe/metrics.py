"""Counters made from events: what happened, how often, since the process began.

Names are stable words joined by dots, such as ``messages.queued`` or
``attempts.deferred.smtp``; none contains text from a peer.
"""

import re

from postroom.mail.outcome import Deferred, Delivered
from postroom.observe.events import (
    AnyEvent,
    AttemptDone,
    ClientSuspected,
    CommandRejected,
    HookFailed,
    HookSlow,
    LoggedIn,
    LoggedInElsewhere,
    LoginFailed,
    MailboxSession,
    MessageDiscarded,
    MessageQueued,
    MessageShunted,
    RecipientDiscarded,
    ReportDropped,
    ReportQueued,
    SessionClosed,
    SessionOpened,
    SessionRefused,
    SpoolFailed,
    TlsFailed,
    TlsStarted,
)

NAMES_MAX = 500
"""How many limits and hooks are counted by name; further ones together."""

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_\-]{0,63}")


class Metrics:
    """The counters of one process.

    Attributes:
        counts: name to number; a name appears when it was first counted.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._names = 0

    def count(self, event: AnyEvent) -> None:
        """Take an event into account."""
        match event:
            case MessageQueued():
                self._add("messages.queued")
                self._add("messages.octets", event.size_octets)
                self._add("messages.recipients", event.recipients)
            case AttemptDone():
                self._add(f"attempts.{_word(event)}.{event.agent}")
            case SessionOpened():
                self._add(f"sessions.{event.service}")
            case SessionClosed() if event.how != "quit":
                self._add(f"sessions.{event.service}.{event.how}")
            case SessionRefused():
                self._add(f"refused.{event.service}")
                self._add_named(f"refused.{event.service}", event.why)
            case CommandRejected():
                self._add(f"rejected.{event.reply[:1]}yz")
                self._add_named("rejected.by", event.rule.partition(" ")[0])
            case ClientSuspected():
                self._add_named("checks", event.check)
            case TlsStarted():
                self._add(f"tls.{event.side}.started")
                self._add(f"tls.{event.side}.{event.version}")
                if event.resumed:
                    self._add(f"tls.{event.side}.resumed")
            case TlsFailed():
                self._add(f"tls.{event.side}.failed")
            case LoggedInElsewhere():
                self._add(f"logins.elsewhere.{'refused' if event.error else 'done'}")
            case MailboxSession():
                self._add("mailbox.retrieved", event.retrieved)
                self._add("mailbox.octets", event.retrieved_octets)
                self._add("mailbox.deleted", event.deleted)
            case _:
                if name := _PLAIN.get(type(event)):
                    self._add(name)

    def _add_named(self, group: str, word: str) -> None:
        """Count under the name of a limit or hook; few of them, and plain words."""
        name = f"{group}.{word}"
        is_new = name not in self.counts
        if is_new and (self._names >= NAMES_MAX or not _WORD.fullmatch(word)):
            name = f"{group}.other"
        elif is_new:
            self._names += 1
        self._add(name)

    def _add(self, name: str, number: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + number


_PLAIN: dict[type[AnyEvent], str] = {
    MessageDiscarded: "messages.discarded",
    RecipientDiscarded: "recipients.discarded",
    MessageShunted: "messages.shunted",
    ReportDropped: "reports.dropped",
    ReportQueued: "reports.queued",
    LoggedIn: "logins.accepted",
    LoginFailed: "logins.refused",
    HookFailed: "hooks.failed",
    HookSlow: "hooks.slow",
    SpoolFailed: "spool.failed",
}


def _word(event: AttemptDone) -> str:
    match event.outcome:
        case Delivered():
            return "delivered"
        case Deferred():
            return "expired" if event.is_given_up else "deferred"
        case _:
            return "failed"
