"""TLS and the PROXY protocol on a real host with two workers."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from postroom.testing.authority import Authority
from postroom.testing.caller import Caller
from postroom.testing.host import Host
from postroom.testing.world import QUICK, World, until

DOMAIN = "tls.test"
IMPLICIT, PROXIED = 4, 5
MORE = """
[proxy]
networks = ["127.0.5.0/24"]
[[tls.certificate]]
cert = "cert.pem"
[[listen]]
address = "{ip}:{implicit}"
tls = "implicit"
[[listen]]
address = "{ip}:{proxied}"
proxy = true
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def host(world: World, authority: Authority) -> Iterator[Host]:
    world.name(DOMAIN, 17)
    made = world.host(DOMAIN, 17, QUICK)
    ports = {
        "implicit": world.smtp_port + IMPLICIT,
        "proxied": world.smtp_port + PROXIED,
    }
    more = MORE.format(ip=world.ip(17), **ports)
    made.configure(world.config(DOMAIN, 17, QUICK) + more)
    put(made, authority.issue(DOMAIN))
    with made:
        yield made


def put(host: Host, path: str) -> None:
    """Put a certificate with its key in the host's file, whole."""
    new = host.directory / "new.pem"
    new.write_bytes(Path(path).read_bytes())
    new.chmod(0o600)
    new.rename(host.directory / "cert.pem")


def encrypt(caller: Caller, authority: Authority, name: str = DOMAIN) -> set[str]:
    """Do the handshake; return the names in the certificate shown."""
    context = ssl.create_default_context(cafile=authority.ca_file)
    tls = context.wrap_socket(caller.socket, server_hostname=name)
    caller.socket = tls
    found = tls.getpeercert() or {}
    return {str(pair[1]) for pair in found.get("subjectAltName", ())}


def names_shown(world: World, authority: Authority) -> set[str]:
    with Caller(world.ip(17), world.smtp_port + IMPLICIT) as caller:
        return encrypt(caller, authority)


def test_mail_goes_encrypted(world: World, host: Host, authority: Authority) -> None:
    with Caller(world.ip(17), world.smtp_port) as caller:
        caller.hello()
        assert caller.ask("STARTTLS").code == 220
        assert DOMAIN in encrypt(caller, authority)
        caller.send(b"EHLO c.test\r\n")
        assert "STARTTLS" not in str(caller.reply())
        given = caller.give(
            "a@b.example", [f"betty@{DOMAIN}"], b"a: b\r\n\r\nhello\r\n"
        )
        assert given.code == 250
    told = ("stat=Sent", "proto=ESMTPS", "STARTTLS=server, relay=[127.0.")
    until("the log tells", lambda: all(one in host.log for one in told), host)


def test_a_proxy_says_who_calls(world: World, host: Host) -> None:
    with Caller(world.ip(17), world.smtp_port + PROXIED, source_ip=world.ip(17)) as one:
        one.send(b"PROXY TCP4 192.0.2.99 127.0.5.17 4242 25\r\n")
        one.hello()
        assert one.ask("MAIL FROM:<a@b.example>").code == 250
        assert one.ask("RCPT TO:<x@elsewhere.example>").code == 550
    line = "arg1=<x@elsewhere.example>, relay=[192.0.2.99]"
    until("it is told", lambda: line in host.log, host)
    with Caller(world.ip(17), world.smtp_port + PROXIED, source_ip=world.ip(17)) as two:
        two.send(b"EHLO c.test\r\n")
        assert two.is_hung_up()
    with Caller(
        world.ip(17), world.smtp_port + PROXIED, source_ip="127.0.0.1"
    ) as three:
        three.send(b"PROXY TCP4 192.0.2.99 127.0.5.17 4242 25\r\n")
        assert three.is_hung_up()
    until("it is told", lambda: "proxy: not a known proxy" in host.log, host)


def test_certificates_are_renewed(
    world: World, host: Host, authority: Authority
) -> None:
    with Caller(world.ip(17), world.smtp_port + IMPLICIT) as kept:
        before = encrypt(kept, authority)
        put(host, authority.issue(DOMAIN, "renewed.test"))
        new = {DOMAIN, "renewed.test"}
        # Whichever worker takes a connection: all of them show the new one.
        until(
            "all workers have it",
            lambda: all(names_shown(world, authority) == new for _ in range(12)),
            host,
        )
        assert before == {DOMAIN}
        assert kept.reply().code == 220
        assert kept.ask("NOOP").code == 250  # and sessions under way go on
    line = "tls: changed certificates are in force"
    until("the change is told", lambda: line in host.log, host)
    Path(host.directory / "cert.pem").write_text("nonsense")
    until(
        "it is told", lambda: "the certificates before stay in force" in host.log, host
    )
    assert names_shown(world, authority) == new
