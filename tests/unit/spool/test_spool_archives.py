"""Spools of every schema there ever was open, and everything in them is delivered."""

import shutil
from pathlib import Path

import pytest

from postroom.mail.message import Prepend, Remove
from postroom.mail.now import Now
from postroom.mail.units import Size
from postroom.spool.engine import Shard, open_shard
from postroom.spool.schema import SCHEMA_VERSION
from postroom.spool.settings import SpoolSettings
from postroom.spool.spool import Lease, QueueFilter, Settle

START_US = 1_790_000_000_000_000
SETTINGS = SpoolSettings(reserve_octets=Size(0), reserve_inodes=0)
ARCHIVES = sorted(Path(__file__).parents[2].glob("spools/schema-*"))
BODIES = {
    "pals": b"shared\r\n",
    "joe": b"shared\r\n",
    "owned": b"shared\r\n",
    "large@whizzer.test": b"large\r\n" * 100,
}


def clock() -> Now:
    return Now(START_US + 60_000_000, 0)


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name)
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(request.param, tmp_path / "spool"))


def test_the_present_schema_is_archived() -> None:
    assert f"schema-{SCHEMA_VERSION}" in {path.name for path in ARCHIVES}


async def claim_all(shard: Shard) -> dict[str, Lease]:
    found: dict[str, Lease] = {}
    for place in await shard.due_hops(clock(), 100):
        for lease in await shard.claim(place.hop, place.lane, 100, clock()):
            for recipient in lease.envelope.recipients:
                found[str(recipient.address)] = lease
    return found


async def test_an_archived_spool_is_delivered(archive: Path) -> None:
    shard = await open_shard(str(archive), 0, SETTINGS, clock=clock)
    assert await shard.counts() == {
        "messages": 7,
        "recipients": 9,
        "octets": 863,
        "ready": 7,
        "expanding": 1,
        "held": 1,
        "shunted": 0,
        "active": 0,
    }
    assert await shard.release(QueueFilter(states=("held",)), clock()) == 1
    found = await claim_all(shard)
    assert sorted(found) == sorted(
        [
            "ready@whizzer.test",
            "second@whizzer.test",
            "later@whizzer.test",
            "held@whizzer.test",
            "pals",
            "joe",
            "owned",
            "edited@whizzer.test",
            "large@whizzer.test",
        ]
    )
    later = found["later@whizzer.test"]
    assert (later.tries, later.warned) == ((1,), True)
    assert (found["pals"].route, found["pals"].cursor) == (None, 1000)
    assert found["edited@whizzer.test"].message.edits == (
        Prepend(b"Received: from a\r\n"),
        Remove("Bcc"),
    )
    assert str(found["owned"].envelope.sender) == "owner-pals@gonzo.test"
    for name, lease in found.items():
        expected = BODIES.get(name, b"hello\r\n")
        assert lease.message.header == b"Subject: test\r\n"
        assert await lease.message.body.read(0, len(expected) + 1) == expected, name
    for lease in {id(lease): lease for lease in found.values()}.values():
        await shard.settle(lease, [Settle(number) for number in lease.numbers])
    assert set((await shard.counts()).values()) == {0}
    await shard.aclose()
    assert not list((archive / "shard-000" / "bodies").iterdir())
