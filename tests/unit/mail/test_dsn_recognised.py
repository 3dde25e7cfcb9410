"""Reports as others read them: flufl.bounce, the standard library, a strict reader."""

import email
import email.policy
from itertools import product

import pytest
from flufl.bounce import all_failures, scan_message
from hypothesis import given
from hypothesis import strategies as st

from postroom.mail.address import Address
from postroom.mail.dsn import make_report
from postroom.mail.envelope import Envelope, Origin, Recipient
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
from postroom.testing.reports import ReadReport, ReportError, read_report

T0 = 1_795_361_711_000_000
BETTY = Address("betty", "gonzo.test")
PEER = "mx.whizzer.test [192.0.2.1]"
REPORT_ID, QUEUE_ID = QueueId("0Abcdefghij"), QueueId("0Abcdefghii")

OUTCOMES: dict[ReportKind, list[Outcome]] = {
    ReportKind.FAILED: [
        Failed("5.1.1", "User unknown", PEER, 550, "RCPT", ("550 5.1.1 no joe",)),
        Failed("5.7.1", "No", PEER, 554, "CONTENT", ("554-5.7.1 a", "554 5.7.1 b")),
        Failed("5.2.2", "over quota", PEER, 552, "CONTENT"),
        Failed("5.4.6", "mail forwarding loop for joe@whizzer.test"),
        Failed("5.1.10", "whizzer.test takes no mail"),
        Failed("5.3.4", "Message of 9 octets is too large for mx.", PEER),
        Failed("", "", "", 0),
        Deferred("4.4.1", "Connection refused by mx.whizzer.test.", PEER),
        Deferred("4.2.1", "450 4.2.1 greylisted", PEER, 450, verb="RCPT"),
        Deferred("nonsense", "?"),
    ],
    ReportKind.DELAYED: [
        Deferred("4.4.1", "Connection refused by mx.whizzer.test.", PEER),
        Deferred("4.4.3", "Name server: whizzer.test: host name lookup failure"),
        Deferred("4.7.0", "421 4.7.0 slow", PEER, 421, True, "MAIL", ("421 slow",)),
        Deferred("", ""),
    ],
    ReportKind.DELIVERED: [Delivered("2.0.0", "Sent"), Delivered("", "")],
    ReportKind.RELAYED: [Delivered("2.0.0", "Ok: queued as 7", PEER, relayed=True)],
    ReportKind.EXPANDED: [Delivered("2.1.5", "Passed on")],
}
RECIPIENTS = {
    "plain": Recipient(Address("joe", "whizzer.test")),
    "asked": Recipient(Address("joe", "whizzer.test"), "FAILURE", "rfc822;joe@x.test"),
    "encoded": Recipient(Address("j", "w.test"), "", "rfc822;j+2Bx+2By@w.test"),
    "alias": Recipient(Address("joe", "whizzer.test"), "", " list@gonzo.test"),
    "asked-alias": Recipient(
        Address("j", "w.test"), "", "rfc822;a@x.test a@gonzo.test"
    ),
    "foreign": Recipient(Address("joe", "whizzer.test"), "", "x400;/S+3Djoe/"),
    "untyped": Recipient(Address("joe", "whizzer.test"), "", "rfc822;"),
    "quoted": Recipient(Address("joe doe", "whizzer.test")),
    "literal": Recipient(Address("joe", "[192.0.2.7]")),
}
EXPECTED = {
    "plain": "joe@whizzer.test",
    "asked": "joe@x.test",
    "encoded": "j+x+y@w.test",
    "alias": "list@gonzo.test",
    "asked-alias": "a@x.test",
}
"""What flufl.bounce finds; of address literals and other types it makes nothing."""
ORIGINS = {
    "smtp": Origin("ESMTP", "192.0.2.9", 4711, "", "client.example", "", "smtp"),
    "ipv6": Origin("ESMTP", "2001:db8::1", 4711, "c.example", "[IPv6:2001:db8::1]"),
    "local": Origin(login="betty", listener="submit"),
}
HEADERS = {
    "usual": b"Subject: hello\r\nMessage-ID: <1@gonzo.test>\r\n",
    "none": b"",
    "eight-bit": "Subject: Grüße\r\nFrom: Jürgen <j@x.test>\r\n".encode("latin-1"),
    "folded": b"Subject: a\r\n b\r\n\tc\r\nX: " + b"y" * 5_000 + b"\r\n",
    "a-report": b"Content-Type: multipart/report; boundary=x\r\nSubject: y\r\n",
}


def made(
    kind: ReportKind,
    outcomes: list[Outcome],
    recipient: Recipient,
    *,
    origin: str = "smtp",
    header: str = "usual",
    ret: str = "",
    body: bytes = b"Text.\r\n",
) -> bytes:
    envelope = Envelope(
        BETTY,
        (recipient,),
        ORIGINS[origin],
        ret=ret,
        envid="QQ+20314",
        arrival_us=T0 - 9,
    )
    about = ReportedMessage(QUEUE_ID, envelope, HEADERS[header], body)
    results = [RecipientResult(recipient, outcome, T0) for outcome in outcomes]
    posting = Posting(REPORT_ID, BETTY, T0 + 86_400_000_000)
    report = make_report(kind, about, results, Reporter("gonzo.test", T0), posting)
    content = report.message.body
    assert isinstance(content, MemoryBody)
    return report.message.header + b"\r\n" + content.data


