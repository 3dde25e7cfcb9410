"""Kills the processes of a host, and notes what each had in hand at that moment.

A process is frozen, what it has in hand is read from its shard, then it gets kill -9;
between reading and dying it does nothing more. What was in hand may be delivered a
second time, and nothing else may: that is the bound for duplicates.
"""

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from postroom.mail.ids import from_number
from postroom.spool.in_hand import numbers_in
from postroom.testing.host import Host
from postroom.testing.world import workers_of

FREEZE_S_MAX = 5.0
_STOPPED = frozenset("TtZX")


class Victim:
    """A worker's process, held so that its id cannot become another's meanwhile."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return _state_of(self.pid) not in "ZX"

    def freeze(self) -> None:
        """Stop it; returns when it does nothing any more."""
        self._signal(signal.SIGSTOP)
        end = time.monotonic() + FREEZE_S_MAX
        while _state_of(self.pid) not in _STOPPED and time.monotonic() < end:
            time.sleep(0.0002)

    def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)

    def close(self) -> None:
        """Let go of its process id."""
        os.close(self._pidfd)

    def _signal(self, number: int) -> None:
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return


@contextmanager
def victims_of(host: Host) -> Iterator[list[Victim]]:
    """Lend the running workers of a host."""
    held: list[Victim] = []
    try:
        for pid in workers_of(host):
            try:
                held.append(Victim(pid))
            except ProcessLookupError:
                continue
        yield held
    finally:
        for victim in held:
            victim.close()


class Killer:
    """Kills, and keeps count.

    Args:
        host: whose processes.

    Attributes:
        processes: how many were killed.
        in_hand: how often each queue id was in hand at a kill, once per attempt.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self.processes = 0
        self.in_hand: Counter[str] = Counter()

    def kill_worker(self, victim: Victim) -> None:
        """Kill a worker; what it had in hand is noted."""
        victim.freeze()
        for shard in self._shards_of(victim.pid):
            numbers = numbers_in((shard / "in-hand").read_bytes())
            self.in_hand.update(str(from_number(number)) for number in numbers)
        victim.kill()
        self.processes += 1

    def kill_supervisor(self) -> None:
        """Kill the supervisor; its workers learn it by the end of their links."""
        process = self._host.process
        assert process is not None
        process.kill()
        process.wait()
        self.processes += 1

    def _shards_of(self, pid: int) -> list[Path]:
        locks = (self._host.directory / "spool").glob("shard-*/lock")
        return [lock.parent for lock in locks if lock.read_text().strip() == str(pid)]


def _state_of(pid: int) -> str:
    """Return the letter of a process's state; ``X`` when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "X"
    return text.rpartition(") ")[2][:1]
