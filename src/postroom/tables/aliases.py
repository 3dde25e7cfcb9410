"""The aliases file in sendmail's syntax (aliases(5)). Pure, but for ``alias_file``.

``name: target, target``; a line that begins with white space goes on with the entry
before it, as does one after a final backslash; ``#`` begins a comment line; names may
be quoted and are compared in lower case. A line that cannot be understood makes the
whole file refused. Targets that this system does not deliver to are warned of.
"""

from collections.abc import Iterator
from functools import partial
from unicodedata import normalize

import msgspec

from postroom.tables.settings import TableSettings
from postroom.tables.table import LineError, Parsed, TableFile, Warned
from postroom.tables.targets import DEV_NULL, INCLUDE, split_targets

Targets = tuple[str, ...]
"""What an alias stands for, as ``targets.split_targets`` gives it."""

WARNINGS_MAX = 100


class _Entry(msgspec.Struct):
    line: int
    text: str


def alias_file(
    path: str, settings: TableSettings, *, includes: bool = False
) -> TableFile[Targets]:
    """Return the table of an aliases file, not yet read: call ``reload``."""
    return TableFile(path, partial(parse_aliases, includes=includes), settings)


def parse_aliases(
    text: str, settings: TableSettings, *, includes: bool = False
) -> Parsed[Targets]:
    """Read an aliases file; ``includes`` says whether its lists will be read.

    Raises:
        LineError: a line cannot be understood, or there is too much of something.
    """
    entries: dict[str, Targets] = {}
    warnings: list[Warned] = []
    longest = total = count = 0
    for entry in _entries(text, settings):
        name, value = _split_entry(entry)
        try:
            targets = split_targets(value)
        except ValueError as error:
            raise LineError(entry.line, f"{name}: {error}") from None
        if not targets:
            raise LineError(entry.line, f'alias "{name}" has no value')
        count += len(targets)
        if count > settings.entries_max:
            raise LineError(entry.line, "too many targets (setting entries_max)")
        if name in entries:
            why = f'duplicate alias name "{name}": the first counts'
            warnings.append(Warned(entry.line, why))
        warnings += _useless(entry.line, name, targets, includes=includes)
        longest = max(longest, len(value.encode()))
        total += len(name.encode()) + len(value.encode())
        entries.setdefault(name, targets)
    return Parsed(entries, tuple(warnings[:WARNINGS_MAX]), longest, total)


def _entries(text: str, settings: TableSettings) -> Iterator[_Entry]:
    """Yield entries with their continuation lines joined, and where they begin."""
    line, parts, size, goes_on = 0, list[str](), 0, False
    for number, raw in enumerate(text.split("\n"), 1):
        physical = raw.rstrip("\r")
        starts_new = not goes_on and not physical.startswith((" ", "\t"))
        goes_on_before, goes_on = goes_on, physical.endswith("\\")
        if not physical.strip() or (physical.startswith("#") and not goes_on_before):
            goes_on = False
            continue
        if starts_new:
            if parts:
                yield _Entry(line, " ".join(parts))
            line, parts, size = number, [], 0
        elif not parts:
            raise LineError(number, "an entry cannot begin with white space")
        size += len(physical)
        if size > settings.line_octets_max:
            raise LineError(line, "the entry is too long (setting line_octets_max)")
        parts.append(physical.removesuffix("\\").strip())
    if parts:
        yield _Entry(line, " ".join(parts))


def _split_entry(entry: _Entry) -> tuple[str, str]:
    """Split ``name: value``; the colon is looked for outside quotes."""
    text = entry.text
    if text.startswith('"'):
        end = text.find('"', 1)
        name, rest = text[1:end], text[end + 1 :].lstrip()
        if end < 0 or not rest.startswith(":"):
            raise LineError(entry.line, 'quoted name is not followed by ":"')
        value = rest[1:]
    else:
        name, colon, value = text.partition(":")
        name = name.strip()
        if not colon:
            raise LineError(entry.line, f'no ":" after "{name[:60]}"')
    if not name or any(char.isspace() for char in name):
        raise LineError(entry.line, f'"{name[:60]}" is no alias name')
    if "@" in name:
        raise LineError(
            entry.line, f'"{name[:60]}": cannot alias non-local names; leave out "@..."'
        )
    if not name.isascii():
        name = normalize("NFC", name)  # as local parts are looked up
    return name.lower(), value.strip()


def _useless(
    line: int, name: str, targets: Targets, *, includes: bool
) -> Iterator[Warned]:
    """Tell of targets that will get nothing."""
    for target in targets:
        if target[0] in "|/" and target != DEV_NULL:
            what = "programs" if target[0] == "|" else "files"
            why = f"{name}: mail to {what} is not supported: {target} will bounce"
            yield Warned(line, why)
        elif target.startswith(INCLUDE) and not includes:
            why = f"{name}: {target} is read only if the setting includes is on"
            yield Warned(line, why)
