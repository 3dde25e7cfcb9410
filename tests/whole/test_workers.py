"""How many workers there are, and whose a shard is: changed, hung, contested."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

import pytest

from postroom.testing.caller import Caller
from postroom.testing.host import Host
from postroom.testing.ledger import (
    Ledger,
    Load,
    audit,
    audit_at_rest,
    entries_of,
    id_of,
    letter,
)
from postroom.testing.world import QUICK, World, until, workers_of

NUMBER, FAR_NUMBER = 45, 46


def sized(workers: int, **more: object) -> dict[str, dict[str, object]]:
    process = {**QUICK["process"], "workers": workers, **more}
    return {**{k: dict(v) for k, v in QUICK.items()}, "process": process}


def send(world: World, ledger: Ledger, names: list[str], to: list[str]) -> None:
    load = Load(ledger, world.ip(NUMBER), world.smtp_port, to[0])
    # One connection each: they come to different workers.
    for name in names:
        asyncio.run(load.send([name], to))


def shards_of(host: Host) -> list[int]:
    return sorted({int(entry["shard"]) for entry in entries_of(host)})


def holder_of(host: Host, shard: int) -> str:
    path: Path = host.directory / f"spool/shard-{shard:03}/lock"
    return path.read_text().strip()


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def runs(pid: int) -> bool:
    """Whether it has not ended; what nobody has reaped does not run."""
    path = Path(f"/proc/{pid}/stat")
    return path.exists() and ") Z" not in path.read_text()


def has_logged(host: Host, text: str) -> None:
    until(text, lambda: text in host.log, host)


def restart(world: World, domain: str, host: Host, workers: int) -> None:
    host.configure(world.config(domain, NUMBER, sized(workers)))
    host.start(takes_over=True)


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_three_then_one_then_two(world: World, end: str) -> None:
    """Mail of shards without a worker is delivered; empty shards are given back."""
    domain, far = f"{end}.number.test", f"{end}.far.test"
    world.name(domain, NUMBER)
    world.name(far, FAR_NUMBER)
    ledger = Ledger()
    joe = [f"betty@{domain}", f"joe@{far}"]
    host = world.host(domain, NUMBER, sized(3))

    def is_spread() -> bool:
        count = len(ledger.promised)
        send(world, ledger, [f"three{count + n}" for n in range(5)], joe)
        return shards_of(host) == [0, 1, 2]

    def leave() -> None:
        """End the server, cleanly or not, with mail that waits."""
        if end == "stopped":
            assert host.stop() == 0
            return
        assert host.process is not None
        pids = workers_of(host)
        host.process.kill()
        host.process.wait()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    host.start()
    try:
        until("mail in all shards", is_spread, host)
        leave()
        assert not audit(ledger, {domain: host}).missing

        restart(world, domain, host, 1)
        for number in (1, 2):
            has_logged(host, f"adopted shard {number}")
            assert holder_of(host, number) == str(workers_of(host)[0])
        assert shards_of(host) == [0, 1, 2]
        send(world, ledger, ["one"], joe)
        with world.peer(FAR_NUMBER) as peer:
            for number in (1, 2):
                has_logged(host, f"shard {number} is empty: given back")
                assert holder_of(host, number) == ""
            until("no mail", lambda: not entries_of(host), host)
            ledger.elsewhere += peer.messages
        send(world, ledger, ["late"], joe)
        leave()

        restart(world, domain, host, 2)
        assert [holder_of(host, n) for n in (0, 1)] == [str(p) for p in by_shard(host)]
        send(world, ledger, [f"two{n}" for n in range(9)], joe)
        until("two shards", lambda: shards_of(host) == [0, 1], host)
        with world.peer(FAR_NUMBER) as peer:
            until("no mail", lambda: not entries_of(host), host)
            ledger.elsewhere += peer.messages
        found = audit_at_rest(ledger, {domain: host})
        assert not found.missing
        arrived = [id_of(content) for content in ledger.elsewhere]
        assert sorted(arrived) == sorted({due.id for due in ledger.promised})
        assert host.log.count("adopted shard 1") == 1
    finally:
        assert host.stop() == 0


def by_shard(host: Host) -> list[int]:
    """The workers in the order of their numbers, as the log of this start tells."""
    lines = host.log[host.log.rindex("starting:") :].splitlines()
    ready = [line.split("worker ")[1] for line in lines if " is ready" in line]
    return [int(one.split("pid ")[1].split(")")[0]) for one in sorted(ready)]


@pytest.fixture
def hanging(world: World) -> Iterator[tuple[str, Host]]:
    domain = "hung.test"
    world.name(domain, NUMBER)
    settings = sized(2, heartbeat="100ms", heartbeat_timeout="1500ms")
    with world.host(domain, NUMBER, settings) as host:
        yield domain, host


def test_a_hung_worker_is_reaped_before_its_shard_is_given_on(
    world: World, hanging: tuple[str, Host]
) -> None:
    domain, host = hanging
    ledger = Ledger()
    (hung, _) = by_shard(host)

    async def load_and_watch() -> None:
        load = Load(ledger, world.ip(NUMBER), world.smtp_port)
        names = [f"hung{n}" for n in range(200)]
        sending = asyncio.create_task(load.send(names, [f"betty@{domain}"]))
        async with asyncio.timeout(30):
            while len(ledger.promised) < 20:  # noqa: ASYNC110 - it grows by itself
                await asyncio.sleep(0.005)
        os.kill(hung, signal.SIGSTOP)
        end = time.monotonic() + 30
        while (holder := holder_of(host, 0)) in (str(hung), ""):
            assert time.monotonic() < end
            await asyncio.sleep(0.002)
        # Not even a zombie is left when another has the shard.
        assert not is_there(hung)
        assert holder in {str(pid) for pid in workers_of(host)}
        await sending

    asyncio.run(load_and_watch())
    assert f"worker 0 (pid {hung}) killed: no sign of life" in host.log
    assert audit_at_rest(ledger, {domain: host}).duplicates == 0


def test_a_stopped_supervisor_takes_no_worker_with_it(
    world: World, hanging: tuple[str, Host]
) -> None:
    """It was only slow: once it goes on it hears its workers, and kills none."""
    domain, host = hanging
    ledger = Ledger()
    pids = workers_of(host)
    assert host.process is not None
    host.process.send_signal(signal.SIGSTOP)
    try:
        send(world, ledger, ["meanwhile"], [f"betty@{domain}"])
        time.sleep(2)  # longer than a worker may be silent
    finally:
        host.process.send_signal(signal.SIGCONT)
    send(world, ledger, ["after"], [f"betty@{domain}"])
    audit_at_rest(ledger, {domain: host})
    time.sleep(0.5)
    assert workers_of(host) == pids


def ended(processes: list[Popen[bytes]]) -> list[Popen[bytes]]:
    return [one for one in processes if one.poll() is not None]


def test_of_many_supervisors_one_wins(world: World) -> None:
    domain = "many.test"
    world.name(domain, NUMBER)
    first = world.host(domain, NUMBER, QUICK)
    text = first.config_path.read_text()
    hosts = [first, *(Host(first.directory, text) for _ in range(4))]
    for host in hosts:
        host.launch()
    try:
        until("ready", lambda: "]: ready" in first.log, first)
        processes = [host.process for host in hosts if host.process is not None]
        until("four refused", lambda: len(ended(processes)) == 4, first)
        losers = ended(processes)
        assert [one.returncode for one in losers] == [69] * 4
        (winner,) = set(processes) - set(losers)
        errors = (first.directory / "errors").read_text()
        assert errors.count("a server already runs on the spool") == 4
        assert f"process {winner.pid}" in first.run("postroom", "serve").stderr.decode()
        assert len(list((first.directory / "spool").glob("shard-*"))) == 2
    finally:
        codes = [host.stop() for host in hosts]
    assert sorted(codes) == [0, 69, 69, 69, 69]


def test_a_run_directory_is_one_servers(world: World) -> None:
    domain = "shared.test"
    world.name(domain, NUMBER)
    with world.host(domain, NUMBER, QUICK) as host:
        text = host.config_path.read_text().replace('"spool"', '"another"')
        other = host.directory / "other.toml"
        other.write_text(text)
        done = host.run("postroom", "serve", "--config", other)
        assert done.returncode == 69
        said = done.stderr.decode()
        assert "already runs on the run directory" in said
        assert host.process is not None
        assert f"process {host.process.pid}" in said


def test_an_orphan_keeps_its_shard_until_it_has_finished(world: World) -> None:
    """The new worker of the same number waits, and says for whom."""
    domain = "contested.test"
    world.name(domain, NUMBER)
    ledger = Ledger()
    host = world.host(domain, NUMBER, {**QUICK, "process": {"drain_s_max": 20}})
    host.start()
    try:
        with Caller(world.ip(NUMBER), world.smtp_port) as caller:
            caller.hello()
            for command in ("MAIL FROM:<a@b.example>", f"RCPT TO:<betty@{domain}>"):
                caller.ask(command)
            assert caller.ask("DATA").code == 354
            assert host.process is not None
            host.process.kill()
            host.process.wait()
            host.launch()
            until("a wait", lambda: "waits: " in host.log, host)
            line = next(one for one in host.log.splitlines() if "waits: " in one)
            orphan = line.split("in use by process ")[1].split(":")[0]
            number = int(line.split("worker ")[1].split()[0])
            assert orphan not in {str(pid) for pid in workers_of(host)}
            assert holder_of(host, number) == orphan
            caller.send(letter("orphaned") + b".\r\n")
            assert caller.reply().code == 250
            ledger.promise("orphaned", [f"betty@{domain}"])
        until("ready", lambda: host.log.count("]: ready") == 2, host)
        assert holder_of(host, number) in {str(pid) for pid in workers_of(host)}
        assert "status 75" not in host.log
        audit_at_rest(ledger, {domain: host})
    finally:
        assert host.stop() == 0


LEAKY = """
import os
from postroom import hook

