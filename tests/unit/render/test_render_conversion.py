"""What becomes of messages for hops that take less than they hold.

Python's ``email`` is the oracle: parts decode to what they were.
"""

import asyncio
import contextlib
from email import message_from_bytes
from email.message import Message as Parsed

import pytest

from postroom.agents.content import pieces_of, plan_for
from postroom.mail.headers import split_message
from postroom.mail.message import Message
from postroom.render.demand import Demand, demand_of, has_long_line, meets
from postroom.render.look import WINDOW_OCTETS_MIN
from postroom.render.plan import Unconvertible
from postroom.render.survey import NESTING_MAX, SECTIONS_MAX, survey
from postroom.smtp.extensions import Extensions
from postroom.testing.rendering import in_windows

SEVEN = Demand(seven_bit=True)
BINARY_7 = Demand(seven_bit=True, was_binary=True)
BINARY_8 = Demand(was_binary=True)
BY = "gonzo.test id 0Abc"


class StoredBody:
    """A body that is read from a file, as far as anybody can tell."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)
        self.most = 0

    async def read(self, offset: int, octets: int) -> bytes:
        self.most = max(self.most, octets)
        return self.data[offset : offset + octets]


def convert(content: bytes, demand: Demand = SEVEN) -> bytes | Unconvertible:
    header, rest, has_separator = split_message(content)
    message = Message(header, StoredBody(rest), has_separator=has_separator)
    out = asyncio.run(_convert(message, demand))
    in_small_windows = in_windows(content, demand, WINDOW_OCTETS_MIN)
    assert out == in_small_windows
    return out


async def _convert(message: Message, demand: Demand) -> bytes | Unconvertible:
    head = message.header + b"\r\n" * message.has_separator
    plan = await plan_for(message, head, demand, BY)
    if isinstance(plan, Unconvertible):
        return plan
    head = head if plan is None else plan.head
    return head + b"".join([p async for p in pieces_of(message.body, plan)])


def made(content: bytes, demand: Demand = SEVEN) -> bytes:
    out = convert(content, demand)
    assert isinstance(out, bytes)
    return out


def crlf(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode("latin-1")


def leaves(content: bytes) -> list[bytes]:
    parsed: Parsed = message_from_bytes(content)
    found = [p.get_payload(decode=True) for p in parsed.walk() if not p.is_multipart()]
    return [leaf for leaf in found if isinstance(leaf, bytes)]


# -- single parts -----------------------------------------------------------------


def test_a_letter_that_is_fit_goes_as_it_is() -> None:
    for content in (b"A: b\r\n\r\ntext\r\n", b"", b"A: b\r\n", b"text only\r\n"):
        assert made(content) == content
    eight = crlf("A: b\n\ncaf\xe9\n")
    assert made(eight, Demand()) == eight


def test_as_sendmail_converts_a_short_line() -> None:
    """The case ``body-8bit-seven-mime`` of the recorded sendmail."""
    out = made(
        crlf(
            "MIME-Version: 1.0\nContent-Type: text/plain; charset=iso-8859-1\n"
            "Content-Transfer-Encoding: 8bit\nSubject: s\n\ncaf\xe9\n"
        )
    )
    assert out == crlf(
        "MIME-Version: 1.0\nContent-Type: text/plain; charset=iso-8859-1\n"
        "Subject: s\nContent-Transfer-Encoding: base64\n"
        f"X-MIME-Autoconverted: from 8bit to base64 by {BY}\n\nY2Fm6Q0K\n"
    )


def test_mostly_ascii_becomes_quoted_printable() -> None:
    out = made(
        crlf(
            "MIME-Version: 1.0\nContent-Type: text/plain; charset=iso-8859-1\n"
            "Content-Transfer-Encoding: 8bit\n\nOne caf\xe9, please. And a =.\nB \n.\n"
        )
    )
    assert out == crlf(
        "MIME-Version: 1.0\nContent-Type: text/plain; charset=iso-8859-1\n"
        "Content-Transfer-Encoding: quoted-printable\n"
        f"X-MIME-Autoconverted: from 8bit to quoted-printable by {BY}\n\n"
        "One caf=E9, please. And a =3D.\nB=20\n=2E\n"
    )


@pytest.mark.parametrize(
    ("octets", "charset"),
    [(b"caf\xc3\xa9 au lait, s", b"utf-8"), (b"caf\xe9 au lait, s", b"unknown-8bit")],
)
def test_a_letter_without_mime_gets_its_fields(octets: bytes, charset: bytes) -> None:
    out = made(b"Subject: s\r\n\r\n" + octets + b"\r\n")
    head = out.partition(b"\r\n\r\n")[0] + b"\r\n"
    assert head == (
        b"Subject: s\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset="
        + charset
        + b"\r\nContent-Transfer-Encoding: quoted-printable\r\nX-MIME-Autoconverted:"
        b" from 8bit to quoted-printable by gonzo.test id 0Abc\r\n"
    )
    assert leaves(out) == [octets + b"\r\n"]


def test_a_letter_without_a_header_gets_one() -> None:
    out = made(b"not a field \xe4\r\n")
    assert out.startswith(b"MIME-Version: 1.0\r\n")
    assert leaves(out) == [b"not a field \xe4\r\n"]


def test_a_header_outside_ascii_stays() -> None:
    """As sendmail's: only RFC 2047 could encode it, and only by guessing."""
    content = crlf("Subject: caf\xe9\n\ntext\n")
    assert made(content) == content


