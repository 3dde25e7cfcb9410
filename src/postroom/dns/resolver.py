"""The caching resolver: asks name servers, and remembers what they said.

Servers are asked in turn until one says something usable; a time-out, SERVFAIL or
nonsense leads to the next. When all have failed the answer is ``DnsFailed``, which
is a deferral and never "does not exist". The same question asked many times at once
goes out once.
"""

import asyncio
import secrets
from collections.abc import Callable

import msgspec

from postroom.dns.answer import (
    Answer,
    Continues,
    DnsFailed,
    NoSuchDomain,
    Query,
    RecordType,
    Refused,
    TtlLimits,
)
from postroom.dns.cache import AnswerCache
from postroom.dns.names import to_ascii
from postroom.dns.nameserver import Nameserver, system_nameservers
from postroom.dns.settings import ResolverSettings
from postroom.dns.transport import Carried, Limits, ask
from postroom.mail.now import Now


class Resolver:
    """Looks names up for one worker; call it from one event loop only.

    Args:
        settings: servers, time-outs and bounds.
        clock: reads the present moment.

    Raises:
        ValueError: a name server in the settings is malformed.
    """

    def __init__(self, settings: ResolverSettings, clock: Callable[[], Now]) -> None:
        self._settings = settings
        self._clock = clock
        named = tuple(Nameserver.from_text(text) for text in settings.nameservers)
        self._servers = named or system_nameservers(settings.resolv_conf)
        self._first = 0
        ttl = TtlLimits(int(settings.ttl_max), int(settings.negative_ttl_max))
        self._limits = Limits(settings.timeout, ttl)
        self._cache = AnswerCache(
            settings.cache_entries_max,
            int(settings.cache_octets_max),
            int(settings.failure_ttl),
        )
        self._places = asyncio.Semaphore(settings.queries_max)
        self._asking: dict[tuple[str, RecordType], asyncio.Task[Answer]] = {}

    @property
    def nameservers(self) -> tuple[Nameserver, ...]:
        """The servers that are asked, in the order of the settings."""
        return self._servers

    def cached(self, name: str, rdtype: RecordType, now: Now) -> Answer | None:
        """Return what is known without asking; None if nothing is."""
        ascii_name = to_ascii(name)
        if ascii_name is None:
            return NoSuchDomain()
        return self._cache.get(ascii_name, rdtype, now.mono_us)

    async def query(self, name: str, rdtype: RecordType) -> Answer:
        """Ask for the records of one type.

        A text that is no domain name does not exist. Never raises for what servers
        or networks do. A caller that is cancelled does not disturb the others that
        wait for the same answer.
        """
        ascii_name = to_ascii(name)
        if ascii_name is None:
            return NoSuchDomain()
        known = self._cache.get(ascii_name, rdtype, self._clock().mono_us)
        if known is not None:
            return known
        key = ascii_name, rdtype
        task = self._asking.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._look_up(*key))
            self._asking[key] = task
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(task)

    async def aclose(self) -> None:
        """Give up what is being asked."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def forget(self) -> None:
        """Empty the cache."""
        self._cache.clear()

    async def _look_up(self, name: str, rdtype: RecordType) -> Answer:
        async with self._places:
            answer = await self._follow(name, rdtype)
        self._cache.put(name, rdtype, answer, self._clock().mono_us)
        return answer

    async def _follow(self, name: str, rdtype: RecordType) -> Answer:
        """Ask, and ask on where an answer is an alias into another zone."""
        seen: frozenset[str] = frozenset()
        ttl_us = int(self._settings.ttl_max)
        while True:
            found = await self._ask_servers(name, rdtype, seen)
            if not isinstance(found, Continues):
                return _no_longer_than(found, ttl_us)
            target = to_ascii(found.target)
            if target is None:
                return NoSuchDomain(min(ttl_us, found.ttl_us))
            name, seen, ttl_us = target, found.seen, min(ttl_us, found.ttl_us)

    async def _ask_servers(
        self, name: str, rdtype: RecordType, seen: frozenset[str]
    ) -> Answer | Continues:
        reason = "no try is allowed by the settings"
        tries, octets = self._settings.tries, int(self._settings.udp_octets_max)
        for turn in range(tries):
            if turn and turn == tries - 1:
                octets = 0  # some devices drop questions with EDNS, and nobody answers
            all_answered = True
            start = self._first
            for offset in range(len(self._servers)):
                number = (start + offset) % len(self._servers)
                query = Query.make(name, rdtype, _new_id(), octets)
                found = await self._ask_server(number, query, seen)
                if not isinstance(found, Refused):
                    self._first = number
                    return found
                reason = f"{name} {rdtype}: {self._servers[number]}: {found.reason}"
                all_answered = all_answered and found.answered
                self._first = (number + 1) % len(self._servers)
            if all_answered:
                break  # they are there and will not say: asking again gains nothing
        return DnsFailed(reason)

    async def _ask_server(
        self, number: int, query: Query, seen: frozenset[str]
    ) -> Carried:
        """Ask one server once; more plainly if it does not understand EDNS."""
        server = self._servers[number]
        found = await ask(server, query, self._limits, seen)
        if isinstance(found, Refused) and found.dislikes_edns and query.has_edns:
            query = Query.make(query.name, query.rdtype, _new_id())  # RFC 6891 §7
            found = await ask(server, query, self._limits, seen)
        return found


def _new_id() -> int:
    """An id that nobody can guess (RFC 5452 §9.2)."""
    return secrets.randbelow(1 << 16)


def _no_longer_than(answer: Answer, ttl_us: int) -> Answer:
    """Cap the life of an answer by that of the aliases that led to it."""
    if isinstance(answer, DnsFailed) or answer.ttl_us <= ttl_us:
        return answer
    return msgspec.structs.replace(answer, ttl_us=ttl_us)