CASES = [
    pytest.param(kind, outcome, name, id=f"{kind.value}-{number}-{name}")
    for kind, outcomes in OUTCOMES.items()
    for (number, outcome), name in product(enumerate(outcomes), RECIPIENTS)
]


@pytest.mark.parametrize(("kind", "outcome", "name"), CASES)
def test_others_understand_it(kind: ReportKind, outcome: Outcome, name: str) -> None:
    octets = made(kind, [outcome], RECIPIENTS[name])
    parsed = email.message_from_bytes(octets)
    temporary, permanent = all_failures(parsed)
    if name in EXPECTED:
        address = {EXPECTED[name].encode()}
        assert permanent == (address if kind is ReportKind.FAILED else set())
        assert temporary == (address if kind is ReportKind.DELAYED else set())
        assert scan_message(parsed) == permanent
    read = read_report(octets)
    assert read.message["Original-Envelope-Id"] == "QQ 314"
    assert [one["Action"] for one in read.recipients] == [kind.value]


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("ret", ["", "FULL", "HDRS"])
def test_every_form_of_message(origin: str, header: str, ret: str) -> None:
    octets = made(
        ReportKind.FAILED,
        OUTCOMES[ReportKind.FAILED],
        RECIPIENTS["plain"],
        origin=origin,
        header=header,
        ret=ret,
        body="Grüße\r\n".encode("latin-1"),
    )
    assert scan_message(email.message_from_bytes(octets)) == {b"joe@whizzer.test"}
    read = read_report(octets)
    assert len(read.recipients) == len(OUTCOMES[ReportKind.FAILED])
    assert ("Received-From-MTA" in read.message) is (origin != "local")
    whole = ret != "HDRS"
    assert read.returned_type == ("message/rfc822" if whole else "text/rfc822-headers")
    assert read.returned.startswith(HEADERS[header])
    assert (b"Gr\xfc\xdfe" in read.returned) is (whole or header == "eight-bit")


def test_what_a_remote_system_said_is_told_word_for_word() -> None:
    said = ("550-5.1.1 No such user: <joe>", "550 5.1.1 see https://x.test/?a=b;c=d")
    outcome = Failed("5.1.1", "No such user", PEER, 550, "RCPT", said)
    read = read_report(made(ReportKind.FAILED, [outcome], RECIPIENTS["plain"]))
    (one,) = read.recipients
    assert one["Diagnostic-Code"] == f"smtp; {said[0]} {said[1]}"
    assert one["Remote-MTA"] == "dns; mx.whizzer.test ([192.0.2.1])"
    assert "Final-Log-ID" not in one
    for line in said:
        assert f"    <<< {line}\r\n" in read.words


def test_an_alias_is_named_as_it_was_accepted() -> None:
    outcome = Failed("5.1.1", "no", PEER, 550)
    for name in ("alias", "asked-alias"):
        read = read_report(made(ReportKind.FAILED, [outcome], RECIPIENTS[name]))
        (one,) = read.recipients
        # RFC 3461 §6.3: no Original-Recipient unless it was given
        assert ("Original-Recipient" in one) is (name == "asked-alias")
        assert one["Final-Recipient"].endswith("@gonzo.test")
        assert one["X-Actual-Recipient"].endswith((" joe@whizzer.test", " j@w.test"))


@pytest.mark.parametrize("kind", ReportKind)
def test_when_a_retry_ends_is_told_of_delays_only(kind: ReportKind) -> None:
    read = read_report(made(kind, OUTCOMES[kind][:1], RECIPIENTS["plain"]))
    has_date = "Will-Retry-Until" in read.recipients[0]
    assert has_date is (kind is ReportKind.DELAYED)


HOSTILE = st.text(
    st.one_of(
        st.sampled_from('\r\n\0\t\x7f\x85\u2028\u2029=_-<>;:.() \\"é\U0001f600'),
        st.characters(),
    ),
    max_size=200,
) | st.builds(
    lambda text, times: text * times,
    st.sampled_from(["\r\n\r\nAction: delivered\r\n", "x" * 300, " ", "é\n", "550-\r"]),
    st.integers(1, 30),
)
OCTETS = st.binary(max_size=400) | st.sampled_from(
    [b"--=_0Abcdefghij.0Abcdefghii--\r\n", b"\xff" * 3_000 + b"\r\n", b".\r\n"]
)


TEXTS = st.fixed_dictionaries(
    {
        "peer": HOSTILE,
        "helo": HOSTILE,
        "orcpt": HOSTILE,
        "local": HOSTILE,
        "status": HOSTILE | st.sampled_from(["2.0.0", "4.4.1", "5.1.1", "5.001.1"]),
        "envid": HOSTILE,
    }
)