def test_long_lines_become_quoted_printable() -> None:
    for demand in (SEVEN, Demand()):
        fit = b"A: b\r\n\r\n" + b"x" * 998 + b"\r\n"
        assert made(fit, demand) == fit
        body = b"x" * 999 + b"\r\n"
        out = made(b"A: b\r\n\r\n" + body, demand)
        assert b"from 7bit to quoted-printable" in out
        assert b"MIME-Version: 1.0\r\n" in out
        assert not has_long_line(out, 76 + 40)
        assert leaves(out) == [body]


def test_nul_and_bare_line_ends_become_base64() -> None:
    for body in (b"a\0b\r\n", b"\xff\0\r\n"):
        out = made(b"A: b\r\n\r\n" + body)
        assert b"Content-Transfer-Encoding: base64" in out
        assert leaves(out) == [body]


def test_binary_content() -> None:
    body = bytes(range(256)) * 40 + b"\r\n\r\r\n\n.\r\n.\n"
    head = crlf(
        "MIME-Version: 1.0\nContent-Type: a/b\nContent-Transfer-Encoding: binary\n"
    )
    for demand in (BINARY_7, BINARY_8):
        out = made(head + b"\r\n" + body, demand)
        assert b"from binary to base64" in out
        assert out.isascii()
        assert leaves(out) == [body]


def test_what_only_claims_to_be_binary_is_relabelled() -> None:
    head = b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: binary\r\n"
    out = made(head + b"\r\ntext\r\n", BINARY_7)
    assert (
        out == b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: 7bit\r\n\r\ntext\r\n"
    )
    out = made(head + b"\r\n\xe4\r\n", BINARY_8)
    assert (
        out == b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xe4\r\n"
    )


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "x-uuencode"])
def test_what_is_encoded_is_not_encoded_again(encoding: str) -> None:
    """RFC 3030 §3: no nested encodings."""
    content = crlf(
        f"MIME-Version: 1.0\nContent-Transfer-Encoding: {encoding}\n\nA\xe4B\n"
    )
    assert made(content) == content


# -- multiparts ---------------------------------------------------------------------

MIXED = """MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="x y"
Content-Transfer-Encoding: 8bit

Pr\xe4amble.
--x y
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: 8bit

caf\xe9 caf\xe9 caf\xe9
--x y\x20\x20
Content-Type: text/html

<p>ascii</p>
--x y

\xe4 part without fields, and ascii enough for quoted-printable
--x y
Content-Type: multipart/alternative; boundary=in

--in
Content-Type: text/plain
Content-Transfer-Encoding: 8bit

inner caf\xe9, and ascii enough for quoted-printable

--in--
--x y--
Epil\xf6gue.
"""


def test_each_part_is_judged_by_itself() -> None:
    content = crlf(MIXED)
    out = made(content)
    assert out.isascii()
    assert leaves(out) == leaves(content)
    assert b"Content-Transfer-Encoding: 7bit\r\n\r\nPr?amble." in out
    assert b"--x y  \r\nContent-Type: text/html\r\n\r\n<p>ascii</p>" in out
    assert out.endswith(b"--x y--\r\nEpil?gue.\r\n")
    assert out.count(b"X-MIME-Autoconverted") == 3
    assert b"charset=unknown-8bit" in out  # of the part without fields
    kinds = [p.get_content_type() for p in message_from_bytes(out).walk()]
    assert kinds == [p.get_content_type() for p in message_from_bytes(content).walk()]


