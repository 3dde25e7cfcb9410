"""The spool against a model of it: any order of calls, with reopening in between."""

import asyncio
import tempfile
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
)

from postroom.mail.ids import QueueId
from postroom.mail.now import Now
from postroom.spool.engine import Shard, open_shard
from postroom.spool.orders import AT_ONCE_US
from postroom.spool.spool import (
    Fenced,
    Lease,
    NewRecipient,
    QueueFilter,
    RecipientState,
    Settle,
)
from postroom.testing.spool import MEMORY, QUICK, Letters

START_US = 1_790_000_000_000_000
SECOND_US = 1_000_000
HOPS = ("a.test", "b.test")
ALL = QueueFilter()
T = TypeVar("T")
Key = tuple[QueueId, int]


class Waiting:
    """One recipient in the model."""

    def __init__(self, hop: str, due_us: int) -> None:
        self.hop = hop
        self.due_us = due_us
        self.tries = 0
        self.leased = False
        self.held = False
        self.cursor = 0


class SpoolModel(RuleBasedStateMachine):
    """Compares every answer of a shard with what a dictionary would have said."""

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()
        self._directory = tempfile.TemporaryDirectory(dir=MEMORY)
        self._us = START_US
        self._count = 0
        self._model: dict[Key, Waiting] = {}
        self._next_number: dict[QueueId, int] = {}
        self._shard = self._do(self._open())
        self._letters = Letters(self._shard, self._now)

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    def _now(self) -> Now:
        return Now(self._us, self._us - START_US)

    async def _open(self) -> Shard:
        return await open_shard(self._directory.name, 0, QUICK, clock=self._now)

    def teardown(self) -> None:
        self._do(self._shard.aclose())
        self._loop.close()
        self._directory.cleanup()

    def _recipient(self, hop: str) -> NewRecipient:
        self._count += 1
        local = f"user{self._count}"
        return self._letters.recipient(f"{local}@{hop}" if hop else f":{local}")

    def _same(self, leases: list[Lease], expected: set[Key]) -> None:
        got = [(lease.queue_id, n) for lease in leases for n in lease.numbers]
        assert len(got) == len(set(got))
        assert set(got) == expected
        for key in got:
            self._model[key].leased = True
        for lease in leases:
            hop = "" if lease.route is None else lease.route.hop
            assert hop == self._model[(lease.queue_id, lease.numbers[0])].hop
            for number, tries in zip(lease.numbers, lease.tries, strict=True):
                assert self._model[(lease.queue_id, number)].tries == tries
            assert (
                lease.cursor == self._model[(lease.queue_id, lease.numbers[0])].cursor
            )

    @rule(
        target=leases,
        hops=st.lists(st.sampled_from((*HOPS, "")), min_size=1, max_size=4),
        claim=st.booleans(),
    )
    def accept(self, hops: list[str], claim: bool) -> Any:
        new = self._letters.letter(*(self._recipient(hop) for hop in hops))
        found = list(self._do(self._shard.accept(new, claim=claim)))
        keys = [(new.queue_id, number) for number in range(len(hops))]
        for key, hop in zip(keys, hops, strict=True):
            self._model[key] = Waiting(hop, self._us)
        self._next_number[new.queue_id] = len(hops)
        self._same(found, set(keys) if claim else set())
        return multiple(*found)

    @rule(target=leases, hop=st.sampled_from((*HOPS, "")))
    def claim(self, hop: str) -> Any:
        found = list(self._do(self._shard.claim(hop, None, 1000, self._now())))
        due = {
            key
            for key, each in self._model.items()
            if each.hop == hop
            and each.due_us <= self._us
            and not (each.leased or each.held)
        }
        self._same(found, due)
        return multiple(*found)

    def _is_stale(self, lease: Lease) -> bool:
        if lease.fence == self._shard.fence:
            return False
        with pytest.raises(Fenced):
            self._do(self._shard.settle(lease, [Settle(lease.numbers[0])]))
        return True

    @rule(lease=consumes(leases), data=st.data())
    def settle(self, lease: Lease, data: st.DataObject) -> None:
        if self._is_stale(lease):
            return
        settled = []
        for number in lease.numbers:
            each = self._model[(lease.queue_id, number)]
            each.leased = False
            match data.draw(st.sampled_from(("done", "later", "hold", "back"))):
                case "done":
                    settled.append(Settle(number))
                    del self._model[(lease.queue_id, number)]
                case "later":
                    each.due_us = self._us + data.draw(st.integers(0, 3)) * SECOND_US
                    each.tries += 1
                    settled.append(Settle(number, each.due_us, "busy"))
                case "hold":
                    held = RecipientState.HELD
                    settled.append(Settle(number, self._us, "held", state=held))
                    each.held, each.due_us, each.tries = True, self._us, each.tries + 1
                case _:
                    pass
        self._do(self._shard.settle(lease, settled))

    @rule(lease=consumes(leases), hops=st.lists(st.sampled_from(HOPS), max_size=5))
    def expand(self, lease: Lease, hops: list[str]) -> None:
        if self._is_stale(lease):
            return
        if lease.route is not None:
            self._do(self._shard.settle(lease, []))
            for number in lease.numbers:
                self._model[(lease.queue_id, number)].leased = False
            return
        [number] = lease.numbers
        children = [self._recipient(hop) for hop in hops]
        first = self._next_number[lease.queue_id]
        self._do(self._shard.expand(lease, number, children[:2], first))
        # The same once more, as after a crash: nobody is added twice.
        self._do(self._shard.expand(lease, number, children, None))
        del self._model[(lease.queue_id, number)]
        for i, hop in enumerate(hops):
            self._model[(lease.queue_id, first + i)] = Waiting(hop, self._us)
        self._next_number[lease.queue_id] = first + len(hops)

    @rule(seconds=st.integers(1, 3))
    def wait(self, seconds: int) -> None:
        self._us += seconds * SECOND_US

    def _messages_without_leases(self) -> set[QueueId]:
        leased = {key[0] for key, each in self._model.items() if each.leased}
        return {key[0] for key in self._model} - leased

    @rule()
    def retry(self) -> None:
        self._do(self._shard.retry(ALL, self._now()))
        free = self._messages_without_leases()
        for key, each in self._model.items():
            if key[0] in free and not each.held:
                each.due_us = AT_ONCE_US

    @rule(hop=st.sampled_from(HOPS))
    def hold(self, hop: str) -> None:
        self._do(self._shard.hold(QueueFilter(domains=(hop,)), "wait"))
        free = self._messages_without_leases()
        for key, each in self._model.items():
            if key[0] in free and each.hop == hop:
                each.held = True

    @rule()
    def release(self) -> None:
        self._do(self._shard.release(ALL, self._now()))
        free = self._messages_without_leases()
        for key, each in self._model.items():
            if key[0] in free and each.held:
                each.held, each.due_us = False, AT_ONCE_US

    @rule(hop=st.sampled_from(HOPS))
    def remove(self, hop: str) -> None:
        gone = set(self._do(self._shard.remove(QueueFilter(domains=(hop,)))))
        free = self._messages_without_leases()
        at_hop = {key[0] for key, each in self._model.items() if each.hop == hop}
        assert gone == free & at_hop
        self._model = {k: each for k, each in self._model.items() if k[0] not in gone}

    @rule()
    def reopen(self) -> None:
        """Leases of before are stale then; their recipients are free again."""
        self._do(self._shard.aclose())
        self._shard = self._do(self._open())
        for each in self._model.values():
            each.leased = False

    @invariant()
    def counts_agree(self) -> None:
        counts = self._do(self._shard.counts())
        assert counts["recipients"] == len(self._model)
        assert counts["messages"] == len({key[0] for key in self._model})
        held = sum(each.held for each in self._model.values())
        assert counts["held"] == held

    @invariant()
    def due_hops_agree(self) -> None:
        found = self._do(self._shard.due_hops(self._now(), 100))
        expected = {
            each.hop
            for each in self._model.values()
            if each.due_us <= self._us and not (each.leased or each.held)
        }
        assert {place.hop for place in found} == expected
        later = self._do(self._shard.next_due_us())
        waiting = [
            each.due_us
            for each in self._model.values()
            if not (each.leased or each.held)
        ]
        assert later == min(waiting, default=None)


SpoolModel.TestCase.settings = settings(
    max_examples=80,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
test_the_spool_is_its_model = SpoolModel.TestCase
