"""Processes killed at bad moments: nothing that was acknowledged is lost."""

import asyncio
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from postroom.testing.caller import Caller
from postroom.testing.host import Host
from postroom.testing.killing import Killing, killed_host
from postroom.testing.ledger import (
    Ledger,
    Load,
    audit,
    audit_at_rest,
    entries_of,
    id_of,
    letter,
    mail_of,
)
from postroom.testing.world import QUICK, World, until, workers_of

DOMAIN = "crash.test"
BETTY = [f"betty@{DOMAIN}"]


@pytest.fixture(scope="module")
def crashing(world: World) -> Iterator[Host]:
    """A host that is soon up again."""
    world.name(DOMAIN, 7)
    outbound = {"content_timeout": "20s", "quit_timeout": "200ms"}
    with world.host(DOMAIN, 7, {**QUICK, "outbound": outbound}) as host:
        yield host


def kill(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def await_others(host: Host, gone: list[int]) -> None:
    """Wait until new workers stand in the place of those that were killed."""
    until("new workers", lambda: _are_others(host, gone), host)


def _are_others(host: Host, gone: list[int]) -> bool:
    pids = workers_of(host)
    ready = all(f"(pid {pid}) is ready" in host.log for pid in pids)
    return len(pids) == 2 and ready and not set(pids) & set(gone)


def accept_one(world: World, ledger: Ledger, name: str, recipients: list[str]) -> None:
    load = Load(ledger, world.ip(7), world.smtp_port, f"betty@{DOMAIN}")
    asyncio.run(load.send([name], recipients))


def test_killed_within_data(world: World, crashing: Host) -> None:
    ledger, pids = Ledger("within-data"), workers_of(crashing)
    with Caller(world.ip(7), world.smtp_port) as caller:
        caller.hello()
        for command in ("MAIL FROM:<a@b.example>", f"RCPT TO:<{BETTY[0]}>", "DATA"):
            caller.ask(command)
        caller.send(letter("within-data-1", 300_000))
        kill(pids)
        assert caller.is_hung_up()
    await_others(crashing, pids)
    accept_one(world, ledger, "within-data-2", BETTY)
    found = audit_at_rest(ledger, {DOMAIN: crashing})
    assert found.unasked == found.duplicates == 0
    for number in range(2):  # what was half written is gone
        assert not list(
            (crashing.directory / f"spool/shard-00{number}/bodies").iterdir()
        )


def test_killed_within_a_delivery(world: World, crashing: Host) -> None:
    """The peer has the content, its reply never comes: it is sent again."""
    ledger = Ledger()
    world.name("slow.test", 8)
    with world.peer(8) as peer:
        peer.misbehave(".", "hangs")
        accept_one(world, ledger, "hanging", ["joe@slow.test"])
        until("the content", lambda: peer.messages, crashing)
        assert not audit(ledger, {DOMAIN: crashing}).missing
        pids = workers_of(crashing)
        kill(pids)
        peer.behave()
        await_others(crashing, pids)
        until("the content again", lambda: peer.messages, crashing)
        assert [id_of(one) for one in peer.messages] == ["hanging"]
    until("an empty queue", lambda: not entries_of(crashing), crashing)


@pytest.mark.timeout(300)
def test_killed_at_random(world: World) -> None:
    """Twenty kills of workers and supervisors while clients hand in mail."""
    seed = int(os.environ.get("POSTROOM_TEST_SEED", "20"))
    print(f"POSTROOM_TEST_SEED={seed}")
    with killed_host(world) as host:
        figures = asyncio.run(Killing(host, world, seed).run(20))
        print(figures.to_text())
        assert figures.why == []
        assert figures.kills["supervisor"] == 4
        assert figures.promises >= 100
        assert host.stop() == 0


POISON = """
import os
from postroom.agents.mailbox import MailboxAgent

deliver = MailboxAgent.deliver

async def crash(agent, attempt):
    if attempt.envelope.sender.local == "poison" and not os.path.exists("cured"):
        os._exit(9)
    return await deliver(agent, attempt)

MailboxAgent.deliver = crash
"""


def test_a_message_that_kills_its_worker(world: World) -> None:
    """It is put aside at the third time; the rest of the mail flows all along."""
    domain = "poison.test"
    betty = [f"betty@{domain}"]
    world.name(domain, 9)
    ledger = Ledger()
    host = world.host(domain, 9, {**QUICK, "policy": {"module": "policy.py"}})
    cure = host.directory / "cured"
    (host.directory / "policy.py").write_text(POISON.replace("cured", str(cure)))
    with host:
        with Caller(world.ip(9), world.smtp_port) as caller:
            caller.hello()
            said = caller.give(f"poison@{domain}", betty, letter("poison"))
            assert said.code == 250
        ledger.promise("poison", betty)
        load = Load(ledger, world.ip(9), world.smtp_port, betty[0])
        numbers = iter(range(10_000))

        def is_shunted() -> bool:
            asyncio.run(load.send([f"good{next(numbers)}"], betty))
            return "shunted" in host.log

        until("shunt", is_shunted, host)
        audit_but = set(ledger.promised) - {("poison", betty[0])}
        until(
            "the good mail",
            lambda: (
                {one.id for one in audit_but}
                <= {id_of(one) for one in mail_of(host, "betty")}
            ),
            host,
        )
        assert host.log.count("ended with status 9") == 3
        (entry,) = entries_of(host)
        (recipient,) = entry["recipients"]
        assert recipient["state"] == "shunted"
        assert recipient["status_text"] == "in hand at 3 crashes of its worker"
        cure.touch()
        again = host.run("postroom", "queue", "retry", "--state", "shunted")
        assert again.stdout == b"1 message made due\n"
        assert audit_at_rest(ledger, {domain: host}).duplicates == 0


HOOK = """
import os
from postroom import hook

@hook.outcome
def crash(session, outcome):
    if outcome.sender.local == "poison":
        os._exit(9)
"""


def test_a_hook_that_kills_its_worker_after_a_deferral(world: World) -> None:
    """It is told once the attempt is settled; the message goes aside all the same."""
    domain = "hooked.test"
    world.name(domain, 9)
    world.name("nobody.test", 19)  # where nobody listens
    host = world.host(domain, 9, {**QUICK, "policy": {"module": "policy.py"}})
    (host.directory / "policy.py").write_text(HOOK)
    ledger = Ledger()
    with host:
        load = Load(ledger, world.ip(9), world.smtp_port, f"poison@{domain}")
        asyncio.run(load.send(["hooked"], ["joe@nobody.test"]))
        until("shunt", lambda: "shunted" in host.log, host)
        assert host.log.count("ended with status 9") == 3
        (entry,) = entries_of(host)
        assert [one["state"] for one in entry["recipients"]] == ["shunted"]
        assert not audit(ledger, {domain: host}).missing


def _since(host: Host, mark: int) -> str:
    return host.log[mark:]


def test_a_second_server_while_old_workers_live(world: World) -> None:
    """The supervisor is killed; its workers finish; the next server takes over."""
    domain = "orphan.test"
    world.name(domain, 10)
    ledger = Ledger()
    host = world.host(domain, 10, QUICK)
    host.start()
    with Caller(world.ip(10), world.smtp_port) as caller:
        caller.hello()
        for command in ("MAIL FROM:<a@b.example>", f"RCPT TO:<betty@{domain}>", "DATA"):
            caller.ask(command)
        caller.send(letter("orphan"))
        old = workers_of(host)
        mark = len(host.log)
        assert host.process is not None
        host.process.kill()
        host.process.wait()
        with ThreadPoolExecutor(1) as beside:
            starting = beside.submit(host.start, takes_over=True)
            until("the new supervisor", lambda: "starting" in _since(host, mark), host)
            caller.send(b".\r\n")
            assert caller.reply().code == 250  # the old worker finishes what it has
            ledger.promise("orphan", [f"betty@{domain}"])
            starting.result()
    assert not set(old) & set(workers_of(host))
    load = Load(ledger, world.ip(10), world.smtp_port)
    asyncio.run(load.send(["new"], [f"betty@{domain}"]))
    audit_at_rest(ledger, {domain: host})
    assert host.stop() == 0
