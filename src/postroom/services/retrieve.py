"""The POP3 service: joins the protocol core, the password checks and the mailboxes.

The core says what the client wants; here it is fetched from the mailbox, in threads.
Nothing is deleted unless the client said QUIT: a connection that breaks, a time-out, or
our own end leaves the mailbox as it was (RFC 1939 §6). The number of sessions, wrong
passwords and the time between logins are limited for the whole system.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import Executor
from contextlib import aclosing
from ipaddress import ip_address
from typing import NamedTuple, Protocol, assert_never

import msgspec

from postroom.auth.penalties import Penalties
from postroom.limits.clients import client_of
from postroom.limits.gcra import Rate
from postroom.mail.envelope import Origin
from postroom.mail.now import Now
from postroom.mailbox.name import MailboxName
from postroom.mailbox.store import InUse, Session, Store, Unusable
from postroom.net.stream import (
    Stream,
    StreamError,
    StreamInterrupted,
    StreamTimeout,
)
from postroom.observe.events import (
    AnyEvent,
    CommandRejected,
    Lifecycle,
    LoggedIn,
    LoginFailed,
    MailboxSession,
    SessionClosed,
    SessionOpened,
    SessionRefused,
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
from postroom.pop3.server import ServerConnection
from postroom.pop3.settings import Pop3Settings
from postroom.services.handshake import Guard
from postroom.services.mailbox_reader import MailboxReader

SERVICE = "pop3"
_TOO_MANY = b"-ERR [SYS/TEMP] too many sessions, try again later\r\n"
_TOO_MANY_YOURS = b"-ERR [SYS/TEMP] too many sessions from your address\r\n"
_SHUTDOWN = b"-ERR [SYS/TEMP] server is shutting down\r\n"


class LoginUnavailable(msgspec.Struct, frozen=True):
    """A password cannot be checked just now; ``reason`` is for the log."""

    reason: str


Authenticate = Callable[[str, str, Origin], Awaitable[str | LoginUnavailable | None]]
"""Checks user and password; gives the user's own name, or None if they are wrong."""


class Counters(Protocol):
    """Counts and rates that all workers share."""

    def add(self, key: str, n: int, bound: int) -> bool:
        """Add, unless the sum over all workers would go over ``bound``."""

    def release(self, key: str, n: int = 1) -> None:
        """Take back what was added."""

    def hit(self, key: str, rate: Rate, mono_us: int, events: int = 1) -> int:
        """Count against a rate: 0 if allowed, else microseconds to wait.

        No events: only look whether one would be too many.
        """


class RetrieveTools(NamedTuple):
    """What every session of this worker works with.

    ``guard`` gives what a listener's connections are encrypted with from the start.
    ``domains`` are ours, in lower case: a login in one of them means the mailbox there,
    any other login the one in ``default_domain``. ``penalties`` counts the failures in
    a user's name, together with those of SMTP.
    """

    store: Store
    pool: Executor
    authenticate: Authenticate
    counters: Counters
    emit: Callable[[AnyEvent], None]
    clock: Callable[[], Now]
    default_domain: str = ""
    domains: Callable[[], Collection[str]] = tuple
    guard: Callable[[str], Guard | None] = lambda _: None
    penalties: Penalties | None = None


