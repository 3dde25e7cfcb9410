"""The server's side of a session: octets in, events out; replies in, octets out.

It answers by itself what is only a matter of syntax, sequence and limits, and tells
it as ``Refused``. All else is an event that owes replies, and until ``reply`` is
called no further command is looked at: pipelining, back-pressure and slow decisions
are one mechanism. Replies are gathered; whoever drives it writes ``data_to_send()``
each time ``next_event()`` gave None (RFC 2920 §3.2).

It never raises for what a peer does. ``LocalProtocolError`` means that the caller
answered what was not asked.
"""

from typing import ClassVar, Final

import msgspec

from postroom.mail.reply import Reply
from postroom.smtp import replies
from postroom.smtp.commands import (
    HTTP_METHODS,
    AuthResponse,
    Command,
    Mail,
    Refused,
    parser,
    refused,
    response,
)
from postroom.smtp.data import ContentReader, Problem
from postroom.smtp.dialogue import ALLOWED, State, Verb, next_state
from postroom.smtp.errors import LocalProtocolError
from postroom.smtp.extensions import hello_reply
from postroom.smtp.lines import Inbox, LineFault
from postroom.smtp.replies import wire
from postroom.smtp.settings import ServerSettings


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """A piece of the content in canonical form: dots removed, lines ended by CRLF."""

    data: bytes


class EndOfData(msgspec.Struct, frozen=True, gc=False):
    """The content has ended; owed is one reply, in LMTP one per accepted recipient.

    ``size_octets`` counts the canonical content, also of what was swallowed. With a
    ``problem`` the chunks so far are not the whole: throw them away and answer with
    ``refusal`` (for every recipient).
    """

    verb: ClassVar[Verb] = Verb.CONTENT
    size_octets: int
    problem: Problem | None = None
    refusal: Reply | None = None


class TooManyErrors(msgspec.Struct, frozen=True, gc=False):
    """The client was told 421 for its many errors, or for not speaking SMTP at all.

    Nothing is owed; write what is to be sent, then close.
    """

    verb: str
    argument: str
    reply: Reply
    rule: str


class Closed(msgspec.Struct, frozen=True, gc=False):
    """No event will follow: close the connection after writing what is to be sent.

    ``by_peer`` tells that the client went without QUIT, perhaps amid a message.
    """

    by_peer: bool


Event = Command | AuthResponse | Chunk | EndOfData | Refused | TooManyErrors | Closed

_REFUSALS: Final = {
    Problem.TOO_LARGE: replies.TOO_LARGE,
    Problem.BARE_LINE_END: replies.BARE_LINE_END,
    Problem.LINE_TOO_LONG: replies.CONTENT_LINE_TOO_LONG,
}

# Bound once: looking a member up in its enum costs four times as much.
_DATA, _CLOSED, _TLS, _AUTH = State.DATA, State.CLOSED, State.TLS, State.AUTH
_MAIL_VERB, _RCPT_VERB, _DATA_VERB = Verb.MAIL, Verb.RCPT, Verb.DATA
_CONTENT_VERB = Verb.CONTENT

# These are refused without being the client's mistake: they do not count as errors.
_FORGIVEN: Final = frozenset({"size", "recipients", "no-recipients", "auth-cancelled"})


