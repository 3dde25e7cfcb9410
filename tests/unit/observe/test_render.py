import msgspec
import pytest

from postroom.mail.address import NULL_SENDER, Address
from postroom.mail.envelope import Origin
from postroom.mail.ids import QueueId
from postroom.mail.outcome import Deferred, Delivered, Failed, Outcome
from postroom.observe import events
from postroom.observe.events import AnyEvent
from postroom.observe.render import duration_text, event_text, json_line, syslog_line

AT = 1_795_361_682_000_000  # 2026-11-22 15:34:42 UTC
ID = QueueId("0AbCdEfGhIj")
JOE = Address("joe", "whizzer.test")
LOCAL = Origin(login="root")
CLIENT = Origin("ESMTP", "192.0.2.1", 4711, "me.test", "me.test", "", "smtp")
NAMELESS = Origin("SMTP", "192.0.2.1", 4711, listener="smtp")


def attempt(
    outcome: Outcome, delay_us: int = 0, next_us: int = 0
) -> events.AttemptDone:
    return events.AttemptDone(
        AT, ID, JOE, outcome, "smtp", 1, delay_us, 1_500_000, next_us
    )


CASES: dict[str, tuple[AnyEvent, str]] = {
    "queued by a user": (
        events.MessageQueued(
            AT, ID, Address("root", ""), 39, 1, "<1@gonzo.test>", LOCAL
        ),
        f"{ID}: from=<root>, size=39, class=0, nrcpts=1, msgid=<1@gonzo.test>,"
        " relay=root@localhost",
    ),
    "queued by SMTP": (
        events.MessageQueued(AT, ID, Address("a", "b.test"), 4096, 2, "<2@x>", CLIENT),
        f"{ID}: from=<a@b.test>, size=4096, class=0, nrcpts=2, msgid=<2@x>,"
        " proto=ESMTP, daemon=smtp, relay=me.test [192.0.2.1]",
    ),
    "queued with a priority": (
        events.MessageQueued(AT, ID, JOE, 1, 1, "", LOCAL, -3),
        f"{ID}: from=<joe@whizzer.test>, size=1, class=0, nrcpts=1, priority=-3,"
        " relay=root@localhost",
    ),
    "queued from the null sender": (
        events.MessageQueued(AT, ID, NULL_SENDER, 1, 1, "", NAMELESS),
        f"{ID}: from=<>, size=1, class=0, nrcpts=1, proto=SMTP, daemon=smtp,"
        " relay=[192.0.2.1]",
    ),
    "queued after a login": (
        events.MessageQueued(
            AT, ID, JOE, 1, 1, "", msgspec.structs.replace(CLIENT, login="joe")
        ),
        f"{ID}: from=<joe@whizzer.test>, size=1, class=0, nrcpts=1,"
        " proto=ESMTP, daemon=smtp, authid=joe, relay=me.test [192.0.2.1]",
    ),
    "sent": (
        attempt(Delivered("2.0.0", "Ok", "mx.test [192.0.2.9]", relayed=True)),
        f"{ID}: to=<joe@whizzer.test>, delay=00:00:00, xdelay=00:00:01, mailer=esmtp,"
        " pri=0, relay=mx.test [192.0.2.9], dsn=2.0.0, stat=Sent (Ok)",
    ),
    "sent without a word": (
        attempt(Delivered("2.0.0", ""), 100_000_000_000),
        f"{ID}: to=<joe@whizzer.test>, delay=1+03:46:40, xdelay=00:00:01, mailer=esmtp,"
        " pri=0, dsn=2.0.0, stat=Sent",
    ),
    "deferred": (
        attempt(Deferred("4.4.1", "Connection refused by [127.0.0.9]"), 0, AT + 9),
        f"{ID}: to=<joe@whizzer.test>, delay=00:00:00, xdelay=00:00:01, mailer=esmtp,"
        " pri=0, dsn=4.4.1, stat=Deferred: Connection refused by [127.0.0.9]",
    ),
    "deferred for the last time": (
        attempt(Deferred("4.4.1", "Connection refused by x."), 432_000_000_000),
        f"{ID}: to=<joe@whizzer.test>, delay=5+00:00:00, xdelay=00:00:01, mailer=esmtp,"
        " pri=0, dsn=4.4.1, stat=Expired: Connection refused by x.",
    ),
    "failed": (
        attempt(Failed("5.1.1", "User unknown", code=550)),
        f"{ID}: to=<joe@whizzer.test>, delay=00:00:00, xdelay=00:00:01, mailer=esmtp,"
        " pri=0, dsn=5.1.1, stat=User unknown",
    ),
    "rejected at RCPT": (
        events.CommandRejected(
            AT, CLIENT, "RCPT", "<x@y>", "550 5.1.1 User unknown", "unknown_recipient"
        ),
        "NOQUEUE: ruleset=check_rcpt, arg1=<x@y>, relay=me.test [192.0.2.1],"
        " reject=550 5.1.1 User unknown, rule=unknown_recipient",
    ),
    "timed out": (
        events.SessionClosed(AT, "smtp", NAMELESS, "timeout", 0, 300_000_000),
        "smtp: timeout waiting for input from [192.0.2.1], messages=0, time=00:05:00",
    ),
    "too slow": (
        events.SessionClosed(AT, "smtp", NAMELESS, "data_rate_min", 0, 300_000_000),
        "smtp: content too slow from [192.0.2.1], messages=0, time=00:05:00",
    ),
    "suspected": (
        events.ClientSuspected(AT, CLIENT, "hello_own_name", "a\nb", "log"),
        "check hello_own_name: a\\x0ab, relay=me.test [192.0.2.1], action=log",
    ),
    "turned away": (
        events.SessionRefused(AT, "smtp", "192.0.2.1", "sessions_per_client_max"),
        "smtp: rejecting connection from [192.0.2.1]: sessions_per_client_max",
    ),
    "logged in": (
        events.LoggedIn(AT, "pop3", CLIENT, "joe", "USER"),
        "AUTH=server, daemon=pop3, relay=me.test [192.0.2.1], authid=joe, mech=USER,"
        " bits=0",
    ),
    "not logged in": (
        events.LoginFailed(AT, "pop3", NAMELESS, "joe", "USER", "wrong password"),
        "AUTH failure (USER): wrong password, daemon=pop3, relay=[192.0.2.1],"
        " authid=joe",
    ),
    "mailbox read": (
        events.MailboxSession(AT, "joe", "192.0.2.1", 2, 8192, 1, 5),
        "Stats: user=joe, deleted=1, left=5, retrieved=2, octets=8192,"
        " relay=[192.0.2.1]",
    ),
    "encrypted": (
        events.TlsStarted(
            AT, "client", "mx.w.test [192.0.2.2]", "TLSv1.3", "AES", 256, "OK"
        ),
        "STARTTLS=client, relay=mx.w.test [192.0.2.2], version=TLSv1.3, verify=OK,"
        " cipher=AES, bits=256/256",
    ),
    "encrypted again": (
        events.TlsStarted(
            AT, "server", "[192.0.2.2]", "TLSv1.2", "AES", 128, "NO", resumed=True
        ),
        "STARTTLS=server, relay=[192.0.2.2], version=TLSv1.2, verify=NO,"
        " cipher=AES, bits=128/128, resumed",
    ),
    "not encrypted": (
        events.TlsFailed(AT, "client", "mx.w.test [192.0.2.2]", "no\nshared cipher"),
        "STARTTLS=client, relay=mx.w.test [192.0.2.2], error=no\\x0ashared cipher",
    ),
    "logged in elsewhere": (
        events.LoggedInElsewhere(AT, "relay.test [192.0.2.2]", "betty", "PLAIN"),
        "AUTH=client, relay=relay.test [192.0.2.2], authid=betty, mech=PLAIN, bits=0",
    ),
    "not logged in elsewhere": (
        events.LoggedInElsewhere(AT, "relay.test", "betty", "", "no way"),
        "AUTH=client, relay=relay.test, authid=betty, mech=none, error=no way",
    ),
    "alias expanded": (
        events.RecipientExpanded(AT, ID, Address("friends", "g.test"), "aliases", 2),
        f"{ID}: alias <friends@g.test> => 2 recipients, rule=aliases",
    ),
    "report": (
        events.ReportQueued(AT, QueueId("0ReportRepo"), ID, "failed", JOE),
        f"{ID}: 0ReportRepo: DSN: failed, to=<joe@whizzer.test>",
    ),
    "no report": (
        events.ReportDropped(AT, ID, "double bounce"),
        f"{ID}: no DSN: double bounce",
    ),
    "removed": (events.MessageRemoved(AT, ID, "root"), f"{ID}: removed by root"),
    "ordered": (
        events.MessageOrdered(AT, ID, "hold", "root", "odd"),
        f"{ID}: hold by root: odd",
    ),
    "shunted": (
        events.MessageShunted(AT, ID, "crashed its worker 3 times"),
        f"{ID}: shunted: crashed its worker 3 times",
    ),
    "discarded": (
        events.MessageDiscarded(AT, ID, "trap"),
        f"{ID}: discarded: trap",
    ),
    "discarded, and whose": (
        events.MessageDiscarded(AT, ID, "trap", JOE, Origin(client_ip="192.0.2.1")),
        f"{ID}: from=<{JOE}>, relay=[192.0.2.1], discarded: trap",
    ),
    "discarded for one": (
        events.RecipientDiscarded(AT, ID, JOE, "trap\n"),
        f"{ID}: to=<{JOE}>, discarded: trap\\x0a",
    ),
    "observer failed": (
        events.HookFailed(AT, "site.count", "outcome", "KeyError: 'x'"),
        "hook site.count failed in phase outcome: KeyError: 'x'",
    ),
    "hook failed": (
        events.HookFailed(AT, "site.no_spam", "rcpt", "KeyError: 'x'"),
        "hook site.no_spam failed in phase rcpt, 451 4.3.0 given: KeyError: 'x'",
    ),
    "hook slow": (
        events.HookSlow(AT, "site.no_spam", "rcpt", 250_000),
        "hook site.no_spam held up phase rcpt for 250 ms",
    ),
    "spool failed": (
        events.SpoolFailed(AT, 1, "disk full"),
        "SYSERR: spool shard 1: disk full",
    ),
    "table refused": (
        events.TableRefused(AT, "/etc/aliases", 7, "missing colon"),
        "/etc/aliases: line 7: missing colon; the table in force stays",
    ),
    "table refused, and none before": (
        events.TableRefused(AT, "/etc/aliases", 0, "No such file", in_force=False),
        "ERROR: /etc/aliases: No such file; there is no version before it:"
        " what needs it is answered 451 until it is mended",
    ),
    "lifecycle": (events.Lifecycle(AT, "ready"), "ready"),
    "lifecycle error": (events.Lifecycle(AT, "gone", "error"), "ERROR: gone"),
    "connected": (
        events.SessionOpened(AT, "smtp", CLIENT),
        "smtp: connect from me.test [192.0.2.1]",
    ),
}


