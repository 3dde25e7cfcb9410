"""The letters that are sent, and whether one arrived as it went.

What servers may do to a letter on its way is to put trace fields before it (RFC 5321
§4.4); all else has to come back octet for octet. Programs that compose letters by
themselves are given a subject and a text, and those are compared.
"""

import email
import email.policy
import re
from enum import StrEnum
from typing import NamedTuple

BIG_OCTETS = 20 * 1000 * 1000
LONG_OCTETS = 300 * 1000
"""More than we send by DATA where chunks are taken."""
_TRACE = re.compile(
    rb"(?:(?:Return-Path|Received|Delivered-To|X-Original-To|Envelope-To"
    rb"|Delivery-Date):[^\n]*\n(?:[ \t][^\n]*\n)*)*",
    re.IGNORECASE,
)
_LINE = "The quick brown fox jumps over the lazy dog, said line {number}.\r\n"


class Kind(StrEnum):
    """What is special about a letter."""

    PLAIN = "plain"
    EIGHT_BIT = "8-bit"
    UTF8 = "utf-8 header"
    LONG = "300 kB"
    BIG = "20 MB"


class Letter(NamedTuple):
    """A letter as a person means it, and as it is sent."""

    token: str
    sender: str
    recipient: str
    subject: str
    text: str
    kind: Kind

    @property
    def content(self) -> bytes:
        """The whole letter with CRLF."""
        charset = "utf-8" if self.kind in (Kind.EIGHT_BIT, Kind.UTF8) else "us-ascii"
        encoding = "8bit" if charset == "utf-8" else "7bit"
        return (
            f"From: <{self.sender}>\r\n"
            f"To: <{self.recipient}>\r\n"
            f"Subject: {self.subject}\r\n"
            "Date: Sun, 22 Nov 2026 12:00:00 +0000\r\n"
            f"Message-Id: <{self.token}@interop.test>\r\n"
            "MIME-Version: 1.0\r\n"
            f"Content-Type: text/plain; charset={charset}\r\n"
            f"Content-Transfer-Encoding: {encoding}\r\n"
            "\r\n"
            f"{self.text}"
        ).encode()


def letter(kind: Kind, token: str, sender: str, recipient: str) -> Letter:
    """Write a letter; ``token`` tells it from all others."""
    subject, text = f"letter {token}", f"Token {token}\r\n"
    text += (
        ".\r\n..a line that begins with dots\r\nFrom here on\r\n\r\n  trailing  \r\n"
    )
    if kind in (Kind.EIGHT_BIT, Kind.UTF8):
        text += "Grüße aus Köln, 日本語, и по-русски\r\n"
    if kind is Kind.UTF8:
        subject = f"Grüße {token}"
    if kind in (Kind.LONG, Kind.BIG):
        line = _LINE.format(number=1)
        octets = LONG_OCTETS if kind is Kind.LONG else BIG_OCTETS
        text += "".join(
            _LINE.format(number=number) for number in range(octets // len(line))
        )
    return Letter(token, sender, recipient, subject, text, kind)


def difference(sent: Letter, arrived: bytes, *, octets: bool) -> str:
    """Say what is not as it was; empty if all is.

    Args:
        sent: the letter.
        arrived: the file it ended in, with LF or CRLF.
        octets: whether the program was given the letter's octets; else it composed
            them from the subject and the text.
    """
    plain = arrived.replace(b"\r\n", b"\n")
    if not octets:
        return _composed(sent, plain)
    wanted = sent.content.replace(b"\r\n", b"\n")
    if not plain.endswith(wanted):
        return _first_difference(wanted, plain)
    before = plain[: len(plain) - len(wanted)]
    if _TRACE.fullmatch(before) is None:
        return f"more than trace fields was put before it: {before[-300:]!r}"
    return ""


def _first_difference(wanted: bytes, plain: bytes) -> str:
    match = _TRACE.match(plain)
    got = plain[match.end() :] if match else plain
    if len(got) > len(wanted) + 4096 or not got:
        return f"{len(got)} octets came of {len(wanted)}"
    size = min(len(got), len(wanted))
    at = next((i for i in range(size) if got[i] != wanted[i]), size)
    return (
        f"differs from octet {at} on: sent {wanted[at : at + 60]!r}, "
        f"got {got[at : at + 60]!r}"
    )


def _composed(sent: Letter, plain: bytes) -> str:
    message = email.message_from_bytes(plain, policy=email.policy.default)
    subject = str(message["Subject"])
    if subject != sent.subject:
        return f"subject: sent {sent.subject!r}, got {subject!r}"
    body = message.get_body(("plain",))
    text = str(body.get_content()) if body is not None else ""
    wanted = sent.text.replace("\r\n", "\n").rstrip("\n")
    got = text.replace("\r\n", "\n").rstrip("\n")
    if got == wanted:
        return ""
    return "text: " + _first_difference(wanted.encode(), got.encode())
