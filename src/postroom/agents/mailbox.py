"""The agent that puts mail into mailboxes of this system: final delivery.

It puts Return-Path and Delivered-To in front, and hands the message to the store in a
thread. Small messages that come while a group is being written are written and synced
as the next group, in one call; large ones go in pieces. A full disk, a missing right or
a lock is a deferral with its reason. A try that may have got through before is looked
for first, so that a crash between delivery and book-keeping makes no second copy.
"""

from asyncio import CancelledError, Future, get_running_loop, shield, wait
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

import msgspec

from postroom.agents.as_text import as_text
from postroom.mail.address import Address
from postroom.mail.envelope import BodyType
from postroom.mail.headers import edited_header
from postroom.mail.message import CHUNK_OCTETS
from postroom.mail.now import SECOND_US
from postroom.mail.outcome import Attempt, Deferred, Delivered, Failed, Outcome
from postroom.mail.trace import (
    delivered_to_field,
    has_delivered_to,
    return_path_field,
    was_delivered_to,
)
from postroom.mailbox.name import MailboxName
from postroom.mailbox.settings import MailboxSettings
from postroom.mailbox.store import Incoming, Locked, Parcel, Store, deferral

T = TypeVar("T")
MailboxOf = Callable[[Address], MailboxName]
"""Which mailbox a local address belongs to."""

GROUP_PARCELS_MAX = 128
PATIENT_PARCELS_MAX = 16
"""How many may wait for locks of other programs; further ones are deferred."""
GROUP_OCTETS_MAX = 8 * 1024 * 1024
_FRESH_US_MAX = 10 * SECOND_US
_BINARY = BodyType.BINARY
_READ_FAILED = Deferred("4.3.0", "the queued message cannot be read")


def mailbox_of(address: Address) -> MailboxName:
    """Return the mailbox of ``user+detail@domain``: user and domain in lower case."""
    user = address.local.lower()
    return MailboxName(user.partition("+")[0] or user, address.domain_key)


