"""What a table is: keys to values, in force as one version, replaced as a whole.

A version with an error never comes into force: the one before stays, and the problem
is told with its line. A table that never had a good version has a ``fault``: look-ups
in it are failures (a deferral), never "not found".
"""

from collections.abc import Callable, Mapping
from typing import Generic, Protocol, TypeVar

import msgspec

from postroom.observe.events import Lifecycle, TableRefused
from postroom.tables.file import FileMark, read_file
from postroom.tables.settings import TableSettings

T = TypeVar("T")
V_co = TypeVar("V_co", covariant=True)


class Table(Protocol[V_co]):
    """Something that keys can be looked up in, at once."""

    @property
    def fault(self) -> str:
        """Why nothing can be looked up; empty if all is well."""

    def get(self, key: str) -> V_co | None:
        """Return the value of a key in lower case, or None."""


class TableProblem(msgspec.Struct, frozen=True):
    """What is wrong with a table file. ``line`` is 0 when it is the file itself.

    ``refused``: this version is not in force. Otherwise it is only a warning.
    ``in_force``: another version is, the one before.
    """

    path: str
    line: int
    error: str
    refused: bool = True
    in_force: bool = True

    def to_text(self) -> str:
        """Write it for a person: ``aliases:3: error: ...``."""
        where = f"{self.path}:{self.line}" if self.line else self.path
        return f"{where}: {'error' if self.refused else 'warning'}: {self.error}"

    def to_event(self, utc_us: int) -> TableRefused | Lifecycle:
        """Return the event that tells of it."""
        if not self.refused:
            return Lifecycle(utc_us, self.to_text(), "warning")
        return TableRefused(utc_us, self.path, self.line, self.error, self.in_force)


class LineError(Exception):
    """An entry cannot be understood. Raised by parsers, caught by ``TableFile``."""

    def __init__(self, line: int, error: str) -> None:
        super().__init__(error)
        self.line = line
        self.error = error


class Warned(msgspec.Struct, frozen=True):
    """Something in a line that is accepted but will not do what it seems to."""

    line: int
    error: str


class Parsed(msgspec.Struct, Generic[T], frozen=True):
    """A version of a table that is fit for use, with what to warn of."""

    entries: Mapping[str, T]
    warnings: tuple[Warned, ...] = ()
    longest_octets: int = 0
    total_octets: int = 0


Parse = Callable[[str, TableSettings], Parsed[T]]
"""Reads the text of a file; raises ``LineError``."""


class TableFile(Generic[T]):
    """A table kept in a file, held in memory; only ``reload`` reads the file.

    Args:
        path: the file.
        parse: understands its text.
        settings: how large it may be.
    """

    def __init__(self, path: str, parse: Parse[T], settings: TableSettings) -> None:
        self.path = path
        self._parse = parse
        self._settings = settings
        self._mark = FileMark()
        self._parsed: Parsed[T] = Parsed({})
        self._get = self._parsed.entries.get
        self._fault = f"table {path} has not been read"

    @property
    def fault(self) -> str:
        """Why no version is in force; empty if one is."""
        return self._fault

    @property
    def version(self) -> Parsed[T]:
        """The version in force."""
        return self._parsed

    def get(self, key: str) -> T | None:
        """Return the value of a key in lower case, or None."""
        return self._get(key)

    def is_changed(self) -> bool:
        """Whether the file on disk is another than the one last read."""
        return FileMark.of(self.path) != self._mark

    def reload(self) -> tuple[TableProblem, ...]:
        """Read the file; put it in force unless it has an error.

        It waits for the disk: call it from a thread. Returns what is wrong, warnings
        included; the version before stays if any of it is ``refused``.
        """
        self._mark = FileMark.of(self.path)
        try:
            text = read_file(self.path, self._settings)
            parsed = self._parse(text, self._settings)
        except LineError as error:
            return self._refuse(error.line, error.error)
        except (OSError, ValueError) as error:
            return self._refuse(0, _why(error))
        self._parsed, self._get, self._fault = parsed, parsed.entries.get, ""
        return tuple(
            TableProblem(self.path, warned.line, warned.error, refused=False)
            for warned in parsed.warnings
        )

    def stats_line(self) -> str:
        """Return what sendmail's ``newaliases`` prints of the version in force."""
        count = len(self._parsed.entries)
        return (
            f"{self.path}: {count} aliases, longest {self._parsed.longest_octets} "
            f"bytes, {self._parsed.total_octets} bytes total"
        )

    def _refuse(self, line: int, error: str) -> tuple[TableProblem, ...]:
        if self._fault:
            self._fault = f"table {self.path} cannot be used: {error}"
        return (TableProblem(self.path, line, error, in_force=not self._fault),)


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
