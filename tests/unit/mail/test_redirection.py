"""Wishes for reports where an address leads elsewhere (RFC 3461 §5.2.7)."""

import pytest

from postroom.mail.address import NULL_SENDER, Address
from postroom.mail.envelope import (
    Envelope,
    Recipient,
    accepted_as,
    from_xtext,
    given_orcpt,
    orcpt_behind_alias,
    said_orcpt,
    to_xtext,
)
from postroom.mail.headers import edited_header
from postroom.mail.message import MemoryBody, Message
from postroom.mail.redirection import (
    Redirection,
    list_envelope,
    list_message,
    report_on,
    wishes_behind,
)
from postroom.mail.reported import ReportKind
from postroom.mail.trace import was_delivered_to

TEAM = Address("team", "gonzo.test")
ONE, MANY, LIST = Redirection.ALIAS, Redirection.ALIASES, Redirection.LIST


@pytest.mark.parametrize(
    ("redirection", "notify", "expected"),
    [
        (ONE, "", ""),
        (ONE, "SUCCESS,FAILURE", "SUCCESS,FAILURE"),
        (ONE, "never", "never"),
        (MANY, "", ""),
        (MANY, "SUCCESS", "NEVER"),
        (MANY, "success,,delay", "DELAY"),
        (MANY, "SUCCESS,FAILURE,DELAY", "FAILURE,DELAY"),
        (MANY, "FAILURE", "FAILURE"),
        (MANY, "NEVER", "NEVER"),
        (LIST, "SUCCESS,FAILURE", ""),
        (LIST, "NEVER", ""),
    ],
)
def test_notify(redirection: Redirection, notify: str, expected: str) -> None:
    wishes = wishes_behind(Recipient(TEAM, notify, "rfc822;x@y"), redirection)
    assert wishes.notify == expected
    known = "" if redirection is LIST else "rfc822;x@y team@gonzo.test"
    assert wishes.orcpt == known


def test_success_is_reported_once_and_by_the_right_name() -> None:
    assert report_on(ONE) is None
    assert report_on(MANY) is ReportKind.EXPANDED
    assert report_on(LIST) is ReportKind.DELIVERED


def test_a_list_has_an_envelope_of_its_own() -> None:
    owner = Address("owner-team", "gonzo.test")
    before = Envelope(Address("ann", "far.test"), ret="FULL", envid="x")
    after = list_envelope(before, owner)
    assert (after.sender, after.ret, after.envid) == (owner, "", "")
    # RFC 5321 §4.5.5: or a list that is its own owner would send for ever
    assert list_envelope(Envelope(NULL_SENDER), owner).sender is NULL_SENDER


def test_a_list_marks_what_it_sends() -> None:
    message = list_message(Message(b"A: b\r\n", MemoryBody(b"")), TEAM)
    header = edited_header(message)
    assert header == b"Delivered-To: team@gonzo.test\r\nA: b\r\n"
    assert was_delivered_to(header, TEAM)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"", False),
        (b"Delivered-To: team@gonzo.test\r\n", True),
        (b"X: y\r\ndelivered-TO:\r\n\tTeam@GONZO.test\r\n", True),
        (b"Delivered-To: a@b\r\nDelivered-To: team@gonzo.test\r\n", True),
        (b"Delivered-To: team@gonzo.test.example\r\n", False),
        (b"Delivered-To: team\r\n", False),
        (b"X-Delivered-To: team@gonzo.test\r\n", False),
        (b"Subject: x\r\n Delivered-To: team@gonzo.test\r\n", False),
    ],
)
def test_delivered_to(header: bytes, expected: bool) -> None:
    assert was_delivered_to(header, TEAM) is expected


@pytest.mark.parametrize(
    ("orcpt", "given", "accepted", "said"),
    [
        ("", "", "team@gonzo.test", "rfc822;team@gonzo.test"),
        ("x;Y+2B", "x;Y+2B", "team@gonzo.test", "x;Y+2B"),
        (" a+b@c", "", "a+b@c", "rfc822;a+2Bb@c"),
        ("x;y a@c", "x;y", "a@c", "x;y"),
        (' "a b"@c', "", '"a b"@c', 'rfc822;"a+20b"@c'),
        # RFC 6533 §3: the form that needs no SMTPUTF8
        (" jörg+x@c", "", "jörg+x@c", r"utf-8;j\x{F6}rg\x{2B}x@c"),
        (
            r"utf-8;ö\x{2B}@c",
            r"utf-8;ö\x{2B}@c",
            "team@gonzo.test",
            r"utf-8;\x{F6}\x{2B}@c",
        ),
        (" " + "ö" * 64 + "@" + "ö" * 63, "", "ö" * 64 + "@" + "ö" * 63, ""),
        (" " + "+" * 200 + "@c", "", "+" * 200 + "@c", ""),
    ],
)
def test_original_recipients(orcpt: str, given: str, accepted: str, said: str) -> None:
    recipient = Recipient(TEAM, "", orcpt)
    assert given_orcpt(recipient) == given
    assert accepted_as(recipient) == accepted
    assert said_orcpt(recipient) == said
    behind = Recipient(TEAM, "", orcpt_behind_alias(recipient))
    assert (given_orcpt(behind), accepted_as(behind)) == (given, accepted)


@pytest.mark.parametrize(
    ("text", "xtext"),
    [("", ""), ("a@b", "a@b"), ("a+b=c d", "a+2Bb+3Dc+20d"), ("~!\x7f", "~!+7F")],
)
def test_xtext(text: str, xtext: str) -> None:
    assert to_xtext(text) == xtext
    assert from_xtext(xtext) == text
