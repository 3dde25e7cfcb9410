"""Reads the configuration: TOML into one frozen ``Config``.

Everything that is wrong is gathered and told at once, each with file, line, key path
and what was expected; an unknown key names the nearest known one. Nothing is guessed:
a file with any problem is refused whole with ``ConfigError``.
"""

import os
import re
import socket
import tomllib
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec

from postroom.config.bounds import out_of_bounds
from postroom.config.problems import ConfigError, Problem, line_of, nearest
from postroom.config.settings import DEFAULT_PATH, NO_PATHS, PATHS, Config
from postroom.config.units import decode_unit, toml_key, toml_value
from postroom.dns.names import to_ascii
from postroom.mail.units import Duration, Size

FILE_OCTETS_MAX = 1 << 20
NUMBER_MAX = (1 << 53) - 1

_Keys = tuple[str | int, ...]
_Found = list[tuple[_Keys, str]]


def default_path() -> str:
    """Return the configuration file that commands use if none is named."""
    return os.environ.get("POSTROOM_CONFIG") or DEFAULT_PATH


def load(path: str) -> Config:
    """Read a configuration file.

    Raises:
        ConfigError: it cannot be read, is no TOML, or has settings that cannot be.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_OCTETS_MAX + 1)
        if len(data) > FILE_OCTETS_MAX:
            raise ConfigError(path, [Problem("", "is larger than 1 MiB")])
        text = data.decode()
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
        if isinstance(error, FileNotFoundError):
            reason += ": write one (docs/install.md), or name yours with --config"
        raise ConfigError(path, [Problem("", reason)]) from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(path, [Problem("", "is not UTF-8", line)]) from None
    return parse(text, path)


def parse(text: str, path: str) -> Config:
    """Read a configuration from its text; ``path`` is for errors and relative paths.

    Raises:
        ConfigError: it is no TOML, or has settings that cannot be.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(path, [_syntax_problem(str(error), text)]) from None
    except RecursionError:
        reason = "is no TOML that can be read: it is nested too deeply"
        raise ConfigError(path, [Problem("", reason)]) from None
    found: _Found = []
    _check(values, Config, (), found)
    if found:
        raise ConfigError(path, [_problem(keys, why, text) for keys, why in found])
    config = msgspec.convert(values, Config, dec_hook=decode_unit)
    if wrong := out_of_bounds(config):
        said = [_problem(tuple(keys.split(".")), why, text) for keys, why in wrong]
        raise ConfigError(path, said)
    if not config.hostname:
        config = msgspec.structs.replace(config, hostname=socket.gethostname())
    name = to_ascii(config.hostname)
    if name is None:
        reason = f"is {toml_shown(config.hostname)}, which is no name of a host"
        raise ConfigError(path, [_problem(("hostname",), reason, text)])
    if not config.hostname.isascii():
        config = msgspec.structs.replace(config, hostname=name)
    return _with_paths(config, Path(path).absolute().parent)


def _problem(keys: _Keys, reason: str, text: str) -> Problem:
    dotted = ""
    for key in keys:
        dotted += f"[{key}]" if isinstance(key, int) else f".{toml_key(key)}"
    return Problem(dotted.lstrip("."), reason, line_of(text, keys))


def _syntax_problem(message: str, text: str) -> Problem:
    match = re.search(r" \(at line (\d+), column (\d+)\)", message)
    if not match:  # "(at end of document)"
        return Problem("", f"is no TOML: {message}", len(text.splitlines()))
    reason = f"is no TOML: {message[: match.start()]}, at column {match[2]}"
    return Problem("", reason, int(match[1]))


