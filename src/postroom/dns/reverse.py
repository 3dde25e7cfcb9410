"""The name of a client: what its address is called, and whether that leads back.

A name that anybody can write into their reverse zone proves nothing; only one whose
own records hold the address is the client's (forward-confirmed). Nothing raises: what
cannot be looked up now is ``FAILED``, which is never held against a client.
"""

from enum import Enum
from ipaddress import ip_address

import msgspec

from postroom.dns.answer import DnsFailed, NameService, Records, RecordType
from postroom.dns.names import to_ascii

NAMES_MAX = 5
"""How many of an address's names are looked at."""


class Reverse(Enum):
    """What is known of an address's name."""

    VERIFIED = "verified"
    UNVERIFIED = "unverified"
    """It has names, but none of them leads back."""
    MISSING = "missing"
    FAILED = "failed"


class ReverseName(msgspec.Struct, frozen=True):
    """A client's name: empty unless ``found`` is ``VERIFIED``.

    ``claimed`` is the first name that the address claims, for logs.
    """

    found: Reverse
    name: str = ""
    claimed: str = ""


async def reverse_name(resolver: NameService, ip: str) -> ReverseName:
    """Look up what an address is called, and verify it."""
    try:
        address = ip_address(ip)
    except ValueError:
        return ReverseName(Reverse.MISSING)
    address = getattr(address, "ipv4_mapped", None) or address
    answer = await resolver.query(address.reverse_pointer, "PTR")
    if isinstance(answer, DnsFailed):
        return ReverseName(Reverse.FAILED)
    names = answer.values[:NAMES_MAX] if isinstance(answer, Records) else ()
    # What a stranger's zone says is judged before it goes anywhere.
    proper = [name for name in map(to_ascii, names) if name]
    if not proper:
        return ReverseName(Reverse.MISSING)
    rdtype: RecordType = "A" if address.version == 4 else "AAAA"
    has_failed = False
    for name in proper:
        there = await resolver.query(name, rdtype)
        if isinstance(there, Records) and str(address) in map(_plain, there.values):
            return ReverseName(Reverse.VERIFIED, name, proper[0])
        has_failed = has_failed or isinstance(there, DnsFailed)
    found = Reverse.FAILED if has_failed else Reverse.UNVERIFIED
    return ReverseName(found, "", proper[0])


def _plain(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        return text
