"""Password checks: few at a time, a bounded queue, a short memory of successes."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from postroom.auth.backend import UsersFile
from postroom.auth.credentials import make_argon2
from postroom.auth.file import User, add_user, change_user, remove_user
from postroom.auth.sasl import Known, Unavailable, Unknown
from postroom.auth.settings import AuthSettings
from postroom.auth.throttle import Busy, Ok, PasswordChecks, Wrong, threads_for
from postroom.auth.users import Users
from postroom.mail.now import SECOND_US, Now
from postroom.mail.units import Duration, Size
from postroom.observe.events import AnyEvent, TableRefused

CHEAP = AuthSettings(
    argon2_memory=Size(8192),
    argon2_passes=1,
    scram=False,
    refresh=Duration(0),
    waiting_max=1,
)
HASH, OTHER_HASH = make_argon2(b"right", CHEAP), make_argon2(b"other", CHEAP)


class Counted(Users):
    """Users that count the hashes made, and can be made to hang."""

    hashed = 0
    gate: threading.Event | None = None

    def verify(self, login: str, password: bytes) -> User | None:
        self.hashed += 1
        if self.gate:
            self.gate.wait(10)
        return super().verify(login, password)


class Kit:
    def __init__(self, path: str) -> None:
        self.path = path
        self.users = Counted(path, CHEAP)
        self.events: list[AnyEvent] = []
        self.mono_us = 0
        self.checks = self.make(CHEAP)

    def make(self, settings: AuthSettings) -> PasswordChecks:
        return PasswordChecks(
            self.users, settings, 1, self.events.append, lambda: Now(0, self.mono_us)
        )


@pytest.fixture
async def kit(tmp_path: Path) -> AsyncIterator[Kit]:
    path = str(tmp_path / "users")
    add_user(path, User("joe", (HASH,)))
    made = Kit(path)
    yield made
    made.checks.close()


async def test_right_and_wrong(kit: Kit) -> None:
    assert await kit.checks.check("Joe", b"right") == Ok("joe")
    assert await kit.checks.check("joe", b"wrong") == Wrong()
    assert await kit.checks.check("nobody", b"right") == Wrong()


@pytest.mark.parametrize(
    ("login", "password"),
    [("joe", b""), ("joe", b"x" * 1025), ("", b"right"), ("x" * 321, b"right")],
)
async def test_what_is_not_even_hashed(kit: Kit, login: str, password: bytes) -> None:
    assert await kit.checks.check(login, password) == Wrong()
    assert kit.users.hashed == 0


async def test_a_success_is_remembered_for_a_while(kit: Kit) -> None:
    for _ in range(3):
        assert await kit.checks.check("joe", b"right") == Ok("joe")
    assert kit.users.hashed == 1
    kit.mono_us += 121 * SECOND_US
    assert await kit.checks.check("joe", b"right") == Ok("joe")
    assert kit.users.hashed == 2


async def test_a_failure_is_not_remembered(kit: Kit) -> None:
    for _ in range(2):
        assert await kit.checks.check("joe", b"wrong") == Wrong()
    assert await kit.checks.check("joe", b"right") == Ok("joe")
    assert await kit.checks.check("joe", b"wrong") == Wrong()
    assert kit.users.hashed == 4


CHANGES: dict[str, Callable[[str], None]] = {
    "another password": lambda path: change_user(path, User("joe", (OTHER_HASH,))),
    "no password": lambda path: change_user(path, User("joe")),
    "no user": lambda path: remove_user(path, "joe"),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_what_is_remembered_is_void_when_the_entry_changes(
    kit: Kit, name: str
) -> None:
    assert await kit.checks.check("joe", b"right") == Ok("joe")
    CHANGES[name](kit.path)
    assert await kit.checks.check("joe", b"right") == Wrong()


async def test_a_new_password_is_good_at_once_however_seldom_the_file_is_looked_at(
    kit: Kit,
) -> None:
    seldom = msgspec.structs.replace(CHEAP, refresh=Duration.from_text("1h"))
    checks = kit.make(seldom)
    assert await checks.check("joe", b"other") == Wrong()
    change_user(kit.path, User("joe", (OTHER_HASH,)))
    assert await checks.check("joe", b"other") == Ok("joe")
    assert await checks.check("joe", b"right") == Wrong()
    assert await checks.check("betty", b"right") == Wrong()
    add_user(kit.path, User("betty", (HASH,)))
    assert await checks.check("betty", b"right") == Ok("betty")
    hashed = kit.users.hashed
    assert await checks.check("betty", b"wrong") == Wrong()
    assert await checks.check("nobody", b"wrong") == Wrong()
    assert kit.users.hashed == hashed + 2  # once for each where nothing has changed


async def test_a_change_of_others_voids_nothing(kit: Kit) -> None:
    assert await kit.checks.check("joe", b"right") == Ok("joe")
    add_user(kit.path, User("betty", (HASH,)))
    assert await kit.checks.check("joe", b"right") == Ok("joe")
    assert kit.users.hashed == 1
    assert await kit.checks.check("betty", b"right") == Ok("betty")
    assert kit.users.hashed == 2


@pytest.mark.parametrize("setting", ["remember", "remembered_max"])
async def test_remembering_can_be_turned_off(kit: Kit, setting: str) -> None:
    off = Duration(0) if setting == "remember" else 0
    checks = kit.make(msgspec.structs.replace(CHEAP, **{setting: off}))
    for _ in range(2):
        assert await checks.check("joe", b"right") == Ok("joe")
    assert kit.users.hashed == 2
    checks.close()


async def test_the_memory_is_bounded_and_the_oldest_goes(kit: Kit) -> None:
    add_user(kit.path, User("betty", (HASH,)))
    checks = kit.make(msgspec.structs.replace(CHEAP, remembered_max=1))
    for login in ("joe", "betty", "betty", "joe"):
        assert await checks.check(login, b"right") == Ok(login)
    assert kit.users.hashed == 3
    checks.close()


async def test_a_flood_waits_and_then_is_told_to_come_back(kit: Kit) -> None:
    await kit.checks.refresh()
    kit.users.gate = threading.Event()
    results = [
        asyncio.create_task(kit.checks.check("joe", b"wrong%d" % n)) for n in range(4)
    ]
    done, _ = await asyncio.wait(results, return_when=asyncio.FIRST_COMPLETED)
    while len(done) < 2:
        done, _ = await asyncio.wait(results, timeout=0.01)
    assert [task.result() for task in done] == [Busy(), Busy()]
    kit.users.gate.set()
    finished = await asyncio.gather(*results)
    assert sorted(map(str, finished)) == ["Busy()", "Busy()", "Wrong()", "Wrong()"]
    assert await kit.checks.check("joe", b"right") == Ok("joe")


async def test_who_is_remembered_does_not_wait(kit: Kit) -> None:
    assert await kit.checks.check("joe", b"right") == Ok("joe")
    kit.users.gate = threading.Event()
    flood = [asyncio.create_task(kit.checks.check("x", b"y")) for _ in range(2)]
    assert await kit.checks.check("joe", b"right") == Ok("joe")
    kit.users.gate.set()
    await asyncio.gather(*flood)


async def test_a_client_that_gives_up_leaves_its_place(kit: Kit) -> None:
    await kit.checks.refresh()
    kit.users.gate = threading.Event()
    for _ in range(5):
        task = asyncio.create_task(kit.checks.check("joe", b"wrong"))
        await asyncio.wait([task], timeout=0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    kit.users.gate.set()
    assert await kit.checks.check("joe", b"right") == Ok("joe")


async def test_an_error_in_the_file_is_told_and_the_old_users_stay(kit: Kit) -> None:
    assert await kit.checks.check("joe", b"right") == Ok("joe")
    add_user(kit.path, User("betty"))
    with open(kit.path, "a") as file:  # noqa: ASYNC230 - a test may wait
        file.write("joe\n")
    for _ in range(2):
        assert await kit.checks.check("joe", b"right") == Ok("joe")
    (event,) = kit.events
    assert isinstance(event, TableRefused)
    assert (event.path, event.line) == (kit.path, 4)
    assert "twice" in event.error


@pytest.mark.parametrize(
    ("threads", "cores", "workers", "expected"),
    [(0, 8, 2, 4), (0, 2, 2, 1), (0, 2, 8, 1), (0, 4, 0, 4), (3, 2, 2, 3)],
)
def test_threads(threads: int, cores: int, workers: int, expected: int) -> None:
    assert threads_for(AuthSettings(threads=threads), cores, workers) == expected


async def test_logins_come_back_later_while_no_users_are_known(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text("joe\njoe\n")
    made = Kit(str(path))
    backend = UsersFile(made.users, made.checks)
    try:
        for found in (
            await backend.check_password("joe", b"right"),
            await backend.find_user("joe"),
            await backend.find_verifier("joe"),
            await backend.find_secret("joe"),
        ):
            assert isinstance(found, Unavailable)
            assert "joe" in found.reason
        path.unlink()
        add_user(str(path), User("joe", (HASH,)))
        assert await backend.check_password("joe", b"right") == Known("joe")
        assert isinstance(await backend.check_password("joe", b"x"), Unknown)
        path.write_text("joe\njoe\n")
        assert await backend.check_password("joe", b"right") == Known("joe")
        assert isinstance(await backend.find_user("betty"), Unknown)
    finally:
        made.checks.close()
