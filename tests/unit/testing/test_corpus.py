"""The corpus reader and the comparison of what comes out."""

import pytest

from postroom.testing.corpus import wire_form, without_trace


@pytest.mark.parametrize(
    ("octets", "content"),
    [
        (b"From a@b Mon\nA: b\n\nx\n", b"A: b\r\n\r\nx\r\n"),
        (b"A: b\n\nFrom x\n", b"A: b\r\n\r\nFrom x\r\n"),
        (b"From: a\r\n\r\nx", b"From: a\r\n\r\nx\r\n"),
        (b"A: b\r\n\rx\n\n", b"A: b\r\n\r\nx\r\n\r\n"),
    ],
)
def test_wire_form(octets: bytes, content: bytes) -> None:
    assert wire_form(octets) == content


def test_only_so_many_trace_fields_are_taken_off() -> None:
    own = b"Received: own\r\nA: b\r\n\r\nx\r\n"
    trace = b"Return-Path: <>\r\nDelivered-To: x\r\nReceived: 1\r\n\tmore\r\n"
    assert without_trace(trace + own, 1) == own
    assert without_trace(trace + own, 2) == b"A: b\r\n\r\nx\r\n"
    assert without_trace(own, 0) == own


@pytest.mark.parametrize(
    "content", [b"A: b\r\nReceived: 1\r\n\r\n", b"Return-Path: <>\r\n\r\nReceived: 1"]
)
def test_anything_else_in_front_is_an_error(content: bytes) -> None:
    with pytest.raises(ValueError, match="fewer than 1"):
        without_trace(content, 1)
