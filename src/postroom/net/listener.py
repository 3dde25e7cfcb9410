"""Accepting connections: a listening socket in, a task per connection out.

The socket is shared by several processes and is never closed for good here: pausing
closes a duplicate, so that waiting connections stay with the kernel and the other
processes. At ``sessions_max`` accepting pauses by itself until sessions end. A handler
that raises is a bug: it is told to the loop's exception handler and its connection is
broken off.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from postroom.mail.now import SECOND_US
from postroom.net.stream import Stream, StreamError, StreamOwner

Handler = Callable[[Stream], Coroutine[object, object, None]]
"""Serves one connection; when it returns, the connection is closed."""

SESSIONS_MAX = 10_000
RETRY_S = 1.0
# The socket's file is not ours to remove: the supervisor made it.
_KEEP_FILE: Any = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}


def notice_loss(sock: socket.socket, after_us: int) -> None:
    """Have the kernel find out about clients that went away without a word.

    Each connection that is accepted from the socket is lost about that long after the
    last sign of life from a silent client's machine (TCP keep-alive). Does nothing for
    a Unix socket.
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    seconds = max(8, after_us // SECOND_US)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds // 2)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, seconds // 8)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)


class Listener(StreamOwner):
    """One listening socket of one process. Made by ``listen``."""

    def __init__(
        self,
        sock: socket.socket,
        handler: Handler,
        backlog: int,
        sessions_max: int,
    ) -> None:
        self._sock = sock
        self._handler = handler
        self._backlog = backlog
        self._sessions_max = sessions_max
        self._tasks: dict[Stream, asyncio.Task[None]] = {}
        self._server: asyncio.AbstractServer | None = None
        self._starting: asyncio.Task[None] | None = None
        self._idle: asyncio.Future[None] | None = None
        self._is_wanted = True
        self._is_full = False
        self._is_closed = False
        self._loop = asyncio.get_running_loop()

    @property
    def sessions(self) -> int:
        """How many connections are being served."""
        return len(self._tasks)

    def pause(self) -> None:
        """Stop accepting; connections being served go on."""
        self._is_wanted = False
        self._stop()

    def resume(self) -> None:
        """Accept again."""
        self._is_wanted = True
        self._start_soon()

    def close(self) -> None:
        """Stop accepting for good and let go of the socket."""
        self._is_closed = True
        self._stop()
        self._sock.close()

    def interrupt(self) -> None:
        """Ask all sessions to end: their next idle read says so once."""
        for stream in tuple(self._tasks):
            stream.interrupt()

    async def drained(self) -> None:
        """Wait until no connection is being served."""
        while self._tasks:
            self._idle = self._idle or self._loop.create_future()
            await asyncio.shield(self._idle)

    async def abort_sessions(self) -> None:
        """Break off every connection and wait until its handler has ended."""
        tasks = tuple(self._tasks.items())
        for stream, task in tasks:
            stream.abort()
            task.cancel()
        await asyncio.gather(*(task for _, task in tasks), return_exceptions=True)

    def opened(self, stream: Stream) -> None:
        """Serve a new connection in a task of its own."""
        self._tasks[stream] = self._loop.create_task(self._serve(stream))
        if len(self._tasks) >= self._sessions_max:
            self._is_full = True
            self._stop()

    async def start(self) -> None:
        """Begin to accept.

        Raises:
            OSError: the socket is no listening socket.
        """
        if self._server is not None or self._is_closed:
            return
        shared = socket.socket(fileno=os.dup(self._sock.fileno()))
        shared.setblocking(False)
        try:
            if shared.family == socket.AF_UNIX:
                server: asyncio.AbstractServer = await self._loop.create_unix_server(
                    self._new_stream, sock=shared, backlog=self._backlog, **_KEEP_FILE
                )
            else:
                server = await self._loop.create_server(
                    self._new_stream, sock=shared, backlog=self._backlog
                )
        except BaseException:
            shared.close()
            raise
        if self._may_accept():
            self._server = server
        else:
            server.close()

    def _new_stream(self) -> Stream:
        return Stream(self, self._loop)

    async def _serve(self, stream: Stream) -> None:
        try:
            await self._handler(stream)
            stream.close()
        except StreamError:
            stream.abort()
        except Exception as error:
            stream.abort()
            self._loop.call_exception_handler(
                {"message": "a connection's handler raised", "exception": error}
            )
        finally:
            self._ended(stream)

    def _ended(self, stream: Stream) -> None:
        if stream.is_open:
            stream.abort()
        self._tasks.pop(stream, None)
        if self._is_full and len(self._tasks) <= self._sessions_max * 9 // 10:
            self._is_full = False
            self._start_soon()
        if not self._tasks and self._idle is not None:
            self._idle.set_result(None)
            self._idle = None

    def _may_accept(self) -> bool:
        return self._is_wanted and not self._is_full and not self._is_closed

    def _start_soon(self) -> None:
        if self._may_accept() and (self._starting is None or self._starting.done()):
            self._starting = self._loop.create_task(self._start_again())

    async def _start_again(self) -> None:
        """Accept again as soon as it can be: there may be no descriptor just now."""
        while True:
            try:
                return await self.start()
            except OSError as error:
                self._loop.call_exception_handler(
                    {"message": "accepting has to wait", "exception": error}
                )
            await asyncio.sleep(RETRY_S)

    def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None


async def listen(
    sock: socket.socket,
    handler: Handler,
    *,
    backlog: int = 1024,
    sessions_max: int = SESSIONS_MAX,
) -> Listener:
    """Accept on a bound (or already listening) socket until told otherwise.

    The socket belongs to the listener from then on.

    Raises:
        OSError: the socket cannot be listened on.
    """
    listener = Listener(sock, handler, backlog, sessions_max)
    await listener.start()
    return listener
