"""The examples that a site starts from do what they say."""

from pathlib import Path
from typing import Any

import pytest

from postroom.mail.outcome import Delivered, Failed
from postroom.mail.verdict import Quarantine
from postroom.testing.policy import NOW, PolicyTest

EXAMPLES = Path(__file__).parents[3] / "examples" / "policies"
HOUR_US = 3_600_000_000


def example(name: str, **client: Any) -> PolicyTest:
    return PolicyTest(str(EXAMPLES / name), **client)


def test_a_spam_trap_refuses_and_its_writer_is_kept_out_for_an_hour() -> None:
    policy = example("spam_traps.py")
    assert policy.connect() == "accept"
    assert policy.rcpt("joe@whizzer.test") == "accept"
    assert policy.rcpt("Trap@whizzer.test") == "550 5.7.1 no thanks"
    assert policy.connect() == "421 4.7.1 come back later"
    assert policy.as_client(client_ip="192.0.2.9").connect() == "accept"
    later = policy.as_client(opened_us=NOW.utc_us + HOUR_US)
    assert later.connect() == "accept"


def test_mail_from_outside_is_marked() -> None:
    policy = example("external_mail.py", client_ip="198.51.100.7")
    said = policy.message("Subject: hi\n\nhello\n")
    assert [change.field for change in said.changes] == [  # type: ignore[union-attr]
        b"X-External: 198.51.100.7\r\n"
    ]
    assert not policy.as_client(client_ip="192.0.2.3").message("A: b\n\n").changes
    assert not policy.as_client(login="joe").message("A: b\n\n").changes


def test_an_executable_is_held_though_the_mail_was_marked_before() -> None:
    text = 'A: b\n\nContent-Disposition: attachment; filename="bill.pdf.exe"\n\nTVqQ\n'
    said = example("external_mail.py").message(text)
    assert said == "accept"
    assert said.changes == (Quarantine("executable attachment"),)


def test_greylisting_lets_those_in_who_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GREYLIST", str(tmp_path / "greylist.db"))
    policy = example("greylist.py")
    assert policy.rcpt("joe@whizzer.test") == "450 4.7.1 greylisted"
    assert policy.rcpt("joe@whizzer.test") == "450 4.7.1"
    later = policy.as_client(opened_us=NOW.utc_us + HOUR_US)
    assert later.rcpt("joe@whizzer.test") == "accept"
    assert later.rcpt("joe@whizzer.test", sender="x@y.test") == "450 4.7.1"
    assert policy.as_client(login="joe").rcpt("joe@whizzer.test") == "accept"
    assert policy.rcpt("nobody@whizzer.test", "unknown") == "550 5.1.1"


def test_bulk_mail_takes_its_own_relay_and_failures_are_counted() -> None:
    policy = example("routes.py")
    assert policy.route("a@gonzo.test", "gonzo.test").hop == "gonzo.test"
    bulk = policy.route("a@gonzo.test", "gonzo.test", sender="News@whizzer.test")
    assert (bulk.hop, bulk.rule) == ("[bulk-relay.whizzer.test]:587", "bulk sender")
    local = policy.route("joe@whizzer.test", sender="news@whizzer.test")
    assert local.agent == "mailbox"
    policy.outcome("a@gonzo.test", Failed("5.1.1", "no such user"))
    policy.outcome("b@Gonzo.test", Failed("5.1.1", "no such user"))
    policy.outcome("b@gonzo.test", Delivered("2.0.0", "ok"))
    counter = policy.chain.hooks("outcome")[0].function.__globals__["failures"]
    assert counter == {"gonzo.test": 2}
