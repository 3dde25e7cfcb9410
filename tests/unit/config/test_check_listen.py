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
