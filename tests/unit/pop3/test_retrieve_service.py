import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event
from typing import Any

import msgspec
import pytest

from postroom.limits.shared import SharedCounters
from postroom.mail.envelope import Origin
from postroom.mail.ids import QueueIds
from postroom.mail.units import Duration, Size
from postroom.mailbox.maildir import Maildirs
from postroom.mailbox.maildir_session import MaildirSession
from postroom.mailbox.name import MailboxName
from postroom.mailbox.settings import MailboxSettings
from postroom.mailbox.store import InUse, Parcel, Unusable
from postroom.net.clock import read_now
from postroom.net.connect import wrap
from postroom.net.stream import Stream
from postroom.observe.events import (
    AnyEvent,
    CommandRejected,
    Lifecycle,
    LoggedIn,
    LoginFailed,
    MailboxSession,
    SessionClosed,
    SessionRefused,
)
from postroom.pop3.settings import Pop3Settings
from postroom.services.mailbox_reader import MailboxReader
from postroom.services.retrieve import LoginUnavailable, RetrieveService, RetrieveTools

FAST = Pop3Settings(
    login_failure_delay=Duration(0), login_failure_delay_max=Duration(0)
)


async def authenticate(
    user: str, password: str, origin: Origin
) -> str | LoginUnavailable | None:
    if user == "slow":
        return LoginUnavailable("queue is full")
    return user.partition("@")[0].lower() if password == "secret" else None


class Office:
    """A store with mail for joe, and a service over it."""

    def __init__(self, path: Path, pool: ThreadPoolExecutor) -> None:
        self.events: list[AnyEvent] = []
        self.counters = SharedCounters.private()
        self.store = Maildirs(MailboxSettings(path=f"{path}/{{user}}"), "mx.test")
        self.ids = QueueIds(0)
        self.pool = pool
        self.clock = read_now
        self.tasks: list[asyncio.Task[None]] = []
        self.streams: list[Stream] = []

    def deliver(self, *contents: bytes) -> None:
        for content in contents:
            queue_id = self.ids.next(1_767_225_600_000_000)
            name = MailboxName("joe")
            arrival_us = 1_767_225_600_000_000
            self.store.deliver([Parcel(name, queue_id, 0, "", arrival_us, content)])

    def left(self) -> int:
        session = self.store.open(MailboxName("joe"))
        assert not isinstance(session, InUse | Unusable)
        count = len(session.sizes)
        session.close()
        return count

    def told(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @asynccontextmanager
    async def client(
        self, settings: Pop3Settings = FAST, peer_ip: str = "", *, is_tls: bool = False
    ) -> AsyncIterator["Client"]:
        tools = RetrieveTools(
            store=self.store,
            pool=self.pool,
            authenticate=authenticate,
            counters=self.counters,
            emit=self.events.append,
            clock=lambda: self.clock(),
            default_domain="home.test",
            domains=lambda: ("home.test", "b.test"),
        )
        ours, theirs = socket.socketpair()
        stream = await wrap(ours)
        stream.peer_ip, stream.is_tls = peer_ip, is_tls
        self.streams.append(stream)
        service = RetrieveService(settings, tools)
        task = asyncio.create_task(service.serve(stream, "test"))
        self.tasks.append(task)
        reader, writer = await asyncio.open_connection(sock=theirs)
        try:
            yield Client(reader, writer)
        finally:
            writer.close()
            await asyncio.wait([task], timeout=10)
            if not task.cancelled():
                task.result()


class Client:
    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *commands: str) -> None:
        self.writer.write("".join(f"{c}\r\n" for c in commands).encode())

    async def line(self) -> str:
        return (await self.reader.readline()).decode().removesuffix("\r\n")

    async def ask(self, command: str) -> str:
        self.send(command)
        return await self.line()

    async def many(self) -> bytes:
        """The lines of a multi-line response, unstuffed."""
        data = b""
        while (line := await self.reader.readline()) != b".\r\n":
            assert line, "connection lost"
            data += line.removeprefix(b".")
        return data

    async def login(self, user: str = "joe") -> str:
        await self.line()
        await self.ask(f"USER {user}")
        return await self.ask("PASS secret")


