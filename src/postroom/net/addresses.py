"""The addresses of this machine's interfaces."""

import re
import socket
from ipaddress import IPv6Address
from pathlib import Path

PROC = Path("/proc/net")
"""Where Linux lists its addresses."""

# Documentation addresses (RFC 5737 §3, RFC 3849 §2): nobody is there.
_ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
_LOCAL_IPV4 = re.compile(r"\|-- (\S+)\n +/32 host LOCAL")
_IPV6 = re.compile(r"^([0-9a-f]{32}) ", re.MULTILINE)


def own_addresses(proc: Path = PROC) -> set[str]:
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
    for family, target in _ELSEWHERE:
        try:
            # Connecting a datagram socket sends nothing; it only picks our address.
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))
                found.add(probe.getsockname()[0])
        except OSError:  # no way there, or a kernel without IPv6
            continue
    found.update(_LOCAL_IPV4.findall(_text(proc / "fib_trie")))
    found.update(
        str(IPv6Address(int(digits, 16)))
        for digits in _IPV6.findall(_text(proc / "if_inet6"))
    )
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace")
    except OSError:  # another system, or one that hides it from us
        return ""


def plain_ip(ip: str) -> str:
    """Return an address without its zone; IPv4 mapped into IPv6 as IPv4."""
    ip = ip.partition("%")[0]
    return ip[7:] if ip.startswith("::ffff:") and "." in ip else ip
