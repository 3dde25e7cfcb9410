"""How values with units, and all others, are read from TOML and written to it."""

from typing import Any

import msgspec

from postroom.mail.units import Duration, Size


def decode_unit(wanted: type, value: object) -> object:
    """Turn a text into a ``Duration`` or ``Size``, for ``msgspec.convert``.

    Raises:
        ValueError: it has no unit; the message says what is expected.
    """
    if wanted is Duration:
        if not isinstance(value, str):
            raise ValueError(f'{value!r} has no unit: write "30s", "1h30m" or "5d"')
        return Duration.from_text(value)
    if wanted is Size:
        if not isinstance(value, str):
            raise ValueError(f'{value!r} has no unit: write "64KiB", "50MiB" or "512B"')
        return Size.from_text(value)
    raise NotImplementedError(wanted)


def toml_value(value: Any) -> str:
    """Write one value as TOML."""
    match value:
        case bool():
            return "true" if value else "false"
        case Duration() | Size():
            return toml_text(value.to_text())
        case int() | float():
            return str(value)
        case str():
            return toml_text(value)
        case list() | tuple():
            return "[" + ", ".join(toml_value(item) for item in value) + "]"
        case dict():
            pairs = (f"{toml_key(k)} = {toml_value(v)}" for k, v in value.items())
            return "{" + ", ".join(pairs) + "}"
        case msgspec.Struct():
            return toml_value(msgspec.structs.asdict(value))
        case _:
            raise TypeError(f"{value!r} has no place in TOML")


def toml_text(text: str) -> str:
    """Write a basic string: what a terminal could not show is escaped."""
    out = []
    for char in text:
        if char in '"\\':
            out.append("\\" + char)
        elif not char.isprintable():
            out.append(f"\\U{ord(char):08x}")
        else:
            out.append(char)
    return '"' + "".join(out) + '"'


def toml_key(key: str) -> str:
    """Write a key, in quotes where it needs them."""
    bare = key.isascii() and key.replace("_", "a").replace("-", "a").isalnum()
    return key if bare else toml_text(key)