@pytest.fixture
def office(tmp_path: Path) -> Iterator["Office"]:
    with ThreadPoolExecutor(2) as pool:
        yield Office(tmp_path, pool)


LETTER = b"Subject: hi\r\n\r\nhello\r\n.\r\n..\r\n"


async def test_a_session(office: Office) -> None:
    office.deliver(LETTER, LETTER * 2)
    async with office.client() as client:
        assert await client.login("Joe") == f"+OK 2 messages ({3 * len(LETTER)} octets)"
        assert await client.ask("STAT") == f"+OK 2 {3 * len(LETTER)}"
        assert await client.ask("RETR 2") == f"+OK {2 * len(LETTER)} octets"
        assert await client.many() == LETTER * 2
        assert await client.ask("TOP 1 1") == "+OK top of message follows"
        assert await client.many() == b"Subject: hi\r\n\r\nhello\r\n"
        assert await client.ask("DELE 2") == "+OK message 2 deleted"
        assert await client.ask("QUIT") == "+OK signing off (1 left)"
        assert await client.reader.read() == b""
    assert office.left() == 1
    (told,) = office.told(MailboxSession)
    assert told.user == "joe"
    counts = (told.retrieved, told.retrieved_octets, told.deleted, told.left)
    assert counts == (1, 2 * len(LETTER), 1, 1)
    assert office.told(LoggedIn)[0].user == "joe"
    assert office.told(SessionClosed)[0].how == "quit"
    assert office.counters.count("pop3") == 0


async def test_all_in_one_packet(office: Office) -> None:
    count = 100
    office.deliver(*[b"N: %d\r\n\r\n" % i for i in range(count)])
    async with office.client() as client:
        numbers = range(1, count + 1)
        client.send(
            "USER joe",
            "PASS secret",
            *[f"RETR {n}" for n in numbers],
            *[f"DELE {n}" for n in numbers],
            "QUIT",
        )
        for _ in range(3):
            assert (await client.line()).startswith("+OK")
        for i in range(count):
            assert (await client.line()).startswith("+OK")
            assert await client.many() == b"N: %d\r\n\r\n" % i
        for _ in range(count):
            assert (await client.line()).startswith("+OK message")
        assert await client.line() == "+OK signing off (mailbox empty)"
    assert office.left() == 0


@pytest.mark.parametrize(
    "order",
    [[5, 4, 3, 2, 1, 0], [0, 0, 1, 1, 5, 0], [3, 4, 5, 0, 1, 2], [0, 2, 4, 1, 3, 5]],
)
async def test_any_order_of_retrieval(office: Office, order: list[int]) -> None:
    office.deliver(*[b"N: %d\r\n\r\n" % i for i in range(6)])
    async with office.client() as client:
        await client.login()
        for i in order:
            assert (await client.ask(f"RETR {i + 1}")).startswith("+OK")
            assert await client.many() == b"N: %d\r\n\r\n" % i


async def test_large_messages_among_small(office: Office) -> None:
    large = b"A: b\r\n\r\n" + b".line that is long enough\r\n" * 20_000
    office.deliver(LETTER, large, LETTER, large)
    settings = Pop3Settings(read_ahead_octets=Size(1000))
    async with office.client(settings) as client:
        await client.login()
        for n, content in enumerate((LETTER, large, LETTER, large), 1):
            assert await client.ask(f"RETR {n}") == f"+OK {len(content)} octets"
            assert await client.many() == content
        assert (await client.ask("TOP 4 2")).startswith("+OK")
        assert await client.many() == large[:62]
        assert (await client.ask("STAT")).startswith("+OK 4 ")


LOSSES: dict[str, Callable[[Office, Client], Coroutine[Any, Any, str]]] = {}


def loss(function: Callable[[Office, Client], Coroutine[Any, Any, str]]) -> None:
    LOSSES[function.__name__] = function


@loss
async def client_ends(office: Office, client: Client) -> str:
    client.writer.write_eof()
    assert await client.reader.read() == b""
    return "lost"


@loss
async def client_resets(office: Office, client: Client) -> str:
    client.writer.transport.abort()
    return "lost"


