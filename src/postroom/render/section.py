"""What a MIME header says of the section that follows it (RFC 2045, RFC 2046).

Reading is tolerant as mail programs are; what is contradictory is told as opaque, so
that it is left as it is.
"""

import re
from enum import Enum, auto
from typing import Final

import msgspec

from postroom.mail.headers import find

BOUNDARY_OCTETS_MAX: Final = 200
"""RFC 2046 §5.1.1 says 70."""

# type "/" subtype (RFC 2045 §5.1)
_TYPE = re.compile(rb"[ \t]*([!-.0-~]+)[ \t]*/[ \t]*([^ \t;\"()<>]+)")
# parameter := attribute "=" value; value := token / quoted-string
_PARAMETER = re.compile(
    rb';[ \t]*([^ \t\r\n;="]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^;\r\n]*))',
    re.DOTALL,
)
_TOKEN = re.compile(rb"[A-Za-z0-9\-]+")
_IDENTITY = frozenset({b"", b"7bit", b"8bit", b"binary"})
_OPAQUE_MESSAGES = frozenset({b"message/partial", b"message/external-body"})


class Shape(Enum):
    """How a section is walked."""

    LEAF = auto()
    MULTIPART = auto()
    MESSAGE = auto()
    OPAQUE = auto()


class Section(msgspec.Struct, frozen=True):
    """A section's header, read.

    ``encoding`` is its Content-Transfer-Encoding in lower case, empty if none;
    ``boundary`` that of a multipart; ``is_digest`` says that its parts are messages
    unless they say otherwise; ``is_labelled`` that it names its type.
    """

    shape: Shape
    encoding: bytes = b""
    boundary: bytes = b""
    is_digest: bool = False
    is_labelled: bool = True

    @property
    def is_encodable(self) -> bool:
        """Whether its octets stand for themselves, so that they may be encoded."""
        return self.shape is Shape.LEAF and self.encoding in _IDENTITY


def read_section(header: bytes, *, in_digest: bool = False) -> Section:
    """Read the header of a message or part.

    Args:
        header: the block, each field ended by CRLF.
        in_digest: it is a part of a multipart/digest (RFC 2046 §5.1.5).
    """
    value = find(header, "Content-Type")
    encoding = _encoding(header)
    if value is None:
        shape = Shape.MESSAGE if in_digest else Shape.LEAF
        return Section(shape, encoding, is_labelled=in_digest)
    match = _TYPE.match(value)
    if not match:
        return Section(Shape.LEAF, encoding)
    main, sub = match[1].lower(), match[2].lower()
    if main == b"multipart":
        return _multipart(value[match.end() :], sub, encoding)
    kind = main + b"/" + sub
    if kind in _OPAQUE_MESSAGES:  # RFC 2046 §5.2.2.1, §5.2.3: 7bit only
        return Section(Shape.OPAQUE, encoding)
    if kind == b"message/rfc822":  # RFC 2046 §5.2.1: no other encodings
        good = encoding in _IDENTITY
        return Section(Shape.MESSAGE if good else Shape.OPAQUE, encoding)
    return Section(Shape.LEAF, encoding)


def _multipart(rest: bytes, sub: bytes, encoding: bytes) -> Section:
    boundary = _boundary(rest)
    # RFC 1847 §2.1: to touch what is signed would break the signature.
    # RFC 2045 §6.4: a multipart has no encoding of its own.
    if sub == b"signed" or not boundary or encoding not in _IDENTITY:
        return Section(Shape.OPAQUE, encoding)
    return Section(Shape.MULTIPART, encoding, boundary, is_digest=sub == b"digest")


def _boundary(parameters: bytes) -> bytes:
    for match in _PARAMETER.finditer(parameters):
        if match[1].lower() == b"boundary":
            quoted, token = match[2], match[3]
            if quoted is not None:
                value = re.sub(rb"\\(.)", rb"\1", quoted)
            else:
                value = token.split(b"(")[0].strip()
            value = value.rstrip()
            return value if len(value) <= BOUNDARY_OCTETS_MAX else b""
    return b""


def _encoding(header: bytes) -> bytes:
    value = find(header, "Content-Transfer-Encoding")
    if not value:
        return b""
    match = _TOKEN.match(value)
    return match[0].lower() if match else b"?"
