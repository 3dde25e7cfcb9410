"""What the arguments of ``sendmail`` ask for.

Pure. Reads argv as sendmail's getopt does: options end at the first argument that is
none, or at ``--``. What callers pass by habit is accepted; what would need another
program is refused with a word on which. ``docs/sendmail.md`` has the table.
"""

import re
from collections.abc import Callable
from enum import StrEnum
from typing import NoReturn

import msgspec

from postroom.mail.address import NULL_SENDER, Address, AddressError
from postroom.mail.address_list import Mailbox, parse_address_list
from postroom.mail.envelope import BodyType, to_xtext
from postroom.services.queue_run import (
    QueueRunError,
    QueueSelection,
    add_selection,
    quarantining,
)

# sysexits.h, as far as it is used.
EX_OK, EX_USAGE, EX_DATAERR, EX_NOUSER, EX_NOHOST = 0, 64, 65, 67, 68
EX_UNAVAILABLE, EX_SOFTWARE, EX_TEMPFAIL, EX_NOPERM = 69, 70, 75, 77

# sendmail's own string is A:B:b:C:cD:d:e:F:f:Gh:IiL:M:mN:nO:o:p:Q:q:R:r:sTtUV:vX:
_WITH_VALUE = frozenset("ABbCDeFfhLMNOopRrVX")
_WITH_ATTACHED_VALUE = frozenset("dQqT")
_WITHOUT_VALUE = frozenset("cGIimnstUvx")
_NAMES = {"newaliases": "i", "mailq": "p", "runq": "q"}
_NAMES_ELSEWHERE = {"hoststat": "h", "purgestat": "H", "smtpd": "d"}
_MODES_ELSEWHERE = {
    "d": "to start the server: postroom serve",
    "D": "to start the server: postroom serve",
    "l": "to start the server: postroom serve",
    "t": "to see where an address leads: postroom explain ADDRESS",
    "C": "to check the configuration: postroom check",
    "O": "to see all settings: postroom check",
    "P": "to count what is queued: postroom queue stat",
    "h": "to see what hosts do not answer: postroom queue list",
    "H": "hosts that do not answer are remembered by the server alone",
}
# RFC 3461 §4.1: notify-list-element; §4.4: envid, of printable characters.
_NOTIFY = re.compile(r"NEVER|(SUCCESS|FAILURE|DELAY)(,(SUCCESS|FAILURE|DELAY))*")
_ENVID_CHARS_MAX = 100
_ARGUMENT_CHARS_SHOWN = 200


class Mode(StrEnum):
    """What to do: the letter after ``-b``, or ``-q``."""

    DELIVER = "m"
    SMTP = "s"
    VERIFY = "v"
    MAILQ = "p"
    NEWALIASES = "i"
    RUN_QUEUE = "q"
    NOTHING = "z"


class UsageError(Exception):
    """The arguments make no sense; the text is what sendmail would print."""

    def __init__(self, text: str, exit_code: int = EX_USAGE) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Invocation(msgspec.Struct, frozen=True):
    """One call of ``sendmail``, understood.

    ``sender`` is what ``-f`` gave, None if it was not given; ``recipients`` are the
    arguments as they came; ``from_header`` says that the header names them (``-t``).
    ``dot_ends`` says that a lone dot ends the input (no ``-i``); ``queue_only`` that
    nobody waits for the delivery (``-odq``), not even with ``verbose``; ``quiet``
    that errors are not printed (``-oeq``).
    """

    mode: Mode = Mode.DELIVER
    recipients: tuple[str, ...] = ()
    sender: str | None = None
    full_name: str = ""
    from_header: bool = False
    verbose: bool = False
    dot_ends: bool = True
    queue_only: bool = False
    quiet: bool = False
    body: BodyType = BodyType.SEVEN_BIT
    smtputf8: bool = False
    notify: str = ""
    ret: str = ""
    envid: str = ""
    selection: QueueSelection = QueueSelection()


