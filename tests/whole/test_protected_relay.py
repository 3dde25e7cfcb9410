"""From one real host to another: verified TLS, a login, and what happens without."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from postroom.testing.authority import Authority
from postroom.testing.caller import Caller
from postroom.testing.host import Host
from postroom.testing.ledger import mail_of
from postroom.testing.world import QUICK, World, until

LOGINS = '[good]\nuser = "joe"\npassword = "joe-secret"\n'
WRONG = '[bad]\nuser = "joe"\npassword = "guessed-secret"\n'
ROUTES = """\
verified.test  smtp:[mx.guarded.test]:{port} tls=verified login=good
misnamed.test  smtp:[mx.other-name.test]:{port} tls=verified login=good
wrong.test     smtp:[mx.guarded.test]:{port} tls=verified login=bad
"""


@pytest.fixture(scope="module")
def authority(world: World) -> Authority:
    path = world.directory / "authority"
    path.mkdir()
    path.chmod(0o755)  # whatever the umask
    return Authority(path)


@pytest.fixture(scope="module")
def guarded(world: World, authority: Authority) -> Iterator[Host]:
    """A host with a certificate, whose second listener wants a login."""
    world.name("guarded.test", 17)
    world.zone.add(f"mx.other-name.test A {world.ip(17)}")
    listener = f"{world.ip(17)}:{world.smtp_port + 3}"
    settings = {
        **QUICK,
        "route": {
            "aliases": "aliases",
            "local_domains": ["verified.test", "wrong.test", "misnamed.test"],
        },
        "submission": {"own_senders": False},
        "[tls.certificate]": {"cert": authority.issue("mx.guarded.test")},
        "[listen]": {
            "address": listener,
            "service": "smtp",
            "tls": "required",
            "login": "required",
        },
    }
    with world.host("guarded.test", 17, settings) as host:
        yield host


@pytest.fixture(scope="module")
def sender(world: World, authority: Authority, guarded: Host) -> Iterator[Host]:
    """A host that hands mail to the guarded one."""
    settings = {
        **QUICK,
        "route": {"aliases": "aliases", "routes": "routes"},
        "outbound": {
            "addresses": "ipv4-only",
            "ca_file": authority.ca_file,
            "logins_file": "logins",
            "auth_mechanisms": ["PLAIN"],
        },
    }
    host = world.host("sender.test", 18, settings)
    write(host, "logins", LOGINS + WRONG, 0o600)
    write(host, "routes", ROUTES.format(port=world.smtp_port + 3), 0o644)
    with host:
        yield host


def write(host: Host, name: str, text: str, mode: int) -> None:
    """Write a file of a host's, as its own user would."""
    path = Path(host.directory) / name
    path.write_text(text)
    path.chmod(mode)
    if os.geteuid() == 0:
        owner = (host.directory / "users").stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def send(world: World, domain: str) -> None:
    """Hand a letter for joe in a domain to the sending host."""
    with Caller(world.ip(18), world.smtp_port) as caller:
        caller.hello()
        for line in ("MAIL FROM:<betty@sender.test>", f"RCPT TO:<joe@{domain}>"):
            caller.send(line.encode() + b"\r\n")
            assert caller.reply().code == 250, line
        caller.send(b"DATA\r\n")
        assert caller.reply().code == 354
        caller.send(b"Subject: for " + domain.encode() + b"\r\n\r\nHello.\r\n.\r\n")
        assert caller.reply().code == 250


def logs(host: Host, line: str) -> None:
    """Wait for a line of the log; it may come after what it tells of."""
    until(line, lambda: re.search(line, host.log) is not None, host)


def test_a_letter_goes_over_verified_tls_with_a_login(
    world: World, sender: Host, guarded: Host
) -> None:
    send(world, "verified.test")

    def letters() -> list[bytes]:
        return [one for one in mail_of(guarded, "joe") if b"for verified.test" in one]

    until("the letter", lambda: bool(letters()), sender)
    assert re.search(rb"with ESMTPSA\b", letters()[0])
    # The letter may be there before the log is written.
    logs(sender, r"STARTTLS=client, relay=mx\.guarded\.test .* verify=OK")
    logs(sender, r"AUTH=client, relay=mx\.guarded\.test .* mech=PLAIN")
    logs(sender, r"to=<joe@verified\.test>.* stat=Sent")
    assert "joe-secret" not in sender.log


@pytest.mark.parametrize(
    ("domain", "words"),
    [
        ("misnamed.test", "its certificate is for mx.guarded.test, not for mx.other"),
        ("wrong.test", "failed: 535 5.7.8"),
    ],
)
def test_a_letter_waits_for_what_is_demanded(
    world: World, sender: Host, guarded: Host, domain: str, words: str
) -> None:
    send(world, domain)
    logs(sender, rf"to=<joe@{domain}>.* stat=Deferred.*{re.escape(words)}")
    assert "guessed-secret" not in sender.log
    assert not [one for one in mail_of(guarded, "joe") if domain.encode() in one]


def test_explain_tells_on_which_terms(sender: Host) -> None:
    done = sender.run("postroom", "explain", "joe@verified.test")
    assert b"TLS verified, certificate for host, login good" in done.stdout, done
