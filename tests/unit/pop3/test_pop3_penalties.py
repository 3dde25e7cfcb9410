"""What wrong passwords cost in POP3: by address, and by user together with SMTP."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from postroom.auth.penalties import Penalties
from postroom.auth.settings import AuthSettings
from postroom.limits.shared import SharedCounters
from postroom.mail.envelope import Origin
from postroom.mail.now import SECOND_US, Now
from postroom.mailbox.maildir import Maildirs
from postroom.mailbox.settings import MailboxSettings
from postroom.net.stream import Stream
from postroom.observe.events import AnyEvent, LoggedIn, LoginFailed
from postroom.pop3.settings import Pop3Settings
from postroom.services.retrieve import RetrieveService, RetrieveTools
from postroom.testing.streams import stream_pair

BARRED = "-ERR [SYS/TEMP] too many failed logins, try again later"
WRONG = "-ERR [AUTH] wrong user or password"
GUESSER, OTHER = "192.0.2.1", "192.0.2.2"


class Client:
    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.rest = b""

    async def line(self) -> str:
        while b"\r\n" not in self.rest:
            self.rest += await self.stream.read() or b"(gone)\r\n"
        line, _, self.rest = self.rest.partition(b"\r\n")
        return line.decode()

    async def ask(self, command: str) -> str:
        self.stream.write(f"{command}\r\n".encode())
        return await self.line()

    async def tries(self, user: str, password: str) -> str:
        await self.ask(f"USER {user}")
        return await self.ask(f"PASS {password}")


class Site:
    """A service whose clients need not wait; ``waited`` is how long they should."""

    def __init__(self, path: Path, pool: ThreadPoolExecutor) -> None:
        self.pool = pool
        self.store = Maildirs(MailboxSettings(path=f"{path}/{{user}}"), "mx.test")
        self.counters = SharedCounters.private()
        self.penalties = Penalties(
            AuthSettings(failures_per_user=3), self.counters, lambda: ("home.test",)
        )
        self.events: list[AnyEvent] = []
        self.waited: list[float] = []
        self.now_us = 1_000 * SECOND_US
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()

    async def check(self, user: str, password: str, origin: Origin) -> str | None:
        if user == "waits":
            self.asked.set()
            await self.go_on.wait()
        return user.partition("@")[0].lower() if password == "secret" else None

    def told(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @asynccontextmanager
    async def client(self, settings: Pop3Settings, ip: str) -> AsyncIterator[Client]:
        tools = RetrieveTools(
            store=self.store,
            pool=self.pool,
            authenticate=self.check,
            counters=self.counters,
            emit=self.events.append,
            clock=lambda: Now(0, self.now_us),
            penalties=self.penalties,
        )
        async with stream_pair() as (ours, theirs):
            ours.peer_ip, ours.is_tls = ip, True
            service = RetrieveService(settings, tools)
            task = asyncio.create_task(service.serve(ours, "test"))
            made = Client(theirs)
            await made.line()
            try:
                yield made
            finally:
                theirs.close()
                await asyncio.wait([task], timeout=30)
                task.result()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with ThreadPoolExecutor(2) as pool:
        made = Site(tmp_path, pool)

        async def pause(stream: Stream, wait_us: int) -> bool:
            made.waited.append(wait_us / SECOND_US)
            return False

        monkeypatch.setattr(Stream, "pause", pause)
        yield made


async def test_wrong_passwords_are_answered_late(site: Site) -> None:
    async with site.client(Pop3Settings(), GUESSER) as client:
        for user in ("joe", "betty", "nobody"):
            assert await client.tries(user, "x") == WRONG
    assert site.waited == [2.0, 2.0, 2.0]


async def test_an_address_that_fails_too_often_is_not_heard(site: Site) -> None:
    settings = Pop3Settings(login_failures_per_client=2, login_failures_max=9)
    async with site.client(settings, GUESSER) as client:
        for _ in range(2):
            assert await client.tries("joe", "x") == WRONG
        for password in ("x", "secret"):
            assert await client.tries("joe", password) == BARRED
    assert len(site.waited) == len(site.told(LoginFailed)) == 2
    async with site.client(settings, OTHER) as other:
        assert (await other.tries("joe", "secret")).startswith("+OK")
    assert len(site.told(LoggedIn)) == 1
    site.now_us += settings.login_failures_period // 2 + 1
    async with site.client(settings, GUESSER) as client:
        assert (await client.tries("betty", "secret")).startswith("+OK")


async def test_what_came_of_guesses_made_side_by_side_is_not_told(site: Site) -> None:
    settings = Pop3Settings(login_failures_per_client=1)
    async with (
        site.client(settings, GUESSER) as one,
        site.client(settings, GUESSER) as two,
    ):
        guess = asyncio.create_task(two.tries("waits", "secret"))
        await site.asked.wait()
        assert await one.tries("joe", "x") == WRONG
        site.go_on.set()
        assert await guess == BARRED
    assert not site.told(LoggedIn)


async def test_a_user_who_is_guessed_at_by_smtp_is_slow_here_too(site: Site) -> None:
    for _ in range(2):
        site.penalties.failed("192.0.2.9", "JOE@home.test", site.now_us)
    async with site.client(Pop3Settings(), GUESSER) as client:
        for name in ("joe", "joe@home.test"):
            assert await client.tries(name, "x") == WRONG
        assert site.waited == [2.0, 20.0]
        assert (await client.tries("joe", "secret")).startswith("+OK")
        assert site.waited == [2.0, 20.0, 20.0]
    async with site.client(Pop3Settings(), OTHER) as client:
        assert (await client.tries("betty", "secret")).startswith("+OK")
    assert site.waited == [2.0, 20.0, 20.0]
    assert site.penalties.delay_of("joe", site.now_us) == 20 * SECOND_US
