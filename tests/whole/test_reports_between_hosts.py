"""Reports between two hosts: who asked for what, hears what, and where it shows."""

import re
from collections.abc import Iterator, Sequence

import pytest

from postroom.testing.caller import Caller
from postroom.testing.host import Host
from postroom.testing.ledger import entries_of, mail_of
from postroom.testing.reports import ReadReport, read_report
from postroom.testing.world import QUICK, World, until

ALIASES = """\
postmaster: betty
one: joe
team: joe, ann
dead: nosuch, joe
list: joe, ann
owner-list: betty
away: joe@near.test
round: back@near.test
"""
LETTER = b"Subject: %s\r\nMessage-Id: <%s@near.test>\r\n\r\nHello.\r\n"


@pytest.fixture(scope="module")
def near(world: World) -> Iterator[Host]:
    """Where betty sends from; it warns of delays at once."""
    world.name("near.test", 7)
    retry = {**QUICK["schedule.retry"], "warn_after": "1ms"}
    settings = {**QUICK, "schedule.retry": retry}
    aliases = "postmaster: betty\nback: round@far.test\n"
    with world.host("near.test", 7, settings, aliases=aliases) as host:
        yield host


@pytest.fixture(scope="module")
def far(world: World) -> Iterator[Host]:
    """Where it goes to."""
    world.name("far.test", 8)
    users = ("betty", "joe", "ann")
    # It refuses many recipients in one session, and must not grow slow over it: a
    # report waits but a second for other failures.
    settings = {**QUICK, "receive": {"bad_recipient_delay": "0s"}}
    with world.host("far.test", 8, settings, users=users, aliases=ALIASES) as host:
        yield host


def send(
    world: World,
    host: int,
    name: str,
    recipients: Sequence[str],
    mail: str = "",
    sender: str = "betty@near.test",
) -> None:
    """Hand a letter to a host; recipients are ``address PARAMETERS``."""
    with Caller(world.ip(host), world.smtp_port) as caller:
        hello = caller.hello()
        assert "DSN" in hello.text.split()
        lines = [f"MAIL FROM:<{sender}> {mail}".rstrip()]
        for recipient in recipients:
            address, _, rest = recipient.partition(" ")
            lines.append(f"RCPT TO:<{address}> {rest}".rstrip())
        for line in (*lines, "DATA"):
            caller.send(line.encode() + b"\r\n")
            assert caller.reply().code in (250, 354), line
        content = LETTER % (name.encode(), name.encode())
        caller.send(content + b".\r\n")
        assert caller.reply().code == 250


def reports(host: Host, name: str, user: str = "betty") -> list[ReadReport]:
    """Return the reports in a mailbox about a letter; each must be well formed."""
    found = []
    for letter in mail_of(host, user):
        if b"report-type=delivery-status" not in letter:
            continue
        report = read_report(letter)
        if f"Message-Id: <{name}@near.test>".encode() in report.returned:
            found.append(report)
    return found


def actions(host: Host, name: str, count: int) -> dict[str, str]:
    """Wait for so many reports; return what became of each recipient."""
    until(f"reports on {name}", lambda: len(reports(host, name)) >= count, host)
    told = reports(host, name)
    assert len(told) == count
    together = {k: v for one in told for k, v in one.actions.items()}
    assert len(together) == sum(len(one.recipients) for one in told)
    return together


def is_quiet(*hosts: Host) -> bool:
    return not any(entries_of(host) for host in hosts)


ALL = "NOTIFY=SUCCESS,FAILURE,DELAY"


def test_success_is_told_by_the_last_host(world: World, near: Host, far: Host) -> None:
    recipients = [f"joe@far.test {ALL} ORCPT=rfc822;Joe+2B1@far.test", "ann@far.test"]
    send(world, 7, "success", recipients, "RET=HDRS ENVID=QQ+20314")
    assert actions(near, "success", 1) == {"joe@far.test": "delivered"}
    (report,) = reports(near, "success")
    assert report.message["Original-Envelope-Id"] == "QQ 314"
    assert report.message["Reporting-MTA"] == "dns; far.test"
    assert report.message["Received-From-MTA"] == "dns; near.test ([127.0.0.1])"
    (joe,) = report.recipients
    assert joe["Original-Recipient"] == "rfc822; Joe+1@far.test"
    assert joe["Status"].startswith("2.")
    assert joe["Final-Log-ID"]
    assert "Your message was delivered" in report.words
    until("rest", lambda: is_quiet(near, far), near)
    assert len(reports(near, "success")) == 1


