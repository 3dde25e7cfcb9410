"""Hops as routes name them: a domain, a host in brackets, an address literal. Pure.

``whizzer.test`` is found by MX; ``[relay.test]`` and ``[relay.test]:587`` by address
records only; ``[127.0.0.2]`` and ``[IPv6:::1]:2525`` are addresses already. A text
that is none of these raises ``ValueError`` with a sentence for a person.
"""

import re

import msgspec

from postroom.dns.names import is_ip_address, to_ascii
from postroom.dns.own import plain_address

_BRACKETS = re.compile(r"\[(IPv6:)?([^\[\]]+)\](?::(\d{1,5}))?", re.IGNORECASE)
_PLAIN = re.compile(r"([^\[\]:]+)(?::(\d{1,5}))?")
PORT_MAX = 65535


class Hop(msgspec.Struct, frozen=True, gc=False):
    """Where a route leads.

    ``name`` is a domain name or an IP address, ``port`` 0 for the usual one.
    """

    name: str
    port: int = 0
    wants_mx: bool = True
    is_address: bool = False

    @classmethod
    def from_text(cls, text: str) -> "Hop":
        """Read a hop.

        Raises:
            ValueError: the text is no hop; the message says what is expected.
        """
        brackets = _BRACKETS.fullmatch(text)
        plain = None if brackets else _PLAIN.fullmatch(text)
        if brackets:
            name, port = brackets[2], int(brackets[3] or 0)
        elif plain:
            name, port = plain[1], int(plain[2] or 0)
        else:
            raise _expected(text)
        if port > PORT_MAX:
            raise ValueError(f'"{text}": ports end at {PORT_MAX}')
        if is_ip_address(name):
            return cls(plain_address(name), port, wants_mx=False, is_address=True)
        ascii_name = to_ascii(name)
        if ascii_name is None or (brackets and brackets[1]):
            raise _expected(text)
        return cls(ascii_name, port, wants_mx=brackets is None)

    @property
    def host_text(self) -> str:
        """The host without the port, in the one form in which hops are compared."""
        if self.is_address and ":" in self.name:
            return f"[IPv6:{self.name}]"
        return self.name if self.wants_mx else f"[{self.name}]"

    def to_text(self) -> str:
        """Write it in the one form in which hops are compared."""
        return f"{self.host_text}:{self.port}" if self.port else self.host_text


def is_hop_of(domain: str, hop: str) -> bool:
    """Whether a hop is a recipient's own domain, rather than named by the site.

    What is wrong with it is then the matter of whoever wrote to that domain.
    """
    try:
        return Hop.from_text(domain) == Hop.from_text(hop)
    except ValueError:
        return False


def _expected(text: str) -> ValueError:
    return ValueError(
        f'"{text}" is no mail host: write "host.example" (found by MX), '
        '"[host.example]:587" (no MX) or "[192.0.2.1]:25"'
    )
