"""A disk that really fills up, octets or inodes, under the real SMTP service.

    python -m postroom.testing.small_disk DIRECTORY CASE

mounts a small file system at DIRECTORY, which needs a mount namespace (``commands``
says how to get one), hands in mail until it is full, lets the queue drain, hands in
mail again, and prints what was seen as JSON. ``by_seam`` does the same without a mount:
there the spool's file operations only say that the disk is full.
"""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable

import msgspec

from postroom.mail.envelope import Origin
from postroom.mail.units import Size
from postroom.services.receive import ReceiveService
from postroom.spool.files import Seam
from postroom.spool.settings import SpoolSettings
from postroom.testing.conversation import ListConversation
from postroom.testing.disk import Disk, Fault
from postroom.testing.spool import SYSTEM
from postroom.testing.workbench import Bench, Plan, bench

_CLIENT = Origin(protocol="SMTP", client_ip="127.0.0.1", listener="in")
_LETTERS_MAX = 120
_LETTER = "Subject: large\n\n" + "0123456789\n" * 14_000 + ".\n"
_SMALL = "Subject: small\n\nhello\n.\n"
_LOOKS_MAX = 400
_AGAIN = 3
_FOR_EVER = 1 << 40


class Case(msgspec.Struct, frozen=True):
    """A small disk, what is kept of it in reserve, and what clients do.

    ``tells_size``: they say SIZE; ``in_rows``: their letters need no file.
    """

    octets: int = 8 << 20
    inodes: int = 10_000
    reserve_octets: int = 0
    reserve_inodes: int = 0
    tells_size: bool = True
    in_rows: bool = False


CASES = {
    "octets": Case(),
    "octets with a reserve": Case(reserve_octets=2 << 20),
    "octets with a reserve, sizes not told": Case(
        reserve_octets=2 << 20, tells_size=False
    ),
    "octets in rows with a reserve": Case(
        octets=16 << 20, reserve_octets=4 << 20, in_rows=True
    ),
    "inodes": Case(octets=64 << 20, inodes=30),
    "inodes with a reserve": Case(octets=64 << 20, inodes=40, reserve_inodes=12),
}


class Seen(msgspec.Struct):
    """What was seen. ``refused`` counts by the command that was answered 452 4.3.1."""

    taken: int = 0
    refused: dict[str, int] = {}
    other: list[str] = []
    queued_when_full: int = 0
    small_when_full: str = ""
    queued_when_drained: int = -1
    taken_again: int = 0


def commands() -> tuple[str, tuple[str, ...]] | None:
    """Return how a mount is possible here, in words and as a command; None: it is not.

    A mount namespace of its own goes with its last process, so nothing is left behind.
    """
    mine = ("unshare", "--mount")
    theirs = ("unshare", "--user", "--map-root-user", "--mount")
    ways = {"tmpfs, as root": mine, "tmpfs, in a user namespace": theirs}
    for words, command in ways.items():
        mount = (*command, "mount", "-t", "tmpfs", "tmpfs", "/mnt")
        try:
            done = subprocess.run(mount, capture_output=True, check=False)
        except FileNotFoundError:
            return None
        if done.returncode == 0:
            return words, command
    return None


def by_mount(command: tuple[str, ...], directory: str, name: str) -> Seen:
    """Run a case in a process with a mount namespace of its own."""
    program = (sys.executable, "-m", "postroom.testing.small_disk", directory, name)
    done = subprocess.run((*command, *program), capture_output=True, check=False)
    if done.returncode:
        raise AssertionError(done.stderr.decode())
    return msgspec.json.decode(done.stdout, type=Seen)


async def by_seam(directory: str) -> Seen:
    """Let the file operations say that the disk is full, and later that it is not."""
    disk = Disk(directory, "small")
    settings = SpoolSettings(reserve_octets=Size(0), reserve_inodes=0)

    def fill(count: int) -> None:
        if count == 5:
            disk.fail_at(disk.now, Fault.FULL, times=_FOR_EVER)

    try:
        async with bench(
            Plan(spool=settings), directory=directory, seam=disk.seam
        ) as b:
            seen = Seen()
            await _fill(b, seen, fill, tells_size=True)
            disk.fail_at(_FOR_EVER, Fault.FULL)
            await _drain(b, seen)
            return seen
    finally:
        disk.close()


async def run(directory: str, case: Case, seam: Seam = SYSTEM) -> Seen:
    """Fill the disk, look, drain it, and fill it again a little."""
    settings = SpoolSettings(
        reserve_octets=Size(case.reserve_octets),
        reserve_inodes=case.reserve_inodes,
        wal_octets_max=Size(256 << 10),
        body_memory_octets_max=Size((256 if case.in_rows else 128) << 10),
    )
    seen = Seen()
    async with bench(Plan(spool=settings), directory=directory, seam=seam) as b:
        await _fill(b, seen, lambda _: None, tells_size=case.tells_size)
        await _drain(b, seen)
    return seen


async def _fill(
    b: Bench, seen: Seen, before: Callable[[int], None], *, tells_size: bool
) -> None:
    b.agents["mailbox"].gate.clear()
    refused: Counter[str] = Counter()
    for count in range(_LETTERS_MAX):
        before(count)
        command, code = await _hand_in(b, _LETTER, tells_size=tells_size)
        if code == "250 2.0.0":
            seen.taken += 1
        elif code == "452 4.3.1":
            refused[command] += 1
        else:
            seen.other.append(f"{command}: {code}")
        if refused.total() + len(seen.other) >= 3:
            break
    seen.refused = dict(refused)
    seen.small_when_full = (await _hand_in(b, _SMALL, tells_size=True))[1]
    if seen.small_when_full == "250 2.0.0":
        seen.taken += 1
    seen.queued_when_full = len(await b.queue())


async def _drain(b: Bench, seen: Seen) -> None:
    b.agents["mailbox"].gate.set()
    for _ in range(_LOOKS_MAX):
        await b.rescan(1000)
        seen.queued_when_drained = len(await b.queue())
        if not seen.queued_when_drained:
            break
    for _ in range(_LOOKS_MAX):
        _, code = await _hand_in(b, _LETTER, tells_size=True)
        seen.taken_again += code == "250 2.0.0"
        if seen.taken_again == _AGAIN:
            break
        await asyncio.sleep(0.02)  # the free space is looked at once a second


async def _hand_in(b: Bench, letter: str, *, tells_size: bool) -> tuple[str, str]:
    """Hand in a letter; return the command that was refused, or DATA, and the code."""
    size = f" SIZE={len(letter)}" if tells_size else ""
    envelope = f"EHLO c.test\nMAIL FROM:<ann@c.test>{size}\nRCPT TO:<joe@gonzo.test>\n"
    conversation = ListConversation(envelope + "DATA\n", letter, "QUIT\n")
    await ReceiveService(b.tools).converse(conversation, _CLIENT)
    mail, *_ = conversation.codes[2:]
    if not mail.startswith("250"):
        return "MAIL", mail
    return "DATA", conversation.codes[5]


def main() -> None:
    """Mount, run one case, and print what was seen."""
    directory, name = sys.argv[1:]
    case = CASES[name]
    options = f"size={case.octets},nr_inodes={case.inodes}"
    mount = ("mount", "-t", "tmpfs", "-o", options, "tmpfs", directory)
    subprocess.run(mount, check=True)
    os.chdir("/")
    print(msgspec.json.encode(asyncio.run(run(directory, case))).decode())


if __name__ == "__main__":
    main()
