"""Delivery reports: their three parts, what they reveal, and what cannot be forged."""

import email
import email.policy
from email.message import EmailMessage
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.mail.address import Address
from postroom.mail.dsn import Report, make_report, wants_body
from postroom.mail.dsn_words import words_for
from postroom.mail.envelope import BodyType, Envelope, Origin, Recipient
from postroom.mail.ids import QueueId
from postroom.mail.message import MemoryBody
from postroom.mail.outcome import Deferred, Delivered, Failed, Outcome
from postroom.mail.reported import (
    Posting,
    RecipientResult,
    ReportedMessage,
    Reporter,
    ReportKind,
)

T0 = 1_795_361_711_000_000
BETTY = Address("betty", "gonzo.test")
JOE = Recipient(Address("joe", "whizzer.test"))
ORIGIN = Origin("ESMTP", "192.0.2.9", 4711, "", "client.example", "", "smtp")
ENVELOPE = Envelope(BETTY, (JOE,), ORIGIN, arrival_us=T0 - 7_000_000)
HEADER = b"Subject: hello\r\nMessage-ID: <1@gonzo.test>\r\n"
UNKNOWN = Failed(
    "5.1.1",
    "User unknown",
    "mx.whizzer.test [192.0.2.1]",
    550,
    "RCPT",
    ("550 5.1.1 User unknown",),
)
REPORTER = Reporter("gonzo.test", T0)
REPORT_ID = QueueId("0Abcdefghij")
QUEUE_ID = QueueId("0Abcdefghii")


def report(
    outcome: Outcome = UNKNOWN,
    kind: ReportKind = ReportKind.FAILED,
    *,
    envelope: Envelope = ENVELOPE,
    recipient: Recipient = JOE,
    header: bytes = HEADER,
    body: bytes | None = b"Text.\r\n",
    reporter: Reporter = REPORTER,
) -> Report:
    about = ReportedMessage(QUEUE_ID, envelope, header, body)
    results = [RecipientResult(recipient, outcome, T0)]
    posting = Posting(REPORT_ID, envelope.sender, T0 + 86_400_000_000)
    return make_report(kind, about, results, reporter, posting)


def whole(made: Report) -> bytes:
    body = made.message.body
    assert isinstance(body, MemoryBody)
    return made.message.header + b"\r\n" + body.data


def parsed(made: Report) -> tuple[EmailMessage, list[EmailMessage]]:
    message = email.message_from_bytes(whole(made), policy=email.policy.default)
    parts = [cast("EmailMessage", part) for part in message.iter_parts()]
    assert len(parts) == 3
    return message, parts


def groups(made: Report) -> list[dict[str, str]]:
    (_, status, _) = parsed(made)[1]
    payload = cast("list[EmailMessage]", status.get_payload())
    return [dict(group.items()) for group in payload]


def unwrapped(words: EmailMessage) -> str:
    return " ".join(words.get_content().split())


def test_a_failure_report_has_its_three_parts() -> None:
    message, (words, status, returned) = parsed(report())
    assert message["From"] == "Mail Delivery System <MAILER-DAEMON@gonzo.test>"
    assert message["To"].addresses[0].addr_spec == "betty@gonzo.test"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["In-Reply-To"] == message["References"] == "<1@gonzo.test>"
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert not message.defects
    text = words.get_content().replace("\r\n", "\n")
    assert "<joe@whizzer.test>" in text
    assert "    mx.whizzer.test [192.0.2.1] said:\n" in text
    assert "    >>> RCPT To:<joe@whizzer.test>\n" in text
    assert "    <<< 550 5.1.1 User unknown\n" in text
    assert "There is no such mailbox." in text
    assert "Check the part of the address before the @" in text
    assert status.get_content_type() == "message/delivery-status"
    assert returned.get_content_type() == "message/rfc822"
    assert b"Subject: hello" in whole(report())


