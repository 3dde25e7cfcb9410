"""Tells where mail for an address would go, and why.

The decisions are those of real mail; their questions are written down as they are
asked. Pure, but for what it awaits.
"""

from collections.abc import Awaitable, Callable
from enum import IntEnum
from typing import assert_never

import msgspec

from postroom.dns.answer import DnsFailed
from postroom.dns.hop import is_hop_of
from postroom.dns.hop_options import hop_name
from postroom.dns.mx import Exchangers, Hosts
from postroom.mail.address import Address
from postroom.mail.route import Route
from postroom.route.drive import Facts, drive
from postroom.route.questions import Answer, Found, NotFound, Question, to_text
from postroom.route.questions import Failed as FailedAnswer
from postroom.route.router import Router
from postroom.route.routing import (
    LocalAlias,
    LocalUser,
    Relay,
    Routing,
    RoutingFailed,
    Unknown,
    Unroutable,
)

CHILDREN_SHOWN_MAX = 100
FindHosts = Callable[[str], Awaitable[Exchangers]]
"""Finds the hosts of a hop, as ``dns.exchangers.find_exchangers`` does."""
TellTerms = Callable[[str, str], str]
"""Says in a few words on which terms a hop, or one host of it, is spoken to."""


class Recording:
    """Facts that write down every question with its answer.

    Args:
        facts: who really answers.
        lines: where to write.
    """

    def __init__(self, facts: Facts, lines: list[str]) -> None:
        self._facts = facts
        self._lines = lines

    def get(self, question: Question) -> Answer | Awaitable[Answer]:
        """Answer as the facts do, and note it."""
        answer = self._facts.get(question)
        if isinstance(answer, Found | NotFound | FailedAnswer):
            self._note(question, answer)
            return answer
        return self._later(question, answer)

    async def _later(self, question: Question, answer: Awaitable[Answer]) -> Answer:
        found = await answer
        self._note(question, found)
        return found

    def _note(self, question: Question, answer: Answer) -> None:
        self._lines.append(f"  {to_text(question)} {to_text(answer)}")


class Prospect(IntEnum):
    """What becomes of mail for an address, as far as can be told; the worst last."""

    FINE = 0
    CANNOT_SAY = 1
    NO_HOST = 2
    UNKNOWN = 3


class _Story(msgspec.Struct):
    """What has been told so far, and what is known beyond routing."""

    lines: list[str]
    find_hosts: FindHosts | None
    tell_terms: TellTerms | None
    prospect: Prospect = Prospect.FINE

    def tell(self, line: str, prospect: Prospect = Prospect.FINE) -> None:
        self.lines.append(line)
        self.prospect = max(self.prospect, prospect)


class Explanation(msgspec.Struct, frozen=True):
    """Lines for people, and the worst that they tell of."""

    lines: tuple[str, ...]
    prospect: Prospect


async def explain(
    router: Router,
    facts: Facts,
    address: Address,
    find_hosts: FindHosts | None = None,
    tell_terms: TellTerms | None = None,
) -> Explanation:
    """Tell where mail for an address would go, and by which rule.

    ``find_hosts`` looks up the hosts of SMTP hops; None: the DNS is not asked.
    ``tell_terms`` says what is demanded of other hosts.
    """
    story = _Story([], find_hosts, tell_terms)
    recording = Recording(facts, story.lines)
    routing = await drive(router.classify(address), recording)
    story.tell(f"{address}: {describe(routing)}", _prospect(routing))
    if isinstance(routing, LocalAlias):
        await _explain_alias(router, recording, address, story)
    elif isinstance(routing, Relay):
        await _explain_route(routing.route, address, story)
    return Explanation(tuple(story.lines), story.prospect)


def _prospect(routing: Routing) -> Prospect:
    match routing:
        case Unknown():
            return Prospect.UNKNOWN
        case Unroutable():
            later = routing.is_temporary
            return Prospect.CANNOT_SAY if later else Prospect.NO_HOST
        case RoutingFailed():
            return Prospect.CANNOT_SAY
        case LocalUser() | LocalAlias() | Relay():
            return Prospect.FINE
        case _:
            assert_never(routing)


def describe(routing: Routing) -> str:
    """Say in a few words what a routing means."""
    match routing:
        case LocalUser(user, detail, route):
            more = f", detail {detail}" if detail else ""
            return f"local user {user}{more}: agent {route.agent} ({route.rule})"
        case LocalAlias(_, targets, rule):
            return f"alias for {to_text(Found(targets))} ({rule})"
        case Relay(route):
            return f"agent {route.agent}, hop {route.hop} ({route.rule})"
        case Unknown() | Unroutable() | RoutingFailed():
            return f"{routing.to_reply()} ({routing.rule})"
        case _:
            assert_never(routing)


async def _explain_alias(
    router: Router, facts: Recording, address: Address, story: _Story
) -> None:
    walk = router.walk(address)
    expansion = await drive(walk.chunk(CHILDREN_SHOWN_MAX), facts)
    if isinstance(expansion, RoutingFailed):
        why = f"cannot be expanded now: {expansion.reason}"
        return story.tell(why, Prospect.CANNOT_SAY)
    story.lines += expansion.trace
    if expansion.owner:
        story.tell(f"errors go to {expansion.owner}")
    hops = set[Route]()
    for child in expansion.children:
        told = f"{child.address}: {describe(child.routing)}"
        story.tell(told, _prospect(child.routing))
        if isinstance(child.routing, Relay) and child.routing.route not in hops:
            hops.add(child.routing.route)
            await _explain_route(child.routing.route, child.address, story)
    for problem in expansion.problems:
        is_host = problem.status.endswith(".1.2")  # bad destination system
        prospect = Prospect.NO_HOST if is_host else Prospect.UNKNOWN
        story.tell(f"{problem.target}: {problem.status} {problem.text}", prospect)
    if expansion.cursor is not None:
        story.tell(f"... and more than {CHILDREN_SHOWN_MAX} in all")


async def _explain_route(route: Route, address: Address, story: _Story) -> None:
    hop, tell_terms = hop_name(route.hop), story.tell_terms
    terms = ""
    if tell_terms is not None and route.agent in ("smtp", "lmtp"):
        terms = tell_terms(route.hop, "")
        story.tell(f"  {hop}: {terms}")
    if route.agent != "smtp" or story.find_hosts is None:
        return
    match await story.find_hosts(hop):
        case Hosts(hosts):
            for host in hosts:
                addresses = ", ".join(host.addresses)
                own = "" if tell_terms is None else tell_terms(route.hop, host.name)
                more = f" ({own})" if own != terms else ""
                story.tell(
                    f"  {hop}: {host.preference} {host.name} [{addresses}]{more}"
                )
        case DnsFailed(reason):
            story.tell(f"  {hop}: cannot say now: {reason}", Prospect.CANNOT_SAY)
        case refused if not is_hop_of(address.domain_key, hop):
            why = f"mail waits (4.3.5): {refused.reason}"
            story.tell(f"  {hop}: {why}", Prospect.CANNOT_SAY)
        case refused:
            why = f"{refused.code} {refused.status} {refused.reason}"
            story.tell(f"  {hop}: {why}", Prospect.NO_HOST)
