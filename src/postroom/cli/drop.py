"""What ``sendmail`` does while no server runs: keeps letters, and says so.

A letter goes to the drop directory as it would have gone to the server, arguments and
all; the server takes it when it is back. The file is complete or not there: it ends
with a record of its length, and is on disk before the exit code is 0. If it cannot be
kept the exit code is 75, with the reason. ``POSTROOM_DROP`` names another directory.

Imported by the courier only when needed; imports as little as the courier does.
"""

import posix
import sys
import time

from postroom.cli.sendmail import (
    EX_OK,
    EX_TEMPFAIL,
    GREETING,
    arguments,
    frame,
    setting,
    show,
)

DIRECTORY = "/var/lib/postroom/drop"
EX_USAGE = 64
# As in services.submission, which a test compares.
WITH_VALUE = "ABbCDeFfhLMNOopRrVX"
WITH_ATTACHED_VALUE = "dQqT"
_PIECE_OCTETS = 65536
_DOWN = "the mail server is not running"


def without_server(argv: list[str], why: str) -> int:
    """Do what can be done; returns the exit code.

    Args:
        argv: the arguments, the name of the program first.
        why: why the server could not be reached, for a person.
    """
    mode, options, recipients = read(argv)
    chosen = chosen_from_queue(argv)
    if mode == "m":
        if not any(recipients) and "t" not in options:
            show(1, "Recipient names must be specified\n")
            return EX_USAGE
        return _keep(argv, options, recipients, why)
    if mode == "p":
        return _list_queue(why, options, chosen)
    if mode == "i":
        show(1, f"{_DOWN}; it reads the aliases when it starts\n")
        return EX_OK
    if mode == "s":
        show(1, f"421 4.3.2 {_DOWN}, try again later\r\n")
        return EX_TEMPFAIL
    show(2, f"sendmail: {_DOWN} ({why})\n")
    return EX_TEMPFAIL


def read(argv: list[str]) -> tuple[str, set[str], list[str]]:
    """Read as much of the arguments as is needed to know what to do without a server.

    Returns:
        The mode (the letter after ``-b``), the options given, the other arguments.
    """
    name = argv[0].rpartition("/")[2]
    mode = {"mailq": "p", "newaliases": "i", "runq": "q"}.get(name, "m")
    options, at = set(), 1
    while at < len(argv) and argv[at].startswith("-") and argv[at] != "-":
        argument, at = argv[at], at + 1
        if argument == "--":
            break
        for place, letter in enumerate(argument[1:], 2):
            options.add(letter)
            value = argument[place:]
            if letter in WITH_ATTACHED_VALUE:
                mode = "q" if letter == "q" and mode == "m" else mode
                break
            if letter in WITH_VALUE:
                if not value:
                    value, at = "".join(argv[at : at + 1]), at + 1
                if letter == "b":
                    mode = value[:1].replace("a", "m")
                elif letter in "oO" and value in ("i", "v"):
                    options.add(value)
                break
            mode = "i" if letter == "I" else mode
    return mode, options, argv[at:]


def _keep(argv: list[str], options: set[str], recipients: list[str], why: str) -> int:
    directory = setting(b"POSTROOM_DROP", DIRECTORY)
    # Nobody can list the directory, so a name only has to be new.
    name = f"{time.time_ns() // 1000}.{posix.getpid()}.{posix.urandom(4).hex()}"
    path = f"{directory}/{name}"
    posix.umask(0o027)
    try:
        flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC
        fd = posix.open(path, flags, 0o640)
    except OSError as error:
        return _not_kept(directory, why, error)
    try:
        _write_letter(fd, argv, reads_dot="i" not in options)
        posix.fsync(fd)
        _sync_directory(directory)
    except BaseException as error:
        posix.unlink(path)
        if isinstance(error, OSError):
            return _not_kept(directory, why, error)
        raise
    if "v" in options:
        whom = ", ".join(recipients) or "the letter"
        show(1, f"{whom}... queued: {_DOWN}, it will be sent when it is\n")
    return EX_OK


def _write_letter(fd: int, argv: list[str], *, reads_dot: bool) -> None:
    octets = _write(fd, GREETING + arguments(argv))
    is_terminal = posix.isatty(0)
    while data := posix.read(0, _PIECE_OCTETS):
        octets += _write(fd, frame(b"I", data))
        if is_terminal and reads_dot and data == b".\n":
            break
    octets += _write(fd, frame(b"E", b""))
    _write(fd, frame(b"Z", octets.to_bytes(8, "big")))


def _write(fd: int, data: bytes) -> int:
    octets = len(data)
    while data:
        data = data[posix.write(fd, data) :]
    return octets


def _sync_directory(directory: str) -> None:
    try:
        fd = posix.open(directory, posix.O_RDONLY | posix.O_DIRECTORY)
    except PermissionError:
        # Ordinary users cannot open it, and what is not open cannot be synced alone.
        posix.sync()
        return
    posix.fsync(fd)
    posix.close(fd)


def _not_kept(directory: str, why: str, error: OSError) -> int:
    show(2, f"sendmail: {_DOWN} ({why}), and the mail cannot be kept in ")
    show(2, f"{directory}: {error.strerror}. Nothing was sent; try again later\n")
    return EX_TEMPFAIL


def chosen_from_queue(argv: list[str]) -> list[str]:
    """Return what ``-qI`` and its kin choose, as options of ``postroom queue``."""
    flags = {"I": "--id", "R": "--recipient", "S": "--sender", "Q": "--error"}
    options: list[str] = []
    for argument in argv[1:]:
        if argument == "--" or not argument.startswith("-"):
            break
        if not argument.startswith("-q"):
            continue
        value = argument[2:].removeprefix("f")
        negated = "!" * value.startswith("!")
        letter, text = value[len(negated) :][:1], value[len(negated) + 1 :]
        if letter == "Q":
            options += ["--state", "quarantined"]
        if letter == "L":
            options += ["--state", "shunted"]
        elif letter in flags and text:
            wanted = "*" + text + "*" if text[0] == "!" else text
            options.append(f"{flags[letter]}={negated}{wanted}")
    return options


def _list_queue(why: str, options: set[str], chosen: list[str]) -> int:
    """Become the command that reads the queue from disk."""
    command = sys.executable.rpartition("/")[0] + "/postroom"
    request = ["queue", "list", "--mailq", *["-v"] * ("v" in options), *chosen]
    try:
        posix.execv(command, [command, *request])
    except OSError as error:
        show(2, f"sendmail: {_DOWN} ({why}), and {command} cannot be run: ")
        show(2, f"{error.strerror}\n")
    return EX_TEMPFAIL
