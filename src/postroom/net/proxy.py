"""The PROXY protocol, versions 1 and 2: who the client behind a proxy is. Pure.

By haproxy's ``proxy-protocol.txt`` (2.1 and 2.2 name its sections). The header comes
before anything else, also before TLS. What does not match exactly is ``Malformed``, as
soon as that is known; the connection has to be dropped. Nothing is guessed: whether a
header is expected at all is the listener's setting.
"""

import re
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import msgspec

V1_OCTETS_MAX = 107
"""The longest line of version 1, with its CRLF (2.1)."""
V2_OCTETS_MAX = 4096
"""The longest header of version 2 that is taken; it could be 65,551 octets long, but
proxies send a few hundred."""

_V1_START = b"PROXY "
_V2_START = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_FIXED = 16
_PORT = rb"(0|[1-9][0-9]{0,4})"
_V1: Final = re.compile(
    rb"PROXY (TCP4|TCP6) ([0-9a-fA-F.:]{2,39}) ([0-9a-fA-F.:]{2,39}) "
    + _PORT
    + b" "
    + _PORT
)
_V1_UNKNOWN: Final = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?")
_CRC32C = 0x03
_LOCAL, _PROXY = 0x20, 0x21


class Proxied(msgspec.Struct, frozen=True):
    """A header. ``ip`` is empty where the connection's own addresses hold.

    ``octets`` is how long the header was: what follows belongs to the client.
    """

    octets: int
    ip: str = ""
    port: int = 0
    local_ip: str = ""
    local_port: int = 0


class Malformed(msgspec.Struct, frozen=True):
    """No header that we take; ``why`` is for the log."""

    why: str


def read_header(data: bytes) -> Proxied | Malformed | None:
    """Read the header at the beginning of a connection; None: more has to come."""
    if data.startswith(_V1_START[: len(data)]):
        return _read_v1(data)
    if data.startswith(_V2_START[: len(data)]):
        return _read_v2(data)
    return Malformed("no PROXY header")


def _read_v1(data: bytes) -> Proxied | Malformed | None:
    end = data.find(b"\r\n", 0, V1_OCTETS_MAX)
    line = data[:end] if end >= 0 else data[:V1_OCTETS_MAX]
    if end < 0:
        stray = b"\n" in line or b"\r" in line[:-1]
        if len(data) >= V1_OCTETS_MAX or stray:
            return Malformed("PROXY line without an end")
        return None
    if _V1_UNKNOWN.fullmatch(line):
        return Proxied(end + 2)
    match = _V1.fullmatch(line)
    if match is None:
        return Malformed("PROXY line with a wrong form")
    kind = IPv4Address if match[1] == b"TCP4" else IPv6Address
    try:
        source, target = kind(match[2].decode()), kind(match[3].decode())
    except ValueError:
        return Malformed("PROXY line with a wrong address")
    ports = int(match[4]), int(match[5])
    if max(ports) > 65535:
        return Malformed("PROXY line with a wrong port")
    return _proxied(end + 2, source, target, ports)


def _read_v2(data: bytes) -> Proxied | Malformed | None:
    if len(data) < _V2_FIXED:
        wrong = len(data) > 12 and data[12] not in (_LOCAL, _PROXY)
        return Malformed("PROXY header of an unknown version") if wrong else None
    command, family = data[12], data[13]
    if command not in (_LOCAL, _PROXY):
        return Malformed("PROXY header of an unknown version or command")
    if family >> 4 > 3 or family & 15 > 2:
        return Malformed("PROXY header of an unknown family")
    octets = _V2_FIXED + int.from_bytes(data[14:16], "big")
    if octets > V2_OCTETS_MAX:
        return Malformed(f"PROXY header of {octets} octets")
    if len(data) < octets:
        return None
    return _judge_v2(data[:octets], is_local=command == _LOCAL, family=family)


def _judge_v2(header: bytes, *, is_local: bool, family: int) -> Proxied | Malformed:
    octets = len(header)
    if is_local:  # a check by the proxy itself: what follows is ignored
        return Proxied(octets)
    width = {0x11: 4, 0x21: 16}.get(family, 0)
    begin = _V2_FIXED + (2 * width + 4 if width else 0)
    if family == 0x31:
        begin += 216
    if octets < begin:
        return Malformed("PROXY header too short for its addresses")
    if family in (0x11, 0x21, 0x31):
        wrong = _extras_wrong(header, begin)
        if wrong:
            return Malformed(wrong)
    if not width:
        return Proxied(octets)  # no TCP: the addresses are no use to us
    at = _V2_FIXED
    kind = IPv4Address if width == 4 else IPv6Address
    source = kind(header[at : at + width])
    target = kind(header[at + width : at + 2 * width])
    at += 2 * width
    ports = (
        int.from_bytes(header[at : at + 2], "big"),
        int.from_bytes(header[at + 2 : at + 4], "big"),
    )
    return _proxied(octets, source, target, ports)


def _extras_wrong(header: bytes, at: int) -> str:
    """Walk over the extras; say what is wrong with them, nothing if all is well."""
    while at < len(header):
        kind = header[at]
        value = at + 3
        end = value + int.from_bytes(header[at + 1 : at + 3], "big")
        if value > len(header) or end > len(header):
            return "PROXY header with a broken extra"
        if kind == _CRC32C:  # 2.2.3
            if end - value != 4:
                return "PROXY header with a broken checksum"
            blank = header[:value] + bytes(4) + header[end:]
            if crc32c(blank) != int.from_bytes(header[value:end], "big"):
                return "PROXY header with a wrong checksum"
        at = end
    return ""


def _proxied(
    octets: int,
    source: IPv4Address | IPv6Address,
    target: IPv4Address | IPv6Address,
    ports: tuple[int, int],
) -> Proxied:
    return Proxied(octets, _text(source), ports[0], _text(target), ports[1])


def _text(ip: IPv4Address | IPv6Address) -> str:
    """Write an address in one way only, as the stream writes its own."""
    return str(getattr(ip, "ipv4_mapped", None) or ip)


def _table() -> tuple[int, ...]:
    table = []
    for number in range(256):
        for _ in range(8):
            number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)
        table.append(number)
    return tuple(table)


_TABLE: Final = _table()


def crc32c(data: bytes) -> int:
    """Return the checksum of RFC 4960 appendix B; only headers are that short."""
    crc = 0xFFFFFFFF
    for octet in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ octet) & 0xFF]
    return crc ^ 0xFFFFFFFF
