"""SASL exchanges with whatever a client may send: they end, and let nobody in."""

import base64

from hypothesis import given
from hypothesis import strategies as st

from postroom.auth.mechanisms import MECHANISMS, Circumstances, Mechanism
from postroom.auth.sasl import Failed, Proven
from postroom.testing.exchange import Book, Door, Reaction, ScramClient, play

PIECES = st.sampled_from(
    [
        *(b"\0", b"\x01", b"\x01\x01", b",", b"=", b" ", b"n,", b"y,", b"n,,", b"p="),
        *(b"n=tim,", b"r=x", b"a=tim,", b"a=joe,", b"auth=Bearer ", b"user=tim"),
        *(b"tim", b"joe", b"=2C", b"=3D", b"\xff", "ſ".encode(), b"0" * 32, b"c=biws,"),
        *(b"p=tls-server-end-point,,", b"token", b"x" * 400),
    ]
)
TEXTS = st.one_of(st.binary(max_size=80), st.lists(PIECES, max_size=8).map(b"".join))
NOW = Circumstances(
    nonce="servernonce",
    challenge=b"<1@mx>",
    bindings={"tls-server-end-point": b"hash"},
    names=("nobody@x.test",),
)


def book() -> Book:
    return Book({"tim": "only tim knows", "joe": "x y"}, tokens={"secret": "tim"})


@given(
    st.sampled_from(MECHANISMS),
    st.none() | TEXTS,
    st.lists(TEXTS, max_size=4),
)
def test_nonsense_lets_nobody_in(
    mechanism: Mechanism, initial: bytes | None, said: list[bytes]
) -> None:
    played = play(mechanism, book(), *said, initial=initial, circumstances=NOW)
    assert not isinstance(played.ended, Proven)
    if isinstance(played.ended, Failed):
        assert played.ended.reason
        assert all(lost == played.ended for lost in played.lost)
    else:
        assert len(played.challenges) == len(said) + 1  # it waits for more


@given(st.integers(0, 200), st.integers(1, 255), st.booleans())
def test_one_changed_octet_is_one_too_many(
    at: int, change: int, in_first: bool
) -> None:
    client = ScramClient(
        "tim", "only tim knows", header="p=tls-server-end-point,,", binding=b"hash"
    )
    is_changed = []

    def spoil(octets: bytes) -> bytes:
        place = at % len(octets)
        is_changed.append(True)
        return octets[:place] + bytes([octets[place] ^ change]) + octets[place + 1 :]

    def final(challenge: bytes) -> bytes:
        answer = client.final(challenge)
        return answer if in_first else spoil(answer)

    said: tuple[Reaction, ...] = (final, b"")
    first = spoil(client.first) if in_first else client.first
    played = play("SCRAM-SHA-256-PLUS", book(), *said, initial=first, circumstances=NOW)
    assert is_changed
    assert isinstance(played.ended, Failed)


@given(st.text(min_size=1, max_size=40), st.text(max_size=40))
def test_any_name_and_password_can_be_told_apart(name: str, password: str) -> None:
    door = Door()
    octets = base64.b64encode(f"\0{name}\0{password}".encode())
    ended = door.answer("PLAIN", base64.b64decode(octets))
    if isinstance(ended, Proven):
        assert (ended.user, password) == ("tim", "secret")