def test_messages_within_messages() -> None:
    content = crlf(
        "MIME-Version: 1.0\nContent-Type: multipart/digest; boundary=b\n\n"
        "--b\n\nSubject: one\n\ncaf\xe9 one, a whole line of text here\n"
        "--b\nContent-Type: message/rfc822\nContent-Transfer-Encoding: 8bit\n\n"
        "Subject: two\nMIME-Version: 1.0\nContent-Type: text/plain; charset=x\n"
        "Content-Transfer-Encoding: 8bit\n\ncaf\xe9 two, a whole line of text here\n"
        "--b--\n"
    )
    out = made(content)
    assert out.isascii()
    assert leaves(out) == leaves(content)
    # RFC 2046 §5.2.1: the embedded message is encoded inside, never as a whole
    assert b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 7bit" in out
    assert b"Subject: one\r\nMIME-Version: 1.0\r\nContent-Type: text/plain" in out


def test_a_forwarded_message_as_the_whole() -> None:
    content = crlf(
        "MIME-Version: 1.0\nContent-Type: message/rfc822\n\nSubject: in\n\ncaf\xe9\n"
    )
    out = made(content)
    assert out.isascii()
    assert leaves(out) == leaves(content)


SIGNED = (
    "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=o\n"
    "Content-Transfer-Encoding: 8bit\n\n--o\n"
    "Content-Type: multipart/signed; boundary=s; protocol=p\n\n"
    "--s\nContent-Type: text/plain\n\ncaf\xe9\n--s\n"
    "Content-Type: application/pgp-signature\n\nsig\n--s--\n--o\n"
    "Content-Type: text/plain; charset=x\n\ncaf\xe9\n--o--\n"
)


def test_signatures_are_never_broken() -> None:
    content = crlf(SIGNED)
    out = made(content)
    signed = content[content.index(b"Content-Type: multipart/signed") :]
    signed = signed[: signed.index(b"\r\n--o")]
    assert signed in out
    assert leaves(out) == leaves(content)
    assert b"Content-Transfer-Encoding: 8bit\r\n" in out  # which is still true
    assert b"Y2Fm6Q==" in out


def test_binary_content_that_is_signed_is_refused() -> None:
    content = crlf(SIGNED.replace("caf\xe9\n--s", "caf\rf\n--s"))
    for demand in (BINARY_7, BINARY_8):
        assert isinstance(convert(content, demand), Unconvertible)


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/mixed",
        'multipart/mixed; boundary=""',
        "multipart/mixed; boundary=" + "b" * 300,
        "message/partial; id=x; number=1",
        "message/external-body; access-type=x",
    ],
)
def test_what_cannot_be_understood_stays(content_type: str) -> None:
    content = crlf(f"MIME-Version: 1.0\nContent-Type: {content_type}\n\n--b\n\n\xe4\n")
    assert made(content) == content


@pytest.mark.parametrize(
    "body",
    [
        "--b\n\n\xe4",
        "--b\n\n\xe4\n--b",
        "--b\n\n\xe4\n--b--",
        "--b\n--b\n\n\xe4\n--b--\n",
        "--b\nContent-Type: text/plain\n--b\n\n\xe4\n--b--\n",
        "--b\nno field here\n\xe4\n--b--\n",
        "\n--b\n\n\n\xe4\n\n--b--\n\n",
        "--bb\n--b\n\n--bc\n\xe4\n--b --\n--b--\n",
        "--b\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\n\xe4\n--b--\n",
        "--b\nContent-Type: multipart/a; boundary=c\n\n--c\n\n\xe4\n--b\n\n\xf6\n--b",
        "--b\nContent-Type: message/rfc822\n\n\n\xe4\n--b--\n",
        "--b\nContent-Type: message/rfc822\n--b--\n",
        "--b\nContent-Type: text/plain\n folded: \xe4\n\n\xe4\n--b--",
    ],
)
def test_odd_multiparts(body: str) -> None:
    head = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n"
    content = crlf(head + body)
    out = made(content)
    assert leaves(out) == leaves(content)
    assert made(out) == out or not out.isascii()


