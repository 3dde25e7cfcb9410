"""One event type per fact of the domain. Log lines, metrics and hooks come from these.

Pure. Times are ``utc_us``; octets and microseconds are in the names. Text that came
from a peer is carried as it came and is escaped where it is written out.
"""

import msgspec

from postroom.mail.address import Address
from postroom.mail.envelope import Origin
from postroom.mail.ids import QueueId
from postroom.mail.outcome import Deferred, Outcome


class Event(msgspec.Struct, frozen=True, tag=True):
    """Anything worth telling. ``utc_us`` is when it happened."""

    utc_us: int


class SessionOpened(Event, frozen=True, tag=True):
    """A client connected to a service (``smtp``, ``pop3``, ``submit``)."""

    service: str
    origin: Origin


class SessionRefused(Event, frozen=True, tag=True):
    """A client was turned away at the door; ``why`` names the limit or rule."""

    service: str
    client_ip: str
    why: str


class SessionClosed(Event, frozen=True, tag=True):
    """A session ended; ``how`` is ``quit``, ``lost``, or the limit that was reached."""

    service: str
    origin: Origin
    how: str
    messages: int
    duration_us: int


class CommandRejected(Event, frozen=True, tag=True):
    """A command got a 4yz or 5yz reply. ``rule`` names the hook or limit.

    ``argument`` is the address, name or client that was judged; of a line that was not
    understood it is what stood behind the verb, as received.
    """

    origin: Origin
    verb: str
    argument: str
    reply: str
    rule: str
    queue_id: str = ""


class ClientSuspected(Event, frozen=True, tag=True):
    """Something about a client speaks against it, before it has sent anything.

    ``check`` names what was looked at, ``action`` is what the settings make of it:
    ``log``, ``defer`` or ``reject``.
    """

    origin: Origin
    check: str
    detail: str
    action: str


class MessageQueued(Event, frozen=True, tag=True):
    """A message is durable and acknowledged: the ``from=`` line.

    ``priority`` is its MT-PRIORITY (RFC 6710 §4.1), 0 for most.
    """

    queue_id: QueueId
    sender: Address
    size_octets: int
    recipients: int
    message_id: str
    origin: Origin
    priority: int = 0


class MessageDiscarded(Event, frozen=True, tag=True):
    """A hook had the message thrown away.

    ``sender`` and ``origin`` say whose it was; None in the history of older versions.
    """

    queue_id: QueueId
    reason: str
    sender: Address | None = None
    origin: Origin | None = None


class RecipientDiscarded(Event, frozen=True, tag=True):
    """A hook had the message thrown away for one recipient, others may have it."""

    queue_id: QueueId
    recipient: Address
    reason: str


class RecipientExpanded(Event, frozen=True, tag=True):
    """An alias or list turned one recipient into others."""

    queue_id: QueueId
    recipient: Address
    rule: str
    children: int
    clone: str = ""


class AttemptDone(Event, frozen=True, tag=True):
    """One recipient's part of one attempt: the ``to=`` line.

    ``next_us`` is when it is tried again; 0: it is done with, for good or ill.
    """

    queue_id: QueueId
    recipient: Address
    outcome: Outcome
    agent: str
    tries: int
    delay_us: int
    transfer_us: int
    next_us: int = 0

    @property
    def is_given_up(self) -> bool:
        """Whether it was deferred once too often: its time is over."""
        return not self.next_us and isinstance(self.outcome, Deferred)


class ReportQueued(Event, frozen=True, tag=True):
    """A delivery report was put in the queue in the sender's name of origin."""

    queue_id: QueueId
    about: QueueId
    kind: str
    recipient: Address


class ReportDropped(Event, frozen=True, tag=True):
    """No report could be sent (null sender twice); the reason says so."""

    about: QueueId
    reason: str


class MessageRemoved(Event, frozen=True, tag=True):
    """An operator removed a message, or recipients of it."""

    queue_id: QueueId
    by: str


class MessageOrdered(Event, frozen=True, tag=True):
    """An operator did something with a message that stays in the queue.

    ``act`` is ``hold``, ``release``, ``retry``, ``requeue`` or ``bounce``.
    """

    queue_id: QueueId
    act: str
    by: str
    reason: str = ""


class MessageShunted(Event, frozen=True, tag=True):
    """An entry was put aside because it cannot be read or crashes its worker."""

    queue_id: str
    reason: str


class LoggedIn(Event, frozen=True, tag=True):
    """A password or other proof was accepted."""

    service: str
    origin: Origin
    user: str
    mechanism: str


class LoginFailed(Event, frozen=True, tag=True):
    """A proof was refused; the user's name is as given by the client."""

    service: str
    origin: Origin
    user: str
    mechanism: str
    reason: str


class TlsStarted(Event, frozen=True, tag=True):
    """A connection is encrypted. ``side`` is what we are on it: client or server.

    ``verify`` is ``OK`` if the peer's certificate was checked and will do, ``NO`` if
    nobody asked; ``resumed`` says that an earlier session was taken up.
    """

    side: str
    relay: str
    version: str
    cipher: str
    bits: int
    verify: str
    resumed: bool = False


class TlsFailed(Event, frozen=True, tag=True):
    """TLS with a peer came to nothing, or the peer did what it may not before it."""

    side: str
    relay: str
    error: str


class LoggedInElsewhere(Event, frozen=True, tag=True):
    """We logged in at another host, or could not: then ``error`` says why."""

    relay: str
    user: str
    mechanism: str
    error: str = ""


class MailboxSession(Event, frozen=True, tag=True):
    """A POP3 session ended: what was fetched and deleted."""

    user: str
    client_ip: str
    retrieved: int
    retrieved_octets: int
    deleted: int
    left: int


class HookFailed(Event, frozen=True, tag=True):
    """A hook raised, overran its time, or returned nonsense; the client got 451."""

    hook: str
    phase: str
    error: str


class HookSlow(Event, frozen=True, tag=True):
    """A plain hook held up the loop for longer than allowed."""

    hook: str
    phase: str
    duration_us: int


class SpoolFailed(Event, frozen=True, tag=True):
    """A write to the spool failed; clients are told 452 or 451."""

    shard: int
    error: str


class TableRefused(Event, frozen=True, tag=True):
    """A table file has an error; the version in force stays.

    ``line`` is 0 when it is the file itself. Unless ``in_force`` there is no such
    version, as when the server has just started: what needs the table has to wait.
    """

    path: str
    line: int
    error: str
    in_force: bool = True


class Lifecycle(Event, frozen=True, tag=True):
    """A process or generation changed state; ``what`` is a short sentence."""

    what: str
    level: str = "info"


AnyEvent = (
    SessionOpened
    | SessionRefused
    | SessionClosed
    | CommandRejected
    | ClientSuspected
    | MessageQueued
    | MessageDiscarded
    | RecipientDiscarded
    | RecipientExpanded
    | AttemptDone
    | ReportQueued
    | ReportDropped
    | MessageRemoved
    | MessageOrdered
    | MessageShunted
    | LoggedIn
    | LoginFailed
    | TlsStarted
    | TlsFailed
    | LoggedInElsewhere
    | MailboxSession
    | HookFailed
    | HookSlow
    | SpoolFailed
    | TableRefused
    | Lifecycle
)
