"""What is noted while time passes: delays, lengths of queues, connections."""

from collections import Counter, defaultdict

from postroom.mail.now import SECOND_US
from postroom.testing.simulator.letter import Letter


class Record:
    """What happened.

    Attributes:
        letters: every letter, in the order of submission.
        attempts: connection attempts by second.
        attempts_to: the same by destination and second.
        connections: how many there are to each destination now, over all workers.
        connections_max: the most there ever were.
        in_hand: letters in hand for each destination now, over all workers.
        in_hand_max: the most there ever were.
        waiting: letters that are not settled, by destination.
        samples: of ``waiting``, by destination: time and length.
    """

    def __init__(self) -> None:
        self.letters: list[Letter] = []
        self.attempts: Counter[int] = Counter()
        self.attempts_to: dict[str, Counter[int]] = defaultdict(Counter)
        self.connections: Counter[str] = Counter()
        self.connections_max: Counter[str] = Counter()
        self.in_hand: Counter[str] = Counter()
        self.in_hand_max: Counter[str] = Counter()
        self.waiting: Counter[str] = Counter()
        self.samples: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self.ended = 0

    def connecting(self, destination: str, us: int) -> None:
        """Note an attempt to connect."""
        second = us // SECOND_US
        self.attempts[second] += 1
        self.attempts_to[destination][second] += 1

    def connected(self, destination: str, change: int) -> None:
        """Note a connection that came about, or has ended."""
        count = self.connections[destination] + change
        self.connections[destination] = count
        if count > self.connections_max[destination]:
            self.connections_max[destination] = count

    def handled(self, destination: str, change: int) -> None:
        """Note a letter that was taken in hand, or is done."""
        count = self.in_hand[destination] + change
        self.in_hand[destination] = count
        if count > self.in_hand_max[destination]:
            self.in_hand_max[destination] = count

    def sample(self, us: int) -> None:
        """Note how long the queues are."""
        for destination, count in self.waiting.items():
            self.samples[destination].append((us, count))

    def of(self, group: str) -> list[Letter]:
        """Return the letters of a group."""
        return [one for one in self.letters if one.draft.group == group]

    def delays_us(self, group: str) -> list[int]:
        """Return the delays of a group's delivered letters, sorted."""
        found = [one for one in self.of(group) if one.delivered]
        return sorted(one.ended_us - one.arrival_us for one in found)


def percentile(values: list[int], percent: float) -> int:
    """Return the value below which so many per cent of the sorted values lie."""
    if not values:
        return 0
    return values[min(len(values) - 1, int(len(values) * percent / 100))]


def peak(counts: Counter[int], seconds: int = 1, start: int = 0) -> int:
    """Return the most there was in any span of so many seconds from ``start`` on."""
    found = 0
    for second in counts:
        if second >= start:
            found = max(found, sum(counts[second + i] for i in range(seconds)))
    return found