def parse_argv(argv: list[str]) -> Invocation:
    """Read the arguments, the name of the program first.

    Raises:
        UsageError: they make no sense, or ask for what is done elsewhere.
    """
    reader = _Reader()
    reader.name(argv[0] if argv else "")
    return reader.read(argv[1:])


def parse_sender(text: str, domain: str) -> Address:
    """Read the argument of ``-f``; a bare name gets ``domain``.

    Raises:
        UsageError: it is no address.
    """
    if text in ("", "<>"):
        return NULL_SENDER  # RFC 5321 §4.5.5
    if not text.isprintable():
        raise UsageError(f"{_shown(text)}... Invalid octets")
    parsed = parse_address_list(text)
    if parsed.problem or len(parsed.mailboxes) != 1:
        problem = parsed.problem or "not one address"
        raise UsageError(f"{_shown(text)}... {problem}")
    return parse_mailbox(parsed.mailboxes[0], domain)


def parse_mailbox(mailbox: Mailbox, domain: str) -> Address:
    """Make an envelope address of a listed one; a bare name gets ``domain``.

    Raises:
        UsageError: it is no address; the text begins with it, as sendmail's do.
    """
    if not mailbox.text:
        raise UsageError("<>... User address required")
    if not mailbox.text.isprintable():
        raise UsageError(f"{_shown(mailbox.text)}... Invalid octets")
    try:
        address = Address.from_text(mailbox.text)
    except AddressError as error:
        raise UsageError(f"{_shown(mailbox.text)}... {error}") from None
    return address if address.domain else Address(address.local, domain)


def exit_code_of(status: str) -> int:
    """Return the exit code for an enhanced status code (RFC 3463)."""
    if status.startswith("4"):
        return EX_TEMPFAIL
    known = {
        "5.1.1": EX_NOUSER,
        "5.1.2": EX_NOHOST,
        "5.1.10": EX_NOHOST,
        "5.3.4": EX_DATAERR,
        "5.3.0": EX_SOFTWARE,
    }
    by_subject = {"5.1": EX_NOUSER, "5.6": EX_DATAERR, "5.7": EX_NOPERM}
    return known.get(status) or by_subject.get(status[:3], EX_UNAVAILABLE)


