"""The examples that a site starts from do what they say."""

from pathlib import Path
from typing import Any

import pytest

from postroom.mail.outcome import Delivered, Failed
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
    said = policy.message("X-External: no\nSubject: hi\n\nhello\n")
    expected = b"Subject: hi\r\nX-External: 198.51.100.7\r\n\r\nhello\r\n"
    assert said.content == expected
    assert not policy.as_client(client_ip="192.0.2.3").message("A: b\n\n").changes
    assert not policy.as_client(login="joe").message("A: b\n\n").changes


def test_an_executable_is_held_though_the_mail_was_marked_before() -> None:
    policy = example("external_mail.py", client_ip="198.51.100.7")
    for field in (
        'Content-Disposition: attachment; filename="bill.pdf.exe"',
        'Content-Disposition: attachment;\n\tfilename="bill.pdf.EXE"',
        "Content-Type: application/x; name=bill.js",
    ):
        for text in (f"A: b\n\n--x\n{field}\n\nTVqQ\n", f"{field}\n\nTVqQ\n"):
            said = policy.message(text)
            assert said == "accept"
            assert said.held == "executable attachment"
            assert b"X-External: 198.51.100.7" in said.content
    harmless = 'Content-Disposition: attachment; filename="exe.txt"\n\nfilename=x.exe\n'
    assert not policy.message(harmless).held


def test_hostile_headers_do_not_hold_up_the_search_for_executables() -> None:
    line = "content-type:" + "name=" * 12_000
    assert not example("external_mail.py").message(f"A: b\n\n{line}\n" * 4).held


def test_a_full_list_of_caught_clients_forgets_the_oldest() -> None:
    policy = example("spam_traps.py")
    known = policy.chain.hooks("connect")[0].function.__globals__
    known["CLIENTS_MAX"] = 2
    for ip in ("192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.3"):
        policy.as_client(client_ip=ip).rcpt("trap@whizzer.test")
    assert list(known["caught"]) == ["192.0.2.1", "192.0.2.3"]


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
    neighbour = policy.as_client(client_ip="192.0.2.77", opened_us=NOW.utc_us + HOUR_US)
    assert neighbour.rcpt("joe@whizzer.test") == "accept"
    assert policy.as_client(client_ip="2001:db8::1").rcpt("joe@whizzer.test") == "450"


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