@pytest.mark.parametrize(("event", "text"), CASES.values(), ids=CASES.keys())
def test_text(event: AnyEvent, text: str) -> None:
    assert event_text(event) == text


def test_every_event_has_a_line() -> None:
    assert {type(event) for event, _ in CASES.values()} == set(AnyEvent.__args__)


def test_prefix_is_that_of_syslog() -> None:
    line = syslog_line(
        events.Lifecycle(AT, "ready"), hostname="gonzo.test", pid=42, zone_offset_s=0
    )
    assert line == "Nov 22 15:34:42 gonzo postroom[42]: ready"
    early = events.Lifecycle(AT - 20 * 86_400_000_000, "x")
    line = syslog_line(early, hostname="g", pid=1, zone_offset_s=-3600)
    assert line == "Nov  2 14:34:42 g postroom[1]: x"


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        (
            "a\r\nNov 22 x postroom[1]: forged",
            "a\\x0d\\x0aNov 22 x postroom[1]: forged",
        ),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x00\x7f\x85", "\\x00\\x7f\\x85"),
        ("\u2028\u202e", "\\u2028\\u202e"),
        ("\udcff", "\\udcff"),
        ("\U000e0001", "\\U000e0001"),
        ("x" * 500, "x" * 100 + "..." + "x" * 100),
    ],
)
def test_what_a_peer_wrote_stays_in_one_line(hostile: str, shown: str) -> None:
    event = events.LoginFailed(AT, "pop3", CLIENT, hostile, "USER", "no")
    assert event_text(event).endswith(f"authid={shown}")
    line = json_line(event)
    assert len(line.decode().splitlines()) == 1
    assert line.decode().isprintable() or "\U000e0001" in hostile
    assert msgspec.json.decode(line)["type"] == "LoginFailed"


