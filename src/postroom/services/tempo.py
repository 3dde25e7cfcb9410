"""How fast and how long a client may talk: greet pause, delays, pace, session time.

Delays are pauses of the stream: no worker is held up by them, and they end when the
client goes or the server is to end. What is asked of a session is set once, at its
beginning; the stream's sweeper looks after it, so commands cost nothing.

Clients of ``receive.exempt_networks`` are let alone, and so are LMTP and ``sendmail
-bs``, whose clients are known.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from postroom.mail.reply import Reply
from postroom.net.demand import Demand
from postroom.net.stream import StreamOverstayed, StreamTimeout, StreamTooSlow
from postroom.policy.session import in_networks
from postroom.services.face import Kind
from postroom.services.talk import Talk

_EARLY = Reply.of(554, "5.5.1", "You have to wait for the greeting")
_BAD_RECIPIENTS = Reply.of(421, "4.7.0", "Too many bad recipients, closing connection")
_IDLE = Reply.of(421, "4.7.0", "Too many commands without a message")
_AHEAD = Reply.of(421, "4.7.0", "Improper use of command pipelining")
_TIMEOUT = Reply.of(421, "4.4.2", "Timeout waiting for the client")
_OVERSTAYED = Reply.of(421, "4.4.2", "The session has lasted too long")
_TOO_SLOW = Reply.of(421, "4.4.2", "The content comes too slowly")

Handler = Callable[[Talk, Any], Awaitable[None] | None]

_KNOWN = frozenset((Kind.LOCAL, Kind.LMTP))


def is_free(talk: Talk) -> bool:
    """Whether the client may take its time, and is never made to wait."""
    if talk.face.kind in _KNOWN:
        return True
    networks = talk.generation.receive.exempt_networks
    return bool(networks) and in_networks(talk.origin.client_ip, networks)


def begin(talk: Talk) -> None:
    """Set how long the session may last, and how fast content has to come."""
    receive = talk.generation.receive
    if not (receive.session_timeout or receive.data_rate_min) or is_free(talk):
        return
    if receive.session_timeout:
        talk.stream.end_at(talk.opened.mono_us + receive.session_timeout)
    if receive.data_rate_min:
        rate, window_us = receive.data_rate_min, receive.data_rate_window
        owes = lambda: talk.content is not None  # noqa: E731 - one line says it best
        talk.stream.demand(Demand(rate, window_us, owes))


async def greet_pause(talk: Talk) -> Reply | None:
    """Let the client wait for the greeting; returns a refusal if it talks first."""
    pause = talk.generation.receive.greet_pause
    if not pause or talk.face.kind is not Kind.SMTP or is_free(talk):
        return None
    # RFC 5321 §4.3.1: the client awaits the greeting before it sends anything.
    if not await talk.stream.pause(pause, until_octets=True):
        return None
    talk.rejected("", "talks before the greeting", _EARLY, "greet_pause")
    return _EARLY


def ahead(talk: Talk, verb: str) -> Reply | None:
    """Return a refusal if the client did not wait for the answer to its hello.

    RFC 2920 §3.1: a hello ends a group of commands, because its answer says whether
    groups are understood at all.
    """
    if (
        talk.generation.receive.pipelining_ahead == "allow"
        or not talk.core.unread_octets
    ):
        return None
    if is_free(talk):
        return None
    talk.rejected(verb, "", _AHEAD, "pipelining_ahead")
    talk.leaving = "pipelining_ahead"
    return _AHEAD


def recipient_refused(talk: Talk, reply: Reply) -> Reply:
    """Count a refused recipient; returns what is to be answered.

    Beyond ``bad_recipients_free`` each makes the next answer come later.
    """
    receive = talk.generation.receive
    if reply.is_transient or talk.origin.login or is_free(talk):
        return reply
    talk.bad_recipients += 1
    bad = talk.bad_recipients
    if receive.bad_recipients_max and bad > receive.bad_recipients_max:
        talk.rejected("RCPT", "", _BAD_RECIPIENTS, "bad_recipients_max")
        talk.leaving = "bad_recipients_max"
        return _BAD_RECIPIENTS
    delay_us = (bad - receive.bad_recipients_free) * receive.bad_recipient_delay
    if delay_us > 0:
        talk.pause_us = min(delay_us, receive.bad_recipient_delay_max)
    return reply


def counted(handler: Handler) -> Handler:
    """Return a handler of a command that moves no mail, which may come so often only.

    NOOP, RSET and their like keep a session alive for as long as a client wishes, or
    try names out.
    """

    def handle(talk: Talk, event: Any) -> Awaitable[None] | None:
        if not _is_one_too_many(talk):
            return handler(talk, event)
        talk.core.reply(_send_off(talk, event.verb))
        return None

    return handle


def refused(talk: Talk, verb: str, reply: Reply) -> Reply:
    """Count a refused MAIL or AUTH as such a command; returns what is answered."""
    return _send_off(talk, verb) if _is_one_too_many(talk) else reply


def refused_by_core(talk: Talk, verb: str) -> None:
    """Count one that the core has answered already."""
    if _is_one_too_many(talk):
        talk.core.farewell(_send_off(talk, verb))


def _is_one_too_many(talk: Talk) -> bool:
    if talk.idle_from != talk.messages:  # a message was taken since
        talk.idle_from, talk.idle_commands = talk.messages, 0
    talk.idle_commands += 1
    idle_max = talk.generation.receive.idle_commands_max
    return 0 < idle_max < talk.idle_commands and not is_free(talk)


def _send_off(talk: Talk, verb: str) -> Reply:
    talk.rejected(verb, "", _IDLE, "idle_commands_max")
    talk.leaving = "idle_commands_max"
    return _IDLE


async def pause(talk: Talk) -> None:
    """Let the client wait as long as was set; what it was told so far goes out."""
    out = talk.core.data_to_send()
    if out:
        talk.stream.write(out)
    wait_us, talk.pause_us = talk.pause_us, 0
    await talk.stream.pause(wait_us)


def overdue(error: StreamTimeout) -> tuple[Reply, str]:
    """Return what a client that took too long is told, and which limit it was."""
    match error:
        case StreamOverstayed():
            return _OVERSTAYED, "session_timeout"
        case StreamTooSlow():
            return _TOO_SLOW, "data_rate_min"
        case _:
            return _TIMEOUT, "timeout"
