"""POP3 on a whole host: passwords, locks, and deletions that count only after QUIT."""

import poplib
from collections.abc import Iterator

import pytest

from postroom.testing.caller import Caller
from postroom.testing.host import Host
from postroom.testing.ledger import mail_of
from postroom.testing.world import World, until

DOMAIN = "fetch.test"


@pytest.fixture(scope="module")
def host(world: World) -> Iterator[Host]:
    world.name(DOMAIN, 18)
    with world.host(
        DOMAIN, 18, {"pop3": {"login_failure_delay": "100ms"}}, users=("betty", "eve")
    ) as made:
        yield made


@pytest.fixture
def letters(world: World, host: Host) -> list[bytes]:
    """Three letters in betty's mailbox, and no others."""
    for path in (host.directory / "mail/betty").glob("*/*"):
        path.unlink()
    contents = [b"Subject: %d\r\n\r\n.%d\r\n" % (n, n) for n in range(3)]
    with Caller(world.ip(18), world.smtp_port) as caller:
        caller.hello()
        for content in contents:
            said = caller.give("a@b.example", [f"betty@{DOMAIN}"], content)
            assert said.code == 250
        until("all", lambda: len(mail_of(host, "betty")) == len(contents), host)
    return contents


def login(world: World, user: str = "betty", password: str = "") -> poplib.POP3:
    box = poplib.POP3(world.ip(18), world.pop3_port, timeout=30)
    try:
        box.user(user)
        box.pass_(password or f"{user}-secret")
    except poplib.error_proto:
        box.close()
        raise
    return box


def subjects(box: poplib.POP3) -> list[bytes]:
    count, _ = box.stat()
    found = []
    for number in range(1, count + 1):
        lines = box.retr(number)[1]
        found.append(next(one for one in lines if one.startswith(b"Subject: ")))
    return found


def test_wrong_passwords(world: World, host: Host, letters: list[bytes]) -> None:
    for user, password in (
        ("betty", "wrong"),
        ("betty", "betty-secret "),
        ("nosuch", "betty-secret"),
        ("betty", "eve-secret"),
        ("../betty", "betty-secret"),
        ("betty", "\0"),
    ):
        with pytest.raises(poplib.error_proto) as refused:
            login(world, user, password)
        text = str(refused.value)
        assert "-ERR" in text
        assert "nosuch" not in text
    login(world).quit()


def test_one_at_a_time(world: World, host: Host, letters: list[bytes]) -> None:
    """In both workers: the second is told IN-USE while the first is there."""
    first = login(world)
    try:
        for _ in range(6):
            with pytest.raises(poplib.error_proto, match=r"\[IN-USE\]"):
                login(world)
        login(world, "eve").quit()
    finally:
        first.quit()
    until("the end of the first", lambda: _can_login(world), host)


def _can_login(world: World) -> bool:
    try:
        login(world).quit()
    except poplib.error_proto:
        return False
    return True


def test_deletions_count_after_quit(
    world: World, host: Host, letters: list[bytes]
) -> None:
    box = login(world)
    assert subjects(box) == [b"Subject: 0", b"Subject: 1", b"Subject: 2"]
    box.dele(1)
    box.dele(2)
    box.close()  # hangs up: nothing is deleted
    until("the end", lambda: _can_login(world), host)
    assert len(mail_of(host, "betty")) == 3
    box = login(world)
    box.dele(1)
    box.rset()
    box.dele(2)
    with pytest.raises(poplib.error_proto):
        box.retr(2)
    box.quit()
    until("the end", lambda: len(mail_of(host, "betty")) == 2, host)
    box = login(world)
    assert subjects(box) == [b"Subject: 0", b"Subject: 2"]
    box.quit()


def test_unique_ids_stay(world: World, host: Host, letters: list[bytes]) -> None:
    box = login(world)
    before = box.uidl()[1]
    box.quit()
    until("the end", lambda: _can_login(world), host)
    box = login(world)
    assert box.uidl()[1] == before
    assert len({one.split()[1] for one in before}) == 3
    box.quit()


def test_dots_and_tops(world: World, host: Host, letters: list[bytes]) -> None:
    until("free", lambda: _can_login(world), host)
    box = login(world)
    content = b"\r\n".join([*box.retr(2)[1], b""])
    assert content.endswith(letters[1])
    _, lines, _ = box.top(2, 0)
    assert lines[-2:] == [b"Subject: 1", b""]
    _, listing, _ = box.list()
    assert listing[1] == b"2 %d" % len(content)
    box.quit()