def test_the_fields_for_programs() -> None:
    per_message, per_recipient = groups(report())
    assert per_message == {
        "Reporting-MTA": "dns; gonzo.test",
        "Received-From-MTA": "dns; client.example ([192.0.2.9])",
        "Arrival-Date": "Sun, 22 Nov 2026 15:35:04 +0000",
        "X-Postroom-Queue-ID": "0Abcdefghii",
    }
    assert per_recipient == {
        "Final-Recipient": "rfc822; joe@whizzer.test",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; mx.whizzer.test ([192.0.2.1])",
        "Diagnostic-Code": "smtp; 550 5.1.1 User unknown",
        "Last-Attempt-Date": "Sun, 22 Nov 2026 15:35:11 +0000",
    }


def test_the_envelope_is_from_nobody_to_the_sender() -> None:
    envelope = report().envelope
    assert envelope.sender.is_null
    assert [r.address for r in envelope.recipients] == [BETTY]
    assert envelope.body is BodyType.SEVEN_BIT
    assert not envelope.smtputf8


def test_what_was_to_be_protected_stays_so() -> None:
    """RFC 8689 §5: REQUIRETLS goes on, and the body stays out, whatever RET says."""
    protected = Envelope(BETTY, (JOE,), ORIGIN, ret="FULL", requiretls=True)
    made = report(envelope=protected)
    assert made.envelope.requiretls
    assert b"Text." not in whole(made)
    assert not report().envelope.requiretls


def test_a_delay_says_until_when_and_returns_the_header_only() -> None:
    late = Deferred("4.4.1", "Connection refused by whizzer.test.", hop_failed=True)
    made = report(late, ReportKind.DELAYED)
    message, (words, _, returned) = parsed(made)
    assert "delayed" in message["Subject"]
    assert "NEED NOT SEND YOUR MESSAGE AGAIN" in unwrapped(words)
    assert "until Mon, 23 Nov 2026 15:35:11 +0000" in unwrapped(words)
    assert returned.get_content_type() == "text/rfc822-headers"
    per_recipient = groups(made)[1]
    assert per_recipient["Action"] == "delayed"
    assert per_recipient["Will-Retry-Until"] == "Mon, 23 Nov 2026 15:35:11 +0000"
    assert "Remote-MTA" not in per_recipient
    assert per_recipient["Diagnostic-Code"].startswith("X-Postroom; Connection")


def test_an_expired_message_keeps_its_temporary_status() -> None:
    made = report(Deferred("4.4.1", "Connection refused by whizzer.test."))
    assert groups(made)[1]["Status"] == "4.4.1"
    assert "Will-Retry-Until" not in groups(made)[1]
    words = " ".join(parsed(made)[1][0].get_content().split())
    assert "until the time allowed was over" in words
    assert "could not be reached" in words
    assert "Send the message again later" in words


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        (ReportKind.DELIVERED, Delivered("2.1.5", "Saved")),
        (ReportKind.RELAYED, Delivered("2.0.0", "Ok", "mx.test [192.0.2.1]", True)),
        (ReportKind.EXPANDED, Delivered("2.1.5", "")),
    ],
)
def test_good_news(kind: ReportKind, outcome: Outcome) -> None:
    made = report(outcome, kind)
    assert groups(made)[1]["Action"] == kind.value
    assert groups(made)[1]["Status"].startswith("2.")
    assert parsed(made)[1][2].get_content_type() == "text/rfc822-headers"


def test_dsn_wishes_are_decoded() -> None:
    envelope = Envelope(BETTY, (JOE,), ORIGIN, envid="QQ+3D314+2B", arrival_us=T0)
    asked = Recipient(JOE.address, "FAILURE", "rfc822;Big+2BJoe@alias.test")
    made = report(envelope=envelope, recipient=asked)
    assert groups(made)[0]["Original-Envelope-Id"] == "QQ=314+"
    assert groups(made)[1]["Original-Recipient"] == "rfc822; Big+Joe@alias.test"
    assert "(you wrote to: Big+Joe@alias.test)" in parsed(made)[1][0].get_content()


