"""Answers the router's questions from tables, users, lists and the DNS.

What is in memory is answered at once; what must be fetched is given as something to
await. A table that has no good version fails, so that mail waits instead of bouncing.
Pure, though it has coroutines: all fetching is done by what it is given.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import assert_never

import msgspec

from postroom.dns import answer as dns
from postroom.route.questions import (
    Answer,
    Failed,
    Found,
    Lookup,
    NotFound,
    Question,
    ReadInclude,
    Resolve,
    UserExists,
)
from postroom.tables.include import Include, Included, Unreadable, Unusable
from postroom.tables.table import Table

AnyTable = Table[str] | Table[tuple[str, ...]]
_YES = Found()
_NO = NotFound()


class Sources(msgspec.Struct, frozen=True):
    """Where facts come from.

    ``tables`` are by name (``aliases``, ``routes``); a name that is missing is an
    empty table. ``user_exists`` answers for names in lower case, at once, and may
    raise ``OSError`` when it cannot say.
    """

    tables: Mapping[str, AnyTable]
    user_exists: Callable[[str], bool]
    resolver: dns.NameService | None = None
    read_include: Callable[[str], Awaitable[Include]] | None = None


class RouteFacts:
    """The ``Facts`` of one generation."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._tables = dict(sources.tables)
        self._user_exists = sources.user_exists

    def get(self, question: Question) -> Answer | Awaitable[Answer]:
        """Answer at once if possible; otherwise give something to await."""
        match question:
            case Lookup(table, key):
                return self._look_up(table, key)
            case UserExists(name):
                return self._user(name)
            case ReadInclude(path):
                return self._include(path)
            case Resolve():
                return self._resolve(question)
            case _:
                assert_never(question)

    def _look_up(self, name: str, key: str) -> Answer:
        table = self._tables.get(name)
        if table is None:
            return _NO
        if table.fault:
            return Failed(table.fault)
        value = table.get(key)
        if value is None:
            return _NO
        return Found((value,) if isinstance(value, str) else value)

    def _user(self, name: str) -> Answer:
        try:
            return _YES if self._user_exists(name) else _NO
        except OSError as error:
            return Failed(f"users: {error}")

    async def _include(self, path: str) -> Answer:
        if self._sources.read_include is None:
            return NotFound(f"{path}: lists in files are not read here")
        match await self._sources.read_include(path):
            case Included(targets):
                return Found(targets)
            case Unusable(reason):
                return NotFound(reason)
            case Unreadable(reason):
                return Failed(reason)

    async def _resolve(self, question: Resolve) -> Answer:
        if self._sources.resolver is None:
            return Failed("there is no resolver")
        found = await self._sources.resolver.query(question.name, question.rdtype)
        match found:
            case dns.Records(values, _, exchanges):
                texts = (f"{mx.preference} {mx.exchange}" for mx in exchanges)
                return Found(values or tuple(texts))
            case dns.NoData() | dns.NoSuchDomain():
                return _NO
            case dns.DnsFailed(reason):
                return Failed(reason)
