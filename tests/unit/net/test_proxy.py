"""The PROXY protocol, sections of haproxy's proxy-protocol.txt."""

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.net.proxy import (
    V1_OCTETS_MAX,
    V2_OCTETS_MAX,
    Malformed,
    Proxied,
    crc32c,
    read_header,
)

START = b"\r\n\r\n\x00\r\nQUIT\n"
V4 = ip_address("192.0.2.1").packed + ip_address("198.51.100.2").packed
V6 = ip_address("2001:db8::1").packed + ip_address("2001:db8::2").packed
MAPPED = ip_address("::ffff:192.0.2.1").packed + ip_address("2001:db8::2").packed
PORTS = struct.pack("!HH", 56324, 25)
LONG_V6 = b"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"


def v2(kind: int, body: bytes, command: int = 0x21, length: int = -1) -> bytes:
    octets = len(body) if length < 0 else length
    return START + bytes((command, kind)) + octets.to_bytes(2, "big") + body


def extra(kind: int, value: bytes) -> bytes:
    return bytes((kind,)) + len(value).to_bytes(2, "big") + value


def with_checksum(header: bytes, change: int = 0) -> bytes:
    """Add the checksum as the last extra (2.2.3)."""
    octets = len(header) - 16 + 7
    whole = header[:14] + octets.to_bytes(2, "big") + header[16:] + extra(3, bytes(4))
    return whole[:-4] + (crc32c(whole) ^ change).to_bytes(4, "big")


CLIENT = ("192.0.2.1", 56324, "198.51.100.2", 25)
CLIENT6 = ("2001:db8::1", 56324, "2001:db8::2", 25)
OWN = ("", 0, "", 0)

