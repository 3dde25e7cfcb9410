"""The client's side of a session: replies in, events out; calls in, octets out.

The caller leads: ``send_hello`` after the greeting, ``submit`` for each transaction,
the content when ``BodyWanted`` asks for it, ``quit``. Commands go ahead of replies as
far as the server allows (RFC 2920), in lock-step otherwise; the next transaction
starts while the reply to the content before it is still out.

Replies are judged by their first digit through the dialogue table (RFC 5321 §4.3.2).
What the table has no row for is nonsense: ``ProtocolError``, and the connection is
given up. Content goes in chunks where the transaction wants that and the server offers
it (RFC 3030), else by DATA; with several recipients each gets a reply of its own where
PRDR is offered.

However it ends, each transaction gets its ``TransactionDone`` with one result per
recipient, then ``LostConnection`` follows.
"""

import re
from base64 import b64encode
from collections import deque
from enum import Enum, auto
from typing import Final, NamedTuple

from postroom.mail.reply import Reply
from postroom.smtp.chunk_writer import ChunkWriter
from postroom.smtp.client_events import (
    Answered,
    BodyWanted,
    ClientEvent,
    Greeting,
    HelloDone,
    Line,
    LostConnection,
    ProtocolError,
)
from postroom.smtp.data import ContentWriter
from postroom.smtp.dialogue import HELLOS, State, Verb, next_state
from postroom.smtp.errors import LocalProtocolError
from postroom.smtp.extensions import Extensions
from postroom.smtp.lines import Inbox, LineFault
from postroom.smtp.replies import ReplyReader, text_of
from postroom.smtp.settings import ClientSettings
from postroom.smtp.transaction import (
    Progress,
    Transaction,
    mail_line,
    rcpt_line,
)

__all__ = [
    "Answered",
    "BodyWanted",
    "ClientConnection",
    "ClientEvent",
    "Greeting",
    "HelloDone",
    "Line",
    "LostConnection",
    "ProtocolError",
]

PIPELINE_MAX: Final = 200
"""Replies that may be out at once: so few that they fit into the buffers between the
two sides, and neither can block the other (RFC 2920 §3.1)."""

_UNTOLD: Final = Extensions()
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class _Phase(Enum):
    """What the transaction in hand does next."""

    RECIPIENTS = auto()
    START_CONTENT = auto()
    CONTENT = auto()


class _Expected(NamedTuple):
    """A reply that is out, and whose it is."""

    verb: Verb
    progress: Progress | None = None
    place: int = 0  # of the recipient within its transaction