@hook.mail
def leave_a_program_behind(session, mail):
    os.system("setsid sleep 30 & echo $! >{pid}")
"""


def test_a_program_left_behind_by_a_hook_holds_nothing(world: World) -> None:
    domain = "leaky.test"
    world.name(domain, NUMBER)
    host = world.host(domain, NUMBER, {**QUICK, "policy": {"module": "policy.py"}})
    pid = host.directory / "left"
    (host.directory / "policy.py").write_text(LEAKY.format(pid=pid))
    ledger = Ledger()
    try:
        with host:
            send(world, ledger, ["leak"], [f"betty@{domain}"])
        left = int(pid.read_text())
        assert is_there(left)
        with host:  # all addresses are free, and no worker seems to live
            send(world, ledger, ["again"], [f"betty@{domain}"])
            open_files = [os.readlink(f) for f in Path(f"/proc/{left}/fd").iterdir()]
            assert not [one for one in open_files if "socket" in one or "lock" in one]
            os.kill(int(pid.read_text()), signal.SIGKILL)
        audit_at_rest(ledger, {domain: host})
    finally:
        os.kill(left, signal.SIGKILL)


def test_workers_that_wait_end_when_told(world: World) -> None:
    """Told to stop while it waits for a shard, a worker has nothing to finish."""
    domain = "waiting.test"
    world.name(domain, NUMBER)
    host = world.host(domain, NUMBER, {**QUICK, "process": {"drain_s_max": 20}})
    host.start()
    with Caller(world.ip(NUMBER), world.smtp_port) as caller:
        caller.hello()
        for command in ("MAIL FROM:<a@b.example>", f"RCPT TO:<betty@{domain}>", "DATA"):
            caller.ask(command)
        orphans = workers_of(host)
        assert host.process is not None
        host.process.kill()
        host.process.wait()
        host.launch()
        until("a wait", lambda: "waits: " in host.log, host)
        began = time.monotonic()
        assert host.stop() == 0
        assert time.monotonic() - began < 15  # it did not drain, which takes 20 s
    until("their end", lambda: not any(runs(pid) for pid in orphans), host)
