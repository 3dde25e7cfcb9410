"""The unit's filter of system calls allows all that a server in full work does."""

import asyncio
import os
import poplib
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from postroom.testing.host import UNPRIVILEGED, Host
from postroom.testing.ledger import Ledger, Load, entries_of
from postroom.testing.world import QUICK, World, until

DOMAIN, FAR = "confined.test", "far.confined.test"
NUMBER, FAR_NUMBER = 47, 48
UNIT = Path(__file__).parents[2] / "packaging" / "postroom.service"
TOOLS = ("strace", "systemd-analyze", "setpriv")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]

CONFINE = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)  # as MemoryDenyWriteExecute= does
os.execvp(sys.argv[1], sys.argv[1:])
"""

pytestmark = pytest.mark.skipif(
    bool(MISSING) or os.geteuid() != 0,
    reason=f"NOT TESTED: system calls under systemd need root and {', '.join(TOOLS)}",
)


def value(key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", UNIT.read_text(), re.MULTILINE)


def allowed() -> set[str]:
    """What the unit's filter allows, as this system's systemd knows the sets."""
    text = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    sets: dict[str, set[str]] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("@"):
            name = line.strip()
            sets[name] = set()
        elif line.startswith("    ") and not line.strip().startswith("#"):
            sets[name].add(line.strip())

    def calls(name: str) -> set[str]:
        if not name.startswith("@"):
            return {name}
        return {call for each in sets[name] for call in calls(each)}

    found = calls("@default")
    for change in value("SystemCallFilter"):
        for word in change.removeprefix("~").split():
            found = found - calls(word) if change[0] == "~" else found | calls(word)
    return found


def work(world: World, host: Host) -> None:
    """Have the server do everything it does."""
    ledger = Ledger("confined")
    load = Load(ledger, world.ip(NUMBER), world.smtp_port, f"betty@{DOMAIN}")
    friends = [f"friends@{DOMAIN}", f"joe@{FAR}"]
    for size in (0, 300_000):
        asyncio.run(load.send([f"confined{size}"], friends, size_octets=size))
    until("an empty queue", lambda: not entries_of(host), host)
    box = poplib.POP3(world.ip(NUMBER), world.pop3_port, timeout=30)
    box.user("betty")
    box.pass_("betty-secret")
    box.retr(1)
    box.dele(1)
    box.quit()
    assert not host.run("sendmail", "joe", text=b"Subject: x\n\nx\n").returncode
    assert not host.run("mailq").returncode


def test_nothing_that_it_does_is_forbidden(world: World) -> None:
    world.name(DOMAIN, NUMBER)
    world.name(FAR, FAR_NUMBER)
    aliases = "postmaster: betty\nfriends: betty, joe\n"
    process = {**QUICK["process"], "operator_group": "nogroup"}
    settings = {**QUICK, "process": process}
    host = world.host(DOMAIN, NUMBER, settings, aliases=aliases)
    traces = world.directory / "traces"
    traces.mkdir()
    traces.chmod(0o777)
    host.launch(
        wrapper=(
            *(sys.executable, "-c", CONFINE),
            *("setpriv", "--reuid", UNPRIVILEGED, "--regid", "nogroup"),
            *("--clear-groups", "--no-new-privs", "--inh-caps", "+net_bind_service"),
            *("--ambient-caps", "+net_bind_service"),
            *("strace", "-ff", "-qq", "-o", traces / "of"),
        )
    )
    tracer = host.process
    assert tracer is not None
    with world.peer(FAR_NUMBER):
        until("ready", lambda: "]: ready" in host.log, host, 60)
        work(world, host)
        (server,) = (
            int(pid)
            for pid in Path(f"/proc/{tracer.pid}/task/{tracer.pid}/children")
            .read_text()
            .split()
        )
        os.kill(server, signal.SIGHUP)
        until("the reload", lambda: "is in force" in host.log, host)
        os.kill(server, signal.SIGUSR1)
        os.kill(server, signal.SIGTERM)
        assert tracer.wait(30) == 0
    host.process = None
    lines = [
        line
        for path in traces.iterdir()
        for line in path.read_text(errors="replace").splitlines()
    ]
    made = {found[1] for line in lines if (found := re.match(r"(\w+)\(", line))}
    assert {"fdatasync", "accept4", "sendto", "execve"} <= made
    assert made - allowed() == set()
    families = {
        found[1]
        for line in lines
        if (found := re.match(r"socket(?:pair)?\((AF_\w+)", line))
    }
    (known,) = value("RestrictAddressFamilies")
    assert families <= set(known.split())