class ServerConnection:
    """One session, seen from the server; LMTP (RFC 2033) with ``lmtp``."""

    __slots__ = (
        "_closed_told",
        "_content",
        "_errors",
        "_hostname",
        "_inbox",
        "_lmtp",
        "_out",
        "_owed",
        "_parse",
        "_settings",
        "_verb",
        "authenticated",
        "mechanisms",
        "recipients",
        "state",
        "tls",
    )

    def __init__(
        self, settings: ServerSettings, hostname: str, *, lmtp: bool = False
    ) -> None:
        self._settings = settings
        self._hostname = hostname
        self._lmtp = lmtp
        self._parse = parser(settings, lmtp=lmtp)
        self._inbox = Inbox()
        self._out: list[bytes] = []
        self._owed = 1  # the greeting
        self._verb = Verb.GREETING
        self._errors = 0
        self._content: ContentReader | None = None
        self._closed_told = False
        self.state = State.CONNECTED
        self.recipients = 0
        self.tls = False
        self.authenticated = False
        self.mechanisms: tuple[str, ...] | None = None

    @property
    def owed(self) -> int:
        """How many replies are owed; no command is read before they are given."""
        return self._owed

    @property
    def is_closed(self) -> bool:
        """Whether the dialogue is over."""
        return self.state is State.CLOSED

    def greet(self, reply: Reply) -> bytes:
        """Open the dialogue; return the octets to send.

        220 lets the client in; 421 closes; another refusal leaves it only QUIT
        (RFC 5321 §3.1).
        """
        self.reply(reply)
        return self.data_to_send()

    def hello_reply(self, verb: Verb) -> Reply:
        """Return the positive answer to this session's hello."""
        return hello_reply(
            self._settings,
            self._hostname,
            verb,
            tls=self.tls,
            authenticated=self.authenticated,
            mechanisms=self.mechanisms,
        )

    def receive(self, data: bytes) -> None:
        """Take octets from the client; ``b""`` says that it has closed its side."""
        self._inbox.add(data)

    def next_event(self) -> Event | None:
        """Return what happens next.

        None: more octets are needed, or replies are owed, or all is over.
        """
        if self._owed:
            return None
        state = self.state
        if state is _DATA:
            event = self._next_of_content()
        elif state is _CLOSED or state is _TLS:
            event = None  # the handshake is not ours
        else:
            event = self._next_command()
        if event is None and (self._inbox.ended or state is _CLOSED):
            return self._next_of_end()
        return event

    def reply(self, *given: Reply) -> None:
        """Answer what is owed, in order; the last reply fixes the next state.

        A single 421 is always enough; it ends the session.

        Raises:
            LocalProtocolError: not what is owed.
        """
        last = given[-1] if given else None
        if last is None or (len(given) != self._owed and last.code != 421):
            raise LocalProtocolError(f"{len(given)} replies, {self._owed} owed")
        verb = self._verb
        state = next_state(self.state, verb, last.code)
        if state is None or not self._owed:
            raise LocalProtocolError(
                f"{last.code} cannot answer {verb} in {self.state}"
            )
        for one in given:
            self._out.append(wire(one))
        self._owed = 0
        self.state = state
        if 200 <= last.code < 400:
            self._accepted(verb, state)

    def farewell(self, reply: Reply) -> None:
        """End the session with 421 at any time, asked or not (RFC 5321 §3.8)."""
        if self.state is not State.CLOSED:
            self._out.append(wire(reply))
            self._owed = 0
            self.state = State.CLOSED

    def tls_started(self) -> None:
        """Go on after the handshake; the client begins anew (RFC 3207 §4.2).

        Raises:
            LocalProtocolError: no STARTTLS was answered by 220.
        """
        state = next_state(self.state, Verb.HANDSHAKE, 220)
        if state is None:
            raise LocalProtocolError(f"no handshake is due in {self.state}")
        self._inbox.clear()  # RFC 3207 §4.2: nothing learned before is kept
        self.state = state
        self.tls = True
        self.authenticated = False

    def data_to_send(self) -> bytes:
        """Return the octets gathered since the last call."""
        out = self._out
        if not out:
            return b""
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    def _accepted(self, verb: Verb, state: State) -> None:
        if verb is _RCPT_VERB:
            self.recipients += 1
        elif verb is _DATA_VERB:
            s = self._settings
            self._content = ContentReader(
                s.message_octets_max,
                s.data_line_octets_max,
                fix=s.bare_line_ends == "fix",
            )
        elif verb is _CONTENT_VERB:
            self._errors = 0
        elif verb is _MAIL_VERB:
            self.recipients = 0
        elif state is _TLS:
            self._inbox.clear()  # RFC 3207 §4.2: no command may hide behind it
        elif verb in (Verb.AUTH, Verb.RESPONSE) and state is State.READY:
            self.authenticated = True

    def _owe(self, verb: Verb, count: int = 1) -> None:
        self._verb = verb
        self._owed = count

    def _next_of_end(self) -> Closed | None:
        if self._closed_told:
            return None
        self._closed_told = True
        by_peer = self.state is not State.CLOSED
        self.state = State.CLOSED
        return Closed(by_peer)

    def _next_of_content(self) -> Event | None:
        content = self._content
        assert content is not None
        if not content.ended:
            data = self._inbox.take()
            if not data:
                return None
            piece = content.read(data)
            if content.ended:
                self._inbox.put_back(content.rest)
            if piece:
                return Chunk(piece)
            if not content.ended:
                return None
        self._content = None
        self._owe(_CONTENT_VERB, self.recipients if self._lmtp else 1)
        problem = content.problem
        refusal = _REFUSALS[problem] if problem else None
        return EndOfData(content.size_octets, problem, refusal)

    def _next_command(self) -> Event | None:
        if self.state is _AUTH:
            return self._next_response()
        line = self._inbox.line(self._settings.command_line_octets_max)
        if line is None:
            return None
        if line is LineFault.TOO_LONG:
            return self._refuse(Refused("", "", replies.LINE_TOO_LONG, "line-too-long"))
        command = self._parse(line)
        if isinstance(command, Refused):
            if command.verb.upper() in HTTP_METHODS and self.state is State.START:
                return self._turn_away(command, replies.NOT_HTTP, "http")
            return self._refuse(command)
        objection = self._objection(command)
        if objection:
            return self._refuse(refused(line, *objection))
        self._owe(command.verb)
        return command

    def _next_response(self) -> Event | None:
        line = self._inbox.line(self._settings.auth_line_octets_max)
        if line is None:
            return None
        if line is LineFault.TOO_LONG:  # RFC 4954 §4
            event: AuthResponse | Refused = Refused(
                "AUTH", "", replies.RESPONSE_TOO_LONG, "line-too-long"
            )
        else:
            event = response(line)
        if isinstance(event, Refused):
            self.state = State.READY  # as the table says of a refused response
            return self._refuse(event)
        self._owe(Verb.RESPONSE)
        return event

    def _objection(self, command: Command) -> tuple[Reply, str] | None:
        """Why this command, which is well formed, cannot come now."""
        verb = command.verb
        if verb not in ALLOWED[self.state]:
            return _bad_sequence(self.state, verb), "sequence"
        if verb is _RCPT_VERB:
            if self.recipients >= self._settings.recipients_max:
                return replies.TOO_MANY_RECIPIENTS, "recipients"
        elif verb is _MAIL_VERB:
            assert isinstance(command, Mail)
            limit = self._settings.message_octets_max
            if limit and command.params.size > limit:  # RFC 1870 §6.1
                return replies.TOO_LARGE, "size"
        elif verb is _DATA_VERB:
            if not self.recipients:  # RFC 5321 §3.3, and RFC 2033 §4.2 says 503
                none = (
                    replies.LMTP_NO_RECIPIENTS if self._lmtp else replies.NO_RECIPIENTS
                )
                return none, "no-recipients"
        elif verb is Verb.STARTTLS and self.tls:
            return replies.ALREADY_TLS, "sequence"
        elif verb is Verb.AUTH and self.authenticated:  # RFC 4954 §4
            return replies.ALREADY_LOGGED_IN, "sequence"
        return None

    def _refuse(self, refusal: Refused) -> Event:
        if refusal.rule not in _FORGIVEN:
            self._errors += 1
            if self._errors > self._settings.errors_max:
                return self._turn_away(refusal, replies.TOO_MANY_ERRORS, refusal.rule)
        self._out.append(wire(refusal.reply))
        return refusal

    def _turn_away(self, refusal: Refused, reply: Reply, rule: str) -> TooManyErrors:
        self.farewell(reply)
        return TooManyErrors(refusal.verb, refusal.argument, reply, rule)


def _bad_sequence(state: State, verb: Verb) -> Reply:
    if state is State.REFUSED:
        text = "Only QUIT is possible now"
    elif state is State.START:
        text = "Say hello first"
    elif verb is Verb.RCPT or verb is Verb.DATA:
        text = "Need MAIL command" if state is State.READY else "Need RCPT command"
    elif verb is Verb.MAIL:
        text = "Sender already specified"
    else:
        text = "Not possible during a mail transaction"
    return Reply(503, "5.5.1", (text,))