@loss
async def time_out(office: Office, client: Client) -> str:
    office.streams[0].expire()
    assert await client.reader.read() == b""
    return "timeout"


@loss
async def server_ends(office: Office, client: Client) -> str:
    office.streams[0].interrupt()
    assert b"[SYS/TEMP]" in await client.reader.read()
    return "shutdown"


@loss
async def too_many_errors(office: Office, client: Client) -> str:
    client.send(*["X"] * 20)
    assert b"too many errors" in await client.reader.read()
    return "errors"


@pytest.mark.parametrize("how", LOSSES)
async def test_without_quit_nothing_is_deleted(office: Office, how: str) -> None:
    office.deliver(LETTER, LETTER)
    async with office.client() as client:
        await client.login()
        await client.ask("DELE 1")
        expected = await LOSSES[how](office, client)
    assert office.told(SessionClosed)[0].how == expected
    assert office.left() == 2  # and the lock is free


async def test_in_use(office: Office) -> None:
    async with office.client() as first:
        await first.login()
        async with office.client() as second:
            assert (await second.login()).startswith("-ERR [IN-USE] ")
            assert await first.ask("QUIT") == "+OK signing off (mailbox empty)"
            await second.ask("USER joe")
            assert (await second.ask("PASS secret")).startswith("+OK")
    (told,) = office.told(CommandRejected)
    reply = "-ERR [IN-USE] mailbox is open in another session"
    assert (told.verb, told.reply, told.origin.login) == ("PASS", reply, "joe")


async def test_wrong_passwords(office: Office) -> None:
    async with office.client() as client:
        await client.line()
        for _ in range(3):
            assert await client.ask("USER nobody") == "+OK password required"
            assert await client.ask("PASS x") == "-ERR [AUTH] wrong user or password"
        assert await client.reader.read() == b""
    assert [event.user for event in office.told(LoginFailed)] == ["nobody"] * 3
    assert office.told(SessionClosed)[0].how == "errors"


async def test_checks_that_cannot_be_made(office: Office) -> None:
    async with office.client() as client:
        assert (await client.login("slow")).startswith("-ERR [SYS/TEMP] ")
        await client.ask("USER joe")
        assert (await client.ask("PASS secret")).startswith("+OK")
    assert office.told(LoginFailed)[0].reason == "queue is full"


async def test_login_delay(office: Office) -> None:
    settings = Pop3Settings(login_delay=Duration.from_text("1h"))
    async with office.client(settings) as client:
        assert (await client.login()).startswith("+OK")
        await client.ask("QUIT")
    async with office.client(settings) as client:
        assert (await client.login()).startswith("-ERR [LOGIN-DELAY] ")
    async with office.client(settings) as client:
        assert (await client.login("betty")).startswith("+OK")


BY_DOMAIN = {
    "no domain": ("joe", "home.test"),
    "one of ours": ("joe@b.test", "b.test"),
    "in another case": ("joe@B.Test", "b.test"),
    "not ours": ("joe@c.test", "home.test"),
    "an empty one": ("joe@", "home.test"),
    "a path": ("joe@../b.test", "home.test"),
}


@pytest.mark.parametrize("case", BY_DOMAIN)
async def test_a_login_opens_the_mailbox_of_its_domain(
    office: Office, tmp_path: Path, case: str
) -> None:
    login, domain = BY_DOMAIN[case]
    path = f"{tmp_path}/{{domain}}/{{user}}"
    office.store = Maildirs(MailboxSettings(path=path), "mx.test")
    async with office.client() as client:
        assert (await client.login(login)).startswith("+OK")
    assert os.listdir(tmp_path) == [domain]
    assert os.listdir(tmp_path / domain) == ["joe"]


async def test_a_mailbox_in_use_costs_no_login_delay(office: Office) -> None:
    settings = Pop3Settings(login_delay=Duration.from_text("1h"))
    held = office.store.open(MailboxName("joe", "home.test"))
    assert not isinstance(held, InUse | Unusable)
    async with office.client(settings) as client:
        assert (await client.login()).startswith("-ERR [IN-USE] ")
        held.close()
        await client.ask("USER joe")
        assert (await client.ask("PASS secret")).startswith("+OK")
        await client.ask("QUIT")
    async with office.client(settings) as client:
        assert (await client.login()).startswith("-ERR [LOGIN-DELAY] ")
        assert office.left() == 0  # and nobody has it