@pytest.mark.parametrize(
    ("ret", "kind", "size", "expected"),
    [
        ("", ReportKind.FAILED, 51_200, True),
        ("", ReportKind.FAILED, 51_201, False),
        ("FULL", ReportKind.FAILED, 51_201, False),
        ("HDRS", ReportKind.FAILED, 10, False),
        ("hdrs", ReportKind.FAILED, 10, False),
        ("FULL", ReportKind.DELAYED, 10, False),
    ],
)
def test_when_the_body_is_returned(
    ret: str, kind: ReportKind, size: int, expected: bool
) -> None:
    assert wants_body(kind, Envelope(BETTY, ret=ret), size) is expected


def test_binary_content_is_not_returned() -> None:
    envelope = Envelope(BETTY, ret="FULL", body=BodyType.BINARY)
    assert not wants_body(ReportKind.FAILED, envelope, 10)


def test_what_is_too_large_comes_back_as_header() -> None:
    made = report(body=b"x" * 60_000)
    assert parsed(made)[1][2].get_content_type() == "text/rfc822-headers"
    huge = b"".join(b"X-%d: y\r\n" % n for n in range(20_000))
    made = report(header=huge, body=None)
    assert len(whole(made)) < 55_000
    assert parsed(made)[1][2].get_content().endswith("y\r\n")


def test_many_recipients_are_counted() -> None:
    results = [RecipientResult(JOE, UNKNOWN, T0)] * 1_000
    about = ReportedMessage(QUEUE_ID, ENVELOPE, HEADER)
    made = make_report(
        ReportKind.FAILED, about, results, REPORTER, Posting(REPORT_ID, BETTY)
    )
    assert "... and 800 more recipients." in parsed(made)[1][0].get_content()
    assert len(groups(made)) == 201


def test_eight_bit_content_is_declared() -> None:
    made = report(body="Grüße\r\n".encode("latin-1"))
    assert made.envelope.body is BodyType.EIGHT_BIT
    assert "Grüße\r\n".encode("latin-1") in whole(made)
    message, parts = parsed(made)
    assert parts[2]["Content-Transfer-Encoding"] == "8bit"
    assert message["Content-Transfer-Encoding"] == "8bit", "RFC 2045 §6.4"
    assert parsed(report())[0]["Content-Transfer-Encoding"] is None


@pytest.mark.parametrize("letter", ["w", "ж", "\U0001f4ec"])
def test_no_line_of_ours_is_too_long(letter: str) -> None:
    """RFC 5322 §2.1.1: hosts may refuse or break longer ones."""
    said = tuple(f"550{dash}5.1.1 {letter * 480}" for dash in "- ")
    for outcome in (
        Failed("5.1.1", letter * 500, UNKNOWN.peer, 550, "RCPT", said),
        Deferred("4.4.1", letter * 1_200),
    ):
        made = report(outcome, body=None)
        assert max(map(len, whole(made).split(b"\r\n"))) <= 998


OWN_TROUBLE = [
    Deferred("4.3.0", "/etc/postroom/aliases:12: no colon"),
    Deferred("4.3.5", "no such hop: /etc/postroom/routes:3"),
    Deferred("4.2.0", "cannot write to mailbox /var/mail/joe: Permission denied"),
    Failed("5.2.4", "list cannot be used: /etc/postroom/lists/all is world-writable"),
]


@pytest.mark.parametrize("outcome", OWN_TROUBLE, ids=lambda one: one.status)
def test_our_own_files_are_not_told_of(outcome: Outcome) -> None:
    made = report(outcome)
    assert b"/etc" not in whole(made)
    assert b"/var" not in whole(made)
    assert "Diagnostic-Code" not in groups(made)[1]
    assert groups(made)[1]["Status"] == outcome.status


