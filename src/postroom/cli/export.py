"""``postroom queue export``: messages out of the queue into files, untouched there.

As ``.eml`` files a message is byte for byte what would be delivered (``--raw``: what
was received), with the envelope as JSON beside it. In an mbox line ends are LF, lines
that begin with "From " are quoted, and the envelope stands in fields in front. A file
that was begun and not finished is taken away.
"""

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Protocol

import click
import msgspec

from postroom.admin.requests import Letter, LetterPart, Letters, Piece
from postroom.admin.whole import WholeQueue
from postroom.cli.options import (
    EX_NOT_FOUND,
    Choice,
    choice_options,
    config_option,
    load_or_fail,
)
from postroom.cli.whole import on_queue
from postroom.cli.words import messages
from postroom.mail.envelope import Envelope
from postroom.mailbox.line_ends import ToLf
from postroom.mailbox.mbox_format import from_line, quoting
from postroom.spool.spool import Entry


class Sidecar(msgspec.Struct, frozen=True):
    """What stands in the ``.json`` beside a message.

    ``envelope`` is without its recipients, which are in ``entry``; it is missing where
    the message cannot be read, and ``problem`` says why.
    """

    entry: Entry
    envelope: Envelope | None
    problem: str = ""


class Box(Protocol):
    """Where messages are put."""

    def begin(self, letter: Letter) -> None:
        """Begin a message."""

    def add(self, data: bytes) -> None:
        """Take a piece of its body."""

    def end(self) -> None:
        """The message is complete."""

    def give_up(self) -> None:
        """The message will not become complete."""

    def close(self) -> None:
        """All is written."""


@click.command()
@choice_options
@click.option("--directory", type=click.Path(), help="Write ID.eml and ID.json there.")
@click.option("--mbox", type=click.Path(), help="Append to this mbox; - for output.")
@click.option("--raw", is_flag=True, help="As received, without fields of ours.")
@click.option("--all", "everything", is_flag=True, help="All messages.")
@config_option
def export(
    path: str,
    choice: Choice,
    directory: str | None,
    mbox: str | None,
    raw: bool,
    everything: bool,
) -> None:
    """Copy messages out of the queue, also those that cannot be read any more."""
    if (directory is None) == (mbox is None):
        raise click.UsageError("say --directory DIR or --mbox FILE")
    if everything != choice.is_all:
        raise click.UsageError("name messages by id or by an option, or say --all")
    config = load_or_fail(path)
    try:
        box = Directory(Path(directory)) if directory else Mbox(str(mbox))
    except OSError as error:
        raise click.FileError(directory or str(mbox), error.strerror) from None

    async def work(whole: WholeQueue) -> set[str]:
        done: set[str] = set()
        try:
            for wanted in choice.filters:
                await _fill(box, whole.letters(Letters(wanted, raw=raw)), done)
        finally:
            box.close()
        click.echo(f"{messages(len(done))} exported", err=True)
        return done

    try:
        done = on_queue(config, work)
    except OSError as error:
        raise click.FileError(directory or str(mbox), error.strerror) from None
    missing = [queue_id for queue_id in choice.ids if queue_id not in done]
    for queue_id in missing:
        click.echo(f"postroom: {queue_id} is not in the queue", err=True)
    if missing:
        sys.exit(EX_NOT_FOUND)


async def _fill(box: Box, parts: AsyncIterator[LetterPart], done: set[str]) -> None:
    """Put messages into a box; only what came whole is counted."""
    letter: Letter | None = None
    left = 0
    try:
        async for part in parts:
            if isinstance(part, Piece):
                left -= len(part.data)
                box.add(part.data)
            else:
                letter, left = part, part.body_octets
                box.begin(part)
                if part.problem:
                    click.echo(f"postroom: {part.problem}", err=True)
            if letter is not None and not left:
                box.end()
                done.add(letter.entry.queue_id)
                letter = None
    finally:
        if letter is not None:
            box.give_up()


class Directory:
    """One file per message.

    Raises:
        OSError: a file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = path
        self._file: IO[bytes] | None = None
        self._letter: Letter | None = None

    def begin(self, letter: Letter) -> None:
        """Begin a message under a name that says that it is not complete."""
        self._letter = letter
        self._file = _create(self._named(".part"))
        self._file.write(letter.head)

    def add(self, data: bytes) -> None:
        """Take a piece of its body."""
        assert self._file is not None
        self._file.write(data)

    def end(self) -> None:
        """Give the message its name, and write what is known of it."""
        letter = self._letter
        assert self._file is not None
        assert letter is not None
        self._file.close()
        sidecar = Sidecar(letter.entry, letter.envelope, letter.problem)
        with _create(self._named(".json")) as file:
            file.write(msgspec.json.format(msgspec.json.encode(sidecar), indent=2))
            file.write(b"\n")
        self._named(".part").rename(self._named(".eml"))

    def give_up(self) -> None:
        """Take away what is there of the message."""
        if self._file is not None:
            self._file.close()
            self._named(".part").unlink(missing_ok=True)

    def close(self) -> None:
        """Each file is closed already."""

    def _named(self, suffix: str) -> Path:
        assert self._letter is not None
        return self._path / f"{self._letter.entry.queue_id}{suffix}"


class Mbox:
    """All messages in one file, or on standard output.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: str) -> None:
        if path == "-":
            self._file: IO[bytes] = sys.stdout.buffer
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._file = os.fdopen(os.open(path, flags, 0o600), "ab")

    def begin(self, letter: Letter) -> None:
        """Begin a message: its From_ line, then the envelope."""
        entry = letter.entry
        self._lines, self._quote = ToLf(), quoting()
        self._start = self._file.tell() if self._file.seekable() else -1
        fields = [f"X-Postroom-Id: {entry.queue_id}"]
        fields += [f"X-Envelope-From: <{_one_line(entry.sender)}>"]
        fields += [f"X-Envelope-To: <{_one_line(r.address)}>" for r in entry.recipients]
        front = "".join(f"{field}\n" for field in fields).encode("utf-8", "replace")
        self._file.write(from_line(entry.sender, entry.arrival_us) + front)
        self.add(letter.head)

    def add(self, data: bytes) -> None:
        """Take a piece of the content."""
        self._file.write(self._quote.feed(self._lines.feed(data)))

    def end(self) -> None:
        """End the message with an empty line."""
        rest = self._quote.feed(self._lines.end()) + self._quote.end()
        self._file.write(rest + b"\n")
        self._file.flush()

    def give_up(self) -> None:
        """Take away what is there of the message, where that is possible."""
        if self._start >= 0:
            self._file.flush()
            self._file.truncate(self._start)

    def close(self) -> None:
        """Let go of the file; standard output is the caller's."""
        self._file.flush()
        if self._file is not sys.stdout.buffer:
            self._file.close()


def _create(path: Path) -> IO[bytes]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.fdopen(os.open(path, flags, 0o600), "wb")


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