UNUSABLE = {
    "a name that is no mailbox": ("../x", "-ERR [SYS/PERM] "),
    "a file in the way": ("file", "-ERR [SYS/PERM] "),
}


@pytest.mark.parametrize("case", UNUSABLE)
async def test_unusable_mailboxes(office: Office, tmp_path: Path, case: str) -> None:
    user, reply = UNUSABLE[case]
    (tmp_path / "file").write_text("")
    async with office.client() as client:
        assert (await client.login(user)).startswith(reply)
        assert await client.ask("QUIT") == "+OK signing off"


@pytest.mark.parametrize("limit", ["sessions_max", "sessions_per_client_max"])
async def test_session_limits(office: Office, limit: str) -> None:
    settings = msgspec.structs.replace(FAST, **{limit: 1})
    async with office.client(settings) as first:
        await first.line()
        async with office.client(settings) as second:
            assert (await second.line()).startswith("-ERR [SYS/TEMP] too many")
            assert await second.reader.read() == b""
    assert [event.why for event in office.told(SessionRefused)] == [limit]
    async with office.client(settings) as third:
        assert (await third.line()).startswith("+OK")


async def test_an_ipv6_network_is_one_client(office: Office) -> None:
    settings = msgspec.structs.replace(FAST, sessions_per_client_max=1)
    async with office.client(settings, "2001:db8::1") as first:
        assert (await first.line()).startswith("+OK")
        async with office.client(settings, "2001:db8::2") as second:
            assert "from your address" in await second.line()
        async with office.client(settings, "2001:db8:0:1::1") as third:
            assert (await third.line()).startswith("+OK")


async def test_who_says_nothing_is_closed(office: Office) -> None:
    settings = msgspec.structs.replace(FAST, login_timeout=Duration(1))
    now = read_now()
    office.clock = lambda: now
    async with office.client(settings) as client:
        assert (await client.line()).startswith("+OK")
        assert await client.reader.read() == b""  # at the sweeper's next look
    assert office.told(SessionClosed)[0].how == "timeout"


@pytest.mark.parametrize("command", ["CAPA", "USER joe", "STAT"])
async def test_who_talks_and_does_not_log_in_is_closed(
    office: Office, command: str
) -> None:
    now = read_now()
    office.clock = lambda: now
    async with office.client() as client:
        await client.line()
        await client.ask("USER betty")
        now = msgspec.structs.replace(now, mono_us=now.mono_us + 180_000_000)
        client.send(command)
        assert await client.reader.read() == b""
    assert office.told(SessionClosed)[0].how == "timeout"


async def test_who_is_logged_in_has_time(office: Office) -> None:
    settings = msgspec.structs.replace(FAST, login_timeout=Duration.from_text("1m"))
    now = read_now()
    office.clock = lambda: now
    async with office.client(settings) as client:
        await client.login()
        now = msgspec.structs.replace(now, mono_us=now.mono_us + 3_600_000_000)
        assert await client.ask("NOOP") == "+OK"
        assert await client.ask("QUIT") == "+OK signing off (mailbox empty)"


async def test_a_message_far_longer_than_its_name_says(
    office: Office, tmp_path: Path
) -> None:
    office.deliver(LETTER)
    content = (b"A: %b\n" % (b"b" * 30_000)) * 100
    (tmp_path / "joe/new/1.x,S=1,W=2").write_bytes(content)
    async with office.client() as client:
        await client.login()
        assert await client.ask("RETR 1") == "+OK 2 octets"
        assert await client.many() == content.replace(b"\n", b"\r\n")
        assert await client.ask("RETR 2") == f"+OK {len(LETTER)} octets"
        assert await client.many() == LETTER