class _Reader:
    def __init__(self) -> None:
        self._given: dict[str, object] = {}

    def name(self, path: str) -> None:
        name = path.rpartition("/")[2]
        if name in _NAMES_ELSEWHERE:
            self._elsewhere(_NAMES_ELSEWHERE[name])
        if name in _NAMES:
            self._given["mode"] = Mode(_NAMES[name])

    def read(self, arguments: list[str]) -> Invocation:
        at = 0
        while at < len(arguments):
            argument = arguments[at]
            if argument == "--":
                at += 1
                break
            if not argument.startswith("-") or argument == "-":
                break
            at += 1
            if self._cluster(argument[1:], arguments[at : at + 1]):
                at += 1
        self._given["recipients"] = tuple(arguments[at:])
        selection = self._given.get("selection")
        if (
            isinstance(selection, QueueSelection)
            and selection.quarantine is not None
            and self._given.get("mode") is not Mode.RUN_QUEUE
        ):
            raise UsageError("Cannot use -Q without -q")
        return msgspec.convert(self._given, Invocation)

    def _cluster(self, letters: str, following: list[str]) -> bool:
        """Read ``-xyz``; returns whether the next argument was its value."""
        for place, letter in enumerate(letters):
            rest = letters[place + 1 :]
            if letter in _WITH_ATTACHED_VALUE:
                self._take(letter, rest)
                return False
            if letter in _WITH_VALUE:
                if not rest and not following:
                    raise UsageError(
                        f"sendmail: option requires an argument -- {letter}"
                    )
                self._take(letter, rest or following[0])
                return not rest
            if letter not in _WITHOUT_VALUE:
                raise UsageError(f"sendmail: illegal option -- {_shown(letter)}")
            self._take(letter, "")
        return False

    def _take(self, letter: str, value: str) -> None:
        given = self._given
        match letter:
            case "b":
                self._mode(value)
            case "f" | "r":
                if given.get("sender", value) != value:
                    raise UsageError('More than one "from" person')
                given["sender"] = value
            case "F":
                given["full_name"] = value
            case "t":
                given["from_header"] = True
            case "v":
                given["verbose"] = True
            case "i":
                given["dot_ends"] = False
            case "I":
                given["mode"] = Mode.NEWALIASES
            case "q":
                self._run_queue(value)
            case "Q":
                self._choose(quarantining, value)
            case "o" | "O":
                self._option(value)
            case "e":
                given["quiet"] = value.startswith("q")
            case "U":
                given["smtputf8"] = True
            case "B" | "N" | "R" | "V":
                self._wish(letter, value)
            case _:
                pass  # accepted, with its value, and of no effect here

    def _mode(self, value: str) -> None:
        letter = value[:1]
        if letter == "a":  # ARPANET mode; its line ends are understood anyway
            letter = "m"
        if letter in _MODES_ELSEWHERE:
            self._elsewhere(letter)
        if letter not in "msvpiz" or not letter:
            raise UsageError(f"Invalid operation mode {_shown(letter)}")
        self._given["mode"] = Mode(letter)

    def _elsewhere(self, letter: str) -> NoReturn:
        hint = _MODES_ELSEWHERE[letter]
        raise UsageError(f"Operation mode {letter} is not done by sendmail: {hint}")

    def _run_queue(self, value: str) -> None:
        if self._given.get("mode", Mode.DELIVER) is Mode.DELIVER:
            self._given["mode"] = Mode.RUN_QUEUE
        self._choose(add_selection, value)

    def _choose(
        self, change: Callable[[QueueSelection, str], QueueSelection], value: str
    ) -> None:
        before = self._given.get("selection", QueueSelection())
        assert isinstance(before, QueueSelection)
        try:
            self._given["selection"] = change(before, value)
        except QueueRunError as error:
            raise UsageError(_shown(str(error))) from None

    def _option(self, value: str) -> None:
        match value[:1], value[1:]:
            case ("i", ""):
                self._given["dot_ends"] = False
            case ("v", ""):
                self._given["verbose"] = True
            case ("d", mode):
                self._given["queue_only"] = mode[:1] in ("q", "d")
            case ("e", mode):
                self._given["quiet"] = mode.startswith("q")
            case _:
                self._long_option(value)

    def _long_option(self, value: str) -> None:
        name, _, setting = value.partition("=")
        is_true = setting.lower()[:1] not in ("f", "n")
        match name.strip().lower():
            case "ignoredots":
                self._given["dot_ends"] = not is_true
            case "verbose":
                self._given["verbose"] = is_true
            case "deliverymode":
                self._given["queue_only"] = setting[:1] in ("q", "d")
            case "errormode":
                self._given["quiet"] = setting.startswith("q")
            case _:
                pass  # a setting of the server, not of the letter

    def _wish(self, letter: str, value: str) -> None:
        upper = value.upper()
        match letter:
            case "B":
                if upper not in ("7BIT", "8BITMIME"):
                    raise UsageError(f"Illegal body type {_shown(value)}")
                self._given["body"] = BodyType(upper)
            case "N":
                upper = upper.replace(" ", "")
                if not _NOTIFY.fullmatch(upper):
                    raise UsageError("Invalid -N argument")
                self._given["notify"] = upper
            case "R":
                if upper not in ("FULL", "HDRS"):
                    raise UsageError("Invalid -R value")
                self._given["ret"] = upper
            case "V":
                envid = to_xtext(value) if value.isascii() else ""
                # RFC 3461 §4.4: of printable characters, in xtext 100 at most
                if not 0 < len(envid) <= _ENVID_CHARS_MAX or not value.isprintable():
                    raise UsageError("Invalid syntax in -V argument")
                self._given["envid"] = envid


def _shown(text: str) -> str:
    shown = text[:_ARGUMENT_CHARS_SHOWN]
    return shown if shown.isprintable() else ascii(shown)[1:-1]
