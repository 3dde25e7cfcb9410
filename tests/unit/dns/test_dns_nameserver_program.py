"""The test name server as a program, and its zone texts."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from postroom.dns.answer import Records
from postroom.dns.resolver import Resolver
from postroom.dns.settings import ResolverSettings
from postroom.net.clock import read_now
from postroom.testing.nameserver import NameServer, main
from postroom.testing.zone import Lie, Zone

BAD_ZONES = {
    "unknown type": "a.test BOGUS x",
    "no data": "a.test MX",
    "bad address": "a.test A 1.2.3",
    "unknown lie": "a.test LIE sometimes",
    "only a name": "a.test",
    "bad name": "a..test A 127.0.0.1",
}


@pytest.mark.parametrize("line", BAD_ZONES.values(), ids=BAD_ZONES.keys())
def test_bad_zone_names_the_line(line: str) -> None:
    with pytest.raises(ValueError, match="zone line 2"):
        Zone.from_text(f"good.test A 127.0.0.1\n{line}\n")


def test_zone_can_change() -> None:
    zone = Zone(["a.test\t60\tA 127.0.0.1", "a.test LIE silence"])
    zone.remove("A.test")
    assert not zone.lies
    zone.add("a.test LIE servfail")
    assert list(zone.lies.values()) == [Lie.SERVFAIL]


def test_messages_for_people(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "none")
    assert main(["--zone", missing]) == 1
    assert missing in capsys.readouterr().err
    zone = tmp_path / "zone"
    zone.write_text("")
    assert main(["--zone", str(zone), "--listen", "localhost:5300"]) == 1
    assert '"localhost:5300" is no name server' in capsys.readouterr().err


async def test_taken_port_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zone = tmp_path / "zone"
    zone.write_text("")
    async with NameServer(Zone()) as server:
        arguments = ["--zone", str(zone), "--listen", server.address]
        assert await asyncio.to_thread(main, arguments) == 1
    assert f"cannot listen on {server.address}" in capsys.readouterr().err


async def test_program_serves_until_term(tmp_path: Path) -> None:
    zone = tmp_path / "zone"
    zone.write_text("gonzo.test A 127.0.1.1\n")
    read_end, write_end = os.pipe()
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "postroom.testing.nameserver"),
        *("--listen", "127.0.0.1:0", "--zone", str(zone)),
        *("--ready-fd", str(write_end)),
        pass_fds=(write_end,),
        stdout=asyncio.subprocess.PIPE,
    )
    os.close(write_end)
    try:
        assert program.stdout is not None
        line = await program.stdout.readline()
        assert os.read(read_end, 1000) == line
        address = line.decode().split()[-1]
        resolver = Resolver(ResolverSettings(nameservers=(address,)), read_now)
        found = await resolver.query("gonzo.test", "A")
        assert found == Records(("127.0.1.1",), 60_000_000)
        program.send_signal(signal.SIGTERM)
        assert await program.wait() == 0
    finally:
        os.close(read_end)
        if program.returncode is None:
            program.kill()
            await program.wait()
