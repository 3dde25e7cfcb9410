"""What is wrong with a configuration, in words for the person who wrote it."""

import re
from difflib import get_close_matches

import msgspec


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong: the key's path (``smtp.recipients_max``), and why.

    ``line`` is 0 where it is not known.
    """

    key: str
    reason: str
    line: int = 0


class ConfigError(Exception):
    """A configuration that cannot be used; the text has one line per problem."""

    def __init__(self, path: str, problems: list[Problem]) -> None:
        self.path = path
        self.problems = tuple(problems)
        super().__init__("\n".join(_line_of_text(path, one) for one in problems))


def nearest(word: str, known: list[str]) -> str:
    """Return a hint at the known key that was probably meant."""
    found = get_close_matches(word.replace("-", "_").lower(), known, n=1, cutoff=0.6)
    if found:
        return f'did you mean "{found[0]}"?'
    return f"known here: {', '.join(sorted(known))}" if known else ""


def line_of(text: str, keys: tuple[str | int, ...]) -> int:
    """Find the line that sets a key; a good guess, since TOML readers tell no lines.

    Args:
        text: the file.
        keys: the path: names, and indexes into arrays of tables.
    """
    names = [str(key) for key in keys if isinstance(key, str)]
    index = next((key for key in keys if isinstance(key, int)), 0)
    section: list[str] = []
    counted: dict[str, int] = {}
    fallback = 0
    for number, line in enumerate(text.splitlines(), 1):
        if head := _HEAD.match(line):
            section = [part.strip(" \"'") for part in head[2].split(".")]
            if head[1] == "[[":
                counted[head[2]] = counted.get(head[2], -1) + 1
            if (
                section == names[: len(section)]
                and counted.get(head[2], index) == index
            ):
                fallback = number
                if section == names:
                    return number
        elif (key := _KEY.match(line)) and counted.get(
            ".".join(section), index
        ) == index:
            path = section + [part.strip(" \"'") for part in key[1].split(".")]
            if path == names[: len(path)]:
                return number
    return fallback


_HEAD = re.compile(r"\s*(\[\[?)\s*([^\]]+?)\s*\]")
_KEY = re.compile(r"\s*([A-Za-z0-9_.\"' -]+?)\s*=")


def _line_of_text(path: str, one: Problem) -> str:
    place = f"{path}:{one.line}" if one.line else path
    text = f"{place}: {one.key}: {one.reason}" if one.key else f"{place}: {one.reason}"
    # A value is shown as it was written; it must not write to the terminal.
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