def test_failure_comes_back_whole_or_as_header(
    world: World, near: Host, far: Host
) -> None:
    for name, mail, whole in (
        ("failed", "", True),
        ("failed-full", "RET=FULL", True),
        ("failed-hdrs", "RET=HDRS", False),
    ):
        send(world, 7, name, ["nosuch@far.test"], mail)
        assert actions(near, name, 1) == {"nosuch@far.test": "failed"}
        (report,) = reports(near, name)
        assert (b"Hello." in report.returned) is whole
        (one,) = report.recipients
        assert one["Status"] == "5.1.1"
        assert one["Remote-MTA"] == f"dns; mx.far.test ([{world.ip(8)}])"
        assert one["Diagnostic-Code"].startswith("smtp; 550 5.1.1 ")
        assert "Original-Envelope-Id" not in report.message
        assert ">>> RCPT To:<nosuch@far.test>" in report.words
        assert report.header["auto-submitted"] == "auto-replied"
        assert report.header["in-reply-to"] == f"<{name}@near.test>"


def test_silence_where_it_was_asked_for(world: World, near: Host, far: Host) -> None:
    recipients = [
        "joe@far.test NOTIFY=NEVER",
        "nosuch@far.test NOTIFY=NEVER",
        "nosuch@far.test.invalid NOTIFY=NEVER",
        "dead@far.test NOTIFY=NEVER",
        "team@far.test NOTIFY=DELAY",
    ]
    send(world, 7, "silent", recipients)
    got = b"Subject: silent\r\n"
    until("joe", lambda: any(got in one for one in mail_of(far, "joe")), far)
    until("rest", lambda: is_quiet(near, far), near)
    assert reports(near, "silent") == []
    assert reports(far, "silent") == []


def test_aliases_and_lists(world: World, near: Host, far: Host) -> None:
    names = ["one", "team", "list", "away"]
    recipients = [f"{name}@far.test NOTIFY=SUCCESS,FAILURE" for name in names]
    send(world, 7, "aliases", recipients, "ENVID=x")
    # RFC 3461 §5.2.7: an alias for one tells nothing by itself, its mailbox does;
    # an alias that leads back here is told of by us.
    found = actions(near, "aliases", 4)
    assert found == {
        "one@far.test": "delivered",
        "team@far.test": "expanded",
        "list@far.test": "delivered",
        "joe@near.test": "delivered",
    }
    by_name = {
        name: one
        for report in reports(near, "aliases")
        for name, one in zip(report.actions, report.recipients, strict=True)
    }
    # The address that far accepted went along when it passed the letter on.
    assert by_name["joe@near.test"]["Original-Recipient"] == "rfc822; away@far.test"
    assert by_name["one@far.test"]["X-Actual-Recipient"] == "rfc822; joe@far.test"
    until("rest", lambda: is_quiet(near, far), near)
    for letter in mail_of(near, "joe"):
        if b"Subject: aliases\r\n" in letter:
            assert b"\r\nDelivered-To: away@far.test\r\n" in letter


def test_a_failing_member_is_told_once_by_its_alias(
    world: World, near: Host, far: Host
) -> None:
    send(world, 7, "member", ["dead@far.test"])
    assert actions(near, "member", 1) == {"dead@far.test": "failed"}
    (report,) = reports(near, "member")
    assert "<nosuch@far.test> (you wrote to: dead@far.test)" in report.words


def test_failures_at_several_hosts_are_told_once_each(
    world: World, near: Host, far: Host
) -> None:
    recipients = ["nosuch@far.test", "nosuch2@far.test", "x@nothing.invalid"]
    send(world, 7, "several", [*recipients, "joe@far.test"])
    found = actions(near, "several", 2)
    # What went with joe's copy is settled with it, at once.
    assert found == dict.fromkeys(recipients, "failed")
    # In one report, unless this machine takes over a second from one to the other.
    apart = ["nosuch@far.test", "x@nothing.invalid"]
    send(world, 7, "apart", apart)
    until("rest", lambda: is_quiet(near, far), near)
    told = [name for report in reports(near, "apart") for name in report.actions]
    assert sorted(told) == apart


