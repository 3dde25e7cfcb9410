"""What is found out about a client before its first message: lists, name, hello.

Look-ups begin when the client has connected and go on while it talks; they are waited
for at its first MAIL, and judged at RCPT (``builtin.Guards.client``). What cannot be
looked up in time is not held against the client, and told in the log.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from postroom.dns.answer import DnsFailed, NameService, Records, RecordType
from postroom.dns.lists import DnsList, Meaning
from postroom.dns.names import is_ip_address, to_ascii
from postroom.dns.own import OwnNames
from postroom.dns.reverse import Reverse, ReverseName, reverse_name
from postroom.mail.now import HOUR_US, Now
from postroom.mail.reply import Reply
from postroom.mail.verdict import Defer, Reject
from postroom.observe.events import AnyEvent, Lifecycle
from postroom.policy.check_settings import Action
from postroom.policy.session import in_networks
from postroom.policy.settings import PolicySettings

TROUBLE_EVERY_US = HOUR_US
"""How often a list that does not work is told of."""

_MAIL_TYPES: tuple[RecordType, ...] = ("A", "AAAA", "MX")


class Finding(NamedTuple):
    """What a check has against the client. ``action`` is what the settings say."""

    check: str
    detail: str
    action: Action
    reply: Reply


class Findings(NamedTuple):
    """What is known of the client; ``client_name`` is its verified name."""

    client_name: str = ""
    score: int = 0
    lists: tuple[str, ...] = ()
    against: tuple[Finding, ...] = ()

    @property
    def objection(self) -> Reject | Defer | None:
        """The severest that the findings lead to."""
        for one in self.against:
            if one.action == "reject":
                return Reject(one.reply, one.check)
        for one in self.against:
            if one.action == "defer":
                return Defer(one.reply, one.check)
        return None


class Inspector:
    """Finds out about clients, as one generation's settings say.

    Args:
        settings: the ``[policy]`` section.
        resolver: whom to ask.
        own: our names and addresses.
        emit: takes a warning when a list does not work.
        clock: reads the time.
    """

    def __init__(
        self,
        settings: PolicySettings,
        resolver: NameService,
        own: OwnNames,
        emit: Callable[[AnyEvent], None],
        clock: Callable[[], Now],
    ) -> None:
        self.settings = settings
        self.resolver = resolver
        self.own = own
        self.lists = tuple(map(DnsList.from_text, settings.dns_lists.zones))
        reverse = settings.reverse
        actions = {reverse.missing, reverse.unverified}
        self.wants_name = reverse.look_up or actions != {"off"}
        self._free = settings.clients.exempt_networks + settings.relay_networks
        self._emit = emit
        self._clock = clock
        self._told_us: dict[str, int] = {}

    def begin(self, ip: str) -> "Inspection | None":
        """Begin to find out about a client; None if nobody asks about it."""
        if not ip or in_networks(ip, self._free):
            return None
        return Inspection(self, ip)

    def told(self, zone: str, trouble: str) -> None:
        """Tell that a list does not work, now and then."""
        now = self._clock()
        last_us = self._told_us.get(zone)
        if last_us is None or now.mono_us - last_us >= TROUBLE_EVERY_US:
            self._told_us[zone] = now.mono_us
            what = f"policy.dns_lists: {zone} says nothing: {trouble}"
            self._emit(Lifecycle(utc_us=now.utc_us, what=what, level="warning"))


class Inspection:
    """Look-ups about one client. To be closed.

    Attributes:
        ip: the client's address.
        is_due: whether something was not concluded yet.
    """

    def __init__(self, inspector: Inspector, ip: str) -> None:
        self.ip = ip
        self.is_due = True
        self._inspector = inspector
        self._helo = ""
        self._lists: list[tuple[DnsList, asyncio.Task[Meaning]]] = [
            (one, self._start(self._ask_list(one))) for one in inspector.lists
        ]
        self._name: asyncio.Task[ReverseName] | None = None
        if inspector.wants_name:
            self._name = self._start(reverse_name(inspector.resolver, ip))
        self._resolves: asyncio.Task[bool] | None = None
        loop = asyncio.get_running_loop()
        self._until = loop.time() + inspector.settings.clients.timeout.seconds

    def hello(self, name: str) -> None:
        """Take what the client calls itself, which is to be found out about anew."""
        self._helo, self.is_due = name.lower().rstrip("."), True
        if self._resolves is not None:
            self._resolves.cancel()
            self._resolves = None
        inspector = self._inspector
        if inspector.settings.hello.unresolvable != "off" and "." in self._helo:
            ascii_name = to_ascii(self._helo)
            if ascii_name and not is_ip_address(ascii_name):
                self._resolves = self._start(self._ask_hello(ascii_name))
                loop = asyncio.get_running_loop()
                seconds = inspector.settings.clients.timeout.seconds
                self._until = loop.time() + seconds

    async def conclude(self) -> Findings:
        """Wait for the look-ups, as long as they may take, and judge."""
        self.is_due = False
        tasks: list[asyncio.Task[Any]] = [task for _, task in self._lists]
        tasks += [task for task in (self._name, self._resolves) if task is not None]
        waiting = [task for task in tasks if not task.done()]
        if waiting:
            left = self._until - asyncio.get_running_loop().time()
            await asyncio.wait(waiting, timeout=max(0.0, left))
        name = _result(self._name, ReverseName(Reverse.FAILED))
        against: list[Finding] = []
        score, lists = self._judge_lists(against)
        if self._name is not None:
            self._judge_name(name, against)
        self._judge_hello(against)
        return Findings(name.name, score, lists, tuple(against))

    def close(self) -> None:
        """Give up what is still asked."""
        for _, task in self._lists:
            task.cancel()
        for other in (self._name, self._resolves):
            if other is not None:
                other.cancel()

    def _start(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        return asyncio.get_running_loop().create_task(work)

    async def _ask_list(self, one: DnsList) -> Meaning:
        try:
            question = one.question(self.ip)
        except ValueError:
            return Meaning.NOTHING
        answer = await self._inspector.resolver.query(question, "A")
        if isinstance(answer, DnsFailed):
            self._inspector.told(one.zone, answer.reason)
            return Meaning.TROUBLE
        values = answer.values if isinstance(answer, Records) else ()
        meanings = {one.meaning(value): value for value in values}
        if Meaning.TROUBLE in meanings:  # whatever else it says
            text = f"it answers {meanings[Meaning.TROUBLE]}, which is no listing"
            self._inspector.told(one.zone, text)
            return Meaning.TROUBLE
        return Meaning.LISTED if Meaning.LISTED in meanings else Meaning.NOTHING

    async def _ask_hello(self, name: str) -> bool:
        """Whether a name has an address or takes mail; True if nobody can say."""
        resolver = self._inspector.resolver
        for rdtype in _MAIL_TYPES:
            answer = await resolver.query(name, rdtype)
            if isinstance(answer, Records | DnsFailed):
                return True
        return False

    def _judge_lists(self, against: list[Finding]) -> tuple[int, tuple[str, ...]]:
        on = [
            one
            for one, task in self._lists
            if _result(task, Meaning.TROUBLE) is Meaning.LISTED
        ]
        for one, task in self._lists:
            if not task.done():
                self._inspector.told(one.zone, "it does not answer in time")
        score, zones = sum(one.weight for one in on), tuple(one.zone for one in on)
        settings = self._inspector.settings.dns_lists
        action: Action = "log"
        if settings.reject_at and score >= settings.reject_at:
            action = "reject"
        elif settings.defer_at and score >= settings.defer_at:
            action = "defer"
        if on:
            bad = [one.zone for one in on if one.weight > 0]
            reply = _reply(action, "7.1", f"Your address is listed by {', '.join(bad)}")
            detail = f"score {score}: {', '.join(zones)}"
            against.append(Finding("dns_lists", detail, action, reply))
        return score, zones

    def _judge_name(self, found: ReverseName, against: list[Finding]) -> None:
        settings = self._inspector.settings.reverse
        match found.found:
            case Reverse.MISSING:
                action, check = settings.missing, "reverse_missing"
            case Reverse.UNVERIFIED:
                action, check = settings.unverified, "reverse_unverified"
            case _:
                return
        if action != "off":
            text = "Your address has no name that leads back to it"
            reply = _reply(action, "7.25", text)  # RFC 7372
            against.append(Finding(check, found.claimed, action, reply))

    def _judge_hello(self, against: list[Finding]) -> None:
        settings, own, helo = (
            self._inspector.settings.hello,
            self._inspector.own,
            self._helo,
        )
        literal = helo.strip("[]").removeprefix("ipv6:")
        is_literal = is_ip_address(literal)
        ascii_name = to_ascii(helo)
        checks: tuple[tuple[str, Action, bool], ...] = (
            (
                "own_name",
                settings.own_name,
                bool(ascii_name) and own.is_name(ascii_name or ""),
            ),
            (
                "own_address",
                settings.own_address,
                is_literal and own.is_address(literal),
            ),
            ("unqualified", settings.unqualified, not is_literal and "." not in helo),
            (
                "unresolvable",
                settings.unresolvable,
                not _result(self._resolves, True),
            ),
        )
        for name, action, is_so in checks:
            if helo and is_so and action != "off":
                reply = _reply(action, "7.1", "Your HELO name is not acceptable")
                against.append(Finding(f"hello_{name}", helo, action, reply))


def _reply(action: Action, status: str, text: str) -> Reply:
    if action == "reject":
        return Reply.of(550, f"5.{status}", text)
    return Reply.of(450, f"4.{status}", text)


def _result(task: "asyncio.Task[Any] | None", otherwise: Any) -> Any:
    """Return what a look-up found; ``otherwise`` if it did not end, or badly."""
    if task is None or not task.done() or task.cancelled() or task.exception():
        return otherwise
    return task.result()