def test_addresses_outside_ascii() -> None:
    sender = Address("bettý", "gonzo.test")
    jorg = Recipient(Address("jörg", "whizzer.test"))
    made = report(envelope=Envelope(sender, (jorg,)), recipient=jorg)
    assert made.envelope.smtputf8
    assert "To: <bettý@gonzo.test>\r\n".encode() in made.message.header
    final = groups(made)[1]["Final-Recipient"]
    assert final == "utf-8; j\\x{F6}rg@whizzer.test"


def test_a_boundary_in_the_returned_message_is_avoided() -> None:
    guess = f"=_{REPORT_ID}.{QUEUE_ID}"
    made = report(body=f"--{guess}--\r\n--{guess}_\r\n".encode())
    message, parts = parsed(made)
    assert message.get_boundary() == guess + "__"
    assert guess.encode() in parts[2].as_bytes()


@pytest.mark.parametrize(
    "hostile", ["\r\nBcc: x", "\x1b[2J", "\x9b2J", "\u2028", "\u202egpj", "\u2066x"]
)
def test_what_a_host_says_is_harmless_to_who_reads_it(hostile: str) -> None:
    made = report(Failed("5.0.0", hostile, hostile, 550, "RCPT", (hostile,)))
    lines = whole(made).decode().replace("\t", "").split("\r\n")
    assert [line for line in lines if not line.isprintable()] == []


HOSTILE = st.text(
    st.one_of(st.sampled_from("\r\n\0\x7f\x85\u2028=_-<>;:. "), st.characters()),
    max_size=300,
)


@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
def test_no_text_of_others_can_break_the_form(
    said: str, peer: str, helo: str, orcpt: str
) -> None:
    outcome = Failed("5.7.1\r\nX: y", said, peer, 550)
    envelope = Envelope(BETTY, (), Origin("ESMTP", "192.0.2.9", 1, "", helo))
    hostile = Recipient(Address(said[:50] or "x", "t.test"), "", f"rfc822;{orcpt}")
    made = report(outcome, envelope=envelope, recipient=hostile)
    content = whole(made)
    assert b"\n" not in content.replace(b"\r\n", b"")
    assert b"\r" not in content.replace(b"\r\n", b"")
    assert b"\0" not in content
    assert max(len(line) for line in content.split(b"\r\n")) < 4_000
    machine = content.split(b"message/delivery-status")[1].split(b"\r\n--=_")[0]
    names = {
        line.split(b":")[0]
        for line in machine.split(b"\r\n\r\n", 1)[1].split(b"\r\n")
        if line and not line.startswith(b" ")
    }
    assert names <= {
        b"Reporting-MTA",
        b"Received-From-MTA",
        b"X-Postroom-Queue-ID",
        b"Original-Recipient",
        b"Final-Recipient",
        b"Action",
        b"Status",
        b"Remote-MTA",
        b"Diagnostic-Code",
        b"Last-Attempt-Date",
        b"Final-Log-ID",
        b"X-Actual-Recipient",
    }


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ("5.1.1", "before the @"),
        ("5.1.10", "no mail at all"),
        ("5.1.9", "Check the address"),
        ("4.2.2", "full"),
        ("5.7.26", "refuses"),
        # What we say of hosts is not what they have said:
        ("5.3.3", "without special demands"),
        ("4.3.5", "not set up properly"),
        ("5.4.4", "after the @"),
        ("5.6.7", "plain letters"),
        ("4.7.4", "protection or login"),
        ("4.7.5", "trusted"),
        ("4.7.8", "at your end"),
        ("5.7.10", "TLS"),
        ("5.7.30", "without that demand"),
        ("", "postmaster"),
        ("nonsense", "postmaster"),
    ],
)
def test_words_fit_the_status(status: str, word: str) -> None:
    assert word in " ".join(words_for(status))
