"""Text tables as sendmail's: a key, white space, a value; ``#`` begins a comment. Pure.

Keys are compared in lower case. An entry without a value, or a key given twice, makes
the whole file refused.
"""

from collections.abc import Callable

from postroom.tables.settings import TableSettings
from postroom.tables.table import LineError, Parse, Parsed, TableFile

Check = Callable[[str, str], object]
"""Looks at a key and its value; raises ``ValueError`` if they make no sense."""


def text_table(
    path: str, settings: TableSettings, check: Check | None = None
) -> TableFile[str]:
    """Return the table of a text file, not yet read: call ``reload``.

    ``check`` may refuse entries, and with them the version they stand in.
    """
    return TableFile(path, text_parser(check), settings)


def text_parser(check: Check | None = None) -> Parse[str]:
    """Return what reads a text table."""

    def parse(text: str, settings: TableSettings) -> Parsed[str]:
        entries: dict[str, str] = {}
        octets = [0]
        for number, line in enumerate(text.split("\n"), 1):
            entry = _entry(number, line, settings)
            if entry is None:
                continue
            key, value = entry
            if key in entries:
                raise LineError(number, f'"{key}" is there twice')
            _check(check, number, key, value)
            entries[key] = value
            octets.append(len(value))
            if len(entries) > settings.entries_max:
                raise LineError(number, "too many entries (setting entries_max)")
        return Parsed(entries, (), max(octets), sum(octets))

    return parse


def _entry(number: int, line: str, settings: TableSettings) -> tuple[str, str] | None:
    if len(line) > settings.line_octets_max:
        raise LineError(number, "the line is too long (setting line_octets_max)")
    stripped = line.strip()
    if not stripped or stripped.startswith("#"):
        return None
    words = stripped.split(None, 1)
    if len(words) < 2:
        raise LineError(number, f'"{words[0]}" has no value: write "key  value"')
    return words[0].lower(), words[1]


def _check(check: Check | None, number: int, key: str, value: str) -> None:
    if check is None:
        return
    try:
        check(key, value)
    except ValueError as error:
        raise LineError(number, str(error)) from None
