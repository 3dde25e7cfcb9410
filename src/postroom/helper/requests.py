"""What workers and the root helper say to each other: one question per connection.

A frame is its length in four octets and a value as MessagePack. Neither side believes
the other: lengths are bounded and values are read into these types or not at all.
"""

import struct

import msgspec

from postroom.mail.units import Duration

SOCKET_NAME = "helper.sock"
"""In the run directory; only the workers' user may connect."""
REQUEST_OCTETS_MAX = 4096
ANSWER_OCTETS_MAX = 4096
HEAD_OCTETS = 4
_HEAD = struct.Struct("!I")


class FrameError(ValueError):
    """What came is no frame of ours."""


class Request(msgspec.Struct, frozen=True, array_like=True):
    """Is this the user's password? ``client_ip`` is told to PAM as the remote host."""

    user: str
    password: bytes
    client_ip: str = ""

    def __repr__(self) -> str:
        """Keep the password out of logs and tracebacks."""
        return f"Request({self.user!r}, ...)"


class Granted(msgspec.Struct, frozen=True, tag=True):
    """Yes; ``user`` is whom PAM takes them for."""

    user: str


class Denied(msgspec.Struct, frozen=True, tag=True):
    """No; ``reason`` is PAM's, for the log."""

    reason: str


class Broken(msgspec.Struct, frozen=True, tag=True):
    """PAM cannot say; ``reason`` names what is wrong."""

    reason: str


Answer = Granted | Denied | Broken

_to_wire = msgspec.msgpack.Encoder().encode
_request = msgspec.msgpack.Decoder(Request)
_answer: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


class Start(msgspec.Struct, frozen=True):
    """What the helper is started with, as JSON in its one argument.

    Attributes:
        listener: the listening socket's number.
        lifeline: a pipe that ends when the supervisor does.
        uid: who may ask, beside the helper's own user.
        service: the PAM service.
        timeout: how long one check may take.
    """

    listener: int
    lifeline: int
    uid: int
    service: str
    timeout: int

    @property
    def patience(self) -> Duration:
        """The time-out as a duration."""
        return Duration(self.timeout)


def to_frame(value: Request | Answer) -> bytes:
    """Write a value with its length."""
    octets = _to_wire(value)
    return _HEAD.pack(len(octets)) + octets


def length_in(head: bytes, bound: int) -> int:
    """Return how many octets follow the head of a frame.

    Raises:
        FrameError: more than the bound, or the head is cut off.
    """
    if len(head) != HEAD_OCTETS:
        raise FrameError("cut off")
    length: int = _HEAD.unpack(head)[0]
    if not 0 < length <= bound:
        raise FrameError(f"a frame of {length} octets")
    return length


def read_request(octets: bytes) -> Request:
    """Read a request.

    Raises:
        FrameError: it is none.
    """
    try:
        return _request.decode(octets)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FrameError(str(error)) from None


def read_answer(octets: bytes) -> Answer:
    """Read an answer.

    Raises:
        FrameError: it is none.
    """
    try:
        return _answer.decode(octets)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FrameError(str(error)) from None
