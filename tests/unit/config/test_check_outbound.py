"""What ``postroom check`` says of TLS and logins at other hosts."""

from pathlib import Path

import pytest

from postroom.config import check_outbound
from postroom.config.check_outbound import outbound_findings
from postroom.config.load import parse
from postroom.testing.authority import Authority

FILE = '[relay]\nuser = "betty"\npassword = "sesame"\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("etc")
    authority = Authority(path)
    Path(authority.issue("gonzo.test")).rename(path / "own.pem")
    (path / "open.pem").write_bytes((path / "own.pem").read_bytes())
    (path / "open.pem").chmod(0o644)
    (path / "empty.crt").write_text("")
    for name, mode in (("logins", 0o600), ("open", 0o644)):
        (path / name).write_text(FILE)
        (path / name).chmod(mode)
    (path / "routes").write_text("*  smtp:[relay.test]:587 tls=required login=relay\n")
    (path / "odd").write_text("*  smtp:[relay.test]:587 tls=verified login=nobody\n")
    for name in ("Test-CA.crt", "routes", "odd"):
        (path / name).chmod(0o644)  # whatever the umask is
    return path


def said(folder: Path, text: str) -> list[str]:
    config = parse(text, str(folder / "postroom.toml"))
    return [f"{one.kind}: {one.text}" for one in outbound_findings(config)]


LOGIN = '[outbound]\nlogins_file = "logins"\n'
ENTRY = '[[outbound.destination]]\nmatch = ["[relay.test]:587"]\nlogin = "relay"\n'
SMART = '[route]\nsmart_host = "[relay.test]:587 tls=verified login=relay"\n'

GOOD: dict[str, str] = {
    "nothing said": "",
    "a login over verified TLS": f'{LOGIN}{ENTRY}tls = "verified"\n',
    "a smart host": f"{LOGIN}{SMART}",
    "a trust store of our own": '[outbound]\ntls = "verified"\nca_file = "Test-CA.crt"',
    "a certificate of our own": '[outbound]\ncertificate = "own.pem"',
}


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD.keys())
def test_all_is_well(folder: Path, text: str) -> None:
    assert said(folder, text) == []


BAD: dict[str, tuple[str, str]] = {
    "a login over any TLS": (
        LOGIN + ENTRY,
        "warning: outbound.destination[0]: login relay is used with tls = "
        '"opportunistic": whoever stands in between can get the password: write tls = '
        '"verified"',
    ),
    "a password in the clear": (
        f"{LOGIN}{ENTRY}auth_in_clear = true\n",
        "warning: outbound.destination[0]: auth_in_clear sends the password of login "
        "relay readable over the network: write tls = "
        '"verified" and take it out',
    ),
    "a route's login": (
        f'{LOGIN}[route]\nroutes = "routes"',
        'warning: route.routes: *: login relay is used with tls = "required": whoever '
        'stands in between can get the password: write tls = "verified"',
    ),
    "a login that is not there": (
        f'{LOGIN}[route]\nroutes = "odd"',
        "problem: route.routes: *: {}/logins has no login nobody",
    ),
    "a smart host's login, without a file": (
        SMART,
        "problem: route.smart_host: login relay is named, but no outbound.logins_file",
    ),
    "a file that others read": (
        '[outbound]\nlogins_file = "open"\n',
        "problem: outbound.logins_file: {0}/open: holds secrets, but others may read "
        "or change it: chmod 600 {0}/open",
    ),
    "no file": (
        '[outbound]\nlogins_file = "none"\n',
        "problem: outbound.logins_file: {}/none: cannot be read: "
        "No such file or directory",
    ),
    "no trust store": (
        '[outbound]\ntls = "verified"\nca_file = "none.crt"',
        "problem: outbound: {}/none.crt cannot be used as a trust store: "
        "No such file or directory",
    ),
    "an empty trust store": (
        '[[outbound.destination]]\nmatch = ["x.test"]\ntls = "verified"\n'
        'ca_file = "empty.crt"',
        "problem: outbound.destination[0]: {}/empty.crt cannot be used as a trust "
        "store: no certificate or crl found",
    ),
    "a key that others read": (
        '[outbound]\ncertificate = "open.pem"',
        "warning: outbound: {0}/open.pem holds a private key and others may read or "
        "change it: chmod 600 {0}/open.pem",
    ),
    "a certificate without a key": (
        '[outbound]\ncertificate = "Test-CA.crt"',
        "problem: outbound: {}/Test-CA.crt cannot be used as a certificate with its "
        "key: nothing usable in it",
    ),
}


@pytest.mark.parametrize(("text", "finding"), BAD.values(), ids=BAD.keys())
def test_said(folder: Path, text: str, finding: str) -> None:
    assert said(folder, text) == [finding.format(folder)]


def test_a_system_that_trusts_nobody(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_outbound, "has_system_trust", lambda: False)
    (found,) = said(folder, '[outbound]\ntls = "verified"')
    assert found.startswith('warning: outbound: tls is "verified", but this system')