FORGED = "x, relay=[192.0.2.66], reject=550 5.7.1 no"


def test_what_a_peer_wrote_is_no_further_field() -> None:
    """Else anybody could have others barred by what reads the log."""
    shown = "x,\\x20relay\\x3d[192.0.2.66],\\x20reject=550 5.7.1 no"
    for event in (
        events.LoginFailed(AT, "smtp", NAMELESS, FORGED, "PLAIN", FORGED),
        events.CommandRejected(AT, NAMELESS, "RCPT", FORGED, "550 5.1.1 no", "r"),
    ):
        text = event_text(event)
        assert text.count("relay=") == 1
        assert f"relay=[{NAMELESS.client_ip}]" in text
        assert shown in text


def test_json_keeps_what_can_be_kept() -> None:
    event = CASES["sent"][0]
    found = msgspec.json.decode(json_line(event))
    assert found["outcome"]["text"] == "Ok"
    assert found["recipient"] == {"local": "joe", "domain": "whizzer.test"}


@pytest.mark.parametrize(
    ("duration_us", "text"),
    [
        (-5, "00:00:00"),
        (999_999, "00:00:00"),
        (59_000_000, "00:00:59"),
        (3_661_000_000, "01:01:01"),
        (86_400_000_000, "1+00:00:00"),
    ],
)
def test_durations(duration_us: int, text: str) -> None:
    assert duration_text(duration_us) == text
