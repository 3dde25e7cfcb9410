"""Three hundred real messages, sent to a hop that takes seven bits only."""

from email import message_from_bytes

from postroom.mail.headers import split_message
from postroom.render.demand import Demand, has_long_line
from postroom.testing.corpus import read_sample
from postroom.testing.rendering import in_windows

SEVEN = Demand(seven_bit=True)


def leaves(content: bytes) -> list[bytes]:
    parts = [p for p in message_from_bytes(content).walk() if not p.is_multipart()]
    return [bytes(p.get_payload(decode=True)).rstrip(b"\r\n") for p in parts]


def test_real_messages_decode_to_what_they_were() -> None:
    converted = 0
    for _, content in read_sample():
        out = in_windows(content, SEVEN, 1 << 20)
        assert isinstance(out, bytes)
        assert leaves(out) == leaves(content)
        if out != content:
            converted += 1
            body = split_message(out)[1]
            assert body.isascii()
            assert not has_long_line(body)
            assert in_windows(out, SEVEN, 1 << 20) == out
    assert converted > 50