class RetrieveService:
    """Serves POP3. ``settings`` may be swapped; sessions keep theirs."""

    def __init__(self, settings: Pop3Settings, tools: RetrieveTools) -> None:
        self.settings = settings
        self._tools = tools

    async def serve(self, stream: Stream, listener: str = "") -> None:
        """Serve one connection from greeting to end."""
        counters, settings = self._tools.counters, self.settings
        client = f"{SERVICE}:{client_of(stream.peer_ip)}"
        if not counters.add(SERVICE, 1, settings.sessions_max):
            return await self._turn_away(stream, _TOO_MANY, "sessions_max")
        try:
            if not counters.add(client, 1, settings.sessions_per_client_max):
                limit = "sessions_per_client_max"
                return await self._turn_away(stream, _TOO_MANY_YOURS, limit)
            try:
                await self._converse(stream, listener)
            finally:
                counters.release(client, 1)
        finally:
            counters.release(SERVICE, 1)

    async def _converse(self, stream: Stream, listener: str) -> None:
        tools = self._tools
        origin = Origin(
            protocol="POP3",
            client_ip=stream.peer_ip,
            client_port=stream.peer_port,
            listener=listener,
        )
        guard = tools.guard(listener)
        if guard is not None:
            known = await guard.from_start(stream, SERVICE, origin)
            if known is None:
                return
            origin = known
        began = tools.clock()
        tools.emit(SessionOpened(utc_us=began.utc_us, service=SERVICE, origin=origin))
        session = _Pop3Session(stream, self.settings, tools, origin)
        how = "error"
        try:
            how = await session.run()
        except Exception as error:  # our mistake must not take the worker down
            what = f"POP3 session failed: {error!r}"
            utc_us = tools.clock().utc_us
            tools.emit(Lifecycle(utc_us=utc_us, what=what, level="error"))
        finally:
            await session.aclose()
            await stream.aclose()
            now = tools.clock()
            tools.emit(
                SessionClosed(
                    utc_us=now.utc_us,
                    service=SERVICE,
                    origin=session.origin,
                    how=how,
                    messages=session.retrieved,
                    duration_us=now.mono_us - began.mono_us,
                )
            )

    async def _turn_away(self, stream: Stream, reply: bytes, why: str) -> None:
        self._tools.emit(
            SessionRefused(
                utc_us=self._tools.clock().utc_us,
                service=SERVICE,
                client_ip=stream.peer_ip,
                why=why,
            )
        )
        stream.write(reply)
        await stream.aclose()


