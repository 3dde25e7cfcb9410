"""Opens what a crash left and tells everything that is in it.

It is opened as a server would open it; all recipients are claimed, their messages
read whole, and settled, after which nothing may be left: neither in the counts nor as a
file.
"""

import asyncio
import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from postroom.mail.now import Now
from postroom.mail.units import Size
from postroom.spool.engine import Shard, open_shard
from postroom.spool.lock import shards_in
from postroom.spool.settings import SpoolSettings
from postroom.spool.spool import Lease, QueueFilter, Settle, disk_error
from postroom.testing.crash.promises import Lost, Seen

START_US = 1_790_000_000_000_000
FAR = Now(START_US + 86_400_000_000, 0)
"""When everything is due."""
SETTINGS = SpoolSettings(
    reserve_octets=Size(0),
    reserve_inodes=0,
    body_memory_octets_max=Size(8192),
    wal_octets_max=Size(96 << 10),
    free_octets_max=Size(64 << 10),
)
"""Of a shard in miniature: files, checkpoints and shrinking begin early."""

_LEASES_MAX = 1000


def clock() -> Now:
    """Stand still."""
    return Now(START_US, 0)


async def claim_all(shard: Shard) -> list[Lease]:
    """Lease everything, held or not, at hops that rest or not."""
    await shard.end_rests()
    await shard.release(QueueFilter(), FAR)
    leases: list[Lease] = []
    for place in await shard.due_hops(FAR, _LEASES_MAX):
        leases += await shard.claim(place.hop, place.lane, _LEASES_MAX, FAR)
    return leases


async def contents(shard: Shard) -> tuple[dict[str, Seen], list[Lease]]:
    """Return what is queued, and leases for all of it.

    Raises:
        Lost: something is half there.
    """
    counts = await shard.counts()
    states = {
        recipient.address: recipient.state
        async for page in shard.entries(QueueFilter())
        for entry in page
        for recipient in entry.recipients
    }
    leases = await claim_all(shard)
    found = {}
    for lease in leases:
        message = lease.message
        try:
            body = await message.body.read(0, message.body.size + 1)
        except OSError as error:
            raise disk_error(error) from error
        sender = str(lease.envelope.sender)
        for recipient in lease.envelope.recipients:
            name = str(recipient.address)
            found[name] = Seen(sender, message.header, body, states[name], lease.cursor)
    if counts["shunted"] or counts["recipients"] != len(found):
        raise Lost(f"something is half there: {counts}, but {sorted(found)}")
    messages = {lease.queue_id for lease in leases}
    if counts["messages"] != len(messages):
        raise Lost(f"{counts['messages']} messages counted, {len(messages)} there")
    return found, leases


async def settle_all(shard: Shard, leases: Sequence[Lease], bodies: str) -> None:
    """Settle everything.

    Raises:
        Lost: something is left behind.
    """
    await asyncio.gather(
        *(shard.settle(lease, [Settle(n) for n in lease.numbers]) for lease in leases)
    )
    counts, files = await shard.counts(), os.listdir(bodies)
    if any(counts.values()) or files:
        raise Lost(f"after all was settled there was still {counts}, {files}")


class Oracle:
    """Rebuilds what a power cut left, and looks into it.

    Args:
        directory: where to do so.
        to_the_end: whether all that is found is settled, too.

    Attributes:
        asked: how many states were looked into.
        opened: how many of them were different, and so had to be opened.
    """

    def __init__(self, directory: Path, *, to_the_end: bool = True) -> None:
        self.asked = self.opened = 0
        self._directory = directory
        self._to_the_end = to_the_end
        self._known: dict[bytes, Mapping[str, Seen]] = {}

    async def look(
        self, files: Mapping[str, bytes | None], root: str
    ) -> dict[str, Seen]:
        """Return what is queued in all shards of a spool that was at ``root``.

        Raises:
            Lost: something is half there.
            SpoolError: a shard cannot be opened.
        """
        self.asked += 1
        found: dict[str, Seen] = {}
        for shard, parts in _by_shard(files, root).items():
            found.update(await self._look_at(shard, parts))
        return found

    async def _look_at(
        self, name: str, files: dict[str, bytes | None]
    ) -> Mapping[str, Seen]:
        digest = hashlib.blake2b(name.encode())
        for path, content in sorted(files.items()):
            digest.update(
                f"\0{path}\0{-1 if content is None else len(content)}\0".encode()
            )
            digest.update(content or b"")
        key = digest.digest()
        if key not in self._known:
            self.opened += 1
            shutil.rmtree(self._directory, ignore_errors=True)
            _write(self._directory / name, files)
            self._known[key] = await self._open(str(self._directory))
        return self._known[key]

    async def _open(self, root: str) -> dict[str, Seen]:
        found: dict[str, Seen] = {}
        for number in shards_in(root):
            shard = await open_shard(root, number, SETTINGS, clock=clock)
            try:
                here, leases = await contents(shard)
                if self._to_the_end:
                    bodies = os.path.join(root, f"shard-{number:03}", "bodies")
                    await settle_all(shard, leases, bodies)
            finally:
                await shard.aclose()
            found.update(here)
        return found


def _by_shard(
    files: Mapping[str, bytes | None], root: str
) -> dict[str, dict[str, bytes | None]]:
    shards: dict[str, dict[str, bytes | None]] = {}
    for path, content in files.items():
        name, _, rest = os.path.relpath(path, root).partition(os.sep)
        shards.setdefault(name, {})
        if rest:
            shards[name][rest] = content
    return shards


def _write(directory: Path, files: Mapping[str, bytes | None]) -> None:
    directory.mkdir(parents=True)
    for path, content in sorted(files.items()):
        if content is None:
            (directory / path).mkdir()
        else:
            (directory / path).write_bytes(content)
