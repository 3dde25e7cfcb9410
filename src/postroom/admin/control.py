"""The control socket of a worker: questions and orders of operators, as JSON lines.

A caller sends one ``Request`` a line and gets a stream of ``Item`` lines, ended by
``End`` or ``Refused``. The kernel says who the caller is: root, the user that the
server runs as, and members of the operator group may do everything; anyone else may
only list their own messages, as ``mailq`` does. A caller that does not take its
answers in time is cut off; it never holds up mail.
"""

import asyncio
import grp
import os
import pwd
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from enum import Enum
from pathlib import Path

import msgspec

from postroom.mail.now import SECOND_US
from postroom.net.clock import read_mono_us
from postroom.net.listener import Listener, listen
from postroom.net.stream import PeerCredentials, Stream, StreamError

REQUEST_OCTETS_MAX = 256 * 1024
IDLE_US = 60 * SECOND_US
"""How long a caller may take to ask, and to take an answer."""
CALLERS_MAX = 32
BEAT_S = 5.0
"""How often a caller is told that its long question is still worked on."""


class Access(Enum):
    """What a caller may do."""

    FULL = "full"
    OWN = "own"


class Caller(msgspec.Struct, frozen=True):
    """Who asks. ``name`` is the login name, the uid in digits if there is none."""

    uid: int
    name: str
    access: Access


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One question: a method's name and its arguments."""

    method: str
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class Item(msgspec.Struct, frozen=True, tag="item"):
    """One part of an answer."""

    value: msgspec.Raw


class End(msgspec.Struct, frozen=True, tag="end"):
    """The answer is complete."""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """There is no answer, or no more of it; ``why`` is fit for a person."""

    why: str


class Beat(msgspec.Struct, frozen=True, tag="beat"):
    """There is nothing yet, but the question is being worked on."""


Answer = Item | End | Refused | Beat


class ControlError(Exception):
    """A request cannot be answered; the text is sent to the caller."""


Handler = Callable[[Caller, msgspec.Raw], AsyncIterator[object]]
"""Answers one method: yields the parts; raises ``ControlError`` to refuse."""

OPEN_TO_ALL = frozenset({"queue.list"})
"""Methods that callers with ``Access.OWN`` may use; the handler narrows the answer."""

_request = msgspec.json.Decoder(Request)
_to_json = msgspec.json.Encoder().encode


class ControlServer:
    """Serves one worker's control socket. Made by ``serve_control``.

    Attributes:
        operators_problem: why the operator group cannot use it, for people; empty if
            it can, or if there is none.
    """

    def __init__(
        self, path: Path, handlers: Mapping[str, Handler], operator_group: str
    ) -> None:
        self._path = path
        self._handlers = handlers
        self._operator_group = operator_group
        self._operator_gid = group_id(operator_group)
        self.operators_problem = ""
        self._inode = 0
        self._listener: Listener | None = None

    async def start(self) -> None:
        """Begin to answer, in the place of a former worker of the same number.

        Raises:
            OSError: the socket cannot be made.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._path.unlink(missing_ok=True)
            sock.bind(str(self._path))
            self._path.chmod(0o600)
            if self._operator_group:
                self._let_operators_in()
            self._inode = self._path.stat().st_ino
            self._listener = await listen(
                sock, self._serve, backlog=CALLERS_MAX, sessions_max=CALLERS_MAX
            )
        except BaseException:
            sock.close()
            raise

    def _let_operators_in(self) -> None:
        """Give the socket to their group, which takes that we are in it."""
        group = self._operator_group
        if self._operator_gid is None:
            self.operators_problem = f'there is no group "{group}"'
            return
        try:
            os.chown(self._path, -1, self._operator_gid)
            self._path.chmod(0o660)
        except PermissionError:
            self.operators_problem = (
                f'the user of the server is not in the group "{group}", and cannot '
                "give it the control sockets: add it (adduser USER GROUP), then "
                "start the server anew"
            )

    async def aclose(self) -> None:
        """Stop answering; the socket's file goes unless a successor made its own."""
        if self._listener is None:
            return
        self._listener.close()
        await self._listener.abort_sessions()
        with suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()

    async def _serve(self, stream: Stream) -> None:
        credentials = stream.peer_credentials()
        caller = await asyncio.to_thread(identify, credentials, self._operator_gid)
        rest = b""
        while True:
            stream.set_deadline(read_mono_us() + IDLE_US)
            line, newline, tail = rest.partition(b"\n")
            if newline:
                rest = tail
                await self._answer(stream, caller, line)
            elif len(rest) > REQUEST_OCTETS_MAX:
                await _send(stream, Refused("request too long"))
                return
            elif data := await stream.read():
                rest += data
            else:
                return

    async def _answer(self, stream: Stream, caller: Caller, line: bytes) -> None:
        beating = asyncio.create_task(_beat(stream))
        try:
            await self._answer_parts(stream, caller, line)
        finally:
            beating.cancel()

    async def _answer_parts(self, stream: Stream, caller: Caller, line: bytes) -> None:
        try:
            request = _request.decode(line)
            handler = self._handler(caller, request.method)
            async for part in handler(caller, request.arguments):
                await _send(stream, Item(msgspec.Raw(_to_json(part))))
            await _send(stream, End())
        except ControlError as error:
            await _send(stream, Refused(str(error)))
        except msgspec.MsgspecError as error:
            await _send(stream, Refused(f"malformed request: {error}"))
        except StreamError:
            raise
        except Exception as error:
            await _send(stream, Refused(f"failed: {type(error).__name__}: {error}"))

    def _handler(self, caller: Caller, method: str) -> Handler:
        if caller.access is not Access.FULL and method not in OPEN_TO_ALL:
            raise ControlError(
                f"user {caller.name} may not do this: it takes root, the user that "
                "the server runs as, or a member of process.operator_group"
            )
        handler = self._handlers.get(method)
        if handler is None:
            raise ControlError(f'unknown method "{method}"')
        return handler


async def serve_control(
    path: str | Path, handlers: Mapping[str, Handler], *, operator_group: str = ""
) -> ControlServer:
    """Answer on a control socket until it is closed.

    Raises:
        OSError: the socket cannot be made.
    """
    server = ControlServer(Path(path), handlers, operator_group)
    await server.start()
    return server


def control_path(run_directory: str, worker: int) -> Path:
    """Return where a worker's control socket is."""
    return Path(run_directory) / f"worker-{worker}.sock"


def identify(credentials: PeerCredentials, operator_gid: int | None) -> Caller:
    """Say who a caller is and what it may do. Asks the system: not for the loop."""
    uid = credentials.uid
    try:
        name = pwd.getpwuid(uid).pw_name
        groups = os.getgrouplist(name, credentials.gid)
    except KeyError:
        name, groups = f"uid{uid}", [credentials.gid]
    is_operator = uid in (0, os.geteuid()) or operator_gid in groups
    return Caller(uid, name, Access.FULL if is_operator else Access.OWN)


def group_id(name: str) -> int | None:
    """Return a group's number, None if there is no such group."""
    try:
        return grp.getgrnam(name).gr_gid if name else None
    except KeyError:
        return None


async def _beat(stream: Stream) -> None:
    """Say now and then that we are still there; lines are written whole."""
    while True:
        await asyncio.sleep(BEAT_S)
        stream.write(_to_json(Beat()) + b"\n")


async def _send(stream: Stream, answer: Answer) -> None:
    stream.write(_to_json(answer) + b"\n")
    stream.set_deadline(read_mono_us() + IDLE_US)
    await stream.drain()
