"""What ``postroom check`` says of listeners."""

import pytest

from postroom.config.check_listen import listen_findings
from postroom.config.load import parse

SAID = {
    "lmtp on port 25": (
        25,
        'service = "lmtp"',
        "problem: listen: 127.0.0.1:25: LMTP must not be served on port 25",
    ),
    "users sent to port 25": (
        25,
        'service = "submission"\nlogin = "off"',
        "warning: listen: 127.0.0.1:25: other hosts cannot deliver mail to",
    ),
    "users without a login": (
        587,
        'service = "submission"\nlogin = "off"',
        "warning: listen: 127.0.0.1:587: users are not asked who they are",
    ),
    "hosts that must log in": (
        25,
        'login = "required"',
        "warning: listen: 127.0.0.1:25: other hosts do not log in",
    ),
    "hosts that must have TLS": (
        25,
        'tls = "required"',
        "warning: listen: 127.0.0.1:25: other hosts that have no TLS cannot",
    ),
    "hosts that begin without TLS": (
        25,
        'tls = "implicit"',
        "warning: listen: 127.0.0.1:25: on port 25 other hosts begin without TLS",
    ),
    "clients that begin with TLS": (
        465,
        'service = "submission"\ntls = "starttls"',
        "warning: listen: 127.0.0.1:465: on port 465 clients begin with TLS",
    ),
}


def said(port: int, more: str, smtp: str = "auth_mechanisms = []") -> list[str]:
    text = f'[[listen]]\naddress = "127.0.0.1:{port}"\n{more}\n[smtp]\n{smtp}\n'
    text += "[tls]\nself_signed = true\n"
    found = listen_findings(parse(text, "/etc/p.toml"))
    return [f"{one.kind}: {one.text}" for one in found]


@pytest.mark.parametrize("name", SAID)
def test_said(name: str) -> None:
    port, more, expected = SAID[name]
    assert any(line.startswith(expected) for line in said(port, more))


def test_good_ports_are_not_talked_of() -> None:
    assert not [line for line in said(2525, "") if "hosts" in line or "users" in line]
    assert not said(2424, 'service = "lmtp"')


STRANGERS = {
    "proxies": 'proxy = true\n[proxy]\nnetworks = ["0.0.0.0/0"]',
    "proxies by IPv6": 'proxy = true\n[proxy]\nnetworks = ["2000::/3"]',
    "xclient": '[smtp]\nxclient_networks = ["192.0.2.1", "::/0"]',
}
KNOWN = {
    "proxies": 'proxy = true\n[proxy]\nnetworks = ["10.0.0.0/8", "2001:db8::1"]',
    "proxies that nobody asks": '[proxy]\nnetworks = ["0.0.0.0/0"]',
    "xclient": '[smtp]\nxclient_networks = ["192.0.2.1"]',
}


def of(address: str, more: str) -> list[str]:
    text = f'[[listen]]\naddress = "{address}"\n{more}\n'
    return [one.text for one in listen_findings(parse(text, "/etc/p.toml"))]


@pytest.mark.parametrize("name", STRANGERS)
def test_who_believes_strangers_is_warned(name: str) -> None:
    found = of("127.0.0.1:2525", STRANGERS[name])
    assert any("strangers may say that they are anybody" in one for one in found)


@pytest.mark.parametrize("name", KNOWN)
def test_who_believes_few_is_not(name: str) -> None:
    found = of("127.0.0.1:2525", KNOWN[name])
    assert not any("anybody" in one for one in found)


@pytest.mark.parametrize(
    ("address", "is_warned"),
    [
        ("0.0.0.0:2424", True),
        ("[::]:2424", True),
        ("8.8.8.8:2424", True),
        ("127.0.0.1:2424", False),
        ("[::1]:2424", False),
        ("10.1.2.3:2424", False),
        ("[fd00::1]:2424", False),
    ],
)
def test_lmtp_for_everybody(address: str, is_warned: bool) -> None:
    found = of(address, 'service = "lmtp"')
    assert any("LMTP clients are not asked" in one for one in found) == is_warned
