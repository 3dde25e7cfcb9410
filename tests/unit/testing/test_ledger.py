"""The ledger must see what is lost: its own mistakes would hide those of the server."""

from postroom.testing.ledger import Due, Ledger, id_of, letter

A, B = "a@x.test", "b@x.test"
REPORT = (
    b"From: MAILER-DAEMON\r\n\r\n--x\r\n\r\nFinal-Recipient: rfc822; b@x.test\r\n"
    b"Action: failed\r\n\r\n--x\r\nContent-Type: message/rfc822\r\n\r\n"
)


def promised(*ids: str) -> Ledger:
    ledger = Ledger()
    for one in ids:
        ledger.promise(one, [A, B])
    return ledger


def test_a_letter_carries_its_id() -> None:
    assert id_of(letter("m1")) == "m1"
    assert id_of(b"Received: x\r\n" + letter("m2.try3", 5000)) == "m2.try3"
    assert len(letter("m1", 100_000)) in range(99_800, 100_001)
    assert id_of(b"Subject: x\r\n\r\n") == ""


def test_what_is_nowhere_is_missing() -> None:
    found = promised("m1", "m2").audit([(A, letter("m1")), (B, letter("m1"))])
    assert found.missing == [Due("m2", A), Due("m2", B)]
    assert (found.delivered, found.queued, found.reported) == (2, 0, 0)


def test_what_waits_is_not_missing() -> None:
    found = promised("m1").audit([(A, letter("m1"))], [Due("m1", B)])
    assert (found.missing, found.queued) == ([], 1)


def test_a_report_counts_for_its_recipient_alone() -> None:
    found = promised("m1").audit([(A, REPORT + letter("m1"))])
    assert found.missing == [Due("m1", A)]
    assert (found.reported, found.delivered) == (1, 0)


def test_copies_are_counted() -> None:
    found = promised("m1").audit([(A, letter("m1"))] * 3 + [(B, letter("m1"))])
    assert (found.duplicates, found.unasked) == (2, 0)


def test_what_was_never_promised() -> None:
    found = Ledger().audit([(A, letter("m1")), (A, b"Subject: other\r\n\r\n")])
    assert (found.unasked, found.missing) == (1, [])
    assert Ledger("n").audit([(A, letter("m1"))]).unasked == 0


def test_what_arrived_elsewhere_counts_for_all_recipients() -> None:
    ledger = promised("m1", "m2")
    ledger.elsewhere += [letter("m1"), letter("m1")]
    found = ledger.audit()
    assert found.missing == [Due("m2", A), Due("m2", B)]
    assert found.duplicates == 2
