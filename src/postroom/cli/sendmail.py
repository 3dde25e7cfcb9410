"""``sendmail``, ``mailq``, ``newaliases``: carries a call to the server and back.

A courier. It sends its arguments and, if asked, its standard input to the submission
socket, prints what comes back, and ends with the exit code it is given; all
understanding is in the server (``services.pickup``; the frames are described in
``services.frames``). It imports next to nothing, because its start is most of its time.

If no server answers, nothing was handed over and ``cli.drop`` keeps the mail. If the
server breaks off later it is not known what became of the mail: exit code 75, and a
word on standard error. ``POSTROOM_SUBMIT`` names another socket.
"""

import _socket
import posix
import select
import sys

SOCKET = "/run/postroom/submit.sock"
GREETING = b"POSTROOM 1\n"
EX_OK, EX_IOERR, EX_TEMPFAIL, EX_INTERRUPTED = 0, 74, 75, 130
_PIECE_OCTETS = 65536
_ANSWER_MS_MAX = 20_000


class NotServed(Exception):
    """No server took the call; nothing was handed over."""


class BrokenOff(Exception):
    """The server went away in the middle; what became of the mail is unknown."""


def main() -> int:
    """Serve one call; returns the exit code."""
    _open_missing()
    if sys.argv[1:] == ["--help"]:
        from postroom.cli import usage

        return usage.answer(sys.argv)
    try:
        try:
            return _Call(_connect()).run()
        except NotServed as error:
            from postroom.cli import drop

            return drop.without_server(sys.argv, str(error))
    except BrokenOff as error:
        show(2, f"sendmail: the mail server broke off ({error}): it is not known ")
        show(2, "whether the mail was sent\n")
        return EX_TEMPFAIL
    except OSError as error:
        show(2, f"sendmail: cannot read standard input: {error.strerror}\n")
        return EX_IOERR
    except KeyboardInterrupt:
        return EX_INTERRUPTED


def frame(kind: bytes, payload: bytes) -> bytes:
    """Return one frame."""
    return kind + len(payload).to_bytes(4, "big") + payload


def arguments(argv: list[str]) -> bytes:
    """Return the frame that carries the arguments."""
    encoding = sys.getfilesystemencoding()
    payload = "\0".join(argv).encode(encoding, "surrogateescape")
    return frame(b"A", payload)


def show(fd: int, text: "str | bytes") -> None:
    """Write to standard output or error; nobody may be there any more."""
    data = text.encode(errors="replace") if isinstance(text, str) else text
    try:
        while data:
            data = data[posix.write(fd, data) :]
    except OSError:
        pass


def setting(name: bytes, default: str) -> str:
    """Return an environment variable that names a path."""
    return posix.environ.get(name, default.encode()).decode(errors="surrogateescape")


def _open_missing() -> None:
    """Open the standard descriptors the caller closed, lest a socket take them."""
    for fd in (0, 1, 2):
        try:
            posix.fstat(fd)
        except OSError:
            posix.open("/dev/null", posix.O_RDWR)


def _connect() -> "_socket.socket":
    link = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        link.setblocking(False)  # a server with a long line of callers is none
        link.connect(setting(b"POSTROOM_SUBMIT", SOCKET))
    except OSError as error:
        raise NotServed(error.strerror) from None
    return link


class _Call:
    """One call on its way: both directions move whenever they can."""

    def __init__(self, link: "_socket.socket") -> None:
        self._link = link
        self._outgoing = GREETING + arguments(sys.argv)
        self._received = b""
        self._asked = False
        self._ended = False
        self._exit_code = -1

    def run(self) -> int:
        poll, link_fd = select.poll(), self._link.fileno()
        poll.register(link_fd, select.POLLIN | select.POLLOUT)
        reads = False
        while self._exit_code < 0:
            ready = dict(poll.poll(None if self._asked else _ANSWER_MS_MAX))
            if not ready:
                raise NotServed("it does not answer")
            events = ready.get(link_fd, 0)
            if events & select.POLLOUT:
                self._send()
            if events & ~select.POLLOUT:
                self._receive()
            if 0 in ready:
                self._read()
            sending = select.POLLOUT if self._outgoing else 0
            poll.modify(link_fd, select.POLLIN | sending)
            wants_input = self._asked and not self._ended and not self._outgoing
            if wants_input and not reads:
                poll.register(0, select.POLLIN)
            elif reads and not wants_input:
                poll.unregister(0)
            reads = wants_input
        return self._exit_code

    def _send(self) -> None:
        try:
            self._outgoing = self._outgoing[self._link.send(self._outgoing) :]
        except BlockingIOError:
            pass
        except OSError:  # it may have said why before it went
            self._outgoing, self._ended = b"", True

    def _receive(self) -> None:
        try:
            data = self._link.recv(_PIECE_OCTETS)
        except OSError as error:
            raise self._broken(error.strerror or "") from None
        if not data:
            raise self._broken("connection closed")
        self._received += data
        while len(self._received) >= 5 and self._exit_code < 0:
            end = 5 + int.from_bytes(self._received[1:5], "big")
            if len(self._received) < end:
                return
            kind, payload = self._received[:1], self._received[5:end]
            self._received = self._received[end:]
            self._take(kind, payload)

    def _take(self, kind: bytes, payload: bytes) -> None:
        if kind == b"G":
            self._asked = True
        elif kind == b"O":
            show(1, payload)
        elif kind == b"R":
            show(2, payload)
        elif kind == b"X":
            self._exit_code = payload[0]

    def _read(self) -> None:
        data = posix.read(0, _PIECE_OCTETS)
        self._outgoing = frame(b"I" if data else b"E", data)
        self._ended = not data

    def _broken(self, why: str) -> Exception:
        return BrokenOff(why) if self._asked else NotServed(why)
