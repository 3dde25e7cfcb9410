"""The addresses of this machine's interfaces."""

import socket

# Documentation addresses (RFC 5737 §3, RFC 3849 §2): nobody is there.
_ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


def own_addresses() -> set[str]:
    """Return every address that this machine can be reached at, as it knows itself.

    Loopback is always among them. What the system cannot name is left out: list such
    addresses as listeners of their own.
    """
    found = {"127.0.0.1", "::1"}
    try:
        infos = socket.getaddrinfo(socket.gethostname(), None)
    except OSError:
        infos = []
    found.update(str(info[4][0]).partition("%")[0] for info in infos)
    for family, target in (
        (socket.AF_INET, "192.0.2.1"),
        (socket.AF_INET6, "2001:db8::1"),
    ):
        # Connecting a datagram socket sends nothing; it only picks our address.
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((target, 9))
                found.add(probe.getsockname()[0])
            except OSError:
                continue
    return found


def plain_ip(ip: str) -> str:
    """Return an address without its zone; IPv4 mapped into IPv6 as IPv4."""
    ip = ip.partition("%")[0]
    return ip[7:] if ip.startswith("::ffff:") and "." in ip else ip
