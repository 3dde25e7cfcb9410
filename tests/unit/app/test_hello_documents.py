"""docs/smtp.md shows the hello of each kind of listener; here it is compared."""

import re
from pathlib import Path

import msgspec
import pytest

from postroom.app.assembly import _face
from postroom.auth.mechanisms import offered
from postroom.config.settings import Config, Listen
from postroom.services.face import Face, Kind
from postroom.smtp.dialogue import Verb
from postroom.smtp.replies import greeting
from postroom.smtp.server import ServerConnection
from postroom.testing.site import OPENED_US

PAGE = Path(__file__).parents[3] / "docs" / "smtp.md"
HOST = "mx.example.net"
_BLOCK = re.compile(r"^### (.+)\n(?:.*\n)*?```\n((?:\d{3}[- ].*\n)+)```$", re.MULTILINE)


class Case(msgspec.Struct, frozen=True):
    """A listener, and how far a session on it is."""

    listen: Listen | None
    tls: bool = False
    login: bool = False


MX = Listen(address="192.0.2.1:25", tls="starttls")
USERS = Listen(address="192.0.2.1:587", service="submission", tls="starttls")
USERS_TLS = Listen(address="192.0.2.1:465", service="submission", tls="implicit")
LMTP = Listen(address="127.0.0.1:24", service="lmtp", tls="off")

CASES = {
    "Port 25": Case(MX),
    "Port 25 after STARTTLS": Case(MX, tls=True),
    "Port 587": Case(USERS),
    "Port 587 after STARTTLS": Case(USERS, tls=True),
    "Port 587 after STARTTLS and AUTH": Case(USERS, tls=True, login=True),
    "Port 465": Case(USERS_TLS, tls=True),
    "LMTP": Case(LMTP),
    "sendmail -bs": Case(None),
}


def hello(case: Case) -> str:
    config = Config(hostname=HOST)
    if case.listen is None:
        server = msgspec.structs.replace(config.smtp, bare_names=True)
        face = Face(server, Kind.LOCAL)
    else:
        face = _face(config, case.listen)
    core = ServerConnection(
        face.server,
        HOST,
        lmtp=face.is_lmtp,
        submission=face.kind is Kind.SUBMISSION,
        opened_us=OPENED_US,
    )
    core.greet(greeting(HOST))
    core.tls, core.authenticated = case.tls, case.login
    core.mechanisms = offered(
        face.server.auth_mechanisms,
        {"password", "scram"},
        secrecy=case.tls,
        binds=case.tls,
        named=False,
    )
    verb = Verb.LHLO if face.is_lmtp else Verb.EHLO
    return core.hello_reply(verb).to_wire().decode().replace("\r\n", "\n")


@pytest.mark.parametrize("name", CASES)
def test_the_page_shows_what_is_said(name: str) -> None:
    shown = dict(_BLOCK.findall(PAGE.read_text(encoding="utf-8")))
    assert shown.get(name) == hello(CASES[name])


def test_the_page_shows_nothing_else() -> None:
    shown = [name for name, _ in _BLOCK.findall(PAGE.read_text(encoding="utf-8"))]
    assert shown == list(CASES)
