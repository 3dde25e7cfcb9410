"""What counts as one client, and as one network."""

import pytest

from postroom.limits.clients import block_of, client_of, is_ipv6


@pytest.mark.parametrize(
    ("ip", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("a socket", "a socket"),
    ],
)
def test_one_client(ip: str, client: str) -> None:
    assert client_of(ip) == client


@pytest.mark.parametrize(
    ("ip", "v4", "v6", "block"),
    [
        ("192.0.2.77", 24, 48, "192.0.2.0/24"),
        ("::ffff:192.0.2.77", 24, 48, "192.0.2.0/24"),
        ("2001:db8:1:2::1", 24, 48, "2001:db8:1::/48"),
        ("2001:db8:1:ffff::1", 24, 48, "2001:db8:1::/48"),
        ("2001:db8:2::1", 24, 48, "2001:db8:2::/48"),
        ("192.0.2.77", 32, 128, "192.0.2.77"),
        ("2001:db8::0:1", 32, 128, "2001:db8::1"),
    ],
)
def test_one_network(ip: str, v4: int, v6: int, block: str) -> None:
    assert block_of(ip, ipv4_prefix=v4, ipv6_prefix=v6) == block


def test_families() -> None:
    assert is_ipv6("2001:db8::1")
    assert not is_ipv6("192.0.2.1")
