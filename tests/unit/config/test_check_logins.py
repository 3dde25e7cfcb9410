"""What ``postroom check`` says of logins."""

from pathlib import Path

import pytest

from postroom.auth.file import User, add_user
from postroom.config import check_logins
from postroom.config.check_logins import login_findings
from postroom.config.load import parse

TLS = "[tls]\nself_signed = true\n"
SUBMISSION = '[[listen]]\naddress = "192.0.2.1:587"\nservice = "submission"\n'
HERE = '[[listen]]\naddress = "127.0.0.1:587"\nservice = "submission"\n'
CLIENT_CERTIFICATES = (
    '[tls]\nself_signed = true\nclient_certificates = "ask"\nclient_ca = "ca.pem"\n'
)


def said(text: str, directory: Path) -> list[str]:
    found = login_findings(parse(text, str(directory / "p.toml")))
    return [f"{one.kind}: {one.text}" for one in found]


SAID = {
    "no TLS and no verifiers": (
        SUBMISSION + "[auth]\nscram = false",
        "problem: listen: 192.0.2.1:587: users have to log in, but nothing",
    ),
    "tokens only, and nobody who checks them": (
        SUBMISSION + TLS + '[auth]\nmechanisms = ["OAUTHBEARER"]',
        "problem: listen: 192.0.2.1:587: users have to log in, but nothing",
    ),
    "SCRAM only, but passwords are elsewhere": (
        SUBMISSION + TLS + '[auth]\nmechanisms = ["SCRAM-SHA-256"]\nbackend = "pam"',
        "problem: listen: 192.0.2.1:587: users have to log in, but nothing",
    ),
    "certificates that nobody asks for": (
        SUBMISSION + TLS + '[auth]\nmechanisms = ["EXTERNAL"]',
        "problem: listen: 192.0.2.1:587: users have to log in, but nothing",
    ),
    "no TLS": (
        SUBMISSION,
        "warning: listen: 192.0.2.1:587: has no TLS, so clients",
    ),
    "passwords in the clear": (
        SUBMISSION + '[auth]\nplaintext = "always"',
        'warning: auth.plaintext: is "always": passwords may cross the network',
    ),
    "passwords in the clear for who wants": (
        SUBMISSION + TLS + '[auth]\nplaintext = "always"',
        'warning: auth.plaintext: is "always": passwords may cross the network',
    ),
    "CRAM-MD5": (
        '[auth]\nmechanisms = ["PLAIN", "CRAM-MD5"]',
        "warning: auth.mechanisms: CRAM-MD5 does not prove the server",
    ),
    "PAM that is not set up": (
        '[auth]\nbackend = "pam"\npam_service = "no-such-service"',
        "problem: auth.pam_service: there is no /etc/pam.d/no-such-service",
    ),
    "a module that is not there": (
        '[auth]\nbackend = "python"\nmodule = "logins.py"',
        "problem: auth.module: ",
    ),
    "keys that are not there": (
        '[auth.tokens]\nverifier = "jwt"\nissuer = "i"\naudience = "a"\n'
        'jwks_file = "none"',
        "problem: auth.tokens.jwks_file: ",
    ),
    "keys that are none": (
        '[auth.tokens]\nverifier = "jwt"\nissuer = "i"\naudience = "a"\n'
        'jwks_file = "p.toml"',
        "problem: auth.tokens.jwks_file: ",
    ),
    "tokens sent in the clear": (
        '[auth.tokens]\nverifier = "introspection"\n'
        'introspection_url = "http://op.test/"',
        "problem: auth.tokens: introspection_url would send tokens in the clear",
    ),
    "tokens for anybody": (
        '[auth.tokens]\nverifier = "introspection"\n'
        'introspection_url = "https://op.test/"',
        "warning: auth.tokens.audience: is empty",
    ),
    "a secret that all may read": (
        '[auth.tokens]\nverifier = "introspection"\naudience = "a"\n'
        'introspection_url = "https://op.test/"\nclient_secret_file = "p.toml"',
        "warning: auth.tokens.client_secret_file: ",
    ),
    "an empty table": (
        CLIENT_CERTIFICATES + '[auth]\ncertificate_user = "table"',
        'warning: auth.certificate_user: is "table", but auth.certificates names',
    ),
    "a certificate of nobody": (
        CLIENT_CERTIFICATES
        + '[auth]\ncertificate_user = "table"\n'
        + f'certificates = {{ "{"ab" * 32}" = "ghost" }}',
        'warning: auth.certificates: there is no user "ghost"',
    ),
}


@pytest.mark.parametrize("name", SAID)
def test_said(name: str, tmp_path: Path) -> None:
    text, expected = SAID[name]
    (tmp_path / "p.toml").write_text("nothing of the kind")
    (tmp_path / "p.toml").chmod(0o644)
    users = str(tmp_path / "users")
    add_user(users, User("betty"))
    whole = f'users_file = "users"\n{text}\n'
    found = said(whole, tmp_path)
    assert any(line.startswith(expected) for line in found), found


GOOD = {
    "nothing": "",
    "mail from hosts": '[[listen]]\naddress = "192.0.2.1:25"\n',
    "users under TLS": SUBMISSION + TLS,
    "passwords from here": HERE + '[auth]\nplaintext = "loopback"\n',
    "passwords only under TLS": (
        SUBMISSION + 'tls = "required"\n' + TLS + '[auth]\nplaintext = "always"\n'
    ),
    "tokens": SUBMISSION + TLS + '[auth]\nmechanisms = ["OAUTHBEARER"]\n[auth.tokens]\n'
    'verifier = "introspection"\naudience = "a"\n'
    'introspection_url = "https://op.test/"\n',
}


@pytest.mark.parametrize("name", GOOD)
def test_nothing_is_said_of_what_is_good(name: str, tmp_path: Path) -> None:
    assert said(GOOD[name], tmp_path) == []


def test_a_module_of_the_site(tmp_path: Path) -> None:
    path = tmp_path / "logins.py"
    path.write_text("def check_password(login, password):\n    return None\n")
    path.chmod(0o644)
    text = '[auth]\nbackend = "python"\nmodule = "logins.py"'
    assert said(text, tmp_path) == []
    path.chmod(0o666)
    assert "anybody may change it" in said(text, tmp_path)[0]


def test_a_system_without_pam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_logins, "LIBRARY", "libpam-not-there.so.0")
    found = said('[auth]\nbackend = "pam"', tmp_path)
    assert any("libpam-not-there.so.0 is not there" in line for line in found)