def test_a_host_without_dsn(world: World, near: Host) -> None:
    world.name("plain.test", 9)
    with world.peer(9) as peer:
        recipients = [f"joe@plain.test {ALL}", "ann@plain.test NOTIFY=NEVER"]
        send(world, 7, "relayed", recipients, "RET=FULL ENVID=x")
        assert actions(near, "relayed", 1) == {"joe@plain.test": "relayed"}
        assert len(peer.messages) == 1
    (report,) = reports(near, "relayed")
    assert report.recipients[0]["Remote-MTA"].startswith("dns; mx.plain.test")
    assert b"Hello." not in report.returned


def test_a_delay_is_told_once(world: World, near: Host) -> None:
    world.name("late.test", 10)
    recipients = ["joe@late.test", "ann@late.test NOTIFY=FAILURE"]
    send(world, 7, "late", recipients)
    assert actions(near, "late", 1) == {"joe@late.test": "delayed"}
    (report,) = reports(near, "late")
    assert "Will-Retry-Until" in report.recipients[0]
    assert "NEED NOT SEND YOUR MESSAGE AGAIN" in " ".join(report.words.split())
    with world.peer(10) as peer:
        until("rest", lambda: is_quiet(near), near)
        assert peer.messages
    assert len(reports(near, "late")) == 1


def test_sendmail_asks_for_reports(world: World, near: Host, far: Host) -> None:
    text = b"Subject: asked\nMessage-Id: <asked@near.test>\n\nHello.\n"
    done = near.run(
        *("sendmail", "-v", "-N", "success,failure", "-R", "hdrs", "-V", "env id"),
        *("joe@far.test", "nosuch@far.test"),
        text=text,
    )
    assert done.returncode == 0, done.stderr
    shown = done.stdout.decode()
    assert re.search(
        r">>> MAIL From:<betty@near\.test> SIZE=\d+ RET=HDRS ENVID=env\+20id", shown
    )
    notify = "NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;"
    assert f">>> RCPT To:<joe@far.test> {notify}joe@far.test" in shown
    assert actions(near, "asked", 2) == {
        "joe@far.test": "delivered",
        "nosuch@far.test": "failed",
    }
    for report in reports(near, "asked"):
        assert report.message["Original-Envelope-Id"] == "env id"
        assert b"Hello." not in report.returned


@pytest.mark.parametrize(
    "wrong", [("-N", "always"), ("-R", "body"), ("-V", ""), ("-V", "x" * 101)]
)
def test_sendmail_refuses_nonsense(near: Host, wrong: tuple[str, str]) -> None:
    done = near.run("sendmail", *wrong, "joe", text=b"\n")
    assert done.returncode == 64
    assert b"Invalid" in done.stdout + done.stderr


def test_mail_that_comes_back_is_stopped(world: World, near: Host, far: Host) -> None:
    """One host sends it on to the other and back: once round, then a report."""
    send(world, 7, "circle", ["round@far.test"])
    (address,) = actions(near, "circle", 1)
    assert address == "round@far.test"
    (report,) = reports(near, "circle")
    assert report.recipients[0]["Status"] == "5.4.6"
    assert "goes round in circles" in " ".join(report.words.split())
    assert report.returned.count(b"Delivered-To: round@far.test\r\n") == 1
    assert report.returned.count(b"Received: ") <= 4


def test_a_mailbox_takes_nothing_twice(world: World, near: Host, far: Host) -> None:
    with Caller(world.ip(8), world.smtp_port) as caller:
        caller.hello()
        content = b"Delivered-To: joe@far.test\r\n" + LETTER % (b"loop", b"loop")
        assert caller.give("betty@near.test", ["joe@far.test"], content).code == 250
    assert actions(near, "loop", 1) == {"joe@far.test": "failed"}
    until("rest", lambda: is_quiet(near, far), near)
    assert not any(b"Subject: loop\r\n" in one for one in mail_of(far, "joe"))
