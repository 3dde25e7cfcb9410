"""The server's side of a session: octets in, events out; replies in, octets out.

It answers by itself what is only a matter of syntax, sequence and limits, and tells
it as ``Refused``. All else is an event that owes replies, and until ``reply`` is
called no further command is looked at: pipelining, back-pressure and slow decisions
are one mechanism. Replies are gathered; whoever drives it writes ``data_to_send()``
each time ``next_event()`` gave None (RFC 2920 §3.2).

It never raises for what a peer does. ``LocalProtocolError`` means that the caller
answered what was not asked.
"""

from typing import Final

from postroom.mail.envelope import BodyType
from postroom.mail.reply import Reply
from postroom.smtp import replies
from postroom.smtp.chunks import Arriving, ChunkReader
from postroom.smtp.commands import (
    AuthResponse,
    Bdat,
    Command,
    Mail,
    Rcpt,
    Refused,
    is_chunk,
    parser,
    refused,
    response,
)
from postroom.smtp.data import ContentReader
from postroom.smtp.dialogue import ALLOWED, VERDICTS_FOLLOW, State, Verb, next_state
from postroom.smtp.errors import LocalProtocolError
from postroom.smtp.foreign import HEAD_OCTETS, foreign_protocol
from postroom.smtp.lines import Inbox, LineFault
from postroom.smtp.objections import (
    FORGIVEN,
    REFUSALS,
    Objection,
    bad_sequence,
    mail_objection,
)
from postroom.smtp.offer import Standing, hello_reply
from postroom.smtp.parameters import MailParams
from postroom.smtp.replies import wire
from postroom.smtp.server_events import (
    BdatStart,
    Chunk,
    Closed,
    EndOfChunk,
    EndOfData,
    Event,
    TooManyErrors,
)
from postroom.smtp.settings import ServerSettings

__all__ = [
    "BdatStart",
    "Chunk",
    "Closed",
    "EndOfChunk",
    "EndOfData",
    "Event",
    "ServerConnection",
    "TooManyErrors",
]

# Bound once: looking a member up in its enum costs four times as much.
_START = State.START
_DATA, _CLOSED, _TLS, _AUTH = State.DATA, State.CLOSED, State.TLS, State.AUTH
_MAIL_VERB, _RCPT_VERB, _DATA_VERB = Verb.MAIL, Verb.RCPT, Verb.DATA
_CONTENT_VERB = Verb.CONTENT
_FORGETTING = frozenset({Verb.RSET, Verb.EHLO, Verb.HELO, Verb.LHLO, Verb.XCLIENT})
_CHUNK_VERBS = frozenset({Verb.BDAT, Verb.BDAT_LAST})
_TAKES_CHUNKS = frozenset({State.RCPT, State.BDAT})

_NO_PARAMS: Final = MailParams()


