"""A client of a failing disk: 451 or 452, and 250 only for what is there afterwards.

One session of the real SMTP service hands in a small and a large letter, while the
n-th operation of the disk fails, for every n.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from postroom.mail.envelope import Origin
from postroom.mail.units import Size
from postroom.services.receive import ReceiveService
from postroom.spool.settings import SpoolSettings
from postroom.spool.spool import QueueFilter
from postroom.testing.conversation import ListConversation
from postroom.testing.disk import Disk, Fault, Kind, Loss
from postroom.testing.spool import MEMORY, temporary_shard
from postroom.testing.workbench import Plan, bench

SETTINGS = SpoolSettings(
    reserve_octets=Size(0), reserve_inodes=0, body_memory_octets_max=Size(4096)
)
LARGE = "Subject: large\n\n" + "0123456789\n" * 2000
BETWEEN = "MAIL FROM:<ann@c.test>\nRCPT TO:<joe@gonzo.test>\nDATA\n"
CLIENT = Origin(protocol="SMTP", client_ip="127.0.0.1", listener="in")


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="smtp-", dir=MEMORY) as made:
        yield Path(made)


async def session(disk: Disk, fault: Fault | None, index: int) -> tuple[list[str], int]:
    """Return the replies to both letters, and how many operations there were then."""
    async with bench(Plan(spool=SETTINGS), directory=disk.root, seam=disk.seam) as b:
        b.agents["mailbox"].gate.clear()
        if fault is not None:
            disk.fail_at(index, fault)
        conversation = ListConversation(
            "EHLO c.test\n" + BETWEEN,
            "Subject: small\n\nhello\n.\n",
            BETWEEN,
            LARGE + ".\n",
            "QUIT\n",
        )
        await ReceiveService(b.tools).converse(conversation, CLIENT)
        assert b.budget.used == 0
        # MAIL, too, is refused while the disk was seen to be full.
        codes = [code for code in conversation.codes[4:] if code[:3] in _ANSWERS]
        return codes, disk.now


_ANSWERS = ("250", "451", "452")


def letters_taken(codes: list[str]) -> int:
    return codes.count("250 2.0.0")


async def queued(disk: Disk, count: int, target: Path) -> int:
    """Cut the power after so many operations and count what is there."""
    for moment, platter in disk.points():
        if moment == count:
            for path, content in platter.surviving(Loss.ALL).items():
                there = target / Path(path).relative_to(disk.root)
                if content is None:
                    there.mkdir(parents=True)
                else:
                    there.write_bytes(content)
    async with temporary_shard(directory=str(target), settings=SETTINGS) as shard:
        pages = [page async for page in shard.entries(QueueFilter())]
        assert (await shard.counts())["shunted"] == 0
        return sum(len(page) for page in pages)


async def one(
    place: Path, fault: Fault | None, index: int
) -> tuple[Disk, list[str], int]:
    root = place / f"spool-{index}"
    root.mkdir()
    disk = Disk(str(root), "smtp")
    try:
        codes, answered = await session(disk, fault, index)
    finally:
        disk.close()
    there = await queued(disk, answered, place / f"after-{index}")
    assert there >= letters_taken(codes), f"a 250 for nothing at operation {index}"
    return disk, codes, answered


@pytest.mark.parametrize(
    ("fault", "reply"),
    [
        pytest.param(Fault.IO, "451 4.3.0", id="EIO"),
        pytest.param(Fault.FULL, "452 4.3.1", id="ENOSPC"),
        pytest.param(Fault.SHORT, "452 4.3.1", id="short write"),
    ],
)
async def test_every_operation_of_a_session_fails(
    fault: Fault, reply: str, place: Path
) -> None:
    disk, codes, answered = await one(place, None, -1)
    assert letters_taken(codes) == 2
    said: Counter[str] = Counter()
    for index in range(_opened(disk), answered):
        if not fault.applies_to(disk.operations[index]):
            continue
        faulty, codes, _ = await one(place, fault, index)
        assert faulty.faults == 1
        said.update(codes)
    assert said[reply] >= 2, said
    assert set(said) <= {"250 2.0.0", "250 2.1.0", "250 2.1.5", reply, "451 4.3.0"}


def _opened(disk: Disk) -> int:
    """After how many operations the first letter comes: opening ends with a sync."""
    names = [
        i
        for i, o in enumerate(disk.operations)
        if o.kind is Kind.NAMES and o.path.endswith("shard-000")
    ]
    return names[1] + 1
