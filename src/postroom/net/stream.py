"""One connection as a task sees it: read, write, deadline, TLS.

A stream is made for one task that reads and one that writes (usually the same). What
is not read stops the peer (256 KiB are held at most); what the peer does not take
stops ``drain``. Deadlines cost nothing per read: one sweeper per loop looks at all
streams about once a second and wakes whoever waits on an overdue one. A peer's fault
is a ``StreamError``; the loop is never blocked and nothing is logged here.
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable
from typing import cast

import msgspec

from postroom.mail.now import SECOND_US
from postroom.net.addresses import plain_ip
from postroom.net.clock import read_mono_us
from postroom.net.demand import Demand
from postroom.net.faults import (
    HandshakeFailed,
    StreamError,
    StreamInterrupted,
    StreamLost,
    StreamOverstayed,
    StreamTimeout,
    StreamTooSlow,
)
from postroom.net.sweeper import Sweeper, sweeper_of
from postroom.net.tls import TlsError, TlsLayer, shake_hands

__all__ = [
    "HandshakeFailed",
    "Stream",
    "StreamError",
    "StreamInterrupted",
    "StreamLost",
    "StreamOverstayed",
    "StreamOwner",
    "StreamTimeout",
    "StreamTooSlow",
    "Taker",
]

BUFFER_OCTETS_MAX = 256 * 1024
"""What is held unread before the peer is made to wait."""
LINGER_US = 10 * SECOND_US
"""How long a closed stream may take to send what was written."""
TOGETHER_OCTETS_MAX = 16 * 1024
"""Encrypted octets that wait for more of the same turn."""
TLS_HANDSHAKE_US = 60 * SECOND_US
"""How long a handshake may take where no deadline says so."""


Taker = Callable[[bytes], bool]
"""Takes octets as they come; says whether it takes more."""


class PeerCredentials(msgspec.Struct, frozen=True, gc=False):
    """Who is at the other end of a Unix socket, as the kernel vouches for."""

    pid: int
    uid: int
    gid: int


class Stream(asyncio.Protocol):
    """A connection, TCP or Unix, plain or TLS.

    Attributes:
        peer_ip: the peer's address; an IPv4 address mapped into IPv6 is given as
            IPv4; empty on a Unix socket.
        peer_port: the peer's port, 0 on a Unix socket.
        is_tls: whether ``start_tls`` succeeded.
        received_octets: how many have come.
    """

    __slots__ = (
        "__weakref__",
        "_at_end",
        "_closed",
        "_closing",
        "_deadline_us",
        "_demand",
        "_drainer",
        "_end_us",
        "_failure",
        "_flushing",
        "_interrupted",
        "_is_giving",
        "_is_over",
        "_loop",
        "_owner",
        "_pauser",
        "_reader",
        "_reading_paused",
        "_sweeper",
        "_taker",
        "_thrown",
        "_tls",
        "_transport",
        "_unread",
        "_unread_octets",
        "_writing_paused",
        "is_tls",
        "peer_ip",
        "peer_port",
        "received_octets",
    )

    def __init__(
        self,
        owner: "StreamOwner | None" = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.peer_ip = ""
        self.peer_port = 0
        self.is_tls = False
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._tls: TlsLayer | None = None
        self._flushing = False
        self._unread: list[bytes] = []
        self._unread_octets = 0
        self._reading_paused = False
        self._writing_paused = False
        self._at_end = False
        self._closing = False
        self._interrupted: bool | None = None
        self._failure: StreamLost | None = None
        self.received_octets = 0
        self._deadline_us: int | None = None
        self._end_us: int | None = None
        self._is_over = False  # the end has come; noted, for a peer that never pauses
        self._demand: Demand | None = None
        self._pauser: asyncio.Future[None] | None = None
        self._reader: asyncio.Future[None] | None = None
        self._taker: Taker | None = None
        self._thrown: Exception | None = None  # by the taker
        self._is_giving = False
        self._drainer: asyncio.Future[None] | None = None
        self._closed: asyncio.Future[None] | None = None
        self._loop = loop or asyncio.get_running_loop()
        self._sweeper: Sweeper | None = None  # it watches us, once it is set

    # What tasks call

    async def read(self) -> bytes:
        """Return the next octets as they came, ``b""`` when the peer has ended.

        Raises:
            StreamTimeout: the deadline passed, or the connection's end.
            StreamLost: the connection broke; what came before was given out.
            StreamInterrupted: ``interrupt`` was called.
        """
        while self._is_over or not self._unread:
            if self._has_ended():
                return b""
            await self._wait()
        return self._take()

    async def feed(self, taker: Taker) -> None:
        """Give the taker what comes, as it comes, until it says False: enough.

        It is called in the turn of the loop in which octets came: an answer that needs
        no waiting wakes no task. At the end it is given ``b""`` once.

        Raises as ``read``, and what the taker raises.
        """
        while self._unread and not self._is_over:
            if not taker(self._take()):
                return
        self._taker = taker
        try:
            while self._taker is not None:
                if self._has_ended():
                    taker(b"")
                    return
                await self._wait()
        except StreamTimeout:
            if self._taker is not None:  # else enough came in the same turn
                raise
        finally:
            self._taker = None
            thrown, self._thrown = self._thrown, None
        if thrown is not None:
            raise thrown

    def _has_ended(self) -> bool:
        """Whether the peer has ended; raises what keeps us from reading on."""
        if self._is_over:
            raise StreamOverstayed("the connection has lasted too long")
        if self._interrupted:
            self._interrupted = False
            raise StreamInterrupted("the server is asked to end")
        if not self._at_end and self._failure is not None:
            raise self._failure
        return self._at_end

    async def _wait(self) -> None:
        assert self._reader is None or self._reader.done(), "two readers"
        self._reader = self._loop.create_future()
        await self._reader

    def write(self, data: bytes) -> None:
        """Send, in order, as the peer takes it. On a lost stream it does nothing."""
        if self._transport is not None and not self._closing:
            if self._tls is None:
                self._transport.write(data)
            else:
                self._put(self._tls, data)

    def put_back(self, data: bytes) -> None:
        """Have the next ``read`` begin with octets that were read already."""
        self._unread.insert(0, data)
        self._unread_octets += len(data)

    async def drain(self) -> None:
        """Wait while too much of what was written has not gone out.

        Raises:
            StreamTimeout: the deadline passed.
            StreamLost: the connection broke.
        """
        if self._failure is not None:
            raise self._failure
        if self._writing_paused:
            assert self._drainer is None or self._drainer.done(), "two writers"
            self._drainer = self._loop.create_future()
            await self._drainer

    def set_deadline(self, mono_us: int | None) -> None:
        """Set until when the peer may keep us waiting, in ``Now.mono_us`` time.

        Only waiting for the peer is cut short: a task that works is left alone.
        """
        if self._sweeper is None and mono_us is not None:
            self._sweeper = sweeper_of(self._loop)
            self._sweeper.watch(self)
        self._deadline_us = mono_us

    def allow(self, wait_us: int) -> None:
        """Let the peer keep us waiting so long from now on, or up to 2 s more.

        Cheaper than ``set_deadline``: it reads no clock, but counts from the next
        sweep.
        """
        if self._sweeper is None:
            self._sweeper = sweeper_of(self._loop)
            self._sweeper.watch(self)
        self._deadline_us = self._sweeper.next_us + wait_us

    def end_at(self, mono_us: int) -> None:
        """Set when the connection is over, whatever the peer does until then.

        As with a deadline, a task that works is left alone until it reads.
        """
        if self._sweeper is None:
            self._sweeper = sweeper_of(self._loop)
            self._sweeper.watch(self)
        self._end_us = mono_us

    def demand(self, demand: Demand | None) -> None:
        """Set how fast the peer has to send while it is waited for."""
        self._demand = demand

    async def pause(self, wait_us: int, *, until_octets: bool = False) -> bool:
        """Let the peer wait; less if it goes, or if the server is asked to end.

        Args:
            wait_us: how long.
            until_octets: return as soon as the peer has sent something.

        Returns:
            Whether the peer has sent something that is not read yet.
        """
        is_over = self._interrupted or self._at_end or self._failure
        if not is_over and not (until_octets and self._unread):
            pauser = self._pauser = self._loop.create_future()
            if until_octets:
                self._reader = pauser
            timer = self._loop.call_later(wait_us / SECOND_US, _wake, pauser)
            try:
                await pauser
            finally:
                timer.cancel()
                self._pauser = None
        return bool(self._unread)

    @property
    def unread_octets(self) -> int:
        """How many octets have come that nobody has read."""
        return self._unread_octets

    @property
    def is_congested(self) -> bool:
        """Whether so much has not gone out yet that ``drain`` has to be awaited."""
        return self._writing_paused

    def interrupt(self) -> None:
        """Wake the reader once with ``StreamInterrupted``, to end idle sessions."""
        if self._interrupted is None:
            self._interrupted = True
            _wake(self._reader)
            _wake(self._pauser)

    def close(self) -> None:
        """Send what was written, then close; does not wait."""
        if self._transport is None or self._closing:
            return
        if self._tls is not None:
            self._transport.write(self._tls.close())
        self._closing = True
        self._transport.close()
        if self._transport is not None:
            self.set_deadline(read_mono_us() + LINGER_US)

    async def aclose(self) -> None:
        """Send what was written, close, and wait until it is done."""
        self.close()
        if self._transport is not None:
            self._closed = self._closed or self._loop.create_future()
            await asyncio.shield(self._closed)

    def abort(self) -> None:
        """Break the connection off at once; what was written may be lost."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    async def start_tls(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None = None,
        from_start: bool = False,
    ) -> None:
        """Go over to TLS. What was read before and not taken is thrown away.

        RFC 3207 §4.2: nothing that came in the clear may survive. With ``from_start``
        nothing did: what came is the handshake's beginning.

        Raises:
            HandshakeFailed: there is no TLS with this peer; the text says why.
            StreamLost: the connection broke.
            StreamTimeout: it took too long.
        """
        if self._transport is None or self._closing:
            raise self._failure or StreamLost("connection closed")
        if not from_start:
            self._discard_unread()
            self._resume_reading()
        kept_us, until_us = self._deadline_us, read_mono_us() + TLS_HANDSHAKE_US
        self.set_deadline(until_us if kept_us is None else min(kept_us, until_us))
        was_interrupted = self._interrupted
        layer = TlsLayer(
            context, server_side=server_side, server_hostname=server_hostname
        )
        try:
            await shake_hands(layer, self._read_on, self.write)
        except TlsError as error:
            self.close()  # once the peer has been told
            raise HandshakeFailed(error) from error.__cause__
        if self._interrupted is not was_interrupted:
            self._interrupted = True  # for whoever reads next
        self._deadline_us = kept_us
        self._tls, self.is_tls = layer, True
        # With what is said in this turn, no later: the peer may wait for it (RFC 896).
        self._put(layer, b"")
        self.data_received(b"")  # what came behind the handshake

    async def _read_on(self) -> bytes:
        while True:
            try:
                return await self.read()
            except StreamInterrupted:
                continue

    @property
    def local_ip(self) -> str:
        """Our address on this connection, empty on a Unix socket."""
        return self._local()[0]

    @property
    def local_port(self) -> int:
        """Our port on this connection, 0 on a Unix socket."""
        return self._local()[1]

    @property
    def is_open(self) -> bool:
        """Whether writing may still reach the peer."""
        return self._transport is not None and not self._closing

    @property
    def tls(self) -> ssl.SSLObject | None:
        """The TLS session, to ask for version, cipher and peer certificate."""
        return None if self._tls is None else self._tls.session

    def peer_credentials(self) -> PeerCredentials:
        """Return who called on a Unix socket.

        Raises:
            StreamLost: the connection is gone, or it is no Unix socket.
        """
        sock = self._transport and self._transport.get_extra_info("socket")
        if not sock or sock.family != socket.AF_UNIX:
            raise StreamLost("no peer credentials: not a Unix socket, or closed")
        raw = socket.socket(fileno=socket.dup(sock.fileno()))
        with raw:
            packed = raw.getsockopt(
                socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII")
            )
        return PeerCredentials(*struct.unpack("iII", packed))

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        if peer is None:
            # Gone already, though what it sent could still be read. Served, it would
            # have no address, as only callers of this machine have none.
            return self.abort()
        if isinstance(peer, tuple):
            self.peer_ip, self.peer_port = plain_ip(peer[0]), peer[1]
        if self._owner is not None:
            self._owner.opened(self)

    def data_received(self, data: bytes) -> None:
        """Keep what came and wake the reader."""
        if self._tls is not None:
            data = self._decrypt(self._tls, data)
            if not data:
                return
        self.received_octets += len(data)
        self._unread.append(data)
        self._unread_octets += len(data)
        if self._unread_octets > BUFFER_OCTETS_MAX:
            self._pause_reading()
        if self._taker is None:
            _wake(self._reader)
        elif not self._is_giving:
            self._is_giving = True
            self._loop.call_soon(self._give)  # one hold of the GIL for all streams

    def _give(self) -> None:
        self._is_giving = False
        taker = self._taker
        if taker is None or not self._unread:
            return
        try:
            if taker(self._take()):
                return
        except Exception as error:
            self._thrown = error  # for the task that feeds
        self._taker = None
        _wake(self._reader)

    def eof_received(self) -> bool:
        """Note the peer's end; what we owe it can still be written."""
        self._at_end = True
        _wake(self._reader)
        _wake(self._pauser)
        return True

    def pause_writing(self) -> None:
        """Make ``drain`` wait."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """Let ``drain`` go on."""
        self._writing_paused = False
        if self._unread_octets <= BUFFER_OCTETS_MAX:
            self._resume_reading()
        _wake(self._drainer)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End: wake everyone who waits."""
        self._transport = None
        self._deadline_us = self._end_us = self._demand = None
        self._failure = StreamLost(str(exc) or "connection lost" if exc else "closed")
        if exc is not None:
            self._at_end = False
        if self._sweeper is not None:
            self._sweeper.forget(self)
        _wake(self._reader)
        _wake(self._pauser)
        if self._drainer is not None and not self._drainer.done():
            self._drainer.set_exception(self._failure)
        _wake(self._closed)
        if self._owner is not None:
            self._owner.lost(self)

    # Within

    def check_time(self, mono_us: int, since_us: int) -> None:
        """Wake whoever waits too long; called by the sweeper.

        Args:
            mono_us: the present moment.
            since_us: how long ago the sweeper last came.
        """
        if self._end_us is not None and self._end_us <= mono_us:
            self._is_over = True
            return self.expire(StreamOverstayed("the connection has lasted too long"))
        if self._deadline_us is not None and self._deadline_us <= mono_us:
            return self.expire()
        demand, reader = self._demand, self._reader
        if demand is None or reader is None or reader.done():
            return
        if demand.is_failed(self.received_octets, since_us):
            self.expire(StreamTooSlow("the peer sends too slowly"))

    def expire(self, error: StreamTimeout | None = None) -> None:
        """Tell whoever waits that time is over."""
        if self._closing:
            self.abort()
            return
        for waiting in (self._reader, self._drainer):
            if waiting is not None and not waiting.done():
                waiting.set_exception(error or StreamTimeout("the peer took too long"))

    def _decrypt(self, tls: TlsLayer, data: bytes) -> bytes:
        plain = tls.decrypt(data)
        if data and not plain:  # else what is due goes with our answer
            self._flush()
            if self._writing_paused:  # it makes us answer and takes no answers
                self._pause_reading()
        if tls.failure is not None:
            self._failure = StreamLost(f"TLS: {tls.failure}")
            _wake(self._reader)
        elif tls.at_end:
            self.eof_received()
        return plain

    def _put(self, tls: TlsLayer, data: bytes) -> None:
        """Encrypt and send, small pieces together at the end of the loop's turn."""
        try:
            octets = tls.put(data)
        except TlsError as error:
            self._failure, octets = StreamLost(f"TLS: {error}"), 0
        if octets >= TOGETHER_OCTETS_MAX:
            self._flush()
        elif not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        out = self._tls and self._tls.data_to_send()
        if out and self._transport is not None and not self._closing:
            self._transport.write(out)

    def _take(self) -> bytes:
        unread = self._unread
        data = unread[0] if len(unread) == 1 else b"".join(unread)
        self._discard_unread()
        if self._reading_paused:
            self._resume_reading()
        return data

    def _discard_unread(self) -> None:
        self._unread.clear()
        self._unread_octets = 0

    def _pause_reading(self) -> None:
        if not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused and self._transport is not None:
            self._reading_paused = False
            if not self._closing:
                self._transport.resume_reading()

    def _local(self) -> tuple[str, int]:
        name = self._transport and self._transport.get_extra_info("sockname")
        return (plain_ip(name[0]), name[1]) if isinstance(name, tuple) else ("", 0)


class StreamOwner:
    """Told of a stream's begin and end; a listener is one."""

    def opened(self, stream: Stream) -> None:
        """Take over a new connection."""

    def lost(self, stream: Stream) -> None:
        """Forget a connection that is gone."""


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
