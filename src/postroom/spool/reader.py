"""The thread that reads: answers what was asked meanwhile from one snapshot.

Once a second it also looks at the free space. A question that fails, fails alone;
damage of the file is an ``apsw.Error``, turned into ``SpoolError``.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, TypeVar

import apsw
import msgspec

from postroom.spool.database import Database
from postroom.spool.space import Space
from postroom.spool.spool import SpoolError

_LOOK_S = 1.0
_BATCH_MAX = 64
_Found = TypeVar("_Found")


class _Question(msgspec.Struct):
    ask: Callable[[apsw.Connection], Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None


class Reader:
    """The reader thread of one shard."""

    def __init__(self, database: Database, space: Space) -> None:
        self._database = database
        self._space = space
        self._loop = asyncio.get_running_loop()
        self._pending: SimpleQueue[_Question | None] = SimpleQueue()
        self._thread = threading.Thread(
            target=self._run, name="spool-reader", daemon=True
        )
        self._thread.start()

    async def ask(self, ask: Callable[[apsw.Connection], _Found]) -> _Found:
        """Run ``ask`` in the reader thread and return what it found.

        Raises:
            SpoolError: the database could not be read.
        """
        future: asyncio.Future[_Found] = self._loop.create_future()
        self._pending.put(_Question(ask, future))
        return await future

    async def aclose(self) -> None:
        """Answer what is pending and end the thread."""
        self._pending.put(None)
        await self._loop.run_in_executor(None, self._thread.join)

    def _run(self) -> None:
        open_, looked_s = True, monotonic()
        while open_:
            questions: list[_Question] = []
            with suppress(Empty):
                first = self._pending.get(timeout=_LOOK_S)
                questions, open_ = self._gather(first)
            if monotonic() - looked_s >= _LOOK_S:
                self._space.refresh()
                looked_s = monotonic()
            if questions:
                self._answer(questions)
                self._loop.call_soon_threadsafe(_tell, questions)

    def _gather(self, first: _Question | None) -> tuple[list[_Question], bool]:
        questions: list[_Question] = []
        question = first
        while question is not None:
            questions.append(question)
            if len(questions) >= _BATCH_MAX or self._pending.empty():
                return questions, True
            question = self._pending.get()
        return questions, False

    def _answer(self, questions: Sequence[_Question]) -> None:
        try:
            with self._database.reading() as connection:
                for question in questions:
                    _try(question, connection)
        except Exception as error:
            for question in questions:
                question.error = SpoolError(f"the queue could not be read: {error}")


def _try(question: _Question, connection: apsw.Connection) -> None:
    try:
        question.result = question.ask(connection)
    except SpoolError as error:
        question.error = error
    except apsw.Error as error:
        question.error = SpoolError(f"the queue could not be read: {error}")
    except Exception as error:  # our own mistake: to the caller, not into the thread
        question.error = error


def _tell(questions: Sequence[_Question]) -> None:
    for question in questions:
        if question.future.done():
            continue
        if question.error is None:
            question.future.set_result(question.result)
        else:
            question.future.set_exception(question.error)
