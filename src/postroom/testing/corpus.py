"""Real messages: the sample in ``tests/corpus``, or a directory of the whole corpus.

The files are what people received, most as an mbox keeps them: LF line ends and a
``From `` line in front, which is no part of the message.
"""

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SAMPLE = Path(__file__).parents[3] / "tests" / "corpus" / "sample.tar.xz"
FOLDERS = ("easy-ham-1", "spam-1")

_LINE_END = re.compile(rb"\r\n|\r|\n")


class RealMessage(NamedTuple):
    """A message as it goes over the wire, with CRLF line ends."""

    name: str
    content: bytes

    @property
    def longest_line_octets(self) -> int:
        """The length of its longest line, without the line end."""
        return max(map(len, self.content.split(b"\r\n")))


def read_sample(path: Path = SAMPLE) -> Iterator[RealMessage]:
    """Yield the messages of the sample in their order.

    Raises:
        OSError, tarfile.TarError: the sample cannot be read.
    """
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None:
                yield RealMessage(member.name, wire_form(file.read()))


def read_directory(path: Path) -> Iterator[RealMessage]:
    """Yield the messages in the folders of the unpacked corpus, by name.

    Raises:
        OSError: a folder is not there.
    """
    for folder in FOLDERS:
        for file in sorted((path / folder).iterdir()):
            if file.suffix == ".txt":
                name = f"{folder}/{file.name}"
                yield RealMessage(name, wire_form(file.read_bytes()))


def wire_form(octets: bytes) -> bytes:
    """Return a file's message: without its mbox line, every line end a CRLF."""
    if octets.startswith(b"From "):
        octets = octets.partition(b"\n")[2]
    content = _LINE_END.sub(b"\r\n", octets)
    return content if content.endswith(b"\r\n") else content + b"\r\n"


TRACE = re.compile(rb"(?:Return-Path|Delivered-To|Received)", re.IGNORECASE)
_FIELD = re.compile(rb"([!-9;-~]+):[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*")


def without_trace(content: bytes, hops: int) -> bytes:
    """Take off what delivery puts in front: Return-Path, Delivered-To, Received.

    At most ``hops`` fields called Received are taken, since the message may have begun
    with some of its own; the fields in front of them go too.

    Raises:
        ValueError: there are fewer.
    """
    at = 0
    for _ in range(hops):
        while True:
            field = _FIELD.match(content, at)
            if field is None or not TRACE.fullmatch(field[1]):
                raise ValueError(f"fewer than {hops} Received fields in front")
            at = field.end()
            if field[1].lower() == b"received":
                break
    return content[at:]
