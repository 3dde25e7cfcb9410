from postroom.mail.address import NULL_SENDER, Address
from postroom.mail.envelope import Origin
from postroom.mail.ids import QueueId
from postroom.mail.outcome import Deferred, Delivered, Failed
from postroom.observe import events
from postroom.observe.metrics import NAMES_MAX, Metrics

ID = QueueId("0AbCdEfGhIj")
ORIGIN = Origin("SMTP", "192.0.2.1")


def test_counts_by_name() -> None:
    metrics = Metrics()
    for outcome, next_us in (
        (Delivered("2.0.0", "ok"), 0),
        (Deferred("4.0.0", ""), 1),
        (Deferred("4.0.0", ""), 0),
        (Failed("5.0.0", ""), 0),
    ):
        to = Address("a", "b")
        metrics.count(events.AttemptDone(0, ID, to, outcome, "smtp", 1, 0, 0, next_us))
    metrics.count(events.MessageQueued(0, ID, NULL_SENDER, 40, 2, "", ORIGIN))
    metrics.count(events.MessageQueued(0, ID, NULL_SENDER, 60, 1, "", ORIGIN))
    metrics.count(events.SessionOpened(0, "smtp", ORIGIN))
    metrics.count(events.SessionClosed(0, "smtp", ORIGIN, "quit", 1, 0))
    metrics.count(events.SessionClosed(0, "smtp", ORIGIN, "lost", 1, 0))
    metrics.count(events.SessionRefused(0, "pop3", "192.0.2.1", "busy"))
    metrics.count(events.CommandRejected(0, ORIGIN, "RCPT", "x", "550 5.1.1 no", "r"))
    metrics.count(events.MailboxSession(0, "joe", "192.0.2.1", 3, 999, 2, 1))
    metrics.count(events.LoginFailed(0, "pop3", ORIGIN, "joe", "USER", "no"))
    metrics.count(events.TlsStarted(0, "client", "mx", "TLSv1.3", "AES", 256, "OK"))
    metrics.count(events.TlsFailed(0, "client", "mx", "no"))
    metrics.count(events.LoggedInElsewhere(0, "mx", "betty", "PLAIN"))
    metrics.count(events.LoggedInElsewhere(0, "mx", "betty", "PLAIN", "no"))
    metrics.count(events.ClientSuspected(0, ORIGIN, "dns_lists", "d", "log"))
    metrics.count(events.Lifecycle(0, "ready"))
    assert metrics.counts == {
        "attempts.delivered.smtp": 1,
        "attempts.deferred.smtp": 1,
        "attempts.expired.smtp": 1,
        "attempts.failed.smtp": 1,
        "messages.queued": 2,
        "messages.octets": 100,
        "messages.recipients": 3,
        "sessions.smtp": 1,
        "sessions.smtp.lost": 1,
        "refused.pop3": 1,
        "refused.pop3.busy": 1,
        "rejected.5yz": 1,
        "rejected.by.r": 1,
        "checks.dns_lists": 1,
        "mailbox.retrieved": 3,
        "mailbox.octets": 999,
        "mailbox.deleted": 2,
        "logins.refused": 1,
        "tls.client.started": 1,
        "tls.client.TLSv1.3": 1,
        "tls.client.failed": 1,
        "logins.elsewhere.done": 1,
        "logins.elsewhere.refused": 1,
    }


def test_names_are_few_and_plain() -> None:
    metrics = Metrics()
    for number in range(2 * NAMES_MAX):
        rule = f"hook_{number}"
        metrics.count(events.CommandRejected(0, ORIGIN, "RCPT", "", "550 no", rule))
    for rule in ("", " words", "x" * 65, "\x1b[2J", "1"):
        metrics.count(events.CommandRejected(0, ORIGIN, "RCPT", "", "550 no", rule))
    assert len(metrics.counts) == NAMES_MAX + 2
    assert metrics.counts["rejected.by.other"] == NAMES_MAX + 5
    assert metrics.counts["rejected.by.hook_0"] == 1
    metrics.count(events.CommandRejected(0, ORIGIN, "RCPT", "", "550 no", "hook_0"))
    assert metrics.counts["rejected.by.hook_0"] == 2
    rule = "hook_0 of joe"  # what stands behind the name differs each time
    metrics.count(events.CommandRejected(0, ORIGIN, "RCPT", "", "550 no", rule))
    assert metrics.counts["rejected.by.hook_0"] == 3
