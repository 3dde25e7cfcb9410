"""What the crash runs count with: a bound that cannot be missed proves nothing."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from postroom.mail.ids import from_number
from postroom.spool.in_hand import InHand
from postroom.testing.host import Host
from postroom.testing.killing import Figures, beyond
from postroom.testing.kills import Killer, Victim
from postroom.testing.ledger import Due, is_whole, letter
from postroom.testing.sink import Copy, copy_of

GOOD = Figures(
    kills={"worker": 3},
    processes=3,
    promises=10,
    missing=[],
    broken=[],
    duplicates=2,
    bound=2,
    beyond=[],
    doubled=[],
    unasked=1,
    in_doubt=1,
    shunted=0,
    seconds=1.0,
)


def test_good_figures() -> None:
    assert GOOD.is_good
    assert "duplicates    2, bound 2" in GOOD.to_text()


WRONG: dict[str, dict[str, object]] = {
    "1 are missing": {"missing": [Due("kill1", "a@b")]},
    "1 are not whole": {"broken": ["kill1"]},
    "in hand at no kill": {"duplicates": 3},
    "3 times for": {"beyond": ["x 3 times for a@b"]},
    "in a mailbox": {"doubled": ["x 2 times for a@b"]},
    "without an answer": {"unasked": 2},
    "nothing was promised": {"promises": 0},
}


@pytest.mark.parametrize("why", WRONG)
def test_bad_figures(why: str) -> None:
    figures = msgspec.structs.replace(GOOD, **WRONG[why])
    assert not figures.is_good
    assert why in " ".join(figures.why)


@pytest.mark.parametrize(
    ("arrived", "in_hand", "wrong"),
    [
        (["q1"], {}, 0),
        (["q1", "q1"], {}, 1),
        (["q1", "q1"], {"q1": 1}, 0),
        (["q1"] * 3, {"q1": 1}, 1),
        (["q1", "q1"], {"q2": 9}, 1),
        (["q1", "q2"], {}, 0),
    ],
)
def test_each_copy_needs_its_own_excuse(
    arrived: list[str], in_hand: dict[str, int], wrong: int
) -> None:
    copies = [("joe@far", Copy("kill1", one, True, b"")) for one in arrived]
    assert len(beyond(copies, Counter(in_hand))) == wrong


def test_copies_of_two_recipients_are_no_duplicates() -> None:
    copy = Copy("kill1", "q1", True, b"")
    assert beyond([("joe@far", copy), ("betty@far", copy)], Counter()) == []


def test_a_copy_tells_its_names() -> None:
    by = b"\tby h with ESMTP id 04VvAanyYW9;\r\n\tD\r\n"
    trace = b"Received: from c (c [192.0.2.1])\r\n"
    copy = copy_of(trace + by + letter("kill7", 5_000))
    assert (copy.message_id, copy.queue_id, copy.is_whole) == (
        "kill7",
        "04VvAanyYW9",
        True,
    )


@pytest.mark.parametrize("cut", [1, 66, 3_000])
def test_half_a_letter_is_not_whole(cut: int) -> None:
    content = letter("kill7", 5_000)
    assert is_whole(b"X: y\r\n" + content)
    assert not is_whole(content[:-cut])
    assert not is_whole(content + b"more\r\n")


HOLDER = """
import mmap, os, sys
path, lock = sys.argv[1:]
file = open(path, "r+b")
shared = mmap.mmap(file.fileno(), 0)
open(lock, "w").write("%d\\n" % os.getpid())
number = 0
while True:
    number += 1
    shared[8:16] = number.to_bytes(8, "little")
    if number == 1:
        print("up", flush=True)
"""


def test_what_a_killed_worker_had_in_hand_is_noted(tmp_path: Path) -> None:
    """It is read while the worker can change nothing any more."""
    shard = tmp_path / "spool" / "shard-000"
    shard.mkdir(parents=True)
    path = shard / "in-hand"
    InHand(str(path)).begin(from_number(1 << 40))
    arguments = [sys.executable, "-c", HOLDER, str(path), str(shard / "lock")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"up\n"
        killer = Killer(Host(tmp_path, ""))
        victim = Victim(holder.pid)
        killer.kill_worker(victim)
        assert holder.wait() == -9
        assert not victim.is_alive
        victim.kill()  # once more does no harm
        victim.close()
    last = int.from_bytes(path.read_bytes()[8:16], "little")
    assert killer.in_hand == {from_number(1 << 40): 1, from_number(last): 1}
    assert killer.processes == 1


def test_a_process_without_a_shard_has_nothing_in_hand(tmp_path: Path) -> None:
    shard = tmp_path / "spool" / "shard-000"
    shard.mkdir(parents=True)
    (shard / "lock").write_text(f"{os.getpid()}\n")
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE
    ) as p:
        killer = Killer(Host(tmp_path, ""))
        victim = Victim(p.pid)
        killer.kill_worker(victim)
        victim.close()
    assert not killer.in_hand