GOOD: dict[str, tuple[bytes, tuple[str, int, str, int]]] = {
    "v1 tcp4": (b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 25\r\n", CLIENT),
    "v1 tcp6": (b"PROXY TCP6 2001:db8::1 2001:DB8::2 56324 25\r\n", CLIENT6),
    "v1 tcp6 mapped": (
        b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 56324 25\r\n",
        ("192.0.2.1", 56324, "2001:db8::2", 25),
    ),
    "v1 port 0": (
        b"PROXY TCP4 192.0.2.1 198.51.100.2 0 0\r\n",
        (*CLIENT[:1], 0, *CLIENT[2:3], 0),
    ),
    "v1 unknown": (b"PROXY UNKNOWN\r\n", OWN),
    "v1 unknown with the longest rest": (
        b"PROXY UNKNOWN " + LONG_V6 + b" " + LONG_V6 + b" 65535 65535\r\n",
        OWN,
    ),
    "v1 unknown with nonsense": (b"PROXY UNKNOWN \x00 x\r\n", OWN),
    "v2 tcp4": (v2(0x11, V4 + PORTS), CLIENT),
    "v2 tcp6": (v2(0x21, V6 + PORTS), CLIENT6),
    "v2 tcp6 mapped": (
        v2(0x21, MAPPED + PORTS),
        ("192.0.2.1", 56324, "2001:db8::2", 25),
    ),
    "v2 local": (v2(0x00, b"", 0x20), OWN),
    "v2 local that names addresses": (v2(0x11, V4 + PORTS, 0x20), OWN),
    "v2 local with nonsense": (v2(0x11, b"xyz", 0x20), OWN),
    "v2 unspecified": (v2(0x00, b"whatever"), OWN),
    "v2 udp": (v2(0x12, V4 + PORTS), OWN),
    "v2 unix": (v2(0x31, bytes(216)), OWN),
    "v2 with extras": (
        v2(0x11, V4 + PORTS + extra(4, b"") + extra(0xEE, b"x" * 300)),
        CLIENT,
    ),
    "v2 with a checksum": (with_checksum(v2(0x11, V4 + PORTS)), CLIENT),
    "v2 with a checksum and more": (
        with_checksum(v2(0x21, V6 + PORTS + extra(2, b"mx.gonzo.test"))),
        CLIENT6,
    ),
    "v2 of the greatest length": (
        v2(0x11, V4 + PORTS + extra(4, bytes(V2_OCTETS_MAX - 16 - 12 - 3))),
        CLIENT,
    ),
}

BAD: dict[str, bytes] = {
    "nothing like it": b"EHLO gonzo.test\r\n",
    "lower case": b"proxy TCP4 192.0.2.1 198.51.100.2 1 25\r\n",
    "v1 two blanks": b"PROXY  TCP4 192.0.2.1 198.51.100.2 1 25\r\n",
    "v1 blank at the end": b"PROXY TCP4 192.0.2.1 198.51.100.2 1 25 \r\n",
    "v1 tab": b"PROXY\tTCP4 192.0.2.1 198.51.100.2 1 25\r\n",
    "v1 LF alone": b"PROXY TCP4 192.0.2.1 198.51.100.2 1 25\n",
    "v1 CR alone": b"PROXY TCP4 192.0.2.1 198.51.100.2 1 25\rX",
    "v1 LF before CRLF": b"PROXY TCP4 192.0.2.1\n198.51.100.2 1 25\r\n",
    "v1 unknown, LF within": b"PROXY UNKNOWN x\nMAIL\r\n",
    "v1 unknown, glued": b"PROXY UNKNOWNX\r\n",
    "v1 too long": b"PROXY UNKNOWN " + b"x" * V1_OCTETS_MAX + b"\r\n",
    "v1 one octet too long": b"PROXY UNKNOWN " + b"x" * (V1_OCTETS_MAX - 15) + b"\r\n",
    "v1 other family": b"PROXY UDP4 192.0.2.1 198.51.100.2 1 25\r\n",
    "v1 wrong family": b"PROXY TCP6 192.0.2.1 198.51.100.2 1 25\r\n",
    "v1 mixed families": b"PROXY TCP4 192.0.2.1 2001:db8::2 1 25\r\n",
    "v1 zero in front": b"PROXY TCP4 192.0.02.1 198.51.100.2 1 25\r\n",
    "v1 number too great": b"PROXY TCP4 192.0.2.256 198.51.100.2 1 25\r\n",
    "v1 three numbers": b"PROXY TCP4 192.0.2 198.51.100.2 1 25\r\n",
    "v1 two double colons": b"PROXY TCP6 2001::db8::1 2001:db8::2 1 25\r\n",
    "v1 zone": b"PROXY TCP6 fe80::1%eth0 2001:db8::2 1 25\r\n",
    "v1 port too great": b"PROXY TCP4 192.0.2.1 198.51.100.2 65536 25\r\n",
    "v1 port with a zero": b"PROXY TCP4 192.0.2.1 198.51.100.2 01 25\r\n",
    "v1 negative port": b"PROXY TCP4 192.0.2.1 198.51.100.2 -1 25\r\n",
    "v1 port missing": b"PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n",
    "v1 without anything": b"PROXY \r\n",
    "v1 injected": b"PROXY TCP4 192.0.2.1 198.51.100.2 1 25 MAIL FROM:<>\r\n",
    "v2 version 1": v2(0x11, V4 + PORTS, 0x11),
    "v2 version 3": v2(0x11, V4 + PORTS, 0x31),
    "v2 command 2": v2(0x11, V4 + PORTS, 0x22),
    "v2 family 4": v2(0x41, V4 + PORTS),
    "v2 protocol 3": v2(0x13, V4 + PORTS),
    "v2 tcp4 too short": v2(0x11, V4 + PORTS[:3]),
    "v2 tcp6 with tcp4": v2(0x21, V4 + PORTS),
    "v2 unix too short": v2(0x31, bytes(215)),
    "v2 empty": v2(0x11, b""),
    "v2 too long": v2(0x11, V4 + PORTS, length=V2_OCTETS_MAX - 15),
    "v2 as long as can be": v2(0x00, b"", 0x20, length=65535),
    "v2 extra too long": v2(0x11, V4 + PORTS + b"\x04\x00\x05abcd"),
    "v2 half an extra": v2(0x11, V4 + PORTS + b"\x04\x00"),
    "v2 wrong checksum": with_checksum(v2(0x11, V4 + PORTS), change=1),
    "v2 checksum of three octets": v2(0x11, V4 + PORTS + extra(3, b"abc")),
    "v2 checksum of five octets": v2(0x11, V4 + PORTS + extra(3, b"abcde")),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_header_is_read_whatever_follows(name: str) -> None:
    data, (ip, port, local_ip, local_port) = GOOD[name]
    expected = Proxied(len(data), ip, port, local_ip, local_port)
    assert read_header(data) == expected
    assert read_header(data + b"EHLO gonzo.test\r\n") == expected
    assert read_header(data + data) == expected


@pytest.mark.parametrize("name", GOOD)
def test_a_part_of_a_header_is_waited_for(name: str) -> None:
    data = GOOD[name][0]
    for end in range(len(data)):
        assert read_header(data[:end]) is None, end


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_header_is_refused_at_once(name: str) -> None:
    data = BAD[name]
    assert isinstance(read_header(data), Malformed)
    for end in range(len(data)):
        assert not isinstance(read_header(data[:end]), Proxied), end


def test_a_peer_cannot_have_us_keep_much() -> None:
    assert isinstance(read_header(b"PROXY UNKNOWN " + b"x" * 93), Malformed)
    assert read_header(b"PROXY UNKNOWN " + b"x" * 92) is None


def test_checksum_is_that_of_rfc_4960() -> None:
    """RFC 3720 appendix B.4 has these."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


@given(st.binary(max_size=300))
def test_no_octets_upset_it(data: bytes) -> None:
    for start in (b"", b"PROXY ", b"PROXY TCP4 ", START, START + b"\x21\x11"):
        found = read_header(start + data)
        if isinstance(found, Proxied):
            assert found.octets <= len(start + data)


@given(
    source=st.ip_addresses(),
    port=st.integers(0, 65535),
    target_v4=st.ip_addresses(v=4),
    target_v6=st.ip_addresses(v=6),
)
def test_both_versions_say_the_same(
    source: object, port: int, target_v4: object, target_v6: object
) -> None:
    ip = ip_address(str(source).partition("%")[0])
    target = ip_address(
        str(target_v4 if ip.version == 4 else target_v6).partition("%")[0]
    )
    line = f"PROXY TCP{ip.version} {ip} {target} {port} 25\r\n".encode()
    packed = ip.packed + target.packed + struct.pack("!HH", port, 25)
    one = read_header(line)
    other = read_header(v2(0x11 if ip.version == 4 else 0x21, packed))
    assert isinstance(one, Proxied)
    assert isinstance(other, Proxied)
    assert (one.ip, one.port, one.local_ip) == (other.ip, other.port, other.local_ip)
    assert one.ip == str(getattr(ip, "ipv4_mapped", None) or ip)
