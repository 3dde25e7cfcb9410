"""What happens on the disk while it is tried: all that a spool ever does, in small.

A worker leaves a shard behind and vanishes; another accepts, expands, defers, bounces,
holds, releases and removes mail, small and large, and adopts what the first has left.
Where a step fails with ``SpoolError`` the scenario goes on with the next, as a server
does; what was promised until then stays promised.
"""

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from postroom.spool.engine import Shard, open_shard
from postroom.spool.spool import (
    Fenced,
    Lease,
    NewMessage,
    QueueFilter,
    Rest,
    Settle,
    SpoolError,
    SpoolFull,
)
from postroom.testing.crash.oracle import SETTINGS, START_US, clock, contents
from postroom.testing.crash.promises import Lost, Promises, Seen
from postroom.testing.disk import Disk
from postroom.testing.spool import Letters

SMALL = b"hello\r\n"
LARGE = b"large\r\n" * 3000
BULKY = b"bulky\r\n" * 1000
_LATER_US = START_US + 1
_OPENING_TRIES = 200


class Life:
    """One process's time with one shard of the spool.

    Attributes:
        refused: how many steps failed.
    """

    def __init__(self, disk: Disk, promises: Promises, number: int) -> None:
        self.refused = 0
        self._disk = disk
        self._promises = promises
        self._number = number
        self._shard: Shard | None = None
        self._letters = Letters(None, clock)

    @property
    def shard(self) -> Shard:
        """The open shard."""
        assert self._shard is not None
        return self._shard

    async def open(self) -> bool:
        """Open the shard, again and again while the disk fails; False: it is dead."""
        for _ in range(_OPENING_TRIES):
            try:
                self._shard = await open_shard(
                    self._disk.root,
                    self._number,
                    SETTINGS,
                    clock=clock,
                    seam=self._disk.seam,
                )
            except SpoolError:
                self.refused += 1
                if self._disk.is_dead:
                    return False
            else:
                self._letters = Letters(self._shard, clock)
                return True
        raise AssertionError("the shard cannot be opened any more")

    async def close(self) -> None:
        """Close the shard in order, as far as the disk allows."""
        try:
            await self.shard.aclose()
        except SpoolError:
            self.refused += 1

    async def vanish(self) -> None:
        """End as a killed process does: nothing more gets to the disk."""
        place = Path(self._disk.root, f"shard-{self._number:03}")
        with self._disk.stopped(), suppress(SpoolError), kept(place / "in-hand"):
            await self.shard.aclose()

    async def step(self, work: Awaitable[None]) -> None:
        """Do one step; that it fails is noted."""
        try:
            await work
        except SpoolError as error:
            self.refused += 1
            if isinstance(error, SpoolFull):
                # The reader looks once a second; here nobody waits for it.
                self.shard._space.refresh()

    async def accept(
        self, *names: str, body: bytes = SMALL, claim: bool = False
    ) -> Sequence[Lease]:
        """Hand in a message; large bodies by way of a file."""
        new = self._letters.letter(*names, body=body)
        return await self._accept(new, body, claim=claim)

    async def _accept(
        self, new: NewMessage, body: bytes, *, claim: bool
    ) -> Sequence[Lease]:
        if len(body) > SETTINGS.body_memory_octets_max:
            new = await self._stored(new, body)
        names = [str(recipient.address) for recipient in new.recipients]
        self._promises.ask(names, body)
        leases = await self.shard.accept(new, claim=claim)
        self._promises.owe(names, self._disk.now)
        return leases

    async def _stored(self, new: NewMessage, body: bytes) -> NewMessage:
        writer = self.shard.body_writer(new.queue_id)
        for start in range(0, len(body), 1 << 14):
            await writer.write(body[start : start + (1 << 14)])
        message = msgspec.structs.replace(new.message, body=await writer.finish())
        return msgspec.structs.replace(new, message=message)

    async def abandon(self) -> None:
        """Begin a large message whose client goes away."""
        writer = self.shard.body_writer(self._letters.letter().queue_id)
        await writer.write(b"x" * (300 << 10))
        await writer.abandon()

    async def deliver(self, lease: Lease) -> None:
        """Settle a whole lease as delivered."""
        names = [str(recipient.address) for recipient in lease.envelope.recipients]
        self._promises.ends_otherwise(names)
        self._promises.begin(names, self._disk.now)
        await self.shard.settle(lease, [Settle(number) for number in lease.numbers])
        self._promises.end(names, self._disk.now)

    async def through(self, name: str, body: bytes = SMALL) -> None:
        """Accept a message and deliver it."""
        [lease] = await self.accept(name, body=body, claim=True)
        await self.deliver(lease)

    async def many_at_once(self, name: str, count: int) -> None:
        """Accept and deliver several messages that share their commits."""
        each = (self.through(f"{name}{i}@whizzer.test") for i in range(count))
        for result in await asyncio.gather(*each, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def defer(self, name: str) -> None:
        """Accept a message that cannot be delivered yet."""
        [lease] = await self.accept(name, claim=True)
        await self.shard.settle(lease, [Settle(0, _LATER_US, "busy", warned=True)])

    async def leave_alone(self, hop: str) -> None:
        """Let a hop rest, with mail for it, and end the rest."""
        await self.accept(f"rests@{hop}")
        await self.shard.rest(hop, Rest(_LATER_US, "4.4.1", "Connection refused"))
        await self.shard.end_rests([hop])

    async def bounce(self, name: str, report: str) -> None:
        """Accept a message for two, and report that one of them failed."""
        [lease] = await self.accept(name, f"good-{name}", claim=True)
        told = self._letters.letter(report, sender="", body=BULKY)
        self._promises.ask([report], BULKY, "")
        self._promises.swap(name, [report])
        self._promises.begin([name, f"good-{name}"], self._disk.now)
        await self.shard.settle(lease, [Settle(0), Settle(1)], [told])
        self._promises.end([name, f"good-{name}"], self._disk.now)
        self._promises.owe([report], self._disk.now)

    async def expand(self, lease: Lease, count: int, *, first: int, last: bool) -> None:
        """Add children of a list; the last of them with a second envelope."""
        name = str(lease.envelope.recipients[0].address)
        names = [f"{name}-{first + i}" for i in range(count)]
        self._promises.ask(names, SMALL)
        children = [self._letters.recipient(name) for name in names]
        new: list[NewMessage] = []
        if last:
            owner = f"owner-{name}@gonzo.test"
            child = self._letters.letter(f"shared-{name}", sender=owner)
            new = [msgspec.structs.replace(child, body_of=lease.queue_id)]
            self._promises.ask([f"shared-{name}"], SMALL, owner)
            self._promises.swap(name, [*names, f"shared-{name}"])
            names.append(f"shared-{name}")
            self._promises.begin([name], self._disk.now)
        cursor = None if last else first + count
        await self.shard.expand(lease, lease.numbers[0], children, cursor, new)
        self._promises.owe(names, self._disk.now)
        if last:
            self._promises.end([name], self._disk.now)

    async def begin_list(self, name: str, count: int) -> Lease:
        """Accept a list and expand its first chunk."""
        [lease] = await self.accept(f":{name}", claim=True)
        await self.expand(lease, count, first=0, last=False)
        return lease

    async def whole_list(self, name: str, count: int) -> None:
        """Accept a list and expand it in two chunks."""
        lease = await self.begin_list(name, count)
        await self.expand(lease, count, first=count, last=True)

    async def hold(self, name: str, *, release: bool) -> None:
        """Accept a message, hold it, and perhaps let it go."""
        await self.accept(name)
        await self.shard.hold(QueueFilter(recipients=(name,)), "suspicious")
        self._promises.hold(name, self._disk.now)
        if release:
            self._promises.let_go(self._disk.now, name)
            await self.shard.release(QueueFilter(recipients=(name,)), clock())
            await self.shard.retry(QueueFilter(recipients=(name,)), clock())

    async def give_up(self, name: str, report: str) -> None:
        """Accept a message, and let an operator give it up with a report."""
        await self.accept(name)
        self._promises.ask([report], BULKY, "")
        self._promises.swap(name, [report])
        self._promises.begin([name], self._disk.now)

        async def farewell(_: Lease, __: Sequence[str]) -> Sequence[NewMessage]:
            return [self._letters.letter(report, sender="", body=BULKY)]

        wanted = QueueFilter(recipients=(name,))
        async for _ in self.shard.give_up(wanted, clock(), farewell):
            pass
        self._promises.end([name], self._disk.now)
        self._promises.owe([report], self._disk.now)

    async def remove(self, name: str, body: bytes = SMALL) -> None:
        """Accept a message and remove it."""
        await self.accept(name, body=body)
        self._promises.begin([name], self._disk.now)
        await self.shard.remove(QueueFilter(recipients=(name,)))
        self._promises.end([name], self._disk.now)

    async def empty(self, leave: str = "") -> None:
        """Deliver what is there, all but what has ``leave`` in its name."""
        _, leases = await contents(self.shard)
        for lease in leases:
            names = [str(recipient.address) for recipient in lease.envelope.recipients]
            if leave and any(leave in name for name in names):
                await self.shard.settle(lease, [])
            elif lease.route is None:
                first = lease.cursor
                await self.step(self.expand(lease, 5, first=first, last=True))
            else:
                await self.step(self.deliver(lease))


@contextmanager
def kept(path: Path) -> Iterator[None]:
    """Give a file back what it held before."""
    content = path.read_bytes()
    try:
        yield
    finally:
        path.write_bytes(content)


class Scenario:
    """The whole of it, on one disk.

    Attributes:
        promises: what was promised.
        closing: how many operations there were when the last shard was to be closed.
    """

    def __init__(self, disk: Disk) -> None:
        self.promises = Promises()
        self.closing = 0
        self._disk = disk
        self._lives: list[Life] = []

    @property
    def refused(self) -> int:
        """How many steps failed."""
        return sum(life.refused for life in self._lives)

    async def run(self) -> None:
        """Let it happen."""
        stale = await self.leave_a_shard()
        life = self._life(0)
        if not await life.open():
            return
        try:
            await self._busy(life)
            await self._adopt(stale)
            await self._more(life)
        finally:
            self.closing = self._disk.now
            await life.close()

    def _life(self, number: int) -> Life:
        life = Life(self._disk, self.promises, number)
        self._lives.append(life)
        return life

    async def leave_a_shard(self) -> Lease | None:
        """Let a worker begin much and vanish; returns a lease it had."""
        life = self._life(1)
        if not await life.open():
            return None
        leases: list[Lease] = []

        async def leave() -> None:
            leases.extend(
                await life.accept("left-large@whizzer.test", body=LARGE, claim=True)
            )
            life.shard.in_hand.begin(leases[0].queue_id)

        await life.step(_none(life.accept("left@whizzer.test", "left@gonzo.test")))
        await life.step(leave())
        await life.step(life.through("left-gone@whizzer.test", LARGE))
        await life.step(_none(life.begin_list("left-pals", 5)))
        await life.vanish()
        return leases[0] if leases else None

    async def _busy(self, life: Life) -> None:
        for i in range(2):
            await life.step(life.through(f"now{i}@whizzer.test"))
        names = [f"many{i}@whizzer.test" for i in range(20)]
        await life.step(_none(life.accept(*names)))
        await life.step(_none(life.accept("large@whizzer.test", body=LARGE)))
        await life.step(life.whole_list("pals", 30))
        await life.step(life.defer("later@whizzer.test"))
        await life.step(life.leave_alone("down.test"))
        await life.step(life.bounce("bad@whizzer.test", "sender-of-bad"))
        await life.step(life.through("gone@whizzer.test", LARGE))

    async def _adopt(self, stale: Lease | None) -> None:
        life = self._life(1)
        if not await life.open():
            return
        try:
            if stale is not None:
                with suppress(Fenced):
                    await life.shard.settle(stale, [Settle(0)])
                    raise Lost("a lease of the life before is still in force")
            await life.step(life.empty(leave="left@"))
            await life.step(life.through("adopted@whizzer.test", BULKY))
        finally:
            await life.close()

    async def _more(self, life: Life) -> None:
        await life.step(life.hold("held@whizzer.test", release=False))
        await life.step(life.hold("freed@whizzer.test", release=True))
        await life.step(life.remove("removed@whizzer.test"))
        await life.step(life.give_up("hopeless@whizzer.test", "sender-of-hopeless"))
        await life.step(life.remove("removed-large@whizzer.test", LARGE))
        await life.step(life.abandon())
        await life.step(life.many_at_once("group", 5))
        for i in range(4):
            await life.step(_none(life.accept(f"bulky{i}@whizzer.test", body=BULKY)))
        await life.step(life.bounce("worse@whizzer.test", "sender-of-worse"))


class Successor:
    """A second process that takes over after the first was killed."""

    def __init__(self, disk: Disk, promises: Promises) -> None:
        self._disk = disk
        self._promises = promises

    async def run(self, numbers: Sequence[int]) -> list[int]:
        """Open shards, compare, deliver a part, take new mail.

        Returns:
            The moments at which something was promised.

        Raises:
            Lost: something is not as it was promised.
        """
        killed = self._disk.now
        self._promises.let_go(killed)
        lives = [Life(self._disk, self._promises, number) for number in numbers]
        found: dict[str, Seen] = {}
        leases: list[tuple[Life, Lease]] = []
        try:
            for life in lives:
                assert await life.open()
                here, leased = await contents(life.shard)
                found.update(here)
                leases += [(life, lease) for lease in leased]
            self._promises.judge(found, killed, " and a kill")
            # What is seen after opening stays.
            self._promises.owe(found, self._disk.now)
            return await self._live(lives, leases)
        finally:
            for life in lives:
                await life.close()

    async def _live(
        self, lives: Sequence[Life], leases: Sequence[tuple[Life, Lease]]
    ) -> list[int]:
        moments = [self._disk.now]
        for life, lease in leases[::2]:
            if lease.route is not None:
                await life.deliver(lease)
        moments.append(self._disk.now)
        for i, life in enumerate(lives):
            await life.accept(f"after{i}@whizzer.test")
            moments.append(self._disk.now)
            await life.through(f"after-large{i}@whizzer.test", LARGE)
            moments.append(self._disk.now)
        return moments


async def _none(work: Awaitable[object]) -> None:
    await work
