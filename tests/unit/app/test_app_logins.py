"""What a worker opens for logins: the right backend, and one secret for all workers."""

import json
from pathlib import Path

import pytest

from postroom.app.logins import check_login, open_logins, open_users
from postroom.auth.credentials import make_credentials
from postroom.auth.file import User, add_user
from postroom.auth.sasl import FindVerifier
from postroom.auth.stand_in import read_secret
from postroom.config.load import parse
from postroom.config.settings import Config
from postroom.limits.shared import SharedCounters
from postroom.mail.envelope import Origin
from postroom.observe.events import AnyEvent, Lifecycle
from postroom.services.logins import Channel, Logins
from postroom.services.retrieve import LoginUnavailable

CHEAP = 'argon2_memory = "8KiB"\nargon2_passes = 1\nscram_iterations = 4096\n'
KEY = {
    "kty": "OKP",
    "crv": "Ed25519",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
}
PLAIN = Channel(True, "127.0.0.1", {})
WANTED = ("SCRAM-SHA-256", "OAUTHBEARER", "PLAIN", "CRAM-MD5")


def config_of(directory: Path, auth: str = "") -> Config:
    (directory / "spool").mkdir(exist_ok=True)
    text = (
        'hostname = "gonzo.test"\nusers_file = "users"\nrun_directory = "run"\n'
        f'[spool]\ndirectory = "spool"\n[auth]\n{CHEAP}{auth}'
    )
    return parse(text, str(directory / "p.toml"))


def opened(directory: Path, auth: str = "") -> tuple[Logins, list[AnyEvent]]:
    config, events = config_of(directory, auth), list[AnyEvent]()
    users = open_users(config, ("gonzo.test",), events.append)
    users.refresh()
    counters = SharedCounters.private()
    return open_logins(config, users, counters, 2, events.append), events


def with_betty(directory: Path) -> None:
    settings = config_of(directory).auth
    credentials = make_credentials(b"hush", settings)
    add_user(str(directory / "users"), User("betty", credentials))


JWT = """
[auth.tokens]
verifier = "jwt"
issuer = "https://op.test"
audience = "mail"
jwks_file = "jwks.json"
"""
ASKED = """
[auth.tokens]
verifier = "introspection"
introspection_url = "http://127.0.0.1:9/"
"""
OFFERED = {
    "users": ("", ("SCRAM-SHA-256", "PLAIN")),
    "tokens by signature": (JWT, ("SCRAM-SHA-256", "OAUTHBEARER", "PLAIN")),
    "tokens by asking": (ASKED, ("SCRAM-SHA-256", "OAUTHBEARER", "PLAIN")),
    "pam": ('backend = "pam"\n', ("PLAIN",)),
    "python": ('backend = "python"\nmodule = "logins.py"\n', ("PLAIN",)),
}


@pytest.mark.parametrize("name", OFFERED)
def test_what_each_backend_can_do(name: str, tmp_path: Path) -> None:
    auth, expected = OFFERED[name]
    with_betty(tmp_path)
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [KEY]}))
    (tmp_path / "logins.py").write_text("def check_password(login, password): ...\n")
    logins, events = opened(tmp_path, auth)
    assert logins.offered(WANTED, PLAIN) == expected
    assert not events


def test_no_verifier_no_scram(tmp_path: Path) -> None:
    add_user(str(tmp_path / "users"), User("sales"))
    logins, _ = opened(tmp_path)
    assert logins.offered(WANTED, PLAIN) == ("PLAIN",)


def test_backends_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"auth\.module"):
        opened(tmp_path, 'backend = "python"\nmodule = "none.py"\n')
    with pytest.raises(ValueError, match="in the clear"):
        opened(tmp_path, ASKED.replace("127.0.0.1", "op.test"))


async def test_services_that_know_only_passwords(tmp_path: Path) -> None:
    with_betty(tmp_path)
    logins, _ = opened(tmp_path)
    accounts, origin = logins.accounts, Origin()
    assert await check_login(accounts, "betty@gonzo.test", "hush", origin) == "betty"
    assert await check_login(accounts, "betty", "hsh", origin) is None
    none, _ = opened(tmp_path, 'backend = "pam"\n')  # nobody listens
    found = await check_login(none.accounts, "betty", "hush", origin)
    assert isinstance(found, LoginUnavailable)


async def test_strangers_look_the_same_to_all_workers_and_after_a_restart(
    tmp_path: Path,
) -> None:
    with_betty(tmp_path)
    shown = []
    for _ in range(3):
        logins, _ = opened(tmp_path)
        shown.append(await logins.accounts.answer(FindVerifier("ghost")))
    assert shown[0] == shown[1] == shown[2]
    other = await logins.accounts.answer(FindVerifier("another"))
    assert other != shown[0]


def test_the_secret_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    secret = read_secret(str(path))
    assert len(secret) == 32
    assert read_secret(str(path)) == secret
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]  # nothing is left behind
    path.write_bytes(secret[:-1])
    with pytest.raises(OSError, match="damaged"):
        read_secret(str(path))


def test_without_the_secret_logins_work_and_the_log_says_so(tmp_path: Path) -> None:
    with_betty(tmp_path)
    (tmp_path / "spool" / "login-secret").write_bytes(b"short")
    logins, events = opened(tmp_path)
    assert logins.offered(WANTED, PLAIN) == ("SCRAM-SHA-256", "PLAIN")
    (told,) = events
    assert isinstance(told, Lifecycle)
    assert "can be told from users" in told.what