class ClientConnection:
    """One session, seen from the client; LMTP (RFC 2033) with ``lmtp``."""

    def __init__(
        self,
        hostname: str,
        *,
        lmtp: bool = False,
        narrate: bool = False,
        settings: ClientSettings | None = None,
    ) -> None:
        self.narrate = narrate
        self.state = State.CONNECTED
        self.extensions = _UNTOLD
        self.discarded_octets = 0  # sent ahead of the TLS handshake
        self.answers = 0  # replies that came to what we said
        self.hostname = hostname
        self._lmtp = lmtp
        self._settings = settings or ClientSettings()
        self._inbox = Inbox()
        self._reader = ReplyReader(self._settings.reply_lines_max)
        self._out: list[bytes] = []
        self._events: deque[ClientEvent] = deque()
        self._expected = deque([_Expected(Verb.GREETING)])
        self._numbers = 0
        self._waiting: deque[Progress] = deque()  # submitted, nothing sent
        self._open: deque[Progress] = deque()  # not told as done, oldest first
        self._current: Progress | None = None  # commands or content still to be sent
        self._phase = _Phase.RECIPIENTS
        self._to_name: deque[int] = deque()  # recipients without their RCPT
        self._writer: ContentWriter | ChunkWriter | None = None
        self._chunked = False  # how the content of the transaction in hand goes
        self._must_reset = False  # RFC 3030 §2: after a refused chunk
        self._early: Reply | None = None  # came while the content was being sent

    @property
    def is_closed(self) -> bool:
        """Whether the dialogue is over."""
        return self.state is State.CLOSED

    @property
    def is_idle(self) -> bool:
        """Whether nothing is out and nothing is in hand."""
        return not (self._expected or self._open)

    @property
    def early_reply(self) -> Reply | None:
        """What the server said before it had all the content; sending on is idle."""
        return self._early

    @property
    def sends_chunks(self) -> bool:
        """Whether content is being sent in chunks, so that replies may come."""
        return self._chunked and self._writer is not None

    @property
    def content_is_refused(self) -> bool:
        """Whether the rest of the content is not wanted; ``end_body`` says no more."""
        if self.is_closed:
            return True
        current = self._current
        return current is not None and current.chunk_refused

    # What the caller wants said

    def send_hello(self) -> None:
        """Say EHLO, or LHLO; if EHLO is refused for good, HELO follows by itself."""
        self._command(Verb.LHLO if self._lmtp else Verb.EHLO, self.hostname)

    def submit(self, transaction: Transaction) -> int:
        """Take a transaction; it starts as soon as it can. Return its number."""
        self._numbers += 1
        progress = Progress(self._numbers, transaction)
        if self.state is State.CLOSED:
            self._events.append(progress.done())
            return self._numbers
        self._waiting.append(progress)
        self._open.append(progress)
        self._pump()
        return self._numbers

    def send_body(self, chunk: bytes) -> None:
        """Send a piece of the wanted content; dots and line ends are seen to.

        Raises:
            LocalProtocolError: no content is wanted.
        """
        if self._writer is None:
            if self.is_closed:
                return
            raise LocalProtocolError("no content is wanted")
        if not self._chunked:
            self._out.append(self._writer.write(chunk))
        elif not self.content_is_refused:
            octets = self._writer.write(chunk)
            if octets:
                self._out.append(octets)
                self._begin_chunk(octets)

    def end_body(self) -> None:
        """End the content; its ``TransactionDone`` comes with the reply.

        Raises:
            LocalProtocolError: no content is wanted.
        """
        if self.is_closed:
            return
        progress = self._current
        if self._writer is None or progress is None:
            raise LocalProtocolError("no content is wanted")
        writer, self._writer = self._writer, None
        if progress.chunk_refused:  # RFC 3030 §2: no further chunk, but RSET
            self._current = None
            self._finish(progress)
            self._pump()
            return
        octets = writer.end()
        self._out.append(octets)
        if self.narrate:
            said = _command_of(octets) if self._chunked else "."
            self._events.append(Line(said, outgoing=True))
        self._end_of_content(
            progress, Verb.BDAT_LAST if self._chunked else Verb.CONTENT
        )

    def reset(self) -> None:
        """Say RSET: forget the transaction, or see whether the server is there."""
        self._command(Verb.RSET)

    def noop(self) -> None:
        """Say NOOP."""
        self._command(Verb.NOOP)

    def quit(self) -> None:
        """Say QUIT; what is submitted afterwards is not sent."""
        self._command(Verb.QUIT)

    def start_tls(self) -> None:
        """Say STARTTLS; after its 220 do the handshake, then call ``tls_started``."""
        self._command(Verb.STARTTLS)

    def tls_started(self) -> None:
        """Go on after the handshake with a new hello (RFC 3207 §4.2).

        Raises:
            LocalProtocolError: no STARTTLS was answered by 220.
        """
        state = next_state(self.state, Verb.HANDSHAKE, 220)
        if state is None:
            raise LocalProtocolError(f"no handshake is due in {self.state}")
        self._inbox.clear()
        self.extensions = _UNTOLD
        self.state = state

    def auth(self, mechanism: str, initial: bytes | None = None) -> None:
        """Begin a SASL exchange (RFC 4954 §4)."""
        said = [] if initial is None else [b64encode(initial).decode("ascii") or "="]
        self._command(Verb.AUTH, mechanism, *said, shown=f"AUTH {mechanism} ***")

    def respond(self, octets: bytes | None) -> None:
        """Answer a 334 challenge; None gives the exchange up."""
        text = "*" if octets is None else b64encode(octets).decode("ascii")
        self._say(text, shown="***")
        self._expected.append(_Expected(Verb.RESPONSE))

    # What the driver does

    def data_to_send(self) -> bytes:
        """Return the octets gathered since the last call."""
        if not self._out:
            return b""
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        return data

    def receive(self, data: bytes) -> None:
        """Take octets from the server; ``b""`` says that it has closed."""
        if self.state is State.CLOSED:
            return
        if data and self.state is State.TLS:  # RFC 3207 §4.2: also what comes later
            self.discarded_octets += len(data)
            return
        self._inbox.add(data)
        self._read()
        if not data and not self.is_closed:
            early = None if self._lmtp else self._early
            self._lose("connection closed by the server", early)

    def next_event(self) -> ClientEvent | None:
        """Return what has happened, in order; None: nothing more yet."""
        return self._events.popleft() if self._events else None

    # Replies

    def _read(self) -> None:
        while self.state is not State.CLOSED and self._early is None:
            line = self._inbox.line(self._settings.reply_line_octets_max)
            if line is LineFault.TOO_LONG or self._inbox.swallowing:
                self._nonsense("reply line too long")
                return
            if line is None:
                return
            if self.narrate:
                self._events.append(Line(text_of(line), outgoing=False))
            reply = self._reader.read(line)
            if isinstance(reply, str):
                self._nonsense(reply)
            elif reply is not None:
                self._take(reply)
        if not self.is_closed and len(self._inbox) > self._settings.unread_octets_max:
            self._nonsense("replies to what was not asked")

    def _take(self, reply: Reply) -> None:
        if reply.code == 421:  # RFC 5321 §3.8
            self._greet_if_due(reply)
            self._lose("server is closing the connection", reply)
        elif self._expected:
            self._take_expected(self._expected.popleft(), reply)
        elif self._writer is not None and not (self._chunked or reply.code < 400):
            # Not among chunks: each of them has a reply of its own. And nobody can
            # have taken what was not sent: believed, it would lose mail.
            self._early = reply
        else:
            self._nonsense(f"unexpected reply {reply.code}")

    def _greet_if_due(self, reply: Reply) -> None:
        if self.state is State.CONNECTED:
            self._events.append(Greeting(reply))

    def _take_expected(self, expected: _Expected, reply: Reply) -> None:
        verb, progress, place = expected
        self.answers += 1
        if progress:
            progress.outstanding -= 1
        state = next_state(self.state, verb, reply.code)
        if state is State.PRDR and not (progress and progress.asks_verdicts):
            state = None
        if state is None:
            self._nonsense(f"reply {reply.code} to {verb}")
            return
        # RFC 2033 §4.2: in LMTP the content is answered by the last of its replies
        if not (self._lmtp and progress and progress.outstanding) or (
            verb is not Verb.CONTENT and verb is not Verb.BDAT_LAST
        ):
            self.state = state
        if progress:
            self._take_of_transaction(verb, progress, place, reply)
        elif verb in HELLOS:
            self._take_hello(verb, reply)
        elif verb is Verb.GREETING:
            self._events.append(Greeting(reply))
        else:
            self._take_answer(verb, reply)
        self._pump()

    def _take_hello(self, verb: Verb, reply: Reply) -> None:
        if reply.code // 100 == 5 and verb is Verb.EHLO:  # RFC 5321 §3.2
            self._command(Verb.HELO, self.hostname)
            return
        heard = verb is not Verb.HELO and reply.is_positive
        self.extensions = Extensions.from_reply(reply) if heard else _UNTOLD
        self._events.append(HelloDone(reply, self.extensions))

    def _take_answer(self, verb: Verb, reply: Reply) -> None:
        if self.state is State.TLS:  # RFC 3207 §4.2: what came ahead is discarded
            self.discarded_octets += len(self._inbox)
            self._inbox.clear()
        if verb is Verb.RSET and not reply.is_positive and self._open:
            self._nonsense(f"reply {reply.code} to RSET")
        else:
            self._events.append(Answered(verb, reply))
            if self.is_closed:
                self._lose("session ended", None)

    def _take_of_transaction(
        self, verb: Verb, progress: Progress, place: int, reply: Reply
    ) -> None:
        if verb is Verb.RCPT:
            progress.rcpt(place, reply)
        elif verb is Verb.MAIL:
            progress.mail(reply)
        elif verb is Verb.DATA:
            self._take_start_of_content(progress, reply)
        elif verb is Verb.BDAT:
            self._take_chunk(progress, reply)
        elif verb is Verb.VERDICT:
            progress.verdict(place, reply)
        else:
            self._take_end_of_content(verb, progress, place, reply)

    def _take_chunk(self, progress: Progress, reply: Reply) -> None:
        if reply.is_positive:
            return
        progress.chunk_refused = True
        progress.decide_rest(reply, Verb.CONTENT)
        self._must_reset = True
        if self._lmtp:  # how many replies are still to come cannot be known
            self._lose("chunk refused", None)

    def _take_end_of_content(
        self, verb: Verb, progress: Progress, place: int, reply: Reply
    ) -> None:
        if self.state is State.PRDR:
            self._expect_verdicts(progress)
            return
        if verb is Verb.BDAT_LAST and not reply.is_positive:
            self._must_reset = True
        if not self._lmtp:
            progress.final(reply)
            self._finish(progress)
            return
        progress.content(place, reply)
        if not progress.outstanding:
            self._finish(progress)

    def _expect_verdicts(self, progress: Progress) -> None:
        """Wait for a reply per accepted recipient and a last one, before all else."""
        self._expected.appendleft(_Expected(Verb.CONTENT, progress))
        for place in reversed(progress.accepted):
            self._expected.appendleft(_Expected(Verb.VERDICT, progress, place))
        progress.outstanding += len(progress.accepted) + 1

    def _take_start_of_content(self, progress: Progress, reply: Reply) -> None:
        if not reply.is_positive:
            progress.decide_rest(reply, Verb.DATA)
            self._current = None
            self._finish(progress)
        elif progress.accepted:
            self._writer = ContentWriter()
            self._events.append(BodyWanted(progress.number))
        elif self._lmtp:
            self._nonsense(f"reply {reply.code} to DATA without a recipient")
        else:  # RFC 2920 §3.1: a lone dot, so that nothing is sent to nobody
            self._out.append(b".\r\n")
            if self.narrate:
                self._events.append(Line(".", outgoing=True))
            self._end_of_content(progress, Verb.CONTENT)

    # Commands

    def _pump(self) -> None:
        """Send what may be sent now of the transactions in hand."""
        current = self._current
        if self._phase is _Phase.CONTENT if current else not self._waiting:
            return
        window = PIPELINE_MAX if self.extensions.pipelining else 1
        while len(self._expected) < window and self.state is not State.CLOSED:
            if self._current is None:
                if not self._begin():
                    break
            elif not self._advance(self._current):
                break

    def _begin(self) -> bool:
        if not self._waiting or self._must_wait():
            return False
        if self._must_reset or self.state in (State.MAIL, State.RCPT, State.BDAT):
            # the transaction before this one ended without its content
            self._must_reset = False
            self._command(Verb.RSET)
            return True
        if self.state not in (State.READY, State.DATA, State.PRDR):
            return False  # no hello yet
        progress = self._waiting.popleft()
        places = progress.sendable(self.extensions)
        self._to_name = deque(places)
        if not places:
            self._finish(progress)
            return True
        several = len(places) > 1 and not self._lmtp
        asks = progress.asks_verdicts = several and self.extensions.prdr
        self._current = progress
        self._phase = _Phase.RECIPIENTS
        value, offered = progress.value, self.extensions
        self._chunked = (value.chunked or value.binary) and offered.chunking
        line = mail_line(value, offered, utf8=progress.needs_utf8, asks_verdicts=asks)
        self._send(line, Verb.MAIL, progress)
        return True

    def _must_wait(self) -> bool:
        """Whether what is out must be answered before a transaction begins."""
        for expected in self._expected:
            verb = expected.verb
            if verb is Verb.QUIT or verb is Verb.RSET or verb is Verb.BDAT_LAST:
                return True  # if the last chunk is refused, RSET is due first
        return False

    def _advance(self, progress: Progress) -> bool:
        """Send the next command of the transaction; False: it has to wait."""
        if self._phase is _Phase.CONTENT:
            return False
        if progress.mail_refused or not self._to_name:
            self._phase = _Phase.START_CONTENT
        if self._phase is _Phase.RECIPIENTS:
            place = self._to_name.popleft()
            line = rcpt_line(progress.value, place, self.extensions)
            self._send(line, Verb.RCPT, progress, place)
        elif progress.outstanding and (progress.mail_refused or self._chunked):
            return False
        elif self._chunked and progress.accepted:
            self._phase = _Phase.CONTENT
            value = progress.value
            self._writer = ChunkWriter(value.size_octets, binary=value.binary)
            self._events.append(BodyWanted(progress.number))
            return False
        elif progress.outstanding or progress.accepted:
            self._phase = _Phase.CONTENT
            self._send("DATA", Verb.DATA, progress)
        else:
            self._current = None
            self._finish(progress)
        return True

    def _begin_chunk(self, octets: bytes) -> None:
        progress = self._current
        assert progress is not None
        self._expected.append(_Expected(Verb.BDAT, progress))
        progress.outstanding += 1
        if self.narrate:
            self._events.append(Line(_command_of(octets), outgoing=True))

    def _end_of_content(self, progress: Progress, verb: Verb) -> None:
        # RFC 2033 §4.2: in LMTP one reply for each accepted recipient
        for place in progress.accepted if self._lmtp else (0,):
            self._expected.append(_Expected(verb, progress, place))
            progress.outstanding += 1
        self._current = None
        early, self._early = self._early, None
        if early is not None:
            self._take(early)
            self._read()
        else:
            self._pump()

    def _command(self, verb: Verb, *words: str, shown: str = "") -> None:
        if self.is_closed:
            return
        self._say(" ".join((verb.value, *words)), shown=shown)
        self._expected.append(_Expected(verb))

    def _send(self, line: str, verb: Verb, progress: Progress, place: int = 0) -> None:
        self._say(line)
        self._expected.append(_Expected(verb, progress, place))
        progress.outstanding += 1

    def _say(self, line: str, *, shown: str = "") -> None:
        assert line.isascii() or self.extensions.smtputf8, "not without SMTPUTF8"
        clean = line.isprintable() or not _CONTROLS.search(line)
        assert clean, "control characters never leave in a command"
        self._out.append(f"{line}\r\n".encode())
        if self.narrate:
            self._events.append(Line(shown or line, outgoing=True))

    # Ends

    def _finish(self, progress: Progress) -> None:
        progress.finished = True
        while self._open and self._open[0].finished:
            self._events.append(self._open.popleft().done())

    def _nonsense(self, text: str) -> None:
        self._events.append(ProtocolError(text))
        self._lose(text, None)

    def _lose(self, reason: str, reply: Reply | None) -> None:
        verb = self._expected[0].verb if self._expected else Verb.CONTENT
        self.state = State.CLOSED
        self._expected.clear()
        self._waiting.clear()
        self._current = self._writer = self._early = None
        while self._open:
            progress = self._open.popleft()
            if reply is not None and not reply.is_positive:
                progress.decide_rest(reply, verb)
            self._events.append(progress.done())
        self._events.append(LostConnection(reason, reply))


def _command_of(octets: bytes) -> str:
    return octets[: octets.index(b"\r\n")].decode("ascii")
