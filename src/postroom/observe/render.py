r"""Events as lines: in sendmail's manner, or as JSON. Pure.

One event is one line, whatever a peer wrote: control and other unprintable characters
are escaped as ``\x0a`` or ``\u2028``, and long values are shortened in the middle as
sendmail does. The field order is sendmail's, so that existing log tools work.
"""

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import assert_never

import msgspec

from postroom.mail.envelope import Origin
from postroom.mail.outcome import Deferred, Delivered, Failed, Outcome
from postroom.observe.events import (
    AnyEvent,
    AttemptDone,
    ClientSuspected,
    CommandRejected,
    HookFailed,
    HookSlow,
    Lifecycle,
    LoggedIn,
    LoggedInElsewhere,
    LoginFailed,
    MailboxSession,
    MessageDiscarded,
    MessageOrdered,
    MessageQueued,
    MessageRemoved,
    MessageShunted,
    RecipientDiscarded,
    RecipientExpanded,
    ReportDropped,
    ReportQueued,
    SessionClosed,
    SessionOpened,
    SessionRefused,
    SpoolFailed,
    TableRefused,
    TlsFailed,
    TlsStarted,
)

VALUE_CHARACTERS_MAX = 203
"""Longer values keep their begin and end (sendmail's MAXSHORTSTR)."""

_MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"
_encode = msgspec.json.Encoder().encode
# DEL, C1 controls, the Unicode line ends, and what turns the direction of writing:
# legal in JSON, but some tools break there, and terminals obey.
_NOT_A_LINE = re.compile(r"[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


# What log tools know the agents by.
_MAILERS = {"mailbox": "local", "smtp": "esmtp"}


def syslog_line(
    event: AnyEvent, *, hostname: str, pid: int, zone_offset_s: int = 0
) -> str:
    """Return an event as a line of a log file, without the line end.

    Args:
        event: what happened.
        hostname: our name; its first label is written, as syslog does.
        pid: the process that tells it.
        zone_offset_s: seconds east of UTC for the time stamp.
    """
    stamp = _stamp(event.utc_us // 1_000_000 + zone_offset_s)
    host = hostname.partition(".")[0]
    return f"{stamp} {host} postroom[{pid}]: {event_text(event)}"


def event_text(event: AnyEvent) -> str:
    """Return the text of an event's line, as given to syslog."""
    return _escape(_text(event))


def json_line(value: object) -> bytes:
    """Return an event as one JSON object with its ``type``, without a line end.

    Whatever else can be JSON is written alike: one line, harmless to a terminal.
    """
    try:
        line = _encode(value)
    except UnicodeEncodeError:  # octets of a peer that are no UTF-8
        line = _encode(_encodable(msgspec.to_builtins(value)))
    if line.isascii() and b"\x7f" not in line:
        return line
    return _NOT_A_LINE.sub(lambda m: f"\\u{ord(m[0]):04x}", line.decode()).encode()


def relay_text(origin: Origin) -> str:
    """Return who handed a message in, as ``name [ip]`` or ``user@localhost``."""
    return _relay(origin.client_name, origin.client_ip, origin.login)


def duration_text(duration_us: int) -> str:
    """Return a duration as sendmail writes it: ``00:00:07``, ``2+03:00:00``."""
    seconds = max(duration_us, 0) // 1_000_000
    if seconds < 60:
        return _SHORT_DURATIONS[seconds]
    days, seconds = divmod(seconds, 86_400)
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{days}+{clock}" if days else clock


def outcome_text(outcome: Outcome) -> str:
    """Return an outcome as the ``stat=`` value."""
    text = _short(outcome.text)
    match outcome:
        case Delivered():
            return f"Sent ({text})" if text not in ("", "Sent") else "Sent"
        case Deferred():
            return f"Deferred: {text}" if text else "Deferred"
        case Failed():
            return text or "Service unavailable"
        case _:
            assert_never(outcome)


_SHORT_DURATIONS = [f"00:00:{second:02}" for second in range(60)]


@lru_cache(maxsize=64)
def _stamp(local_s: int) -> str:
    at = datetime.fromtimestamp(local_s, UTC)
    month = _MONTHS[3 * at.month - 3 : 3 * at.month]
    return f"{month} {at.day:2} {at:%H:%M:%S}"


def _text(event: AnyEvent) -> str:
    match event:
        case MessageQueued():
            return _queued(event)
        case AttemptDone():
            return _attempt(event)
        case CommandRejected():
            return _rejected(event)
        case ClientSuspected():
            return (
                f"check {event.check}: {_short(event.detail)},"
                f" relay={relay_text(event.origin)}, action={event.action}"
            )
        case SessionOpened() | SessionRefused() | SessionClosed():
            return _session(event)
        case LoggedIn() | LoginFailed() | MailboxSession():
            return _login(event)
        case TlsStarted() | TlsFailed() | LoggedInElsewhere():
            return _of_link(event)
        case HookFailed():
            given = "" if event.phase == "outcome" else ", 451 4.3.0 given"
            return (
                f"hook {event.hook} failed in phase {event.phase}{given}:"
                f" {_short(event.error)}"
            )
        case HookSlow():
            return (
                f"hook {event.hook} held up phase {event.phase} for"
                f" {event.duration_us // 1000} ms"
            )
        case SpoolFailed():
            return f"SYSERR: spool shard {event.shard}: {_short(event.error)}"
        case TableRefused():
            return _table_refused(event)
        case Lifecycle():
            return event.what if event.level == "info" else _leveled(event)
        case _:
            return _about_message(event)


def _table_refused(event: TableRefused) -> str:
    where = f"{event.path}: line {event.line}" if event.line else event.path
    told = f"{where}: {_short(event.error)}"
    if event.in_force:
        return f"{told}; the table in force stays"
    return (
        f"ERROR: {told}; there is no version before it: what needs it is answered 451"
        " until it is mended"
    )


def _queued(event: MessageQueued) -> str:
    origin = event.origin
    local = not origin.client_ip
    sender = event.sender.to_text()
    name = f", msgid={_short(event.message_id)}" if event.message_id else ""
    urgent = f", priority={event.priority}" if event.priority else ""
    where = "" if local else f", proto={origin.protocol}, daemon={origin.listener}"
    login = "" if local or not origin.login else f", authid={_short(origin.login)}"
    return (
        f"{event.queue_id}: from=<{sender}>, size={event.size_octets}, class=0,"
        f" nrcpts={event.recipients}{name}{urgent}{where}{login},"
        f" relay={relay_text(origin)}"
    )


def _attempt(event: AttemptDone) -> str:
    outcome = event.outcome
    relay = f" relay={_short(outcome.peer)}," if outcome.peer else ""
    state = outcome_text(outcome)
    if event.is_given_up:
        state = state.replace("Deferred", "Expired", 1)
    return (
        f"{event.queue_id}: to=<{event.recipient.to_text()}>,"
        f" delay={duration_text(event.delay_us)},"
        f" xdelay={duration_text(event.transfer_us)},"
        f" mailer={_MAILERS.get(event.agent, event.agent)}, pri=0,"
        f"{relay} dsn={outcome.status}, stat={state}"
    )


def _rejected(event: CommandRejected) -> str:
    rule = f"check_{event.verb.lower()}" if event.verb else "check"
    return (
        f"{event.queue_id or 'NOQUEUE'}: ruleset={_short(rule)},"
        f" arg1={_given(event.argument)}, relay={relay_text(event.origin)},"
        f" reject={_short(event.reply)}, rule={_short(event.rule)}"
    )


def _session(event: SessionOpened | SessionRefused | SessionClosed) -> str:
    match event:
        case SessionOpened():
            return f"{event.service}: connect from {relay_text(event.origin)}"
        case SessionRefused():
            return (
                f"{event.service}: rejecting connection from [{event.client_ip}]:"
                f" {_short(event.why)}"
            )
        case SessionClosed():
            how = {
                "lost": "lost input channel from",
                "timeout": "timeout waiting for input from",
                "errors": "too many errors from",
                "foreign": "another protocol from",
                "session_timeout": "session too long, from",
                "data_rate_min": "content too slow from",
                "idle_commands_max": "too many idle commands from",
                "bad_recipients_max": "too many bad recipients from",
                "pipelining_ahead": "improper pipelining from",
            }.get(event.how, "disconnect from")
            return (
                f"{event.service}: {how} {relay_text(event.origin)},"
                f" messages={event.messages}, time={duration_text(event.duration_us)}"
            )
        case _:
            assert_never(event)


def _login(event: LoggedIn | LoginFailed | MailboxSession) -> str:
    match event:
        case LoggedIn():
            return (
                f"AUTH=server, daemon={event.service}, relay={_client(event.origin)},"
                f" authid={_short(event.user)}, mech={_short(event.mechanism)}, bits=0"
            )
        case LoginFailed():
            return (
                f"AUTH failure ({_short(event.mechanism)}): {_given(event.reason)},"
                f" daemon={event.service}, relay={_client(event.origin)},"
                f" authid={_given(event.user)}"
            )
        case MailboxSession():
            return (
                f"Stats: user={_short(event.user)}, deleted={event.deleted},"
                f" left={event.left}, retrieved={event.retrieved},"
                f" octets={event.retrieved_octets}, relay=[{event.client_ip}]"
            )
        case _:
            assert_never(event)


def _of_link(event: TlsStarted | TlsFailed | LoggedInElsewhere) -> str:
    relay = f"relay={_short(event.relay)}"
    match event:
        case TlsStarted():
            resumed = ", resumed" if event.resumed else ""
            return (
                f"STARTTLS={event.side}, {relay}, version={event.version},"
                f" verify={event.verify}, cipher={event.cipher},"
                f" bits={event.bits}/{event.bits}{resumed}"
            )
        case TlsFailed():
            return f"STARTTLS={event.side}, {relay}, error={_short(event.error)}"
        case LoggedInElsewhere(error=""):
            return (
                f"AUTH=client, {relay}, authid={_short(event.user)},"
                f" mech={event.mechanism}, bits=0"
            )
        case LoggedInElsewhere():
            return (
                f"AUTH=client, {relay}, authid={_short(event.user)},"
                f" mech={event.mechanism or 'none'}, error={_short(event.error)}"
            )
        case _:
            assert_never(event)


def _about_message(
    event: MessageDiscarded
    | RecipientDiscarded
    | RecipientExpanded
    | ReportQueued
    | ReportDropped
    | MessageRemoved
    | MessageOrdered
    | MessageShunted,
) -> str:
    match event:
        case MessageDiscarded():
            whose = ""
            if event.sender is not None and event.origin is not None:
                whose = (
                    f"from=<{event.sender.to_text()}>,"
                    f" relay={relay_text(event.origin)}, "
                )
            return f"{event.queue_id}: {whose}discarded: {_short(event.reason)}"
        case RecipientDiscarded():
            to = event.recipient.to_text()
            return f"{event.queue_id}: to=<{to}>, discarded: {_short(event.reason)}"
        case RecipientExpanded():
            clone = f", clone={event.clone}" if event.clone else ""
            return (
                f"{event.queue_id}: alias <{event.recipient.to_text()}> =>"
                f" {event.children} recipients, rule={_short(event.rule)}{clone}"
            )
        case ReportQueued():
            return (
                f"{event.about}: {event.queue_id}: DSN: {event.kind},"
                f" to=<{event.recipient.to_text()}>"
            )
        case ReportDropped():
            return f"{event.about}: no DSN: {_short(event.reason)}"
        case MessageRemoved():
            return f"{event.queue_id}: removed by {_short(event.by)}"
        case MessageOrdered():
            why = f": {_short(event.reason)}" if event.reason else ""
            return f"{event.queue_id}: {event.act} by {_short(event.by)}{why}"
        case MessageShunted():
            return f"{_short(event.queue_id)}: shunted: {_short(event.reason)}"
        case _:
            assert_never(event)


def _leveled(event: Lifecycle) -> str:
    return f"{event.level.upper()}: {event.what}"


def _client(origin: Origin) -> str:
    return _relay(origin.client_name, origin.client_ip, "")


@lru_cache(maxsize=4096)
def _relay(name: str, ip: str, login: str) -> str:
    if not ip:
        return f"{login or 'MAILER-DAEMON'}@localhost"
    return f"{_short(name)} [{ip}]" if name else f"[{ip}]"


def _short(value: str) -> str:
    if len(value) <= VALUE_CHARACTERS_MAX:
        return value
    half = (VALUE_CHARACTERS_MAX - 3) // 2
    return f"{value[:half]}...{value[-half:]}"


def _given(value: str) -> str:
    """Return what a stranger wrote, such that it cannot look like further fields.

    Programs that bar addresses for what the log tells of them look for ``relay=[``.
    """
    return _short(value).replace(", ", ",\\x20").replace("relay=", "relay\\x3d")


def _escape(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(ord(c)) for c in text)


def _escaped(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _encodable(value: object) -> object:
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {key: _encodable(item) for key, item in value.items()}
        case list() | tuple():
            return [_encodable(item) for item in value]
        case _:
            return value