class _Pop3Session:
    """Serves one client."""

    def __init__(
        self,
        stream: Stream,
        settings: Pop3Settings,
        tools: RetrieveTools,
        origin: Origin,
    ) -> None:
        self.origin = origin
        self.retrieved = 0
        self._stream = stream
        self._settings = settings
        self._tools = tools
        self._timeout_us = int(settings.timeout)
        self._login_until_us: int | None = (
            tools.clock().mono_us + settings.login_timeout
        )
        self._connection = ServerConnection(
            settings, plaintext_allowed=_takes_plaintext(stream, settings)
        )
        self._reader: MailboxReader | None = None
        self._retrieved_octets = 0
        self._deleted = 0

    async def run(self) -> str:
        """Serve until the end; returns how it came."""
        try:
            self._connection.greet(self._settings.banner)
            return await self._talk()
        except StreamTimeout:
            # RFC 1939 §3: close without a response and without deletions.
            return "timeout"
        except StreamInterrupted:
            self._stream.write(_SHUTDOWN)
            return "shutdown"
        except StreamError:
            return "lost"

    async def aclose(self) -> None:
        """Give the mailbox free and say what was done in it."""
        reader, self._reader = self._reader, None
        if reader is None:
            return
        await reader.aclose()
        self._tools.emit(
            MailboxSession(
                utc_us=self._tools.clock().utc_us,
                user=self.origin.login,
                client_ip=self.origin.client_ip,
                retrieved=self.retrieved,
                retrieved_octets=self._retrieved_octets,
                deleted=self._deleted,
                left=len(reader.sizes) - self._deleted,
            )
        )

    async def _talk(self) -> str:
        connection, stream = self._connection, self._stream
        while True:
            event = connection.next_event()
            if event is None:
                await self._flush()
                connection.receive(await stream.read())
            elif isinstance(event, Retrieve):
                await self._retrieve(event)
            elif isinstance(event, Ended):
                await self._flush()
                return event.how
            else:
                await self._answer(event)

    async def _flush(self) -> None:
        stream = self._stream
        stream.allow(self._patience_us())
        data = self._connection.data_to_send()
        if data:
            stream.write(data)
            if stream.is_congested:
                await stream.drain()

    def _patience_us(self) -> int:
        if self._login_until_us is None:  # logged in
            return self._timeout_us
        left_us = self._login_until_us - self._tools.clock().mono_us
        if left_us <= 0:  # the stream would not tell of it while the client talks
            raise StreamTimeout("the client has not logged in in time")
        return min(left_us, self._timeout_us)

    async def _answer(self, event: Event) -> None:
        match event:
            case Login():
                await self._login(event)
            case Update():
                await self._update(event)
            case Flush():
                await self._flush()
            case Refused():
                self._tell_refused(event)
            case Retrieve() | Ended():  # seen to by _talk, as they are the most
                raise AssertionError(event)
            case _:
                assert_never(event)

    # Logging in

    async def _login(self, event: Login) -> None:
        if self._is_barred():
            return self._bar()
        found = await self._tools.authenticate(event.user, event.password, self.origin)
        # Of guesses made side by side, too many may have failed by now: what came of
        # the others is nobody's business.
        if self._is_barred():
            return self._bar()
        match found:
            case str():
                await self._slow_down(found)
                await self._logged_in(event.user, found)
            case LoginUnavailable():
                self._tell_failed(event.user, found.reason)
                text = "login is not possible just now, try again later"
                self._connection.login_refused("SYS/TEMP", text, is_failure=False)
            case None:
                await self._wrong_password(event.user)

    async def _wrong_password(self, user: str) -> None:
        settings, mono_us = self._settings, self._tools.clock().mono_us
        self._tell_failed(user, "wrong user or password")
        self._hit_failures(settings.login_failures_per_client, mono_us)
        delay, penalties = settings.login_failure_delay, self._tools.penalties
        if penalties is not None and penalties.failed_as(user, mono_us):
            delay = settings.login_failure_delay_max
        if delay:
            await self._stream.pause(delay)
        self._connection.login_refused("AUTH", "wrong user or password")

    async def _slow_down(self, user: str) -> None:
        """Let who is guessed at wait as guessers do, or the wait would tell of them."""
        penalties, mono_us = self._tools.penalties, self._tools.clock().mono_us
        if penalties is not None and penalties.delay_of(user, mono_us):
            await self._stream.pause(self._settings.login_failure_delay_max)

    def _is_barred(self) -> bool:
        # No event, with one place less: whether the next one would be too many.
        burst = self._settings.login_failures_per_client - 1
        mono_us = self._tools.clock().mono_us
        return self._hit_failures(burst, mono_us, events=0) > 0

    def _hit_failures(self, burst: int, mono_us: int, events: int = 1) -> int:
        settings = self._settings
        key = f"{SERVICE}-failures:{client_of(self.origin.client_ip)}"
        count = settings.login_failures_per_client
        rate = Rate(count, settings.login_failures_period, burst)
        return self._tools.counters.hit(key, rate, mono_us, events)

    def _bar(self) -> None:
        """Refuse a login unheard: too many from this address have failed."""
        text = "too many failed logins, try again later"
        self._tell_refused(Refused("PASS", f"[SYS/TEMP] {text}"))
        self._connection.login_refused("SYS/TEMP", text)

    async def _logged_in(self, login: str, user: str) -> None:
        tools, connection = self._tools, self._connection
        self.origin = msgspec.structs.replace(self.origin, login=user)
        tools.emit(
            LoggedIn(
                utc_us=tools.clock().utc_us,
                service=SERVICE,
                origin=self.origin,
                user=user,
                mechanism="USER",
            )
        )
        opened = await self._open(self._mailbox_of(login, user))
        match opened:
            case InUse():
                self._not_now("IN-USE", "mailbox is open in another session")
            case Unusable():
                what = f"POP3 login of {user}: {opened.reason}"
                utc_us = tools.clock().utc_us
                tools.emit(Lifecycle(utc_us=utc_us, what=what, level="error"))
                code = "SYS/TEMP" if opened.is_temporary else "SYS/PERM"
                text = "mailbox cannot be opened"
                connection.login_refused(code, text, is_failure=False)
            case _:
                await self._open_to(user, opened)

    async def _open_to(self, user: str, opened: Session) -> None:
        reader = MailboxReader(opened, self._tools.pool, self._settings)
        # Not sooner: who finds the mailbox in use has not had a login.
        if self._comes_too_soon(user):
            await reader.aclose()
            # RFC 2449 §8.1.1: said to PASS, after the password was found right.
            text = "minimum time between mail checks is not over"
            return self._not_now("LOGIN-DELAY", text)
        self._login_until_us = None
        self._reader = reader
        self._connection.login_accepted(opened.sizes, opened.uids)

    def _not_now(self, code: str, text: str) -> None:
        self._tell_refused(Refused("PASS", f"[{code}] {text}"))
        self._connection.login_refused(code, text, is_failure=False)

    def _mailbox_of(self, login: str, user: str) -> MailboxName:
        domain = login.rpartition("@")[2].lower()
        if domain not in self._tools.domains():
            domain = self._tools.default_domain
        return MailboxName.of_login(user, domain)

    def _comes_too_soon(self, user: str) -> bool:
        delay = self._settings.login_delay
        if not delay:
            return False
        mono_us = self._tools.clock().mono_us
        key = f"{SERVICE}-login:{user}"
        return self._tools.counters.hit(key, Rate(1, delay, 1), mono_us) > 0

    async def _open(self, mailbox: MailboxName) -> Session | InUse | Unusable:
        loop = asyncio.get_running_loop()
        opening = loop.run_in_executor(
            self._tools.pool, self._tools.store.open, mailbox
        )
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_unwanted)
            raise

    # Messages

    async def _retrieve(self, event: Retrieve) -> None:
        reader, connection, index = self._reader, self._connection, event.index
        assert reader is not None
        if reader.is_large(index):
            return await self._retrieve_large(reader, event)
        content = await reader.whole(index)
        if content is None:  # it is tried once more there, and told why
            return await self._retrieve_large(reader, event)
        connection.message(content)
        self._count(event, len(content))

    async def _retrieve_large(self, reader: MailboxReader, event: Retrieve) -> None:
        connection, index = self._connection, event.index
        is_begun = False
        try:
            async with aclosing(reader.pieces(index)) as pieces:
                async for piece in pieces:
                    if not is_begun:
                        connection.message_begin(reader.sizes[index])
                        is_begun = True
                    connection.message_piece(piece)
                    await self._flush()
                    if not connection.wants_more:
                        break
        except OSError as error:
            self._tell_unreadable(index, error)
            if not is_begun:
                return connection.message_refused(_gone(index), "SYS/TEMP")
            # There is no way to say so within a message but to break off.
            raise StreamError(f"message {index + 1}: {error}") from error
        connection.message_end()
        self._count(event, reader.sizes[index])

    def _count(self, event: Retrieve, octets: int) -> None:
        if event.top_lines is None:
            self.retrieved += 1
            self._retrieved_octets += octets

    async def _update(self, event: Update) -> None:
        reader = self._reader
        assert reader is not None
        failed = await reader.remove(event.deleted)
        self._deleted = len(event.deleted) - failed
        if failed:
            count = len(event.deleted)
            self._tell_trouble(f"{failed} of {count} deletions could not be made")
        # RFC 1939 §6: the lock goes before the answer, so that who saw the answer
        # can log in again.
        await self.aclose()
        self._connection.updated(failed)

    # Telling

    def _tell_unreadable(self, index: int, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # else another reader took it
            self._tell_trouble(f"{_gone(index)}: {error.strerror or error}")

    def _tell_trouble(self, what: str) -> None:
        what = f"POP3 session of {self.origin.login}: {what}"
        utc_us = self._tools.clock().utc_us
        self._tools.emit(Lifecycle(utc_us=utc_us, what=what, level="error"))

    def _tell_refused(self, event: Refused) -> None:
        self._tools.emit(
            CommandRejected(
                utc_us=self._tools.clock().utc_us,
                origin=self.origin,
                verb=event.verb,
                argument="",
                reply=f"-ERR {event.reply}",
                rule=SERVICE,
            )
        )

    def _tell_failed(self, user: str, reason: str) -> None:
        self._tools.emit(
            LoginFailed(
                utc_us=self._tools.clock().utc_us,
                service=SERVICE,
                origin=self.origin,
                user=user,
                mechanism="USER",
                reason=reason,
            )
        )


def _takes_plaintext(stream: Stream, settings: Pop3Settings) -> bool:
    if stream.is_tls or settings.plaintext == "always":
        return True
    is_here = not stream.peer_ip or ip_address(stream.peer_ip).is_loopback
    return is_here and settings.plaintext == "loopback"


def _gone(index: int) -> str:
    return f"message {index + 1} cannot be read"


def _close_unwanted(
    opening: "asyncio.Future[Session | InUse | Unusable]",
) -> None:
    if opening.cancelled() or opening.exception():
        return
    opened = opening.result()
    if not isinstance(opened, InUse | Unusable):
        opened.close()