class MailboxAgent:
    """Delivers to a store of mailboxes.

    Args:
        store: where the mail goes.
        settings: those of the mailboxes.
        pool: threads that may wait for the disk.
        started_us: when this process began (``Now.utc_us``); older messages may have
            been delivered before a crash.
        which: tells an address's mailbox.
        hostname: our name, in the trace of a conversion.
    """

    def __init__(
        self,
        store: Store,
        settings: MailboxSettings,
        pool: Executor,
        *,
        started_us: int = 0,
        which: MailboxOf = mailbox_of,
        hostname: str = "localhost",
    ) -> None:
        self._store = store
        self._memory_octets_max = settings.memory_octets_max
        self._pool = pool
        self._started_us = started_us
        self.which = which
        self._hostname = hostname
        self._groups = _Groups(store.deliver_at_once, pool)
        self._patient = _Groups(store.deliver, pool)

    async def deliver(self, attempt: Attempt) -> Sequence[Outcome]:
        """Try once; one outcome per recipient, in order."""
        for recipient in attempt.envelope.recipients if attempt.say else ():
            _say(attempt, f"{recipient.address}... Connecting to local...")
        try:
            if attempt.envelope.body is _BINARY:
                by = f"{self._hostname} id {attempt.queue_id}"
                text = await as_text(attempt, by, self._memory_octets_max)
                if isinstance(text, Failed):
                    return [text] * len(attempt.envelope.recipients)
                attempt = text
            looped = _looped(attempt)
            if looped:
                outcomes = await self._deliver_looped(attempt, looped)
            else:
                outcomes = await self._deliver(attempt)
        except OSError:  # only the body's reader lets one through
            outcomes = [_READ_FAILED] * len(attempt.envelope.recipients)
        if attempt.say:
            _say_outcomes(attempt, outcomes)
        return outcomes

    async def aclose(self) -> None:
        """Wait for what is in hand."""
        await self._groups.settled()
        await self._patient.settled()

    async def _deliver_looped(
        self, attempt: Attempt, looped: frozenset[int]
    ) -> Sequence[Outcome]:
        """Deliver to the others; those where it was before get nothing again."""
        envelope = attempt.envelope
        left = [i for i in range(len(attempt.numbers)) if i not in looped]
        outcomes: dict[int, Outcome] = {
            i: Failed("5.4.6", f"mail forwarding loop for {r.address}")
            for i, r in enumerate(envelope.recipients)
            if i in looped
        }
        if left:
            recipients = tuple([envelope.recipients[i] for i in left])
            rest = msgspec.structs.replace(
                attempt,
                envelope=msgspec.structs.replace(envelope, recipients=recipients),
                numbers=tuple([attempt.numbers[i] for i in left]),
            )
            outcomes.update(zip(left, await self._deliver(rest), strict=True))
        return [outcomes[i] for i in range(len(attempt.numbers))]

    async def _deliver(self, attempt: Attempt) -> Sequence[Outcome]:
        if attempt.message.size <= self._memory_octets_max:
            return await self._deliver_whole(attempt)
        return await self._deliver_in_pieces(attempt)

    async def _deliver_whole(self, attempt: Attempt) -> Sequence[Outcome]:
        body = attempt.message.body
        text = await body.read(0, body.size) if body.size else b""
        content = _header(attempt) + text
        parcels = [
            self._parcel(attempt, i, _trace(attempt, i) + content)
            for i in range(len(attempt.numbers))
        ]
        found = await self._groups.put(parcels)
        locked = {i: one for i, one in enumerate(found) if isinstance(one, Locked)}
        late = await self._wait(parcels, locked) if locked else {}
        return [
            late[i] if isinstance(one, Locked) else one for i, one in enumerate(found)
        ]

    async def _wait(
        self, parcels: Sequence[Parcel], locked: dict[int, Locked]
    ) -> dict[int, Outcome]:
        """Wait for locks, beside those who need not; if too many do, try later."""
        if self._patient.count + len(locked) > PATIENT_PARCELS_MAX:
            return {i: one.outcome for i, one in locked.items()}
        outcomes = await self._patient.put([parcels[i] for i in locked])
        return dict(zip(locked, outcomes, strict=True))

    async def _deliver_in_pieces(self, attempt: Attempt) -> Sequence[Outcome]:
        return [
            await self._deliver_large(attempt, i) for i in range(len(attempt.numbers))
        ]

    async def _deliver_large(self, attempt: Attempt, i: int) -> Outcome:
        begun = await self._begin(self._parcel(attempt, i, b""))
        if isinstance(begun, Delivered | Deferred | Failed):
            return begun
        is_done = False
        try:
            failed = await self._copy(attempt, i, begun)
            if failed is None:
                is_done = True
                return await self._run(begun.finish)
            return failed
        finally:
            if not is_done:
                await self._run(begun.abandon)

    async def _begin(self, parcel: Parcel) -> Incoming | Outcome:
        loop = get_running_loop()
        beginning = loop.run_in_executor(self._pool, self._store.begin, parcel)
        try:
            return await shield(beginning)
        except CancelledError:
            await wait((beginning,))
            begun = beginning.result()
            if not isinstance(begun, Delivered | Deferred | Failed):
                await self._run(begun.abandon)
            raise

    async def _copy(
        self, attempt: Attempt, i: int, incoming: Incoming
    ) -> Outcome | None:
        """Write all of the message; returns an outcome if that failed."""
        body, offset = attempt.message.body, 0
        mailbox = self.which(attempt.envelope.recipients[i].address)
        piece = _trace(attempt, i) + _header(attempt)
        while True:
            failed = await self._run(_write, incoming, mailbox, piece)
            if failed is not None:
                return failed
            if offset >= body.size:
                return None
            piece = await body.read(offset, CHUNK_OCTETS * 4)
            if not piece:
                return _READ_FAILED
            offset += len(piece)

    def _parcel(self, attempt: Attempt, i: int, content: bytes) -> Parcel:
        envelope = attempt.envelope
        arrival_us = envelope.arrival_us
        return Parcel(
            mailbox=self.which(envelope.recipients[i].address),
            queue_id=attempt.queue_id,
            number=attempt.numbers[i],
            sender=envelope.sender.to_text(),
            arrival_us=arrival_us,
            content=content,
            look=attempt.again
            or arrival_us < self._started_us
            or attempt.now.utc_us - arrival_us > _FRESH_US_MAX,
        )

    async def _run(self, function: Callable[..., T], *args: object) -> T:
        """Call in a thread; who is cancelled waits until the thread is done with it."""
        running = get_running_loop().run_in_executor(self._pool, function, *args)
        try:
            return await shield(running)
        except CancelledError:
            await wait((running,))
            raise


