"""Opening a shard: locks, crash counts, damage, versions, and where it may lie."""

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import apsw
import msgspec
import pytest

from postroom.mail.ids import to_number
from postroom.net.clock import read_now
from postroom.observe.events import AnyEvent, MessageShunted
from postroom.spool import database
from postroom.spool.engine import Shard, open_shard
from postroom.spool.lock import SpoolLocked, shards_in
from postroom.spool.mounts import file_system_type
from postroom.spool.offline import view_shards
from postroom.spool.spool import QueueFilter, Settle, SpoolError, SpoolFull, disk_error
from postroom.testing.spool import QUICK, Letters


async def opened(path: Path, emit: Callable[[AnyEvent], None] | None = None) -> Shard:
    return await open_shard(str(path), 0, QUICK, clock=read_now, emit=emit)


async def test_a_second_opener_is_told_who_has_it(tmp_path: Path) -> None:
    shard = await opened(tmp_path)
    with pytest.raises(SpoolLocked, match=f"process {os.getpid()}"):
        await opened(tmp_path)
    await shard.aclose()
    await (await opened(tmp_path)).aclose()


async def test_another_process_is_locked_out_too(tmp_path: Path) -> None:
    shard = await opened(tmp_path)
    program = (
        "import sys\n"
        "from postroom.spool.lock import ShardLock, SpoolLocked, shard_directory\n"
        "try:\n    ShardLock(shard_directory(sys.argv[1], 0))\n"
        "except SpoolLocked as error:\n    print(error)"
    )
    said = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"in use by process {os.getpid()}:" in said.stdout
    await shard.aclose()


# What is wrong with which file of a shard, and what the refusal says.
IN_THE_WAY: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "no database": ("queue.db", lambda path: path.write_bytes(b"?" * 8192), "damaged"),
    "a directory": ("queue.db", lambda path: path.mkdir(), "the server's user"),
    "the lock": ("lock", lambda path: path.mkdir(), "lock: Is a directory$"),
}


@pytest.mark.parametrize("case", IN_THE_WAY)
async def test_a_refusal_names_the_object_and_the_remedy(
    tmp_path: Path, case: str
) -> None:
    name, spoil, says = IN_THE_WAY[case]
    (tmp_path / "shard-000").mkdir()
    spoil(tmp_path / "shard-000" / name)
    with pytest.raises(SpoolError, match=f"^{tmp_path}/shard-000.*{says}"):
        await opened(tmp_path)


def test_whose_files_they_have_to_be_is_said() -> None:
    said = str(disk_error(PermissionError(errno.EACCES, "Permission denied", "/x/y")))
    assert said.startswith("/x/y: Permission denied: it has to belong to the user")


async def test_a_shard_must_keep_its_number(tmp_path: Path) -> None:
    await (await opened(tmp_path)).aclose()
    (tmp_path / "shard-000").rename(tmp_path / "shard-001")
    with pytest.raises(SpoolError, match="shard 0, not 1"):
        await open_shard(str(tmp_path), 1, QUICK, clock=read_now)
    assert shards_in(str(tmp_path)) == [1]


@pytest.mark.parametrize(
    ("pragma", "says"),
    [("user_version = 99", "newer"), ("application_id = 7", "no Postroom spool")],
)
async def test_foreign_and_newer_files_are_refused(
    pragma: str, says: str, tmp_path: Path
) -> None:
    await (await opened(tmp_path)).aclose()
    connection = apsw.Connection(str(tmp_path / "shard-000" / "queue.db"))
    connection.execute(f"PRAGMA {pragma}")
    connection.close()
    with pytest.raises(SpoolError, match=says):
        await opened(tmp_path)


def test_old_sqlite_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    database.check_sqlite_version()
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.51.2")
    with pytest.raises(SpoolError, match=r"3\.51\.3 or later"):
        database.check_sqlite_version()