class ServerConnection:
    """One session, seen from the server.

    Args:
        settings: what is offered, and the limits.
        hostname: our name.
        lmtp: whether it is LMTP (RFC 2033).
        submission: whether it is one of a user's, where mail may be held (RFC 4865).
        is_proxy: whether the client may say XCLIENT.
        opened_us: when it began, in UTC; what is held is counted from here.
    """

    __slots__ = (
        "_arriving",
        "_chunks",
        "_closed_told",
        "_command_octets_max",
        "_content",
        "_errors",
        "_hostname",
        "_inbox",
        "_is_proxy",
        "_line_octets_max",
        "_lmtp",
        "_messages",
        "_out",
        "_owed",
        "_params",
        "_parse",
        "_release_until_us",
        "_settings",
        "_spoilt",
        "_verb",
        "authenticated",
        "mechanisms",
        "recipients",
        "state",
        "tls",
    )

    def __init__(
        self,
        settings: ServerSettings,
        hostname: str,
        *,
        lmtp: bool = False,
        submission: bool = False,
        is_proxy: bool = False,
        opened_us: int = 0,
    ) -> None:
        self._settings = settings
        # Bound once: they are looked at for each command.
        self._line_octets_max = int(settings.line_octets_max)
        self._command_octets_max = int(settings.command_line_octets_max) - 2
        self._hostname = hostname
        self._lmtp = lmtp
        self._parse = parser(settings, lmtp=lmtp)
        self._inbox = Inbox()
        self._out: list[bytes] = []
        self._owed = 1  # the greeting
        self._verb = Verb.GREETING
        self._errors = 0
        self._content: ContentReader | None = None
        self._chunks: ChunkReader | None = None
        self._arriving: Arriving | None = None
        self._spoilt: Reply | None = None  # why the rest of the chunks is in vain
        self._params = _NO_PARAMS  # of the transaction
        self._messages = 0
        self._is_proxy = is_proxy
        held = settings.future_release
        self._release_until_us = 0
        if held == "always" or (held == "submission" and submission):
            self._release_until_us = opened_us + int(settings.future_release_max)
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
    def unread_octets(self) -> int:
        """How much has arrived behind the command in hand and was not looked at."""
        return len(self._inbox)

    @property
    def takes_content(self) -> bool:
        """Whether the next octets are content, also such as is not kept any more."""
        return self.state is _DATA or self._arriving is not None

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
        standing = Standing(
            self._lmtp,
            self.tls,
            self.authenticated,
            self.mechanisms,
            self._release_until_us,
            self._is_proxy,
        )
        return hello_reply(self._settings, self._hostname, verb, standing)

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
        verb = self._verb
        if last is None or (
            len(given) != self._owed
            and last.code != 421
            and not self._are_verdicts(given)
        ):
            raise LocalProtocolError(f"{len(given)} replies, {self._owed} owed")
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
        elif verb in _CHUNK_VERBS:
            self._chunk_refused(last)

    def remark(self, text: str) -> None:
        """Tell the client a line beside the replies, in answer to VERB: code 050."""
        self._out.append(wire(Reply(50, "", (text,))).replace(b"50 ", b"050 ", 1))

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
        self._params = _NO_PARAMS
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

    def _are_verdicts(self, given: tuple[Reply, ...]) -> bool:
        """Whether this is 353, a reply for each recipient, and one for all."""
        is_asked = self._params.prdr and self._verb in (_CONTENT_VERB, Verb.BDAT_LAST)
        if not is_asked or self._lmtp or given[0].code != VERDICTS_FOLLOW:
            return False
        if len(given) != self.recipients + 2:
            return False
        return all(one.code // 100 in (2, 4, 5) for one in given[1:])

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
        elif verb is _CONTENT_VERB or verb is Verb.BDAT_LAST:
            self._errors = 0
            self._chunks = None
        elif verb is _MAIL_VERB:
            self.recipients = 0
        elif state is _TLS:
            self._inbox.clear()  # RFC 3207 §4.2: no command may hide behind it
        elif verb in (Verb.AUTH, Verb.RESPONSE) and state is State.READY:
            self.authenticated = True
        elif verb in _FORGETTING:
            self._chunks = self._spoilt = None
            if verb is Verb.XCLIENT:
                self.authenticated = False

    def _chunk_refused(self, reply: Reply) -> None:
        if self.state in _TAKES_CHUNKS:
            self._spoilt = reply
        else:
            self._chunks = self._spoilt = None

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
        refusal = REFUSALS[problem] if problem else None
        return EndOfData(content.size_octets, problem, refusal)

    def _next_of_chunk(self, arriving: Arriving) -> Event | None:
        """Go on with a chunk: its octets are content, whatever becomes of them."""
        wanted = arriving.left_octets
        if wanted:
            data = self._inbox.take()
            if not data:
                return None
            if len(data) > wanted:
                self._inbox.put_back(data[wanted:])
                data = data[:wanted]
            arriving.left_octets -= len(data)
            if arriving.refusal is None and self._spoilt is None:
                assert self._chunks is not None
                piece = self._chunks.read(data)
                if piece:
                    return Chunk(piece)
            if arriving.left_octets:
                return self._next_of_chunk(arriving)
        if arriving.refusal is not None:
            self._arriving = None
            is_known = self._settings.chunking
            if is_known and self.state in _TAKES_CHUNKS:  # these octets are missing
                self._chunks = self._chunks or self._new_chunks()
                self._spoilt = self._spoilt or arriving.refusal.reply
            return self._refuse(arriving.refusal)
        return self._end_of_chunk(arriving.command)

    def _end_of_chunk(self, command: Bdat) -> Event:
        chunks = self._chunks
        assert chunks is not None
        if command.is_last and self._spoilt is None:
            piece = chunks.end()
            if piece:
                return Chunk(piece)
        self._arriving = None
        problem = chunks.problem
        refusal = self._spoilt or (REFUSALS[problem] if problem else None)
        if not command.is_last:
            self._owe(Verb.BDAT)
            return EndOfChunk(command.size_octets, refusal)
        self._owe(Verb.BDAT_LAST, self.recipients if self._lmtp else 1)
        return EndOfData(chunks.size_octets, problem, refusal)

    def _begin_chunk(self, command: Bdat, line: bytes) -> Event | None:
        """Take the octets that follow BDAT, before anything else is looked at."""
        objection = self._chunk_objection(command)
        refusal = refused(line, *objection) if objection else None
        self._arriving = arriving = Arriving(command, refusal)
        if refusal is not None or self._chunks is not None:
            return self._next_of_chunk(arriving)
        self._spoilt = None
        self._chunks = self._new_chunks()
        return BdatStart()

    def _new_chunks(self) -> ChunkReader:
        s = self._settings
        return ChunkReader(
            s.message_octets_max,
            s.data_line_octets_max,
            fix=s.bare_line_ends == "fix",
            binary=self._params.body is BodyType.BINARY,
        )

    def _chunk_objection(self, command: Bdat) -> Objection | None:
        if not self._settings.chunking:
            return replies.NOT_IMPLEMENTED, "not-implemented"
        if self.state is State.MAIL:
            return self._without_recipients()
        if self.state not in _TAKES_CHUNKS:
            return bad_sequence(self.state, command.verb), "sequence"
        if command.fault is not None:
            return command.fault, "syntax"
        limit = self._settings.chunk_octets_max
        if limit and command.size_octets > limit:
            return replies.CHUNK_TOO_LARGE, "size"
        return None

    def _next_command(self) -> Event | None:
        if self._arriving is not None:
            return self._next_of_chunk(self._arriving)
        if self.state is _AUTH:
            return self._next_response()
        if not self._inbox.octets:
            return None
        if self.state is _START and (foreign := self._foreigner()):
            return foreign
        line = self._inbox.line(self._line_octets_max)
        if line is None:
            return None
        if line is LineFault.TOO_LONG or (
            len(line) > self._command_octets_max and self._settings.is_over(line)
        ):
            begin = self._inbox.overlong if line is LineFault.TOO_LONG else line
            return self._refuse_long(begin)
        command = self._parse(line)
        if isinstance(command, Bdat):
            return self._begin_chunk(command, line)
        if isinstance(command, Refused):
            return self._refuse(command)
        objection = self._objection(command)
        if objection:
            return self._refuse(refused(line, *objection))
        self._verb, self._owed = command.verb, 1
        return command

    def _refuse_long(self, line: bytes) -> Event:
        if is_chunk(line):  # nobody can tell now where the content ends
            without = replies.BDAT_WITHOUT_SIZE
            return self._refuse(Refused("BDAT", "", without, "bdat-without-size"))
        return self._refuse(Refused("", "", replies.LINE_TOO_LONG, "line-too-long"))

    def _foreigner(self) -> TooManyErrors | None:
        head = self._inbox.head(HEAD_OCTETS)
        name = foreign_protocol(head)
        if not name:
            return None
        line = head.split(b"\r\n", 1)[0].decode("latin-1")
        refusal = Refused("", line, replies.NOT_MAIL, "foreign")
        return self._turn_away(refusal, replies.NOT_MAIL, f"foreign-{name}")

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

    def _objection(self, command: Command) -> Objection | None:
        """Why this command, which is well formed, cannot come now."""
        verb = command.verb
        if verb not in ALLOWED[self.state]:
            return bad_sequence(self.state, verb), "sequence"
        if verb is _RCPT_VERB:
            if self.recipients >= self._settings.recipients_max:
                return replies.TOO_MANY_RECIPIENTS, "recipients"
            assert isinstance(command, Rcpt)
            if command.utf8 and not self._params.smtputf8:  # RFC 6531 §3.5
                return replies.UTF8_RECIPIENT, "syntax"
        elif verb is _MAIL_VERB:
            assert isinstance(command, Mail)
            limit = self._settings.message_octets_max
            if limit and command.params.size > limit:  # RFC 1870 §6.1
                return replies.TOO_LARGE, "size"
            self._params = params = command.params
            if params.has_wishes or self._settings.messages_max:
                return self._objection_to(params)
        elif verb is _DATA_VERB:
            if not self.recipients:
                return self._without_recipients()
            if self._chunks is not None:  # RFC 3030 §2
                return replies.BDAT_FIRST, "sequence"
            if self._params.body is BodyType.BINARY:  # RFC 3030 §3
                return replies.BINARY_DATA, "sequence"
        elif verb is Verb.XCLIENT and not self._is_proxy:
            return replies.NOT_IMPLEMENTED, "not-implemented"
        elif verb is Verb.STARTTLS and self.tls:
            return replies.ALREADY_TLS, "sequence"
        elif verb is Verb.AUTH and self.authenticated:  # RFC 4954 §4
            return replies.ALREADY_LOGGED_IN, "sequence"
        return None

    def _objection_to(self, params: MailParams) -> Objection | None:
        """Why what MAIL declared cannot be had in this session."""
        settings = self._settings
        self._messages += 1
        if settings.messages_max and self._messages > settings.messages_max:
            return replies.TOO_MANY_MESSAGES, "messages"  # RFC 9422 §4
        return mail_objection(
            params,
            settings,
            tls=self.tls,
            lmtp=self._lmtp,
            release_until_us=self._release_until_us,
        )

    def _without_recipients(self) -> Objection:
        # RFC 5321 §3.3, and RFC 2033 §4.2 says 503
        none = replies.LMTP_NO_RECIPIENTS if self._lmtp else replies.NO_RECIPIENTS
        return none, "no-recipients"

    def _refuse(self, refusal: Refused) -> Event:
        if refusal.reply.code == 421:
            return self._turn_away(refusal, refusal.reply, refusal.rule)
        if refusal.rule not in FORGIVEN:
            self._errors += 1
            if self._errors > self._settings.errors_max:
                return self._turn_away(refusal, replies.TOO_MANY_ERRORS, refusal.rule)
        self._out.append(wire(refusal.reply))
        return refusal

    def _turn_away(self, refusal: Refused, reply: Reply, rule: str) -> TooManyErrors:
        self.farewell(reply)
        return TooManyErrors(refusal.verb, refusal.argument, reply, rule)