def _check(value: object, wanted: Any, keys: _Keys, found: _Found) -> None:
    """Compare a value with the type it should have, and note every problem."""
    if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
        return _check_table(value, wanted, keys, found)
    args = get_args(wanted)
    is_array = get_origin(wanted) is tuple and isinstance(value, list)
    if is_array and isinstance(args[0], type) and issubclass(args[0], msgspec.Struct):
        assert isinstance(value, list)
        for index, item in enumerate(value):
            _check(item, args[0], (*keys, index), found)
        return
    try:
        msgspec.convert(value, wanted, dec_hook=decode_unit)
    except msgspec.ValidationError as error:
        found.append((keys, _wrong(value, wanted, str(error))))
        return
    has_bounds = get_origin(wanted) is Annotated  # its own, which it has kept
    if isinstance(value, int) and value < 0 and not has_bounds:
        found.append((keys, f"is {value}, but cannot be below 0"))
    if isinstance(value, int) and value > NUMBER_MAX:
        found.append((keys, f"is {toml_shown(value)}, which is too large"))
    if _has_nul(value):
        found.append((keys, "has a NUL in it"))


def _has_nul(value: object) -> bool:
    match value:
        case str():
            return "\0" in value
        case list():
            return any(map(_has_nul, value))
        case dict():
            return any(map(_has_nul, (*value, *value.values())))
    return False


def _check_table(
    value: object, wanted: type[msgspec.Struct], keys: _Keys, found: _Found
) -> None:
    if not isinstance(value, dict):
        found.append((keys, f"is {toml_shown(value)}, but has to be a table"))
        return
    types, before = get_type_hints(wanted, include_extras=True), len(found)
    for key, item in value.items():
        if key in wanted.__struct_fields__:
            _check(item, types[key], (*keys, key), found)
        else:
            hint = nearest(key, list(wanted.__struct_fields__))
            found.append(((*keys, key), f"there is no such setting; {hint}"))
    if len(found) == before:  # each fits by itself: do they fit together?
        try:
            msgspec.convert(value, wanted, dec_hook=decode_unit)
        except msgspec.ValidationError as error:
            found.append((keys, _plain(str(error))))


def _wrong(value: object, wanted: Any, error: str) -> str:
    if wanted in (Duration, Size):
        return _plain(error)
    return f"is {toml_shown(value)}, but has to be {kind_of(wanted)}"


def _plain(error: str) -> str:
    """Take msgspec's own place off a message: ours is better."""
    missing = re.match(r"Object missing required field `(\w+)`", error)
    if missing:
        return f'"{missing[1]}" is missing'
    return re.sub(r" - at `\$[^`]*`$", "", error)


def toml_shown(value: object) -> str:
    """Write a value as it stands in the file, shortened."""
    try:
        text = toml_value(value)
    except TypeError:  # dates and times
        text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def kind_of(wanted: Any) -> str:
    """Say in words what a type allows."""
    origin, args = get_origin(wanted), get_args(wanted)
    if origin is Literal:
        return "one of " + ", ".join(toml_value(arg) for arg in args)
    if origin in (Union, UnionType):
        return " or ".join(kind_of(arg) for arg in args if arg is not NoneType)
    if origin is tuple:
        return f"a list of this: {kind_of(args[0])}"
    if origin is dict:
        return f"a table of this: {kind_of(args[1])}"
    if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
        return "a table"
    return _KINDS[wanted]


_KINDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text in quotes",
    Duration: 'a duration such as "30s", "1h30m" or "5d"',
    Size: 'a size such as "64KiB" or "50MiB"',
}


def _with_paths(config: Config, base: Path) -> Config:
    """Make every path absolute."""
    for keys in PATHS:
        config = _with_path(config, keys, base)
    return config


S = TypeVar("S", bound=msgspec.Struct)


def _with_path(struct: S, keys: tuple[str, ...], base: Path) -> S:
    value = getattr(struct, keys[0])
    new: object
    if isinstance(value, tuple):
        new = tuple(_with_path(one, keys[1:], base) for one in value)
    elif len(keys) > 1:
        new = _with_path(value, keys[1:], base)
    else:
        new = value if value in NO_PATHS else str(base / value)
    return msgspec.structs.replace(struct, **{keys[0]: new})