MOUNTS = """\
22 1 254:0 / / rw - ext4 /dev/vda rw
30 22 0:40 / /mail rw,relatime shared:1 - nfs4 server:/mail rw
31 30 254:1 / /mail/local\\040disk rw - xfs /dev/vdb rw
nonsense
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/spool", "ext4"),
        ("/mail", "nfs4"),
        ("/mail/x", "nfs4"),
        ("/mailbox", "ext4"),
        ("/mail/local disk/spool", "xfs"),
    ],
)
def test_file_system_type(path: str, kind: str) -> None:
    assert file_system_type(path, MOUNTS) == kind


async def test_network_file_systems_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from postroom.spool import mounts

    monkeypatch.setattr(mounts, "file_system_type", lambda *_: "nfs4")
    with pytest.raises(SpoolError, match="network file system"):
        await opened(tmp_path)


class TestSpace:
    async def test_the_reserve_refuses_new_mail_but_not_settling(
        self, tmp_path: Path
    ) -> None:
        shard = await opened(tmp_path)
        [lease] = await shard.accept(Letters(shard).letter(), claim=True)
        shard._space.exhausted()
        assert not shard.check_space(1)
        with pytest.raises(SpoolFull):
            await shard.accept(Letters(shard).letter())
        await shard.settle(lease, [Settle(0)])
        await shard.aclose()

    async def test_a_disk_without_room_for_what_is_in_hand(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(os, "posix_fallocate", full)
            with pytest.raises(SpoolFull):
                await opened(tmp_path)
        await (await opened(tmp_path)).aclose()

    async def test_a_large_body_stops_at_the_reserve(self, tmp_path: Path) -> None:
        shard = await opened(tmp_path)
        writer = shard.body_writer(Letters(shard).letter().queue_id)
        await writer.write(b"x" * (1 << 20))
        shard._space.exhausted()
        with pytest.raises(SpoolFull):
            await writer.write(b"x" * (1 << 20))
        assert not os.listdir(tmp_path / "shard-000" / "bodies")
        await shard.aclose()


async def test_a_body_file_without_a_message_is_removed(tmp_path: Path) -> None:
    shard = await opened(tmp_path)
    letters = Letters(shard)
    named = letters.letter()
    writer = shard.body_writer(named.queue_id)
    await writer.write(b"x" * 10)
    message = msgspec.structs.replace(named.message, body=await writer.finish())
    await shard.accept(msgspec.structs.replace(named, message=message))
    orphan = shard.body_writer(letters.letter().queue_id)
    await orphan.write(b"y")
    await orphan.finish()
    bodies = tmp_path / "shard-000" / "bodies"
    (bodies / "README").write_text("kept: no queue id")
    await shard.aclose()
    shard = await opened(tmp_path)
    assert sorted(os.listdir(bodies)) == sorted([named.queue_id, "README"])
    [lease] = await shard.claim("whizzer.test", 0, 1, read_now())
    assert await lease.message.body.read(3, 100) == b"x" * 7
    await shard.settle(lease, [Settle(0)])
    assert os.listdir(bodies) == ["README"]
    await shard.aclose()


async def test_an_abandoned_body_is_gone(tmp_path: Path) -> None:
    shard = await opened(tmp_path)
    writer = shard.body_writer(Letters(shard).letter().queue_id)
    await writer.write(b"x" * (1 << 20))
    bodies = tmp_path / "shard-000" / "bodies"
    assert len(os.listdir(bodies)) == 1
    await writer.abandon()
    assert not os.listdir(bodies)
    await shard.aclose()


async def crash(shard: Shard, path: Path) -> Path:
    """Copy a shard as a killed process would leave it, and close the original."""
    import shutil

    left = path / "left"
    shutil.rmtree(left, ignore_errors=True)
    shutil.copytree(path / "spool", left)
    await shard.aclose()
    shutil.rmtree(path / "spool")
    left.rename(path / "spool")
    return path / "spool"


class TestInHand:
    async def test_the_suspects_of_two_crashes_go_one_at_a_time(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "spool").mkdir()
        shard = await opened(tmp_path / "spool")
        letters = Letters(shard)
        news = [letters.letter("joe") for _ in range(3)]
        for new in news:
            await shard.accept(new)
        for _ in range(2):
            for new in news:
                shard.in_hand.begin(new.queue_id)
            shard = await opened(await crash(shard, tmp_path))
        assert len(await shard.claim("local", 0, 9, read_now())) == 1
        await shard.aclose()

    async def test_a_survived_attempt_clears_the_count(self, tmp_path: Path) -> None:
        (tmp_path / "spool").mkdir()
        shard = await opened(tmp_path / "spool")
        letters = Letters(shard)
        new = letters.letter("joe")
        await shard.accept(new)
        for _ in range(4):
            shard.in_hand.begin(new.queue_id)
            shard = await opened(await crash(shard, tmp_path))
            [lease] = await shard.claim("local", 0, 9, read_now())
            shard.in_hand.begin(new.queue_id)
            await shard.settle(lease, [Settle(0, 0, "busy")])
            shard.in_hand.done(new.queue_id)
            await shard.accept(letters.letter("ann@far.test"))  # committed
        assert (await shard.counts())["shunted"] == 0
        await shard.aclose()

    async def test_a_crash_after_the_settlement_counts(self, tmp_path: Path) -> None:
        """As of a hook that is told the outcome: the attempt is not over yet."""
        (tmp_path / "spool").mkdir()
        shard = await opened(tmp_path / "spool")
        new = Letters(shard).letter("joe")
        await shard.accept(new)
        for _ in range(3):
            [lease] = await shard.claim("local", 0, 9, read_now())
            shard.in_hand.begin(new.queue_id)
            await shard.settle(lease, [Settle(0, 0, "busy")])
            shard = await opened(await crash(shard, tmp_path))
        assert (await shard.counts())["shunted"] == 1
        await shard.aclose()

    async def test_one_of_two_attempts_survives(self, tmp_path: Path) -> None:
        """The message is in hand until both are over."""
        (tmp_path / "spool").mkdir()
        shard = await opened(tmp_path / "spool")
        new = Letters(shard).letter("joe")
        await shard.accept(new)
        for _ in range(3):
            shard.in_hand.begin(new.queue_id)
            shard.in_hand.begin(new.queue_id)
            shard.in_hand.done(new.queue_id)
            shard = await opened(await crash(shard, tmp_path))
        assert (await shard.counts())["shunted"] == 1
        await shard.aclose()


class TestWhoIsToBlame:
    """A story is a list of crashes, each with those who were in hand."""

    STORIES: ClassVar = {
        "alone": (["G"] * 3, "G"),
        "twice is chance": (["G"] * 2, ""),
        "always in company": (["GI"] * 3, ""),
        "then alone": (["GI"] * 3 + ["G"], "G"),
        "in changing company": (["GI", "GJ", "GK"], "G"),
        "the others stay": (["GIJ", "GIJ", "GIJ", "GI", "G"], "G"),
        "company for ever": (["GI"] * 9, "GI"),
        "nearly for ever": (["GI"] * 8, ""),
        "in hand with a newcomer": (["G", "G", "GI"], "G"),
    }

    @pytest.mark.parametrize("story", STORIES)
    async def test_who_is_put_aside(self, story: str, tmp_path: Path) -> None:
        crashes, aside = self.STORIES[story]
        (tmp_path / "spool").mkdir()
        shard = await opened(tmp_path / "spool")
        letters = Letters(shard)
        news = {name: letters.letter(name) for name in "GIJK"}
        for new in news.values():
            await shard.accept(new)
        for who in crashes:
            for name in who:
                shard.in_hand.begin(news[name].queue_id)
            shard = await opened(await crash(shard, tmp_path))
        shunted = QueueFilter(states=("shunted",))
        found = [e.queue_id async for page in shard.entries(shunted) for e in page]
        assert found == [news[name].queue_id for name in aside]
        await shard.aclose()

    async def test_the_equally_suspect_are_tried_further_and_further_apart(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "spool").mkdir()
        shard = await opened(tmp_path / "spool")
        letters = Letters(shard)
        news = [letters.letter("joe") for _ in range(2)]
        for new in news:
            await shard.accept(new)
        apart = []
        for _ in range(4):
            for new in news:
                shard.in_hand.begin(new.queue_id)
            shard = await opened(await crash(shard, tmp_path))
            dues = [
                entry.recipients[0].due_us
                async for page in shard.entries(QueueFilter())
                for entry in page
            ]
            apart.append(round((max(dues) - min(dues)) / 1_000_000))
        assert apart[1:] == [1, 2, 4]
        await shard.aclose()


DAMAGE = {
    "sender": "UPDATE messages SET sender = 'no address @@' WHERE id = :id",
    "edits": "UPDATE messages SET edits = x'c1ff' WHERE id = :id",
    "text that is no UTF-8": (
        "UPDATE messages SET helo = CAST(x'ff' AS TEXT) WHERE id = :id"
    ),
    "body gone": "DELETE FROM bodies WHERE id = :id",
    "body shortened": "UPDATE bodies SET content = x'00' WHERE id = :id",
    "recipient": "UPDATE recipients SET address = 'a b@c' WHERE message = :id",
    "recipient no UTF-8": (
        "UPDATE recipients SET orcpt = CAST(x'fe' AS TEXT) WHERE message = :id"
    ),
    "body file gone": (
        "UPDATE bodies SET file = '00000000000', content = NULL WHERE id = :id"
    ),
    "message row gone": "DELETE FROM messages WHERE id = :id",
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_what_cannot_be_read_is_put_aside_and_stops_nothing(
    damage: str, tmp_path: Path
) -> None:
    shard = await opened(tmp_path)
    letters = Letters(shard)
    news = [letters.letter("joe") for _ in range(12)]
    for new in news:
        await shard.accept(new)
    await shard.aclose()
    connection = apsw.Connection(str(tmp_path / "shard-000" / "queue.db"))
    connection.execute(DAMAGE[damage], {"id": to_number(news[3].queue_id)})
    connection.close()
    events: list[AnyEvent] = []
    shard = await opened(tmp_path, events.append)
    leases = await shard.claim("local", 0, 20, read_now())
    assert {lease.queue_id for lease in leases} == {
        new.queue_id for new in news if new is not news[3]
    }
    for lease in leases:
        await shard.settle(lease, [Settle(0)])
    assert (await shard.counts())["shunted"] == 1
    shown = [e.queue_id async for page in shard.entries(QueueFilter()) for e in page]
    assert shown == ([] if "message row" in damage else [news[3].queue_id])
    assert [type(event) for event in events] == [MessageShunted]
    assert not await shard.due_hops(read_now(), 9)
    await shard.aclose()


class TestOffline:
    async def test_look_and_change(self, tmp_path: Path) -> None:
        for number in (0, 3):
            shard = await open_shard(str(tmp_path), number, QUICK, clock=read_now)
            await shard.accept(Letters(shard).letter())
            await shard.aclose()
        now = read_now()
        with view_shards(str(tmp_path), shards_in(str(tmp_path))) as views:
            found = [
                entry.shard
                for view in views
                for page in view.entries(QueueFilter(), now)
                for entry in page
            ]
            assert found == [0, 3]
            assert [view.counts()["messages"] for view in views] == [1, 1]

    async def test_beside_a_server_one_may_look_only(self, tmp_path: Path) -> None:
        shard = await opened(tmp_path)
        await shard.accept(Letters(shard).letter())
        with view_shards(str(tmp_path), [0]) as [view]:
            assert view.counts()["messages"] == 1
        with pytest.raises(SpoolLocked):
            await opened(tmp_path)
        await shard.aclose()

    def test_no_spool_is_an_empty_one(self, tmp_path: Path) -> None:
        assert shards_in(str(tmp_path / "none")) == []

    async def test_only_what_is_asked_for_is_opened(self, tmp_path: Path) -> None:
        for number in (0, 1):
            shard = await open_shard(str(tmp_path), number, QUICK, clock=read_now)
            await shard.aclose()
        with view_shards(str(tmp_path), [1, 7]) as [view]:
            assert view.shard == 1
