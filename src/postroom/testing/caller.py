"""A client that says to a server exactly what a test wants said, octet for octet.

It blocks, and it gives up after ``PATIENCE_S``; what the server does not say in that
time is a ``TimeoutError``, and a connection that ends within a reply is a
``ConnectionError``.
"""

import socket
from types import TracebackType
from typing import NamedTuple

PATIENCE_S = 30.0


class Said(NamedTuple):
    """A reply."""

    code: int
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


class Caller:
    """One connection to an SMTP server; use it as a context manager.

    Args:
        ip: where the server is.
        port: its port.
        source_ip: the address to come from; empty lets the system choose.
        patience_s: how long to wait for anything.
    """

    def __init__(
        self, ip: str, port: int, *, source_ip: str = "", patience_s: float = PATIENCE_S
    ) -> None:
        source = (source_ip, 0) if source_ip else None
        self.socket = socket.create_connection((ip, port), patience_s, source)
        self._buffer = b""

    def __enter__(self) -> "Caller":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up without a word."""
        self.socket.close()

    def send(self, octets: bytes) -> None:
        """Send octets as they are."""
        self.socket.sendall(octets)

    def line(self) -> bytes:
        """Return the next line without its end, ``b""`` when the server hung up.

        Raises:
            ConnectionError: it hung up within a line.
            TimeoutError: nothing came.
        """
        while b"\r\n" not in self._buffer:
            data = self.socket.recv(65536)
            if not data:
                if self._buffer:
                    raise ConnectionError(f"hung up after {self._buffer!r}")
                return b""
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def reply(self) -> Said:
        """Read one reply, of however many lines.

        Raises:
            ConnectionError: the server hung up instead.
            TimeoutError: it said nothing.
        """
        texts = []
        while True:
            line = self.line().decode("utf-8", "replace")
            if len(line) < 3 or not line[:3].isdigit():
                raise ConnectionError(f"no reply but {line!r}")
            texts.append(line[4:])
            if line[3:4] != "-":
                return Said(int(line[:3]), "\n".join(texts))

    def ask(self, command: str | bytes) -> Said:
        """Send one command line and read its reply."""
        octets = command if isinstance(command, bytes) else command.encode()
        self.send(octets + b"\r\n")
        return self.reply()

    def hello(self) -> Said:
        """Read the greeting and say EHLO; returns the answer to that."""
        greeting = self.reply()
        if greeting.code != 220:
            return greeting
        return self.ask("EHLO client.example")

    def give(self, sender: str, recipients: list[str], content: bytes) -> Said:
        """Hand in one message by commands one at a time; returns the last reply.

        ``content`` is sent with its dots stuffed. Stops at the first refusal.
        """
        for command in (
            f"MAIL FROM:<{sender}>",
            *(f"RCPT TO:<{recipient}>" for recipient in recipients),
            "DATA",
        ):
            said = self.ask(command)
            if said.code >= 400:
                return said
        self.send(stuffed(content))
        return self.reply()

    def is_hung_up(self) -> bool:
        """Wait for the server to hang up; what it still says is thrown away.

        Raises:
            TimeoutError: it does not.
        """
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionError:
            pass
        return True


def stuffed(content: bytes) -> bytes:
    """Return content as it follows DATA, its end included (RFC 5321 §4.5.2)."""
    dotted = content.replace(b"\r\n.", b"\r\n..")
    if dotted.startswith(b"."):
        dotted = b"." + dotted
    if dotted and not dotted.endswith(b"\r\n"):
        dotted += b"\r\n"
    return dotted + b".\r\n"
