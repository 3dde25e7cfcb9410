"""Tells where mail for an address would go, and why.

The decisions are those of real mail; their questions are written down as they are
asked. Pure, but for what it awaits.
"""

from collections.abc import Awaitable, Callable
from typing import NamedTuple, assert_never

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


class _Onward(NamedTuple):
    """What is known beyond routing."""

    find_hosts: FindHosts | None
    tell_terms: TellTerms | None


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


async def explain(
    router: Router,
    facts: Facts,
    address: Address,
    find_hosts: FindHosts | None = None,
    tell_terms: TellTerms | None = None,
) -> list[str]:
    """Return lines that tell where mail for an address would go, and by which rule.

    ``find_hosts`` looks up the hosts of SMTP hops; None: the DNS is not asked.
    ``tell_terms`` says what is demanded of other hosts.
    """
    onward = _Onward(find_hosts, tell_terms)
    lines: list[str] = []
    recording = Recording(facts, lines)
    routing = await drive(router.classify(address), recording)
    lines.append(f"{address}: {describe(routing)}")
    if isinstance(routing, LocalAlias):
        await _explain_alias(router, recording, address, lines, onward)
    elif isinstance(routing, Relay):
        await _explain_route(routing.route, lines, onward)
    return lines


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
    router: Router,
    facts: Recording,
    address: Address,
    lines: list[str],
    onward: _Onward,
) -> None:
    walk = router.walk(address)
    expansion = await drive(walk.chunk(CHILDREN_SHOWN_MAX), facts)
    if isinstance(expansion, RoutingFailed):
        lines.append(f"cannot be expanded now: {expansion.reason}")
        return
    lines += expansion.trace
    if expansion.owner:
        lines.append(f"errors go to {expansion.owner}")
    hops = set[Route]()
    for child in expansion.children:
        lines.append(f"{child.address}: {describe(child.routing)}")
        if isinstance(child.routing, Relay) and child.routing.route not in hops:
            hops.add(child.routing.route)
            await _explain_route(child.routing.route, lines, onward)
    for problem in expansion.problems:
        lines.append(f"{problem.target}: {problem.status} {problem.text}")
    if expansion.cursor is not None:
        lines.append(f"... and more than {CHILDREN_SHOWN_MAX} in all")


async def _explain_route(route: Route, lines: list[str], onward: _Onward) -> None:
    hop, tell_terms = hop_name(route.hop), onward.tell_terms
    terms = ""
    if tell_terms is not None and route.agent in ("smtp", "lmtp"):
        terms = tell_terms(route.hop, "")
        lines.append(f"  {hop}: {terms}")
    if route.agent != "smtp" or onward.find_hosts is None:
        return
    found = await onward.find_hosts(hop)
    if not isinstance(found, Hosts):
        lines.append(f"  {hop}: {found.reason}")
        return
    for host in found.hosts:
        addresses = ", ".join(host.addresses)
        own = "" if tell_terms is None else tell_terms(route.hop, host.name)
        more = f" ({own})" if own != terms else ""
        lines.append(f"  {hop}: {host.preference} {host.name} [{addresses}]{more}")
