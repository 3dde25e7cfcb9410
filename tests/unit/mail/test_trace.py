"""Trace fields: their form, and that no client can forge one."""

from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.mail.address import NULL_SENDER, Address
from postroom.mail.envelope import Envelope, Origin, Recipient
from postroom.mail.ids import QueueId
from postroom.mail.trace import (
    date_text,
    delivered_to_field,
    hop_count,
    received_field,
    return_path_field,
)

AT_US = 1_795_361_711_000_000  # 2026-11-22T15:35:11Z
QUEUE_ID = QueueId("0Abcdefghij")
JOE = Recipient(Address("joe", "whizzer.test"))
SMTP = Origin("ESMTP", "192.0.2.9", 4711, "", "client.example", "", "smtp")


def field(envelope: Envelope) -> str:
    return received_field(envelope, QUEUE_ID, "gonzo.test", AT_US, 0).decode()


@pytest.mark.parametrize(
    ("offset_s", "expected"),
    [
        (0, "Sun, 22 Nov 2026 15:35:11 +0000"),
        (3600, "Sun, 22 Nov 2026 16:35:11 +0100"),
        (-12600, "Sun, 22 Nov 2026 12:05:11 -0330"),
        (43200, "Mon, 23 Nov 2026 03:35:11 +1200"),
    ],
)
def test_dates_carry_a_numeric_zone(offset_s: int, expected: str) -> None:
    assert date_text(AT_US, offset_s) == expected


@given(st.integers(0, 4_102_444_800), st.integers(-14 * 60, 14 * 60))
def test_dates_are_read_back_by_the_standard_library(second: int, zone: int) -> None:
    text = date_text(second * 1_000_000, zone * 60)
    assert parsedate_to_datetime(text).timestamp() == second


def test_one_recipient_is_named() -> None:
    assert field(Envelope(recipients=(JOE,), origin=SMTP)) == (
        "Received: from client.example ([192.0.2.9])\r\n"
        "\tby gonzo.test with ESMTP id 0Abcdefghij\r\n"
        "\tfor <joe@whizzer.test>;\r\n"
        "\tSun, 22 Nov 2026 15:35:11 +0000\r\n"
    )


def test_two_recipients_are_not_told_of_each_other() -> None:
    both = (JOE, Recipient(Address("betty", "gonzo.test")))
    assert "for <" not in field(Envelope(recipients=both, origin=SMTP))


def test_a_verified_name_and_ipv6_are_shown() -> None:
    origin = Origin("ESMTPS", "2001:db8::1", 1, "mx.example", "me")
    text = field(Envelope(origin=origin))
    assert text.startswith("Received: from me (mx.example [IPv6:2001:db8::1])\r\n")


def test_local_mail_names_the_user() -> None:
    text = field(Envelope(recipients=(JOE,), origin=Origin(login="betty")))
    assert text.startswith("Received: (from betty@localhost)\r\n\tby gonzo.test id 0A")


@pytest.mark.parametrize(
    "helo",
    ["x\r\nBcc: evil", "a) (b", "x;y", "", "\x00", "q" * 5000, "a b", "\ud800"],
)
def test_a_client_cannot_forge_a_field_by_its_helo(helo: str) -> None:
    origin = Origin("ESMTP", "192.0.2.9", 1, "", helo)
    text = field(Envelope(recipients=(JOE,), origin=origin))
    lines = text.split("\r\n")
    assert len(lines) == 5
    assert all(line.startswith("\t") for line in lines[1:-1])
    assert all(len(line) < 320 for line in lines)
    assert text.count("(") == text.count(")") == 1


def test_utf8_recipient_is_named_only_under_smtputf8() -> None:
    jorg = Recipient(Address("jörg", "whizzer.test"))
    plain = Envelope(recipients=(jorg,), origin=SMTP)
    assert "for <" not in field(plain)
    utf8 = Envelope(recipients=(jorg,), origin=SMTP, smtputf8=True)
    assert "for <jörg@whizzer.test>" in field(utf8)


def test_final_delivery_fields() -> None:
    assert return_path_field(NULL_SENDER) == b"Return-Path: <>\r\n"
    assert return_path_field(JOE.address) == b"Return-Path: <joe@whizzer.test>\r\n"
    assert delivered_to_field(JOE.address) == b"Delivered-To: joe@whizzer.test\r\n"
    assert return_path_field(Address("a\r\nb", "c")).count(b"\n") == 1


@pytest.mark.parametrize(
    ("header", "count"),
    [
        (b"", 0),
        (b"Subject: x\r\n", 0),
        (b"Received: a\r\n\tfoo\r\nRECEIVED : b\r\nreceived:c\r\n", 3),
        (b"Received-SPF: pass\r\nX-Received: a\r\n Received: folded\r\n", 0),
    ],
)
def test_hops_are_received_fields(header: bytes, count: int) -> None:
    assert hop_count(header) == count
