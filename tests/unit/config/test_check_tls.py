"""What ``postroom check`` says of certificates, keys and listeners that want them."""

from pathlib import Path

import pytest

from postroom.config.check_tls import tls_findings
from postroom.config.load import parse
from postroom.config.problems import ConfigError
from postroom.testing.authority import Authority

HOST = "mx.gonzo.test"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def said(text: str) -> list[str]:
    config = parse(f'hostname = "{HOST}"\n{text}', "/etc/p.toml")
    return [f"{one.kind}: {one.text}" for one in tls_findings(config)]


def certificate(path: str, more: str = "") -> str:
    return f'{more}\n[[tls.certificate]]\ncert = "{path}"\n'


def test_a_good_certificate_is_not_talked_of(authority: Authority) -> None:
    assert said(certificate(authority.issue(HOST))) == []
    assert said(certificate(authority.issue("*.gonzo.test"))) == []


def test_nothing_wanted_nothing_said() -> None:
    assert said("") == []


def test_what_is_wrong_with_certificates(authority: Authority) -> None:
    (line,) = said(certificate(authority.issue("other.test")))
    assert line.startswith(f"warning: tls.certificate: none is for {HOST}")
    assert "other.test" in line
    path = authority.issue(HOST, expired=True)
    (line,) = said(certificate(path))
    assert line.startswith(f"problem: tls.certificate[0]: {path} has expired")
    (line,) = said(certificate("/nonexistent.pem"))
    assert line == "problem: tls.certificate[0]: /nonexistent.pem does not exist"
    Path(path).chmod(0o644)
    (line,) = said(certificate(path))
    assert line.startswith("problem: tls.certificate[0]:")
    assert line.endswith(f"chmod 600 {path}")


def test_what_the_library_will_not_take(authority: Authority) -> None:
    path = authority.issue(HOST)
    (line,) = said(certificate(path, '[tls]\nciphers = "NONE-SUCH"'))
    assert line.startswith("problem: tls: tls.ciphers: the TLS library refuses it")


def test_self_signed_is_for_trials() -> None:
    (line,) = said("[tls]\nself_signed = true")
    assert line.startswith("warning: tls.self_signed: ")


def test_asking_other_servers_for_certificates(authority: Authority) -> None:
    more = (
        f'[tls]\nclient_certificates = "ask"\nclient_ca = "{authority.ca_file}"\n'
        'client_certificate_services = ["smtp"]'
    )
    (line,) = said(certificate(authority.issue(HOST), more))
    assert line.startswith("warning: tls.client_certificate_services: ")


LISTEN = '[[listen]]\naddress = "127.0.0.1:2525"\n'


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (LISTEN + 'tls = "implicit"', "there is no certificate"),
        (LISTEN + 'tls = "starttls"', "self_signed = true"),
        (LISTEN + "proxy = true", "nobody may use it"),
        (
            LISTEN + 'service = "pop3"\ntls = "starttls"\n[tls]\nself_signed = true',
            "from the start or not at all",
        ),
        ('[tls]\nclient_certificates = "require"', "needs client_ca"),
        ("[tls]\nsession_tickets = 9", "between 0 and 8"),
        ('[proxy]\nnetworks = ["192.0.2.1/24"]', "has host bits set"),
        (
            '[tls]\nself_signed = true\n[[tls.certificate]]\ncert = "x"',
            "without any certificate",
        ),
    ],
)
def test_what_cannot_be_configured(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse(text, "/etc/p.toml")


@pytest.mark.parametrize(
    ("port", "service", "expected"),
    [
        (25, "smtp", "starttls"),
        (587, "submission", "starttls"),
        (465, "submission", "implicit"),
        (995, "pop3", "implicit"),
        (110, "pop3", "off"),
    ],
)
def test_what_auto_means(port: int, service: str, expected: str) -> None:
    listen = f'[[listen]]\naddress = "127.0.0.1:{port}"\nservice = "{service}"\n'
    for tls, wanted in (("[tls]\nself_signed = true", expected), ("", "off")):
        config = parse(listen + tls, "/etc/p.toml")
        assert config.tls_of(config.listen[0]) == wanted


def test_paths_are_relative_to_the_file() -> None:
    text = '[[tls.certificate]]\ncert = "tls/cert.pem"\n'
    (one,) = parse(text, "/etc/mail/p.toml").tls.certificate
    assert (one.cert, one.key) == ("/etc/mail/tls/cert.pem", "")