class _Groups(Generic[T]):
    """Gathers parcels while the group before them is being written.

    ``count`` of them wait or are being written.
    """

    def __init__(
        self, deliver: Callable[[Sequence[Parcel]], list[T]], pool: Executor
    ) -> None:
        self.count = 0
        self._deliver = deliver
        self._pool = pool
        self._waiting: list[tuple[Sequence[Parcel], Future[list[T]]]] = []
        self._running: Future[list[T]] | None = None

    def put(self, parcels: Sequence[Parcel]) -> Future[list[T]]:
        """Deliver; the future is done when the group is on disk."""
        self.count += len(parcels)
        future: Future[list[T]] = get_running_loop().create_future()
        self._waiting.append((parcels, future))
        if self._running is None:
            self._start()
        return future

    async def settled(self) -> None:
        """Wait until nothing is in hand."""
        while self._running is not None:
            await wait((self._running,))

    def _start(self) -> None:
        group = self._next_group()
        parcels = [parcel for some, _ in group for parcel in some]
        loop = get_running_loop()
        running = loop.run_in_executor(self._pool, self._deliver, parcels)
        self._running = running

        def hand_out(done: Future[list[T]]) -> None:
            self._running = None
            self.count -= len(parcels)
            if self._waiting:
                self._start()
            _hand_out(group, done)

        running.add_done_callback(hand_out)

    def _next_group(self) -> list[tuple[Sequence[Parcel], Future[list[T]]]]:
        count = octets = taken = 0
        for parcels, _ in self._waiting:
            count += len(parcels)
            octets += sum(len(parcel.content) for parcel in parcels)
            if taken and (count > GROUP_PARCELS_MAX or octets > GROUP_OCTETS_MAX):
                break
            taken += 1
        group, self._waiting = self._waiting[:taken], self._waiting[taken:]
        return group


def _hand_out(
    group: list[tuple[Sequence[Parcel], Future[list[T]]]],
    done: Future[list[T]],
) -> None:
    error = done.exception()
    outcomes = iter(() if error else done.result())
    for parcels, future in group:
        mine = [next(outcomes) for _ in parcels] if not error else []
        if future.done():
            continue  # nobody waits any more
        if error:
            future.set_exception(error)
        else:
            future.set_result(mine)


def _looped(attempt: Attempt) -> frozenset[int]:
    """Return which recipients' mailboxes the message was in before (RFC 5321 §6.3)."""
    header = attempt.message.header
    if not has_delivered_to(header):
        return frozenset()
    return frozenset(
        i
        for i, recipient in enumerate(attempt.envelope.recipients)
        if was_delivered_to(header, recipient.address)
    )


def _header(attempt: Attempt) -> bytes:
    header = edited_header(attempt.message)
    return header + b"\r\n" if attempt.message.has_separator else header


def _trace(attempt: Attempt, i: int) -> bytes:
    """Return the fields that final delivery puts in front (RFC 5321 §4.4)."""
    envelope = attempt.envelope
    recipient = envelope.recipients[i].address
    return return_path_field(envelope.sender) + delivered_to_field(recipient)


def _write(incoming: Incoming, mailbox: MailboxName, piece: bytes) -> Outcome | None:
    try:
        incoming.write(piece)
    except OSError as error:
        return deferral(mailbox, error)
    return None


def _say(attempt: Attempt, line: str) -> None:
    if attempt.say:
        attempt.say(line)


def _say_outcomes(attempt: Attempt, outcomes: Sequence[Outcome]) -> None:
    for recipient, outcome in zip(attempt.envelope.recipients, outcomes, strict=True):
        match outcome:
            case Delivered():
                text = "Sent"
            case Deferred():
                text = f"Deferred: {outcome.text}"
            case Failed():
                text = outcome.text
        _say(attempt, f"{recipient.address}... {text}")
