"""The server's side of one POP3 session (RFC 1939, RFC 2449), without any I/O.

Bytes go in by ``receive``; ``next_event`` says what is asked; the methods answer;
``data_to_send`` gives what is to be written. While an answer is owed no further command
is looked at, so pipelining (RFC 2449 §6.6), back-pressure and slow look-ups are one
mechanism. The maildrop's listing is held here, so STAT, LIST, UIDL, DELE, RSET and NOOP
need nobody else. Wrong commands are answered here; too many of them end the session.
"""

from collections.abc import Callable, Iterator, Sequence
from enum import Enum

from postroom.pop3.commands import (
    Command,
    Malformed,
    message_number,
    parse,
    top_arguments,
)
from postroom.pop3.events import (
    Ended,
    Event,
    Flush,
    Login,
    Refused,
    Retrieve,
    Update,
)
from postroom.pop3.lines import Stuffing, TopCut
from postroom.pop3.listing import Maildrop
from postroom.pop3.settings import Pop3Settings

FLUSH_OCTETS = 128 * 1024
"""After so much output the next command waits until it was sent."""
_REPLY_OCTETS_MAX = 512  # RFC 2449 §4
_FLUSH = Flush()


class State(Enum):
    """Where a session stands (RFC 1939 §3)."""

    AUTHORIZATION = "AUTHORIZATION"
    TRANSACTION = "TRANSACTION"
    UPDATE = "UPDATE"


