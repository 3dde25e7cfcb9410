"""Asking workers over their control sockets.

A worker that is not there (its socket is missing or nobody answers on it) is
``WorkerGone``: its shard may then be opened directly. One that refuses says why.
"""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeVar

import msgspec

from postroom.admin.control import Answer, Beat, End, Item, Refused, Request
from postroom.mail.now import SECOND_US
from postroom.mail.units import Duration
from postroom.net.clock import read_mono_us
from postroom.net.connect import connect_unix
from postroom.net.stream import Stream, StreamError

ANSWER_OCTETS_MAX = 64 * 1024 * 1024
PATIENCE_US = 30 * SECOND_US
"""How long a worker may take to the next part of its answer."""

_NAME = re.compile(r"worker-(\d+)\.sock")
_answer: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)
_to_json = msgspec.json.Encoder().encode

T = TypeVar("T")


class WorkerGone(Exception):
    """Nobody answers there, or the worker went away in the middle."""


class RequestRefused(Exception):
    """The worker will not, or cannot; the text says why."""


def find_workers(run_directory: str) -> dict[int, Path]:
    """Return the control sockets that exist, by worker number; some may be dead.

    Raises:
        RequestRefused: it is not for us to know.
    """
    found = {}
    directory = Path(run_directory)
    try:
        names = sorted(directory.iterdir()) if directory.is_dir() else []
    except PermissionError:
        raise _forbidden(directory) from None
    for path in names:
        if match := _NAME.fullmatch(path.name):
            found[int(match[1])] = path
    return found


async def ask(path: Path, method: str, arguments: object, kind: type[T]) -> list[T]:
    """Ask a worker for an answer that is known to be short.

    Raises:
        WorkerGone: nobody answers.
        RequestRefused: the worker refuses.
    """
    return [part async for part in ask_stream(path, method, arguments, kind)]


async def ask_stream(
    path: Path, method: str, arguments: object, kind: type[T]
) -> AsyncIterator[T]:
    """Ask a worker and yield the parts of its answer as they come.

    Raises:
        WorkerGone: nobody answers.
        RequestRefused: the worker refuses.
    """
    decoder = msgspec.json.Decoder(kind)
    try:
        stream = await connect_unix(str(path), timeout=Duration(PATIENCE_US))
    except PermissionError:
        raise _forbidden(path) from None
    except (OSError, StreamError) as error:
        raise WorkerGone(f"{path}: {error}") from error
    try:
        stream.write(
            _to_json(Request(method, msgspec.Raw(_to_json(arguments)))) + b"\n"
        )
        async for line in _lines(stream, path):
            match _answer.decode(line):
                case Item(value):
                    yield decoder.decode(value)
                case Refused(why):
                    raise RequestRefused(why)
                case Beat():
                    continue
                case End():
                    return
    finally:
        stream.abort()


async def _lines(stream: Stream, path: Path) -> AsyncIterator[bytes]:
    rest: list[bytes] = []
    octets = 0
    while True:
        stream.set_deadline(read_mono_us() + PATIENCE_US)
        try:
            data = await stream.read()
        except StreamError as error:
            raise WorkerGone(f"{path}: {error}") from error
        if not data:
            raise WorkerGone(f"{path}: the worker went away")
        octets += len(data)
        if octets > ANSWER_OCTETS_MAX:
            raise WorkerGone(f"{path}: answer too long")
        rest.append(data)
        if b"\n" in data:
            *lines, last = b"".join(rest).split(b"\n")
            for line in lines:
                yield line
            rest, octets = [last], len(last)


def _forbidden(path: Path) -> RequestRefused:
    return RequestRefused(
        f"no permission for {path}: it takes root, the user that the server runs as, "
        "or a member of process.operator_group"
    )
