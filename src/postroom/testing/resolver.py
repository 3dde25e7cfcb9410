"""A resolver that knows just what a test told it; no network, no waiting.

Names that were not told do not exist. Every question is noted in ``asked``.
"""

from collections.abc import Iterable, Mapping

from postroom.dns.answer import (
    Answer,
    DnsFailed,
    MxRecord,
    NoData,
    NoSuchDomain,
    Records,
    RecordType,
)
from postroom.mail.now import HOUR_US, Now

FakeAnswer = str | Iterable[str] | Answer
"""What a test writes: ``"127.0.1.2"``, ``["10 mx.test"]``, ``DnsFailed("...")``."""


class FakeResolver:
    """A map-based ``NameService``.

    Example::

        FakeResolver({
            "whizzer.test MX": ["10 mx.whizzer.test", "20 backup.test"],
            "mx.whizzer.test A": "127.0.1.2",
            "broken.test MX": DnsFailed("SERVFAIL"),
        })

    Args:
        answers: by ``"name TYPE"``.
        warm: whether ``cached`` knows everything at once; otherwise only what was
            asked before.
    """

    def __init__(
        self, answers: Mapping[str, FakeAnswer] | None = None, *, warm: bool = False
    ) -> None:
        self.asked: list[str] = []
        self._warm = warm
        self._answers: dict[str, Answer] = {}
        self._names: set[str] = set()
        for question, answer in (answers or {}).items():
            self.tell(question, answer)

    def tell(self, question: str, answer: FakeAnswer) -> None:
        """Set what a question is answered with from now on."""
        name, rdtype = _split(question)
        self._names.add(name)
        self._answers[f"{name} {rdtype}"] = _answer(rdtype, answer)

    async def query(self, name: str, rdtype: RecordType) -> Answer:
        """Answer from the map."""
        name, _ = _split(f"{name} {rdtype}")
        self.asked.append(f"{name} {rdtype}")
        return self._lookup(name, rdtype)

    def cached(self, name: str, rdtype: RecordType, now: Now) -> Answer | None:
        """Answer from the map if ``warm`` or asked before."""
        name, _ = _split(f"{name} {rdtype}")
        if self._warm or f"{name} {rdtype}" in self.asked:
            return self._lookup(name, rdtype)
        return None

    def _lookup(self, name: str, rdtype: str) -> Answer:
        known = self._answers.get(f"{name} {rdtype}")
        if known is not None:
            return known
        return NoData(HOUR_US) if name in self._names else NoSuchDomain(HOUR_US)


def _split(question: str) -> tuple[str, str]:
    name, _, rdtype = question.rpartition(" ")
    return name.strip().lower().rstrip("."), rdtype


def _answer(rdtype: str, answer: FakeAnswer) -> Answer:
    if isinstance(answer, (Records, NoData, NoSuchDomain, DnsFailed)):
        return answer
    values = (answer,) if isinstance(answer, str) else tuple(answer)
    if rdtype != "MX":
        return Records(values, HOUR_US)
    return Records((), HOUR_US, tuple(_mx(value) for value in values))


def _mx(value: str) -> MxRecord:
    preference, exchange = value.split()
    return MxRecord(int(preference), exchange.lower().rstrip("."))
