"""A submission service without a server behind it: what is handed in is remembered.

``PostOffice`` listens on a Unix socket as a worker does, for tests of the commands and
of the service itself. Recipients whose local part is ``nosuch`` are unknown, ``later``
cannot be had now, and content with ``poison`` in it is refused.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType

from postroom.mail.address import Address
from postroom.mail.envelope import Envelope, Origin, Recipient
from postroom.mail.ids import QueueId
from postroom.mail.now import Now
from postroom.mail.outcome import Say
from postroom.net.listener import Listener, listen
from postroom.observe.events import AnyEvent
from postroom.services.answer import Answer
from postroom.services.letter import Desk
from postroom.services.pickup import PickupService
from postroom.services.queue_run import QueueSelection
from postroom.services.reception import Conversation
from postroom.services.settings import SubmissionSettings
from postroom.services.submitter import Errands, Refused, Submitted

QUEUE_ID = QueueId("0123456789A")
NOON = Now(1_795_348_800_000_000, 0)
"""2026-11-22T12:00:00Z."""


class Kept:
    """A letter in the hands of a ``MemorySubmitter``."""

    def __init__(self, submitter: "MemorySubmitter", envelope: Envelope) -> None:
        self._submitter = submitter
        self.envelope = envelope
        self.recipients: list[Recipient] = []
        self.content = b""
        self.finished = self.abandoned = False

    async def add_recipient(self, recipient: Recipient) -> Refused | None:
        """Take it, unless its name says otherwise."""
        match recipient.address.local:
            case "nosuch":
                address = recipient.address.to_text()
                return Refused("5.1.1", f"<{address}>... User unknown")
            case "later":
                return Refused("4.3.0", "Try again later")
        self.recipients.append(recipient)
        return None

    async def open(self) -> QueueId:
        """Return always the same id."""
        return QUEUE_ID

    async def add(self, data: bytes) -> None:
        """Remember it."""
        self.content += data

    async def finish(self, say: Say | None) -> Submitted | Refused:
        """Keep it, unless its content says otherwise."""
        if b"no space" in self.content:
            return Refused("4.3.1", "Insufficient system storage")
        if b"poison" in self.content:
            return Refused("5.6.0", "Content refused")
        self.finished = True
        self._submitter.letters.append(self)
        if say is None or self._submitter.narrate is None:
            return Submitted(QUEUE_ID)
        telling = asyncio.ensure_future(self._submitter.narrate(say))
        self._submitter.telling.append(telling)
        return Submitted(QUEUE_ID, telling)

    async def abandon(self) -> None:
        """Note that it was let go."""
        self.abandoned = True

    @property
    def to(self) -> list[str]:
        """The addresses it goes to."""
        return [recipient.address.to_text() for recipient in self.recipients]


class MemorySubmitter:
    """Takes letters into memory. ``narrate`` tells what happens to each."""

    def __init__(self) -> None:
        self.letters: list[Kept] = []
        self.begun: list[Kept] = []
        self.telling: list[asyncio.Future[None]] = []
        self.narrate: Callable[[Say], Awaitable[None]] | None = None

    async def begin(self, envelope: Envelope) -> Kept | Refused:
        """Begin a letter, unless the sender is ``spammer``."""
        if envelope.sender.local == "spammer":
            return Refused("5.7.1", "Access denied")
        letter = Kept(self, envelope)
        self.begun.append(letter)
        return letter


class PostOffice:
    """The submission service on a Unix socket, with everything behind it faked."""

    def __init__(self, path: str, settings: SubmissionSettings) -> None:
        self.path = path
        self.submitter = MemorySubmitter()
        self.events: list[AnyEvent] = []
        self.selections: list[QueueSelection] = []
        self.queue: Sequence[str] = ("Mail queue is empty",)
        self.desk = Desk(
            settings, "gonzo.test", self.submitter, lambda: NOON, lambda utc_us: 3600
        )
        errands = Errands(
            self._mailq, self._newaliases, self._run_queue, self._verify, self._echo
        )
        self.service = PickupService(self.desk, errands, self.events.append)
        self._listener: Listener | None = None

    async def __aenter__(self) -> "PostOffice":
        """Open."""
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(self.path)
        sock.listen()
        sock.setblocking(False)
        self._listener = await listen(sock, self.service.serve)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        assert self._listener
        self._listener.close()
        await self._listener.abort_sessions()

    async def _mailq(
        self, verbose: bool, user: str, selection: QueueSelection
    ) -> AsyncIterator[str]:
        for line in self.queue:
            yield line

    async def _newaliases(self) -> Answer:
        return Answer(("/etc/aliases: 2 aliases",))

    async def _run_queue(self, selection: QueueSelection, user: str) -> Answer:
        self.selections.append(selection)
        return Answer(())

    async def _verify(self, address: Address, verbose: bool) -> Answer:
        if address.local == "nosuch":
            return Answer((f"{address.local}... User unknown",), 67)
        return Answer((f"{address}... deliverable: mailer local",))

    async def _echo(self, conversation: Conversation, origin: Origin) -> None:
        conversation.write(b"220 hello " + origin.login.encode() + b"\r\n")
        while data := await conversation.read():
            conversation.write(data.upper())
            await conversation.drain()
        await conversation.aclose()
