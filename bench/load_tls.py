"""TLS sessions as fast as they are answered: ``python -m bench.load_tls``.

``--processes`` clients, each with one session at a time: greeting, EHLO, STARTTLS, the
handshake, EHLO, with ``--login`` AUTH PLAIN and one message, QUIT. With ``--resume``
each handshake but the first of a process offers the ticket of the one before. The
certificate is not checked, which is the same work less for both servers. The first
second does not count. The result is printed as JSON.
"""

import argparse
import base64
import json
import multiprocessing
import resource
import socket
import ssl
import sys
import time
from contextlib import suppress
from typing import NamedTuple

WARM_UP_S = 1.0
_LINE = b"What is written here is of no importance, only that there is enough.\r\n"
_LETTER = b"Subject: load\r\n\r\n" + _LINE * 58 + b".\r\n"


class Did(NamedTuple):
    """What one process has done."""

    count: int
    resumed: int
    cpu_s: float
    why: str = ""


class Session:
    """One session."""

    def __init__(self, port: int) -> None:
        # From one address, whose name /etc/hosts knows: nobody has to ask DNS.
        self._socket: socket.socket = socket.create_connection(
            ("127.0.0.1", port), 30.0
        )
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, command: bytes, wanted: bytes) -> None:
        """Say something, nothing at first; read replies until one has ended."""
        if command:
            self._socket.sendall(command)
        said = b""
        while not said.endswith(b"\r\n") or said.rstrip().split(b"\n")[-1][3:4] == b"-":
            data = self._socket.recv(16384)
            if not data:
                raise ConnectionError(f"hung up after {command[:20]!r}")
            said += data
        if not said.startswith(wanted):
            raise ConnectionError(f"{command[:20]!r} was answered {said[:80]!r}")

    def secure(
        self, context: ssl.SSLContext, known: ssl.SSLSession | None
    ) -> ssl.SSLSocket:
        """Do the handshake."""
        secured = context.wrap_socket(self._socket, session=known)
        self._socket = secured
        return secured


def run_one(given: argparse.Namespace) -> Did:
    """Do sessions until the time is over."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    secret = base64.b64encode(f"\0{given.user}\0{given.password}".encode())
    begin = time.perf_counter() + WARM_UP_S
    end = begin + given.seconds
    count = resumed = 0
    known: ssl.SSLSession | None = None
    cpu_s = 0.0
    while (now := time.perf_counter()) < end:
        if not cpu_s and now >= begin:
            cpu_s = _cpu_s()
        with Session(given.port) as session:
            session.ask(b"", b"220")
            session.ask(b"EHLO src.test\r\n", b"250")
            session.ask(b"STARTTLS\r\n", b"220")
            secured = session.secure(context, known if given.resume else None)
            session.ask(b"EHLO src.test\r\n", b"250")
            if given.login:
                session.ask(b"AUTH PLAIN " + secret + b"\r\n", b"235")
                session.ask(b"MAIL FROM:<%s>\r\n" % given.sender.encode(), b"250")
                session.ask(b"RCPT TO:<b@dst.test>\r\n", b"250")
                session.ask(b"DATA\r\n", b"354")
                session.ask(_LETTER, b"250")
            session.ask(b"QUIT\r\n", b"221")
            if begin <= now:
                count += 1
                resumed += bool(secured.session_reused)
            known = secured.session
    return Did(count, resumed, _cpu_s() - cpu_s)


def _child(given: argparse.Namespace) -> Did:
    with suppress(KeyboardInterrupt):
        try:
            return run_one(given)
        except OSError as error:
            return Did(0, 0, 0.0, str(error))
    return Did(0, 0, 0.0, "interrupted")


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--processes", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--resume", type=int, default=0)
    parser.add_argument("--login", type=int, default=0)
    parser.add_argument("--user", default="looper0")
    parser.add_argument("--password", default="")
    parser.add_argument("--sender", default="looper0@postroom.test")
    given = parser.parse_args()
    with multiprocessing.get_context("fork").Pool(given.processes) as pool:
        did = pool.map(_child, [given] * given.processes)
    if failed := next((one.why for one in did if one.why), ""):
        print(f"TLS load: {failed}", file=sys.stderr)
        return 1
    count = sum(one.count for one in did)
    if not count:
        print("TLS load: no session was done in time", file=sys.stderr)
        return 1
    result = {
        "count": count,
        "wall_s": given.seconds,
        "resumed_share": sum(one.resumed for one in did) / count,
        "client_cpu_share": sum(one.cpu_s for one in did) / given.seconds,
        "client_cpu_us": sum(one.cpu_s for one in did) / count * 1e6,
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
