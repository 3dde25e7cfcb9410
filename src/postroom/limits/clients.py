"""What counts as one client, and in which networks it is counted. Pure.

An IPv6 customer has a /64 at least, and often a /48: to count single addresses would
bound nobody. An IPv4 address stands for itself; a whole /24 only where
a setting says so, because strangers share it.
"""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

_CACHED_MAX = 4_096


@lru_cache(maxsize=_CACHED_MAX)
def client_of(ip: str) -> str:
    """Return what counts as one client: an IPv4 address or an IPv6 /64.

    A text that is no address (a Unix socket's peer) stands for itself.
    """
    return block_of(ip, ipv6_prefix=64)


@lru_cache(maxsize=_CACHED_MAX)
def block_of(ip: str, *, ipv4_prefix: int = 32, ipv6_prefix: int = 128) -> str:
    """Return the network of an address, written as ``192.0.2.0/24``.

    A network of one address is written without its length. An IPv4 address that
    reached an IPv6 socket (``::ffff:192.0.2.1``) counts as IPv4.
    """
    try:
        address: IPv4Address | IPv6Address = ip_address(ip.partition("%")[0])
    except ValueError:
        return ip
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        address = mapped
    prefix = ipv4_prefix if address.version == 4 else ipv6_prefix
    if prefix == address.max_prefixlen:
        return str(address)
    return str(ip_network(f"{address}/{prefix}", strict=False))


def is_ipv6(ip: str) -> bool:
    """Whether an address is one of IPv6, as ``Stream.peer_ip`` writes it."""
    return ":" in ip