class ServerConnection:
    """One session.

    Args:
        settings: limits and what CAPA announces.
        plaintext_allowed: whether USER and PASS are taken on this connection.
    """

    def __init__(self, settings: Pop3Settings, *, plaintext_allowed: bool) -> None:
        self.state = State.AUTHORIZATION
        self._settings = settings
        self._plaintext_allowed = plaintext_allowed
        self._buffer = b""
        self._position = 0
        self._at_end = False
        self._is_skipping = False
        self._out: list[bytes] = []
        self._out_octets = 0
        self._owed: Event | None = None
        self._ended: Ended | None = None
        self._pages: Iterator[bytes] | None = None
        self._user = ""
        self._errors = 0
        self._login_failures = 0
        self._maildrop = Maildrop((), ())
        self._stuffing = Stuffing()
        self._cut: TopCut | None = None

    # Bytes in, events and bytes out

    def greet(self, text: str) -> None:
        """Say the first line (RFC 1939 §4)."""
        self._ok(text)

    def receive(self, data: bytes) -> None:
        """Take what the client sent; ``b""`` when it has ended."""
        if not data:
            self._at_end = True
        self._buffer = self._buffer[self._position :] + data
        self._position = 0

    def next_event(self) -> Event | None:
        """Return what is to be done next; None when more bytes are needed.

        While an answer is owed, and for good after ``Ended``, it is None as well.
        """
        while self._owed is None:
            if self._ended is not None:
                self._owed = self._ended
                return self._ended
            if self._out_octets >= FLUSH_OCTETS:
                return _FLUSH
            if self._pages is not None:
                self._next_page(self._pages)
                continue
            line = self._next_line()
            event = self._without_line() if line is None else self._obey(line)
            if event is not None or (line is None and self._ended is None):
                return event
        return None

    def data_to_send(self) -> bytes:
        """Return what is to be written, and forget it."""
        out = self._out
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self._out_octets = 0
        return data

    # Answers

    def login_accepted(self, sizes: Sequence[int], uids: Sequence[str]) -> None:
        """The user is in; these are the mailbox's messages."""
        assert isinstance(self._owed, Login)
        self._owed = None
        self.state = State.TRANSACTION
        self._maildrop = Maildrop(sizes, uids)
        self._ok(self._maildrop.summary())

    def login_refused(self, code: str, text: str, *, is_failure: bool = True) -> None:
        """The user is not in. ``code`` is one of RFC 2449 §8, RFC 3206, or empty.

        ``is_failure`` counts it among the wrong passwords of this session.
        """
        assert isinstance(self._owed, Login)
        self._owed = None
        self._error(text, code)
        self._login_failures += is_failure
        if self._login_failures >= self._settings.login_failures_max:
            self._ended = Ended("errors")

    def message(self, content: bytes) -> None:
        """Send a whole message in CRLF form."""
        self.message_begin(len(content))
        self.message_piece(content)
        self.message_end()

    def message_begin(self, octets: int) -> None:
        """Begin a message of so many octets."""
        owed = self._owed
        assert isinstance(owed, Retrieve)
        self._stuffing = Stuffing()
        if owed.top_lines is None:
            self._cut = None
            self._send(b"+OK %d octets\r\n" % octets)
        else:
            self._cut = TopCut(owed.top_lines)
            self._send(b"+OK top of message follows\r\n")

    def message_piece(self, data: bytes) -> None:
        """Send more of it."""
        if self._cut is not None:
            data = self._cut.feed(data)
        self._send(self._stuffing.feed(data))

    @property
    def wants_more(self) -> bool:
        """Whether more of the message is needed: TOP may have enough."""
        return self._cut is None or not self._cut.is_done

    def message_end(self) -> None:
        """End it."""
        assert isinstance(self._owed, Retrieve)
        self._owed = None
        self._send(self._stuffing.end())

    def message_refused(self, text: str, code: str = "") -> None:
        """The message cannot be had."""
        assert isinstance(self._owed, Retrieve)
        self._owed = None
        self._error(text, code)

    def updated(self, failed: int) -> None:
        """The deletions were made, but for ``failed`` of them (RFC 1939 §6)."""
        assert isinstance(self._owed, Update)
        self._owed = None
        self._ended = Ended("quit")
        left = self._maildrop.count + failed
        if failed:
            self._error("some deleted messages not removed", "SYS/TEMP")
        elif left:
            self._ok(f"signing off ({left} left)")
        else:
            self._ok("signing off (mailbox empty)")

    @property
    def left(self) -> int:
        """How many messages the client did not mark as deleted."""
        return self._maildrop.count

    # Lines

    def _next_line(self) -> bytes | None:
        while end := self._buffer.find(b"\n", self._position) + 1:
            line = self._buffer[self._position : end]
            self._position = end
            if not self._is_skipping:
                return line
            self._is_skipping = False
        return None

    def _without_line(self) -> Refused | None:
        """See to what is there when it holds no whole line."""
        waiting = len(self._buffer) - self._position
        if self._is_skipping or waiting > self._settings.command_octets_max:
            self._buffer = b""
            self._position = 0
            if not self._is_skipping:
                self._is_skipping = True
                return self._refused("", "line too long")
        if self._at_end and self._ended is None:
            self._ended = Ended("lost")
        return None

    def _obey(self, line: bytes) -> Event | None:
        if len(line) > self._settings.command_octets_max:
            return self._refused("", "line too long")
        command = parse(line)
        if isinstance(command, Malformed):
            return self._refused("", command.reason)
        known = _COMMANDS.get(command.verb)
        if known is None:
            return self._refused(command.verb, "unknown command")
        states, answer = known
        if self.state not in states:
            where = self.state.value
            return self._refused(command.verb, f"not valid in {where} state")
        # RFC 1939 §7: PASS comes immediately after USER, or not at all.
        if command.verb != "PASS":
            self._user = ""
        return answer(self, command)

    # Commands

    def _do_user(self, command: Command) -> Event | None:
        if not self._plaintext_allowed:
            return self._refused("USER", "passwords are taken only over TLS here")
        name = (command.argument or "").strip(" ")
        if not name:
            return self._refused("USER", "a name is needed")
        # RFC 1939 §13: the answer does not tell whether the user exists.
        self._user = name
        self._ok("password required")
        return None

    def _do_pass(self, command: Command) -> Event | None:
        user, self._user = self._user, ""
        if not user:
            return self._refused("PASS", "USER first")
        # RFC 1939 §7: spaces are part of the password.
        if not command.argument:
            return self._refused("PASS", "a password is needed")
        self._owed = Login(user, command.argument)
        return self._owed

    def _do_quit(self, command: Command) -> Event | None:
        if command.argument:
            return self._refused("QUIT", "no argument expected")
        if self.state is State.AUTHORIZATION:
            self._ok("signing off")
            self._ended = Ended("quit")
            return None
        self.state = State.UPDATE
        self._owed = Update(tuple(sorted(self._maildrop.deleted)))
        return self._owed

    def _do_capa(self, command: Command) -> Event | None:
        lines = ["TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING"]
        if self._plaintext_allowed:
            lines.append("USER")
        delay_s = -(-self._settings.login_delay // 1_000_000)
        if delay_s:
            lines.append(f"LOGIN-DELAY {delay_s}")
        lines += ["EXPIRE NEVER", "IMPLEMENTATION Postroom", "."]
        self._ok("capability list follows")
        self._send("".join(f"{line}\r\n" for line in lines).encode())
        return None

    def _do_noop(self, command: Command) -> Event | None:
        self._ok("")
        return None

    def _do_stat(self, command: Command) -> Event | None:
        maildrop = self._maildrop
        self._send(b"+OK %d %d\r\n" % (maildrop.count, maildrop.octets))
        return None

    def _do_list(self, command: Command) -> Event | None:
        return self._list(command, self._maildrop.sizes)

    def _do_uidl(self, command: Command) -> Event | None:
        return self._list(command, self._maildrop.uids)

    def _list(
        self, command: Command, values: Sequence[int] | Sequence[str]
    ) -> Event | None:
        if command.argument:
            index = self._index(command, command.argument)
            if isinstance(index, Refused):
                return index
            self._ok(f"{index + 1} {values[index]}")
            return None
        self._ok(self._maildrop.summary())
        self._pages = self._maildrop.pages(values)
        return None

    def _next_page(self, pages: Iterator[bytes]) -> None:
        page = next(pages, None)
        if page is None:
            self._pages = None
            page = b".\r\n"
        self._send(page)

    def _do_retr(self, command: Command) -> Event | None:
        index = self._index(command, command.argument or "")
        if not isinstance(index, Refused):
            self._owed = Retrieve(index)
            return self._owed
        return index

    def _do_top(self, command: Command) -> Event | None:
        given = top_arguments(command.argument or "")
        if given is None:
            return self._refused("TOP", "a message-number and a line count are needed")
        index = self._index(command, str(given[0]))
        if isinstance(index, Refused):
            return index
        self._owed = Retrieve(index, given[1])
        return self._owed

    def _do_dele(self, command: Command) -> Event | None:
        index = self._index(command, command.argument or "")
        if isinstance(index, Refused):
            return index
        self._maildrop.delete(index)
        self._ok(f"message {index + 1} deleted")
        return None

    def _do_rset(self, command: Command) -> Event | None:
        self._maildrop.reset()
        self._ok(self._maildrop.summary())
        return None

    def _index(self, command: Command, argument: str) -> int | Refused:
        """Return which message is meant; a wrong number is no protocol error."""
        number = message_number(argument)
        problem = self._maildrop.problem(number)
        if number is None:
            return self._refused(command.verb, problem)
        if problem:
            self._error(problem)
            return Refused(command.verb, problem)
        return number - 1

    # Replies

    def _ok(self, text: str) -> None:
        self._reply(f"+OK {text}".rstrip())

    def _error(self, text: str, code: str = "") -> None:
        self._reply(f"-ERR [{code}] {text}" if code else f"-ERR {text}")

    def _refused(self, verb: str, text: str) -> Refused:
        self._wrong(text)
        return Refused(verb, text)

    def _wrong(self, text: str) -> None:
        self._errors += 1
        if self._errors >= self._settings.errors_max and self._ended is None:
            text = f"{text}; too many errors, closing"
            self._ended = Ended("errors")
        self._error(text)

    def _reply(self, text: str) -> None:
        if not text.isprintable():
            text = "".join(char if char.isprintable() else "?" for char in text)
        self._send(text.encode()[: _REPLY_OCTETS_MAX - 2] + b"\r\n")

    def _send(self, data: bytes) -> None:
        if data:
            self._out.append(data)
            self._out_octets += len(data)


_Answer = Callable[[ServerConnection, Command], Event | None]
_AUTHORIZATION = frozenset({State.AUTHORIZATION})
_TRANSACTION = frozenset({State.TRANSACTION})
_BOTH = _AUTHORIZATION | _TRANSACTION
_COMMANDS: dict[str, tuple[frozenset[State], _Answer]] = {
    "USER": (_AUTHORIZATION, ServerConnection._do_user),
    "PASS": (_AUTHORIZATION, ServerConnection._do_pass),
    "CAPA": (_BOTH, ServerConnection._do_capa),
    "QUIT": (_BOTH, ServerConnection._do_quit),
    "NOOP": (_TRANSACTION, ServerConnection._do_noop),
    "STAT": (_TRANSACTION, ServerConnection._do_stat),
    "LIST": (_TRANSACTION, ServerConnection._do_list),
    "UIDL": (_TRANSACTION, ServerConnection._do_uidl),
    "RETR": (_TRANSACTION, ServerConnection._do_retr),
    "TOP": (_TRANSACTION, ServerConnection._do_top),
    "DELE": (_TRANSACTION, ServerConnection._do_dele),
    "RSET": (_TRANSACTION, ServerConnection._do_rset),
}
