"""Who we are: the names and addresses under which this system takes mail. Pure."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

import msgspec

from postroom.dns.names import is_ip_address, to_ascii


class OwnNames(msgspec.Struct, frozen=True):
    """Our own names and addresses (RFC 5321 §5.1: as known in mail transactions).

    "Ourselves" is what we listen on, not all of 127/8: another host may live on
    another loopback address of this machine. ``ports`` are those we take mail on;
    empty means that any port of an own address is ours. ``everywhere`` says that we
    listen on whatever address there is: then 127/8 is ours as a whole. ``outside`` are
    addresses that lead to us from elsewhere: what port they lead to is not known here.
    """

    names: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()
    ports: frozenset[int] = frozenset()
    everywhere: bool = False
    outside: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        names: Iterable[str] = (),
        addresses: Iterable[str] = (),
        ports: Iterable[int] = (),
        *,
        everywhere: bool = False,
    ) -> "OwnNames":
        """Bring names and addresses to the form in which they are compared.

        An address among the names is one that leads to us from elsewhere.

        Raises:
            ValueError: a name is no domain name, or an address no IP address.
        """
        checked, outside = set(), set()
        for name in names:
            if is_ip_address(name):
                outside.add(plain_address(name))
                continue
            ascii_name = to_ascii(name)
            if ascii_name is None:
                raise ValueError(f'"{name}" is no domain name')
            checked.add(ascii_name)
        plain = frozenset(plain_address(address) for address in addresses)
        return cls(
            frozenset(checked),
            plain,
            frozenset(ports),
            everywhere,
            frozenset(outside),
        )

    def is_name(self, name: str) -> bool:
        """Whether a name, in the form of ``to_ascii``, is one of ours."""
        return name in self.names

    def is_address(self, address: str, port: int = 0) -> bool:
        """Whether an address is ours; port 0 asks for no port in particular."""
        plain = plain_address(address)
        if plain in self.outside:
            return True
        if port and self.ports and port not in self.ports:
            return False
        if plain in self.addresses:
            return True
        # all of 127/8 stays in this machine, and somebody must listen there: we do
        return self.everywhere and plain.startswith("127.")


def plain_address(text: str) -> str:
    """Return an IP address in its shortest form, IPv4 out of IPv6 wrapping.

    Raises:
        ValueError: the text is no IP address.
    """
    address: IPv4Address | IPv6Address = ip_address(text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return str(address)
