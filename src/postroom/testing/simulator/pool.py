"""The connections of one worker to one destination, as ``agents/pool.py`` has them."""

from collections import deque
from collections.abc import Callable

from postroom.agents.settings import SmtpAgentSettings
from postroom.limits.grades import GRADES, Precedence, grade_of
from postroom.limits.places import Places
from postroom.mail.now import SECOND_US
from postroom.mail.outcome import Deferred, Outcome
from postroom.testing.simulator.clock import VirtualClock
from postroom.testing.simulator.dice import Dice
from postroom.testing.simulator.letter import Letter
from postroom.testing.simulator.peer import SENT, Peer
from postroom.testing.simulator.record import Record

_GROWTH_PAUSE_US = 5 * SECOND_US
_PLACE_PAUSE_US = 50_000

Settled = Callable[[Letter, Outcome], None]


class Connection:
    """One connection."""

    __slots__ = ("idle_since_us", "letter", "opened_us", "served")

    def __init__(self, opened_us: int) -> None:
        self.opened_us = opened_us
        self.served = 0
        self.letter: Letter | None = None
        self.idle_since_us = -1


class Around:
    """What pools have around them.

    Attributes:
        clock: the time.
        dice: for what varies.
        record: where things are noted.
        settings: of the agent.
        settled: told what became of a letter.
    """

    def __init__(
        self,
        clock: VirtualClock,
        dice: Dice,
        record: Record,
        settings: SmtpAgentSettings,
        settled: Settled,
    ) -> None:
        self.clock = clock
        self.dice = dice
        self.record = record
        self.settings = settings
        self.settled = settled


class SimulatedPool:
    """One worker's connections to one destination."""

    def __init__(self, name: str, peer: Peer, places: Places, around: Around) -> None:
        self.name = name
        self.window = 1
        self._peer = peer
        self._places = places
        self._around = around
        self._waiting: list[deque[Letter]] = [deque() for _ in range(GRADES)]
        self._precedence = Precedence()
        self._connections: list[Connection] = []
        self._idle: list[Connection] = []
        self._opening = 0
        self._is_seeking = False
        self._grow_after_us = 0

    def put(self, letter: Letter, window: int) -> None:
        """Take a letter; at most so many connections are to be used."""
        self.window = window
        self._waiting[grade_of(letter.lane)].append(letter)
        while self._idle and any(self._waiting):
            self._serve(self._idle.pop())
        self._grow()

    def _count(self) -> int:
        return sum(map(len, self._waiting))

    def _grow(self) -> None:
        count = len(self._connections) + self._opening
        if self._opening >= self._count() or count >= max(1, self.window):
            return
        if self._is_seeking:
            return
        if count and self._around.clock.us < self._grow_after_us:
            return
        self._opening += 1
        if self._places.take():
            self._open()
            return
        self._is_seeking = True
        self._places.want(1)
        give_up_us = self._around.clock.us + self._around.settings.slot_wait_max
        self._around.clock.after(_PLACE_PAUSE_US, lambda: self._seek(give_up_us))

    def _seek(self, give_up_us: int) -> None:
        clock = self._around.clock
        has_place = False
        if any(self._waiting) and clock.us < give_up_us:
            has_place = self._places.take(waited=True)
            if not has_place:
                return clock.after(_PLACE_PAUSE_US, lambda: self._seek(give_up_us))
        self._is_seeking = False
        self._places.want(0)
        if has_place:
            return self._open()
        self._opening -= 1
        self._give_up(Deferred("4.3.2", "Too many connections in use"))

    def _open(self) -> None:
        around, peer = self._around, self._peer
        record, us = around.record, around.clock.us
        record.connecting(self.name, us)
        refused = peer.refusal(us, record.connections[self.name])
        length_us = around.dice.around(peer.connect_us, peer.vary_percent)
        if refused is not None:
            reason, length_us = refused
            around.clock.after(length_us, lambda: self._refused(reason))
            return
        record.connected(self.name, 1)
        around.clock.after(length_us, self._opened)

    def _refused(self, reason: Deferred) -> None:
        self._opening -= 1
        self._places.give_back()
        self._give_up(reason)

    def _give_up(self, reason: Deferred) -> None:
        if not any(self._waiting):
            return
        if self._connections or self._opening:
            self._grow_after_us = self._around.clock.us + _GROWTH_PAUSE_US
            return
        letters = [letter for letters in self._waiting for letter in letters]
        for waiting in self._waiting:
            waiting.clear()
        for letter in letters:
            self._around.settled(letter, reason)

    def _opened(self) -> None:
        self._opening -= 1
        connection = Connection(self._around.clock.us)
        self._connections.append(connection)
        self._serve(connection)
        self._grow()

    def _serve(self, connection: Connection) -> None:
        """Give a connection its next letter, or keep it for a while, or end it."""
        around = self._around
        letter = self._next(connection)
        if letter is None:
            if not self._may_serve(connection) or self._places.is_unfair:
                return self._close(connection)
            self._idle.append(connection)
            connection.idle_since_us = around.clock.us
            around.clock.after(
                around.settings.idle_max,
                lambda since=around.clock.us: self._overdue(connection, since),  # type: ignore[misc]
            )
            return
        if letter.tried_us < 0:
            letter.tried_us = around.clock.us
        connection.letter = letter
        connection.served += 1
        length_us = around.dice.around(
            self._peer.length_us(letter), self._peer.vary_percent
        )
        around.clock.after(length_us, lambda: self._answered(connection, letter))

    def _next(self, connection: Connection) -> Letter | None:
        if not any(self._waiting) or not self._may_serve(connection):
            return None
        if self._places.wanted_elsewhere and self._places.is_owed(0, connection.served):
            return None
        grade = self._precedence.choose(self._waiting)
        letter = self._waiting[grade].popleft()
        self._precedence.turn(grade)
        self._precedence.went(grade, 1, self._waiting)
        return letter

    def _may_serve(self, connection: Connection) -> bool:
        settings = self._around.settings
        if connection.served >= settings.messages_per_connection_max:
            return False
        age_us = self._around.clock.us - connection.opened_us
        return age_us < settings.connection_age_max

    def _answered(self, connection: Connection, letter: Letter) -> None:
        outcome = self._peer.answer(letter, self._around.clock.us)
        connection.letter = None
        if isinstance(outcome, Deferred) and outcome.hop_failed:
            self._close(connection)
        elif outcome is SENT or connection in self._connections:
            self._around.settled(letter, outcome)
            return self._serve(connection)
        self._around.settled(letter, outcome)

    def _overdue(self, connection: Connection, since_us: int) -> None:
        if connection in self._idle and connection.idle_since_us == since_us:
            self._idle.remove(connection)
            self._close(connection)

    def _close(self, connection: Connection) -> None:
        self._connections.remove(connection)
        self._around.record.connected(self.name, -1)
        self._places.give_back()
        self._grow()
