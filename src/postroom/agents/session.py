"""One connection to one host, opened already: transaction after transaction.

A session's own task reads; whoever has work writes it at once (``start``), so that a
message costs no task and no extra turn of the loop. While the reply to a content is
still out, the next job's commands are already behind it in the same write.

However it ends, every job that was started is settled: with what the peer said, or
deferred, or given back through ``give_back`` if nothing of its content was sent on a
connection that had served before (a kept connection may end at any time; that is no
failure).
"""

from collections import deque
from collections.abc import Callable
from enum import Enum, auto

import msgspec

from postroom.agents.content import pieces_of, read_piece
from postroom.agents.fitting import Fitting
from postroom.agents.job import Job
from postroom.agents.settings import SmtpAgentSettings
from postroom.agents.smtp_words import (
    Peer,
    lost_connection,
    nonsense,
    outcomes_of,
)
from postroom.mail.now import SECOND_US
from postroom.mail.outcome import Deferred, Failed, Say
from postroom.net.clock import read_mono_us
from postroom.net.stream import Stream, StreamError, StreamTimeout
from postroom.net.tls_client import keep_session
from postroom.render.plan import Plan, Unconvertible
from postroom.smtp.client import (
    BodyWanted,
    ClientConnection,
    ClientEvent,
    Line,
    LostConnection,
    ProtocolError,
)
from postroom.smtp.transaction import TransactionDone

MOVES_MAX = 2
"""How often a job may be given to another connection."""
REPLIES_US_MAX = 25 * 60 * SECOND_US
"""How long a host may take for the replies to an envelope, or to a content, however
many they are. An attempt that is cut off for its length forgets what was said to it."""


class State(Enum):
    """Where a session stands."""

    READY = auto()
    LEAVING = auto()
    CLOSED = auto()


