"""The name servers to ask: from the settings, or those of the system."""

import re
from ipaddress import ip_address
from pathlib import Path

import msgspec

_BRACKETS = re.compile(r"\[([^\[\]]+)\](?::(\d{1,5}))?")
_IPV4 = re.compile(r"([0-9.]+)(?::(\d{1,5}))?")
_RESOLV_CONF_OCTETS_MAX = 64 * 1024


class Nameserver(msgspec.Struct, frozen=True, gc=False):
    """One server."""

    ip: str
    port: int = 53

    @classmethod
    def from_text(cls, text: str) -> "Nameserver":
        """Read ``"127.0.0.1:5300"``, ``"[::1]:53"``, ``"192.0.2.1"`` or ``"::1"``.

        Raises:
            ValueError: the text names no server; the message says what is expected.
        """
        match = _BRACKETS.fullmatch(text) or _IPV4.fullmatch(text)
        ip, port = (match[1], int(match[2] or 53)) if match else (text, 53)
        try:
            ip_address(ip)
        except ValueError:
            port = 0
        if not 0 < port < 65536:
            raise ValueError(
                f'"{text}" is no name server: write "127.0.0.1:5300" or "[::1]:53"'
            )
        return cls(ip, port)

    def __str__(self) -> str:
        ip = f"[{self.ip}]" if ":" in self.ip else self.ip
        return f"{ip}:{self.port}"


def system_nameservers(resolv_conf: str) -> tuple[Nameserver, ...]:
    """Return the servers that a resolv.conf names; without any, the one of this host.

    A missing or unreadable file counts as empty, as resolv.conf(5) has it.
    """
    try:
        with Path(resolv_conf).open("rb") as file:
            text = file.read(_RESOLV_CONF_OCTETS_MAX).decode("ascii", "replace")
    except OSError:
        text = ""
    servers = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                servers.append(Nameserver.from_text(words[1]))
            except ValueError:
                continue  # link-local with a zone, or a slip: the others still serve
    return tuple(servers) or (Nameserver("127.0.0.1"),)