def test_nesting_is_bounded() -> None:
    depth = NESTING_MAX + 5
    text = "MIME-Version: 1.0\n"
    for i in range(depth):
        text += f"Content-Type: multipart/mixed; boundary=b{i:03}\n\n--b{i:03}\n"
    content = crlf(text + "\nhigh \xe4\n")
    assert made(content) == content
    less = text.replace(f"b{depth - 6:03}", "gone")
    assert made(crlf(less + "\nhigh \xe4\n")) != content


def test_many_parts_are_bounded() -> None:
    part = b"\r\n--b\r\n\r\n\xe4"
    head = b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    out = made(head + part * 20_000)
    assert out.count(b"base64") == 2 * (SECTIONS_MAX - 1)
    assert out.endswith(part * (20_000 - SECTIONS_MAX + 1))


def test_a_huge_part_header_is_left_alone() -> None:
    head = b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    field = b"X-Long: " + b"x" * 60 + b"\r\n"
    part = b"--b\r\n" + field * 2000 + b"\r\n\xe4\r\n--b--\r\n"
    assert made(head + part) == head + part
    less = b"--b\r\n" + field * 200 + b"\r\n\xe4\r\n--b--\r\n"
    assert leaves(made(head + less)) == [b"\xe4"]


async def test_memory_is_bounded() -> None:
    line = b"caf\xe9 " * 12 + b"\r\n"
    body = StoredBody(line * 30_000)
    message = Message(b"A: b\r\n", body)
    plan = await plan_for(message, b"A: b\r\n\r\n", SEVEN, BY)
    assert plan is not None
    assert not isinstance(plan, Unconvertible)
    pieces = [len(piece) async for piece in pieces_of(body, plan)]
    assert body.most <= 64 * 1024
    assert max(pieces) <= 4 * 64 * 1024
    assert len(plan.pieces) == 1


# -- what is demanded -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("offers", "is_binary", "long_lines", "demand"),
    [
        ("8BITMIME", False, False, None),
        ("8BITMIME", False, True, Demand()),
        ("", False, False, SEVEN),
        ("", False, True, SEVEN),
        ("8BITMIME", True, False, BINARY_8),
        ("", True, False, BINARY_7),
        ("8BITMIME BINARYMIME", True, False, BINARY_8),
        ("8BITMIME BINARYMIME CHUNKING", True, False, BINARY_8),
        ("8BITMIME BINARYMIME CHUNKING PIPELINING", True, True, None),
    ],
)
def test_demands(
    offers: str, is_binary: bool, long_lines: bool, demand: Demand | None
) -> None:
    offered = Extensions(dict.fromkeys(offers.split(), ""))
    assert demand_of(offered, is_binary=is_binary, long_lines=long_lines) == demand


def test_what_is_fit_is_seen_at_once() -> None:
    assert meets(b"text\r\n", SEVEN)
    assert not meets(b"\xe4\r\n", SEVEN)
    assert meets(b"\xe4\r\n", Demand())
    assert not meets(b"x" * 999, Demand())
    assert not meets(b"\0", Demand())
    assert not meets(b"text\r\n", BINARY_8)


# -- work ---------------------------------------------------------------------------

_HEAD = b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n"
HOSTILE = {
    "lines like delimiters": b"\r\n--bb",
    "dashes": b"\r\n--",
    "parts": b"\r\n--b\r\n\r\n\xe4",
    "multiparts": b"\r\n--b\r\nContent-Type: multipart/x; boundary=c\r\n\r\n--c\r\n",
    "messages": b"\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n\xe4",
    "fields": b"\r\n--b\r\n" + b"a: b\r\n" * 200 + b"\r\n\xe4",
    "closed again and again": b"\r\n--b--",
    "one line": b"x" * 100 + b"\xe4",
    "line ends": b"\r\n\xe4",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_work_grows_with_the_message_only(name: str) -> None:
    """At most 2.2 times as many windows are looked at for twice the message."""
    looked: list[int] = []
    for octets in (400_000, 800_000):
        body = HOSTILE[name] * (octets // len(HOSTILE[name]))
        looking = survey(_HEAD, True, len(body), SEVEN, BY)
        count = 0
        with contextlib.suppress(StopIteration):
            span = next(looking)
            while True:
                window = body[span.offset : span.offset + span.octets]
                count += 1
                span = looking.send(window)
        looked.append(count)
    assert looked[1] <= looked[0] * 2.2 + 2