class Session:
    """One SMTP or LMTP connection.

    Args:
        stream: the connection.
        client: its protocol, past hello and whatever had to follow it.
        peer: the host at the other end.
        settings: time-outs and caps.
        say: narrates the dialogue, if someone listens.

    Attributes:
        next_job: asked for more work when there is room in the pipeline.
        give_back: takes jobs that another connection must do.
        on_idle: told when nothing is in hand.
    """

    def __init__(
        self,
        stream: Stream,
        client: ClientConnection,
        peer: Peer,
        settings: SmtpAgentSettings,
        say: Say | None = None,
    ) -> None:
        self.peer = peer
        self.state = State.READY
        self.served = 0
        self.next_job: Callable[[], Job | None] = _no_job
        self.give_back: Callable[[Job], None] | None = None
        self.on_idle: Callable[[Session], None] = _ignore
        self._stream = stream
        self._client = client
        self._settings = settings
        self._say = say
        self._jobs: deque[Job] = deque()  # in the order of their transactions
        self._numbers = 0
        if settings.ignored_extensions:
            client.extensions = client.extensions.without(settings.ignored_extensions)
            reports = client.extensions.dsn  # whoever is not asked sends none
            self.peer = peer = msgspec.structs.replace(peer, reports=reports)
        self._fitting = Fitting(client.extensions, peer, client.hostname, settings)
        self._messages_max = min(
            settings.messages_per_connection_max,
            client.extensions.messages_max or settings.messages_per_connection_max,
        )
        self._began_us = read_mono_us()
        self._deadline_us = 0
        self._since_us = 0  # when waiting began
        self._patience_us = 0  # how long the next reply may take
        self._trouble: Deferred | None = None
        self._fault: Exception | None = None

    @property
    def is_idle(self) -> bool:
        """Whether it waits for work."""
        return not self._jobs and self.state is State.READY

    @property
    def takes_more(self) -> bool:
        """Whether another message may go over this connection."""
        settings = self._settings
        if self.state is not State.READY or self._client.is_closed:
            return False
        if self._numbers >= self._messages_max:
            return False
        return read_mono_us() - self._began_us < settings.connection_age_max

    def start(self, job: Job) -> bool:
        """Begin a job now, only while ``takes_more``; False: it is settled already."""
        if self._client.is_closed:
            job.settle_all(self._trouble or lost_connection(self.peer))
            return False
        if not self._submit(job):
            return False
        self._flush()
        if len(self._jobs) == 1:
            self._wait(self._settings.command_timeout)
        return True

    async def serve(self) -> None:
        """Read and do what is due until the connection ends; settles every job."""
        try:
            while self.state is not State.CLOSED:
                if await self._take_events():
                    self._flush()
                    await self._hear()
        except Exception as error:
            if not self._jobs:
                raise
            self._fault = error
        finally:
            self._end()

    def leave(self) -> None:
        """Say QUIT and close once it is answered; for sessions without work."""
        if self.state is State.READY:
            self.state = State.LEAVING
            self._client.quit()
            self._wait(self._settings.quit_timeout)
            self._flush()

    def abort(self) -> None:
        """Break off at once."""
        self._stream.abort()

    def keep(self) -> None:
        """Wait for work, but not for longer than a kept connection may."""
        self._wait(self._settings.idle_max)

    # -- reading ---------------------------------------------------------------

    async def _hear(self) -> bool:
        """Read what comes next into the core; False: it has ended, or is overdue."""
        overdue = False
        try:
            data = await self._stream.read()
        except StreamTimeout:
            if read_mono_us() < self._deadline_us:
                return True  # work came while the idle time was running out
            if self.is_idle:
                self.leave()
                return True
            data, overdue = b"", True
        except StreamError:
            data = b""
        if data:
            answers = self._client.answers
            self._client.receive(data)
            # RFC 5321 §4.5.3.2: time is allowed per command, not for all that are out
            if self._client.answers > answers and self._is_awaited:
                self._renew()
            return True
        if self._trouble is None:
            self._trouble = lost_connection(self.peer, overdue=overdue)
        self._client.receive(b"")
        return not overdue

    async def _take_events(self) -> bool:
        """Act on what the core has understood; True: more must be read."""
        client = self._client
        while (event := client.next_event()) is not None:
            match event:
                case BodyWanted():
                    if not await self._send_content():
                        return False
                case TransactionDone():
                    self._finish(event)
                case Line():
                    self._narrate(event)
                case ProtocolError(text):
                    self._trouble = nonsense(text, self.peer)
                case LostConnection():
                    self.state = State.CLOSED
                case _:
                    pass  # the replies to QUIT and RSET
        return self.state is not State.CLOSED

    def _finish(self, done: TransactionDone) -> None:
        job = self._jobs.popleft()
        lost = self._trouble or lost_connection(self.peer)
        if self._may_move(job, done):
            job.moves += 1
            assert self.give_back is not None
            self.give_back(job)
        else:
            outcomes = outcomes_of(done.results, done.verbs, self.peer, lost)
            if job.attempt.envelope.deliver_by:
                outcomes = self._fitting.told(job, outcomes)
            job.settle(outcomes)
            if any(reply and reply.code != 421 for reply in done.results):
                self.served += 1
        if self._jobs:
            self._wait(self._settings.command_timeout)
        elif self.state is State.READY and not self._client.is_closed:
            self._continue()

    def _may_move(self, job: Job, done: TransactionDone) -> bool:
        if self.give_back is None or not self._client.is_closed:
            return False
        if job.began or job.moves >= MOVES_MAX or job.done.done():
            return False
        untold = all(reply is None or reply.code == 421 for reply in done.results)
        return untold and self.served > 0

    def _continue(self) -> None:
        """The pipeline is empty: take the next job, or be idle."""
        while self.takes_more and (job := self.next_job()) is not None:
            if self.start(job):
                return
        self.on_idle(self)

    # -- writing ---------------------------------------------------------------

    def _submit(self, job: Job) -> bool:
        """Hand a job to the core; False: it was settled without the peer."""
        value = self._fitting.transaction(job)
        if isinstance(value, Failed):
            job.settle_all(value)
            return False
        client = self._client
        client.submit(value)
        if client.is_idle and not client.is_closed:
            self._settle_unsent(job)
            return False
        self._jobs.append(job)
        self._numbers += 1
        return True

    def _settle_unsent(self, job: Job) -> None:
        """Settle a job that the core has decided about without asking the peer."""
        lost = lost_connection(self.peer)
        while (event := self._client.next_event()) is not None:
            if isinstance(event, TransactionDone):
                job.settle(outcomes_of(event.results, event.verbs, self.peer, lost))
            else:
                self._narrate(event)

    async def _send_content(self) -> bool:
        """Send the content of the oldest job; False: the session is over."""
        job = self._jobs[0]
        if job.done.done():  # nobody waits: better nothing than a second copy
            self._break_off()
            return False
        job.began = True
        try:
            plan = await self._fitting.plan(job)
            if isinstance(plan, Unconvertible):
                # 354 has come, so nothing else than hanging up is left
                text = f"{plan.reason}; {self.peer.label} takes no binary content"
                job.settle_all(Failed("5.6.3", text, self.peer.text))
                self._break_off()
                return False
            if not await self._send_pieces(job, plan):
                return False
            if job.done.done():
                self._break_off()
                return False
            if self._stream.unread_octets:  # before the dot: has it been refused?
                self._client.receive(await self._stream.read())
        except Exception as error:  # the dot must never follow half a message
            job.fail(error)
            self._break_off()
            return False
        self._client.end_body()
        self._wait(self._settings.content_timeout)
        while self.takes_more and (following := self.next_job()) is not None:
            if self._submit(following):
                break
        self._flush()
        return True

    async def _send_pieces(self, job: Job, plan: Plan | None) -> bool:
        """Send header and body, as they are or as planned; False: the session is over.

        Raises:
            OSError: the stored body cannot be read.
        """
        client, body = self._client, job.body
        if plan is not None:
            client.send_body(plan.head)
            async for piece in pieces_of(body, plan):
                client.send_body(piece)
                if not await self._make_room():
                    return False
                if client.content_is_refused:
                    break
            return True
        client.send_body(job.head)
        offset, size = 0, body.size
        while offset < size:
            chunk = await read_piece(body, offset)
            client.send_body(chunk)
            offset += len(chunk)
            if offset >= size:
                break
            if not await self._make_room():
                return False
            if client.content_is_refused:
                break
        return True

    async def _make_room(self) -> bool:
        """Let a large content flow; False: the peer, or who waits, has had enough."""
        self._wait(self._settings.block_timeout)
        self._flush()
        try:
            await self._stream.drain()
            if self._jobs[0].done.done():
                # The attempt was cut off for its length and will be repeated: a host
                # that is let take the rest would have one more copy each time.
                self._break_off()
                return False
            if self._client.sends_chunks and self._stream.unread_octets:
                self._client.receive(await self._stream.read())
        except StreamTimeout:
            self._trouble = lost_connection(self.peer, overdue=True)
            if self._stream.unread_octets:  # it may have said why it takes no more
                self._client.receive(await self._stream.read())
            self._break_off()
            return False
        except StreamError:
            # It may have said why before it closed.
            while not self._client.is_closed:
                await self._hear()
            await self._take_events()
            return False
        return True

    def _break_off(self) -> None:
        self._stream.abort()
        self._client.receive(b"")

    def _flush(self) -> None:
        data = self._client.data_to_send()
        if data:
            self._stream.write(data)

    @property
    def _is_awaited(self) -> bool:
        return bool(self._jobs) and not self._jobs[0].done.done()

    def _wait(self, length_us: int) -> None:
        self._patience_us = length_us
        self._since_us = read_mono_us()
        self._deadline_us = self._since_us + length_us
        self._stream.set_deadline(self._deadline_us)

    def _renew(self) -> None:
        """Allow for the next reply what was allowed for the one that came."""
        until_us = max(self._deadline_us, self._since_us + REPLIES_US_MAX)
        self._deadline_us = min(read_mono_us() + self._patience_us, until_us)
        self._stream.set_deadline(self._deadline_us)

    # -- the rest --------------------------------------------------------------

    def _end(self) -> None:
        """Close, and leave no job without an answer, whatever has happened."""
        self.state = State.CLOSED
        if not self._client.is_closed:
            self._client.receive(b"")
        while (event := self._client.next_event()) is not None:
            if isinstance(event, TransactionDone) and self._jobs:
                if self._fault is not None:
                    self._jobs.popleft().fail(self._fault)
                else:
                    self._finish(event)
        while self._jobs:
            self._jobs.popleft().settle_all(self._trouble or lost_connection(self.peer))
        keep_session(self._stream.tls)
        self._stream.close()

    def _narrate(self, event: ClientEvent) -> None:
        if self._say is not None and isinstance(event, Line):
            self._say(f">>> {event.text}" if event.outgoing else event.text)


def _no_job() -> Job | None:
    return None


def _ignore(session: Session) -> None:
    return None
