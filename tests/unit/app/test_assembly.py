"""Generations: built whole or not at all, and closed when nobody holds them."""

import asyncio
import gc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from postroom.agents.mailbox import MailboxAgent
from postroom.app.assembly import Built, Ground, build, retire, unchangeable
from postroom.auth.users import Users
from postroom.config.load import parse
from postroom.config.settings import Config
from postroom.limits.shared import SharedCounters
from postroom.mail.address import Address
from postroom.mailbox.stores import open_store
from postroom.observe.events import AnyEvent
from postroom.testing.workbench import JumpingClock

BASE = """
hostname = "gonzo.test"
users_file = "users"
[spool]
directory = "spool"
[mailbox]
path = "mail/{user}"
[dns]
nameservers = ["127.0.0.1:5353"]
[route]
"""


class Yard:
    """Builds generations of a configuration in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.events: list[AnyEvent] = []
        (directory / "users").write_text("")
        config = self.config()
        self.users = Users(config.users_file, config.auth)
        self.ground = Ground(
            store=open_store(config.mailbox, config.hostname),
            pool=ThreadPoolExecutor(1),
            users=self.users,
            counters=SharedCounters.private(),
            emit=self.events.append,
            clock=JumpingClock(),
            window=lambda hop: 1,
            bind=lambda hop, destination: None,
        )

    def config(self, more: str = "") -> Config:
        return parse(BASE + more, str(self.directory / "postroom.toml"))

    def build(
        self, more: str = "", before: Built | None = None, number: int = 1
    ) -> Built:
        return build(number, self.config(more), self.ground, before)


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


async def test_a_small_configuration_has_all_agents(yard: Yard) -> None:
    built = yard.build()
    assert sorted(built.generation.agents) == ["discard", "lmtp", "mailbox", "smtp"]
    assert built.own.is_name("gonzo.test")
    await built.aclose()


LISTENING = {
    "on one address": ("127.0.1.1:2525", ["127.0.1.1"]),
    "on every IPv4 address": (
        "0.0.0.0:2525",
        ["127.0.0.1", "127.0.1.1", "127.0.0.9", "::1"],
    ),
    "on every address": (
        "[::]:2525",
        ["127.0.0.1", "127.0.1.1", "127.0.0.9", "::1"],
    ),
}


@pytest.mark.parametrize(("where", "ours"), LISTENING.values(), ids=LISTENING)
async def test_who_we_are(yard: Yard, where: str, ours: list[str]) -> None:
    """A domain whose mail host is ourselves must not make mail go round."""
    built = yard.build(f'[[listen]]\naddress = "{where}"\nservice = "smtp"\n')
    asked = ["127.0.0.1", "127.0.1.1", "127.0.0.9", "::1", "192.0.2.77"]
    assert [one for one in asked if built.own.is_address(one, 2525)] == ours
    for unspecified in ("0.0.0.0", "::"):  # who calls it reaches this machine
        assert built.own.is_address(unspecified, 2525)
    assert not built.own.is_address("127.0.1.1", 10025)
    await built.aclose()


async def test_who_we_are_behind_a_router(yard: Yard) -> None:
    """Its port is another than ours, and our MX has another name than we have."""
    built = yard.build(
        'own_hosts = ["MX.Gonzo.test", "192.0.2.25", "2001:DB8::25"]\n'
        '[[listen]]\naddress = "127.0.1.1:2525"\n'
    )
    own = built.own
    assert own.is_name("mx.gonzo.test")
    assert not own.is_name("192.0.2.25")
    assert own.is_address("192.0.2.25", 25)
    assert own.is_address("2001:db8:0::25", 25)
    assert own.is_address("::ffff:192.0.2.25", 25)
    assert not own.is_address("192.0.2.26", 25)
    assert not own.is_address("127.0.1.1", 25)
    await built.aclose()


MAILBOXES = {
    "of a domain": ("joe@b.test", "joe@b.test"),
    "of the hostname": ("Joe+list@gonzo.test", "joe@gonzo.test"),
    "of no domain": ("joe", "joe@home.test"),
    "of this machine": ("joe@localhost", "joe@home.test"),
    "of a literal": ("joe@[127.0.0.1]", "joe@home.test"),
}


@pytest.mark.parametrize("case", MAILBOXES)
async def test_which_mailbox_an_address_has(yard: Yard, case: str) -> None:
    address, mailbox = MAILBOXES[case]
    (yard.directory / "users").write_text("joe\n")
    yard.users.refresh()
    config = yard.config('local_domains = ["b.test"]\n')
    config = msgspec.structs.replace(
        config,
        mailbox=msgspec.structs.replace(config.mailbox, default_domain="home.test"),
    )
    built = build(1, config, yard.ground, None)
    agent = built.generation.agents["mailbox"]
    assert isinstance(agent, MailboxAgent)
    assert str(agent.which(Address.from_text(address))) == mailbox
    await built.aclose()


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def broken(:\n", "SyntaxError"),
        ("import nosuchmodule\n", "ModuleNotFoundError"),
        ("raise SystemExit(3)\n", "SystemExit"),
        ("from postroom import hook\n@hook.rcpt\ndef one(x): pass\n", "two parameters"),
    ],
)
async def test_a_site_that_cannot_be_loaded_is_a_sentence(
    yard: Yard, source: str, reason: str
) -> None:
    (yard.directory / "site.py").write_text(source)
    with pytest.raises(ValueError, match=reason) as error:
        yard.build('[policy]\nmodule = "site.py"\n')
    assert "site.py" in str(error.value)


async def test_a_table_that_is_broken_keeps_the_version_before(yard: Yard) -> None:
    aliases = yard.directory / "aliases"
    aliases.write_text("all: joe\n")
    before = yard.build('aliases = "aliases"\n')
    aliases.write_text("all: joe\n: nobody\n")
    after = yard.build('aliases = "aliases"\n', before, 2)
    assert after.aliases is before.aliases
    assert after.aliases is not None
    assert after.aliases.get("all") == ("joe",)
    assert yard.events
    await after.aclose()


async def test_another_table_file_is_another_table(yard: Yard) -> None:
    for name in ("one", "two"):
        (yard.directory / name).write_text(f"all: {name}\n")
    before = yard.build('aliases = "one"\n')
    after = yard.build('aliases = "two"\n', before, 2)
    assert after.aliases is not before.aliases
    assert before.aliases is not None
    assert before.aliases.get("all") == ("one",)


CHANGES = {
    "": [],
    'smart_host = "[127.0.0.1]:25"\n': [],
    '[receive]\nbanner = "hi"\n': [],
    '[receive]\ntransaction_memory_max = "1MiB"\n': ["receive.transaction_memory_max"],
    '[pop3]\nloss_timeout = "1m"\n': ["pop3.loss_timeout"],
    "[deliver]\nlanes = 3\n": ["deliver"],
    '[schedule.retry]\nexpire = "1d"\n': ["schedule"],
    '[auth]\nargon2_memory = "1MiB"\n': ["auth"],
}


@pytest.mark.parametrize("more", CHANGES)
def test_what_only_a_restart_can_change(yard: Yard, more: str) -> None:
    assert unchangeable(yard.config(), yard.config(more)) == CHANGES[more]


class Closing:
    """Notes when a generation is closed, in the place of an agent."""

    is_closed = False

    async def aclose(self) -> None:
        self.is_closed = True


def watched(yard: Yard) -> tuple[Built, Closing]:
    built, closing = yard.build(), Closing()
    agents = {"smtp": closing}
    generation = built.generation._replace(agents=agents)  # type: ignore[arg-type]
    return built._replace(generation=generation), closing


async def settle() -> None:
    gc.collect()
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_generation_is_closed_when_the_last_has_let_go(yard: Yard) -> None:
    built, closing = watched(yard)
    held = [built.generation, built.generation]
    task = asyncio.create_task(retire(built))
    del built
    await settle()
    assert not closing.is_closed
    held.pop()
    await settle()
    assert not closing.is_closed
    held.clear()
    await settle()
    assert closing.is_closed
    await task


async def test_a_generation_that_nobody_holds_is_closed_at_once(yard: Yard) -> None:
    built, closing = watched(yard)
    task = asyncio.create_task(retire(built))
    del built
    await settle()
    assert closing.is_closed
    await task


async def test_at_the_end_it_is_closed_whoever_holds_it(yard: Yard) -> None:
    built, closing = watched(yard)
    held = built.generation
    task = asyncio.create_task(retire(built))
    await settle()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert closing.is_closed
    assert held.number == 1
