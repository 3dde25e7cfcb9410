"""Runs a decision that asks for facts: at once if they are known, else waiting.

Pure, though ``drive`` is a coroutine: it awaits what the facts give and no more.
"""

from collections.abc import Awaitable, Generator
from typing import Generic, Protocol, TypeVar

from postroom.route.questions import Answer, Failed, Found, NotFound, Question

T = TypeVar("T")
Asking = Generator[Question, Answer, T]
"""A decision in the making."""

_ANSWERS = (Found, NotFound, Failed)


class Facts(Protocol):
    """Who answers questions."""

    def get(self, question: Question) -> Answer | Awaitable[Answer]:
        """Answer at once if possible; otherwise give something to await."""


class Waiting(Generic[T]):
    """A decision that cannot go on before an answer has come.

    Finish it with ``await waiting.finish()``, or ``close`` it.
    """

    def __init__(
        self, asking: Asking[T], answer: Awaitable[Answer], facts: Facts
    ) -> None:
        self._asking = asking
        self._answer = answer
        self._facts = facts

    async def finish(self) -> T:
        """Wait for this answer and all further ones; return the decision."""
        while True:
            result = _advance(self._asking, await self._answer, self._facts)
            if not isinstance(result, Waiting):
                return result
            self._answer = result._answer

    def close(self) -> None:
        """Give the decision up."""
        self._asking.close()
        close = getattr(self._answer, "close", None) or getattr(
            self._answer, "cancel", None
        )
        if close:
            close()


def answer_now(asking: Asking[T], facts: Facts) -> T | Waiting[T]:
    """Take a decision without waiting, as far as the facts allow."""
    return _advance(asking, None, facts)


async def drive(asking: Asking[T], facts: Facts) -> T:
    """Take a decision, waiting where facts must be fetched."""
    result = _advance(asking, None, facts)
    return await result.finish() if isinstance(result, Waiting) else result


def _advance(asking: Asking[T], answer: Answer | None, facts: Facts) -> T | Waiting[T]:
    get = facts.get
    try:
        question = next(asking) if answer is None else asking.send(answer)
        while True:
            found = get(question)
            if not isinstance(found, _ANSWERS):
                return Waiting(asking, found, facts)
            question = asking.send(found)
    except StopIteration as end:
        result: T = end.value
        return result
