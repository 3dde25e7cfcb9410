"""Finds the hosts to try for a hop: MX, then their addresses, as needed.

Thin: what the answers mean is decided in ``mx``. Addresses are looked up one
preference at a time, and no further once enough are known, so that a domain with a
hundred MX records costs what its best ones cost.
"""

import asyncio
from collections.abc import Sequence

from postroom.dns.answer import Answer, NameService, Records
from postroom.dns.hop import Hop
from postroom.dns.mx import (
    Candidates,
    Exchanger,
    Exchangers,
    Hosts,
    LoopsBack,
    MxHost,
    NoMail,
    before_own_names,
    candidates,
    choose,
    groups,
    order_addresses,
)
from postroom.dns.own import OwnNames
from postroom.dns.settings import AddressOrder

ADDRESSES_ENOUGH = 10
"""No worse preference is looked up once this many addresses are known."""


async def find_exchangers(
    resolver: NameService,
    domain: str,
    own: OwnNames,
    seed: int,
    *,
    order: AddressOrder = "ipv6-first",
    port: int = 25,
) -> Exchangers:
    """Return the hosts to try for a hop, best first, or why there are none.

    Args:
        resolver: who is asked.
        domain: a hop as routes name it: ``whizzer.test``, ``[relay.test]:587`` (no
            MX), ``[127.0.0.2]`` (nothing is asked).
        own: who we are.
        seed: decides the order of equal preferences; another one for each attempt.
        order: which addresses are used, and which first.
        port: where the caller connects to if the hop does not say.
    """
    try:
        hop = Hop.from_text(domain)
    except ValueError as error:
        return NoMail("5.1.2", f"Host unknown ({error})")
    port = hop.port or port
    if hop.is_address:
        if own.is_address(hop.name, port):
            return LoopsBack(domain, domain)
        return Hosts((Exchanger(hop.host_text, 0, (hop.name,)),))
    found = await _candidates(resolver, hop, seed)
    if not isinstance(found, Candidates):
        return found
    answers: dict[str, Sequence[Answer]] = {}
    for group in groups(before_own_names(found, own)):
        answers |= await _group_answers(resolver, group, order)
        known = _known_addresses(answers)
        if len(known) >= ADDRESSES_ENOUGH:
            break
        if any(own.is_address(address, port) for address in known):
            break  # what is no better than ourselves is dropped anyway
    return choose(hop.name, found, answers, own, port=port)


async def _candidates(
    resolver: NameService, hop: Hop, seed: int
) -> Candidates | Exchangers:
    if not hop.wants_mx:
        return Candidates((MxHost(hop.name, 0),), implicit=True)
    return candidates(hop.name, await resolver.query(hop.name, "MX"), seed)


async def _group_answers(
    resolver: NameService, group: Sequence[MxHost], order: AddressOrder
) -> dict[str, tuple[Answer, ...]]:
    found = await asyncio.gather(
        *(_host_answers(resolver, host.name, order) for host in group)
    )
    return dict(found)


async def _host_answers(
    resolver: NameService, name: str, order: AddressOrder
) -> tuple[str, tuple[Answer, ...]]:
    ipv6 = None if order == "ipv4-only" else resolver.query(name, "AAAA")
    ipv4 = None if order == "ipv6-only" else resolver.query(name, "A")
    if ipv6 and ipv4:
        pair = await asyncio.gather(ipv6, ipv4)
        return name, order_addresses(pair[0], pair[1], order)
    return name, order_addresses(
        await ipv6 if ipv6 else None, await ipv4 if ipv4 else None, order
    )


def _known_addresses(answers: dict[str, Sequence[Answer]]) -> list[str]:
    return [
        address
        for host_answers in answers.values()
        for answer in host_answers
        if isinstance(answer, Records)
        for address in answer.values
    ]
