"""What the test name server knows: records and lies, read from text. Pure.

A zone text has one record a line, names in full, the final dot optional::

    ; a comment
    gonzo.test        MX 10 mx.gonzo.test
    mx.gonzo.test  60 A  127.0.1.1
    slow.test         LIE silence
"""

from collections.abc import Iterable
from enum import StrEnum

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

TTL_S = 60
"""The TTL of records that name none."""

_ROOT = dns.name.root
_CHASED_MAX = 20


class Lie(StrEnum):
    """Ways in which the server misbehaves for one name."""

    WRONG_ID = "wrong-id"
    WRONG_QUESTION = "wrong-question"
    FORGED_FIRST = "forged-first"
    TRUNCATED = "truncated"
    TRUNCATED_NO_TCP = "truncated-no-tcp"
    CNAME_LOOP = "cname-loop"
    CNAME_CHAIN = "cname-chain"
    MANY_MX = "many-mx"
    SERVFAIL = "servfail"
    REFUSED = "refused"
    FORMERR_ON_EDNS = "formerr-on-edns"
    REFERRAL = "referral"
    GARBAGE = "garbage"
    SILENCE = "silence"


class Zone:
    """Records and lies by name.

    Args:
        lines: as in the module's description.

    Raises:
        ValueError: a line cannot be read; the message names it.
    """

    def __init__(self, lines: Iterable[str] = ()) -> None:
        self.lies: dict[dns.name.Name, Lie] = {}
        self._sets: dict[tuple[dns.name.Name, int], dns.rrset.RRset] = {}
        for number, line in enumerate(lines, 1):
            text = line.partition(";")[0].strip()
            if not text:
                continue
            try:
                self.add(text)
            except (ValueError, dns.exception.DNSException) as error:
                raise ValueError(
                    f"zone line {number}: {line.strip()}: {error}"
                ) from None

    @classmethod
    def from_text(cls, text: str) -> "Zone":
        """Read a whole zone text. Raises ``ValueError`` as the constructor does."""
        return cls(text.splitlines())

    def add(self, text: str) -> None:
        """Add one record or lie. Raises ``ValueError`` or a dnspython error."""
        name_text, rest = _word(text)
        name = dns.name.from_text(name_text.lower())
        ttl_s, word = TTL_S, _word(rest)[0]
        if word.isdigit():
            ttl_s, rest = int(word), _word(rest)[1]
        type_text, data = _word(rest)
        if type_text.upper() == "LIE":
            self.lies[name] = Lie(data)
            return
        rdtype = dns.rdatatype.from_text(type_text)
        record = dns.rdata.from_text(
            dns.rdataclass.IN, rdtype, data, origin=_ROOT, relativize=False
        )
        key = name, int(rdtype)
        if key not in self._sets:
            self._sets[key] = dns.rrset.RRset(name, dns.rdataclass.IN, rdtype)
            self._sets[key].update_ttl(ttl_s)
        self._sets[key].add(record, ttl_s)

    def remove(self, name_text: str) -> None:
        """Forget a name, its records and its lie."""
        name = dns.name.from_text(name_text.lower())
        self.lies.pop(name, None)
        for key in [key for key in self._sets if key[0] == name]:
            del self._sets[key]

    def fill(self, reply: dns.message.Message) -> None:
        """Put the true answer to its question into a reply."""
        owner = reply.question[0].name.canonicalize()
        rdtype = int(reply.question[0].rdtype)
        for _ in range(_CHASED_MAX):
            found = self._sets.get((owner, rdtype))
            if found is not None:
                reply.answer.append(found)
                return
            alias = self._sets.get((owner, int(dns.rdatatype.CNAME)))
            if alias is None:
                break
            reply.answer.append(alias)
            owner = alias[0].target.canonicalize()
        if not any(name.is_subdomain(owner) for name, _ in self._sets):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        reply.authority.append(soa())


def soa() -> dns.rrset.RRset:
    """Return the SOA record of negative answers."""
    data = f"ns.test. hostmaster.test. 1 3600 600 86400 {TTL_S}"
    return dns.rrset.from_text(_ROOT, TTL_S, "IN", "SOA", data)


def _word(text: str) -> tuple[str, str]:
    first, _, rest = text.strip().partition(" ")
    if "\t" in first:
        first, _, more = first.partition("\t")
        rest = f"{more} {rest}"
    return first, rest.strip()
