"""Writes a configuration as TOML: the effective whole, secrets masked."""

from typing import Any

import msgspec

from postroom.config.units import toml_key, toml_value

MASK = "********"

_SECRET_ENDS = ("password", "secret", "token")


def to_toml(config: msgspec.Struct, *, masked: bool = True) -> str:
    """Write every setting, defaults too; reading it back gives the same values.

    Args:
        config: the whole, or one section.
        masked: put asterisks where passwords and keys stand.
    """
    lines: list[str] = []
    _table(config, "", lines, masked)
    return "\n".join(lines).strip() + "\n"


def _table(struct: msgspec.Struct, path: str, lines: list[str], masked: bool) -> None:
    """Write plain settings first, then the tables below: TOML wants it so."""
    later: list[tuple[str, Any]] = []
    for name, value in msgspec.structs.asdict(struct).items():
        if value is None:
            continue  # TOML has no null; leaving it out says the same
        if isinstance(value, msgspec.Struct) or _is_array_of_tables(value):
            later.append((name, value))
        else:
            secret = masked and value and name.endswith(_SECRET_ENDS)
            lines.append(f"{toml_key(name)} = {toml_value(MASK if secret else value)}")
    for name, value in later:
        below = f"{path}.{toml_key(name)}" if path else toml_key(name)
        for item in value if isinstance(value, tuple) else (value,):
            head = f"[[{below}]]" if isinstance(value, tuple) else f"[{below}]"
            lines += ["", head]
            _table(item, below, lines, masked)


def _is_array_of_tables(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and bool(value)
        and all(isinstance(item, msgspec.Struct) for item in value)
    )
