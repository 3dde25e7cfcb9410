"""Standard input becomes canonical text, however it is cut into pieces."""

import pytest

from postroom.mail.local_text import LocalText

CASES = {
    "lf": (b"a\nb\n", b"a\r\nb\r\n", b"a\r\nb\r\n"),
    "crlf": (b"a\r\nb\r\n", b"a\r\nb\r\n", b"a\r\nb\r\n"),
    "stray cr": (b"a\rb\n", b"a\r\nb\r\n", b"a\r\nb\r\n"),
    "cr at end": (b"a\r", b"a\r\n", b"a\r\n"),
    "cr cr lf": (b"a\r\r\nb", b"a\r\n\r\nb\r\n", b"a\r\n\r\nb\r\n"),
    "no line end": (b"a", b"a\r\n", b"a\r\n"),
    "nothing": (b"", b"", b""),
    "dot": (b"a\n.\nb\n", b"a\r\n", b"a\r\n.\r\nb\r\n"),
    "dot first": (b".\nb\n", b"", b".\r\nb\r\n"),
    "dot with crlf": (b"a\r\n.\r\nb", b"a\r\n", b"a\r\n.\r\nb\r\n"),
    "dot then cr": (b"a\n.\rb", b"a\r\n", b"a\r\n.\r\nb\r\n"),
    "dot then cr at end": (b"a\n.\r", b"a\r\n", b"a\r\n.\r\n"),
    "dot at end": (b"a\n.", b"a\r\n.\r\n", b"a\r\n.\r\n"),
    "two dots": (b"a\n..\nb\n", b"a\r\n..\r\nb\r\n", b"a\r\n..\r\nb\r\n"),
    "dot and text": (b"a\n.b\n", b"a\r\n.b\r\n", b"a\r\n.b\r\n"),
    "dot ends a line": (b"a.\nb\n", b"a.\r\nb\r\n", b"a.\r\nb\r\n"),
    "octets": (b"\x00\xff\n", b"\x00\xff\r\n", b"\x00\xff\r\n"),
}


def fed(pieces: list[bytes], *, dot_ends: bool) -> bytes:
    text = LocalText(dot_ends=dot_ends)
    return b"".join([*(text.feed(piece) for piece in pieces), text.finish()])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_whole_and_by_octet(case: tuple[bytes, bytes, bytes]) -> None:
    data, with_dot, without_dot = case
    octets = [data[i : i + 1] for i in range(len(data))]
    for pieces in ([data], octets, [data, b""], [b"", *octets]):
        assert fed(pieces, dot_ends=True) == with_dot
        assert fed(pieces, dot_ends=False) == without_dot


def test_ended_is_known_at_once() -> None:
    text = LocalText(dot_ends=True)
    assert text.feed(b"a\n.\n") == b"a\r\n"
    assert text.ended
    assert text.feed(b"more\n") == text.finish() == b""