@given(
    st.sampled_from([ReportKind.FAILED, ReportKind.DELAYED]),
    st.lists(HOSTILE, max_size=4),
    TEXTS,
    OCTETS,
    OCTETS,
)
def test_nothing_that_others_say_makes_it_unreadable(
    kind: ReportKind,
    said: list[str],
    texts: dict[str, str],
    subject: bytes,
    body: bytes,
) -> None:
    peer, local, orcpt = texts["peer"], texts["local"], texts["orcpt"]
    status = texts["status"]
    outcome: Outcome
    if kind is ReportKind.FAILED:
        outcome = Failed(status, peer, peer, 550, "RCPT", tuple(said))
    else:
        outcome = Deferred(status, peer, peer, 450, verb="RCPT", said=tuple(said))
    recipient = Recipient(Address(local[:64] or "x", "t.test"), "", orcpt)
    envelope = Envelope(
        BETTY,
        (),
        Origin("ESMTP", "192.0.2.9", 1, "", texts["helo"]),
        envid=texts["envid"],
    )
    # A header and a body as the spool has them: whole lines with CRLF.
    clean = subject.replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b"")
    text = body.replace(b"\r", b"").replace(b"\n", b"\r\n").replace(b"\0", b"")
    about = ReportedMessage(QUEUE_ID, envelope, b"Subject: " + clean + b"\r\n", text)
    results = [RecipientResult(recipient, outcome, T0)]
    posting = Posting(REPORT_ID, BETTY, T0)
    report = make_report(kind, about, results, Reporter("gonzo.test", T0), posting)
    content = report.message.body
    assert isinstance(content, MemoryBody)
    octets = report.message.header + b"\r\n" + content.data
    read = read_report(octets)
    assert [one["Action"] for one in read.recipients] == [kind.value]
    assert max(map(len, read.words.split("\r\n"))) < 1_100
    returned = b"Subject: " + clean + b"\r\n"
    assert read.returned.startswith(returned)
    temporary, permanent = all_failures(email.message_from_bytes(octets))
    if orcpt == "" and local.isalnum() and local.isascii():
        found = permanent if kind is ReportKind.FAILED else temporary
        assert found == {f"{local[:64]}@t.test".encode()}


GOOD = made(ReportKind.FAILED, OUTCOMES[ReportKind.FAILED][:1], RECIPIENTS["plain"])


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (b"Action: failed", b"Action: lost", "Action is lost"),
        (b"Action: failed\r\n", b"", "without Action"),
        (b"Action: failed", b"Action: delivered", "delivered with Status"),
        (b"Status: 5.1.1", b"Status: 5.01.1", "Status is"),
        (b"Status: 5.1.1", b"Status: 5.1.1\r\nStatus: 5.1.1", "twice"),
        (b"Status: 5.1.1", b"Status: 5.1.1\r\n", "without Action|no field|without"),
        (b"Final-Recipient: rfc822;", b"Final-Recipient:", "no type"),
        (b"Last-Attempt-Date: Sun,", b"Last-Attempt-Date: today,", "no date"),
        (b"MIME-Version: 1.0", b"MIME-Version: 2", "MIME-Version"),
        (b"Auto-Submitted: auto-replied", b"Auto-Submitted: no", "Auto-Submitted"),
        (b"Reporting-MTA", b"Reported-MTA", "without Reporting-MTA"),
        (b"Arrival-Date", b"Arrival", "nobody knows"),
        (b"--\r\n", b"\r\n", "last boundary"),
        (b"\r\n", b"\n", "bare"),
        (b"delivery-status\r\n", b"disposition-notification\r\n", "second part"),
    ],
)
def test_the_strict_reader_is_strict(old: bytes, new: bytes, problem: str) -> None:
    assert isinstance(read_report(GOOD), ReadReport)
    assert old in GOOD
    bad = GOOD.replace(old, new) if old != b"--\r\n" else GOOD[:-4] + new
    with pytest.raises(ReportError, match=problem):
        read_report(bad)


def test_a_host_that_raves_makes_no_large_report() -> None:
    """It was 24 KiB for each of a thousand recipients."""
    raving = Failed(
        "5.1.1", "\xe9" * 500, PEER, 550, "RCPT", ("550-5.1.1 " + "\xe9" * 500,) * 20
    )
    count = 1_000
    results = [
        RecipientResult(Recipient(Address(f"joe{i}", "w.test")), raving, T0)
        for i in range(count)
    ]
    about = ReportedMessage(QUEUE_ID, Envelope(BETTY), b"Subject: x\r\n")
    host = Reporter("gonzo.test", T0, recipients_max=count)
    kind, posting = ReportKind.FAILED, Posting(REPORT_ID, BETTY)
    report = make_report(kind, about, results, host, posting)
    assert report.message.size < 3_000_000
    body = report.message.body
    assert isinstance(body, MemoryBody)
    read = read_report(report.message.header + b"\r\n" + body.data)
    assert len(read.recipients) == count
    # One recipient has room for all that was said of it.
    one = make_report(kind, about, results[:1], host, posting)
    assert isinstance(one.message.body, MemoryBody)
    assert one.message.body.data.count(b"    <<< 550-5.1.1") == 20