async def test_the_log_says_why_a_message_cannot_be_had(
    office: Office, tmp_path: Path
) -> None:
    office.deliver(LETTER, LETTER)
    (tmp_path / "joe/elsewhere").write_bytes(LETTER)
    async with office.client() as client:
        await client.login()
        for path in (tmp_path / "joe/new").iterdir():
            path.unlink()
            path.symlink_to(tmp_path / "joe/elsewhere")
        reply = await client.ask("RETR 1")
        assert reply == "-ERR [SYS/TEMP] message 1 cannot be read"
    (told,) = office.told(Lifecycle)
    expected = "POP3 session of joe: message 1 cannot be read: Too many levels"
    assert told.what.startswith(expected)


async def test_the_log_tells_of_deletions_that_failed(
    office: Office, tmp_path: Path
) -> None:
    office.deliver(LETTER, LETTER)
    async with office.client() as client:
        await client.login()
        path = next((tmp_path / "joe/new").iterdir())
        path.unlink()
        path.mkdir()
        await client.ask("DELE 1")
        await client.ask("DELE 2")
        reply = await client.ask("QUIT")
        assert reply == "-ERR [SYS/TEMP] some deleted messages not removed"
    (told,) = office.told(Lifecycle)
    assert told.what == "POP3 session of joe: 1 of 2 deletions could not be made"


async def test_a_vanished_message(office: Office, tmp_path: Path) -> None:
    office.deliver(LETTER, b"A: b\r\n\r\n" + b"x" * 2000 + b"\r\n", LETTER)
    settings = Pop3Settings(read_ahead_octets=Size(1000))
    async with office.client(settings) as client:
        await client.login()
        for path in (tmp_path / "joe/new").iterdir():
            path.unlink()
        for n in (1, 2, 3):
            reply = await client.ask(f"RETR {n}")
            assert reply == f"-ERR [SYS/TEMP] message {n} cannot be read"
        await client.ask("DELE 1")
        assert await client.ask("QUIT") == "+OK signing off (2 left)"


async def test_closing_goes_on_if_nobody_waits_for_it(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.deliver(*[LETTER] * 10)
    session = office.store.open(MailboxName("joe"))
    assert isinstance(session, MaildirSession)
    go_on, real = Event(), session.read

    def slow(first: int, count_max: int, octets_max: int) -> list[bytes | None]:
        go_on.wait(60)
        return real(first, count_max, octets_max)

    monkeypatch.setattr(session, "read", slow)
    reader = MailboxReader(session, office.pool, FAST)
    reading = asyncio.create_task(reader.whole(0))
    await asyncio.sleep(0)
    closing = asyncio.create_task(reader.aclose())
    await asyncio.sleep(0)
    reading.cancel()
    closing.cancel()
    await asyncio.wait([reading, closing])
    go_on.set()
    assert reader._closing is not None
    await asyncio.wait([reader._closing])
    assert office.left() == 10


async def test_a_cancelled_session_frees_the_mailbox(office: Office) -> None:
    office.deliver(*[LETTER] * 10)
    async with office.client() as client:
        await client.login()
        client.send("RETR 1")
        await client.line()
        office.tasks[0].cancel()
        await asyncio.wait(office.tasks)
        office.tasks.clear()
    assert office.left() == 10


PLAINTEXT = {
    "loopback v4": ("loopback", "127.0.1.2", False, True),
    "loopback v6": ("loopback", "::1", False, True),
    "unix": ("loopback", "", False, True),
    "elsewhere": ("loopback", "192.0.2.1", False, False),
    "elsewhere with tls": ("loopback", "192.0.2.1", True, True),
    "elsewhere allowed": ("always", "192.0.2.1", False, True),
    "loopback forbidden": ("never", "127.0.0.1", False, False),
    "tls although never": ("never", "127.0.0.1", True, True),
}


@pytest.mark.parametrize("case", PLAINTEXT)
async def test_plaintext(office: Office, case: str) -> None:
    setting, peer_ip, is_tls, is_taken = PLAINTEXT[case]
    settings = Pop3Settings(plaintext=setting)  # type: ignore[arg-type]
    async with office.client(settings, peer_ip, is_tls=is_tls) as client:
        await client.line()
        assert (await client.ask("USER joe")).startswith("+OK") is is_taken
