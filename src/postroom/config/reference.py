"""Writes the reference of all settings from the settings themselves.

``python -m postroom.config.reference docs/configuration.md`` renews the part of that
file after its marker. The meaning of a setting is the text that stands beneath it in
its ``settings.py``; reply codes are named in it.
"""

import ast
import inspect
import re
import sys
import textwrap
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import msgspec

from postroom.config.load import kind_of
from postroom.config.settings import Config, Listen
from postroom.config.units import toml_value

MARKER = "<!-- Below this line: written by python -m postroom.config.reference -->"


class Setting(msgspec.Struct, frozen=True):
    """One setting. ``default`` is in TOML, empty where there is none."""

    name: str
    kind: str
    default: str
    meaning: str


def reference() -> str:
    """Return the reference of every setting as Markdown."""
    parts = [_section("Top level", Config), _section("`[[listen]]`", Listen)]
    parts += [_section(head, kind) for head, kind in _sections(Config, "")]
    return "\n".join(parts)


def settings_of(struct: type[msgspec.Struct]) -> list[Setting]:
    """Return the settings of one section, without those that are sections."""
    types, meanings = get_type_hints(struct), _meanings(struct)
    return [
        Setting(
            field.name,
            kind_of(types[field.name]).partition(" such as")[0],
            _default(field),
            meanings.get(field.name, ""),
        )
        for field in msgspec.structs.fields(struct)
        if not _is_section(types[field.name])
    ]


def renewed(document: str) -> str:
    """Return a document with the part after the marker written anew.

    Raises:
        ValueError: it has no marker.
    """
    before, marker, _ = document.partition(MARKER)
    if not marker:
        raise ValueError(f"the document has no line {MARKER}")
    return f"{before}{MARKER}\n\n{reference()}"


def _sections(
    struct: type[msgspec.Struct], path: str
) -> list[tuple[str, type[msgspec.Struct]]]:
    found = []
    for name, kind in get_type_hints(struct).items():
        if _is_section(kind):
            head = f"`[{path}{name}]`"
            found += [(head, kind), *_sections(kind, f"{path}{name}.")]
        elif kind != tuple[Listen, ...]:  # which stands at the beginning
            found += [
                (f"`[[{path}{name}]]`", one)
                for one in get_args(kind)
                if get_origin(kind) is tuple and _is_section(one)
            ]
    return found


def _is_section(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _section(head: str, struct: type[msgspec.Struct]) -> str:
    intro = inspect.cleandoc(struct.__doc__ or "")
    rows = [
        f"| `{one.name}` | {_cell(one.default)} | {one.kind} | {_plain(one.meaning)} |"
        for one in settings_of(struct)
    ]
    table = ["| Setting | Default | Kind | Meaning |", "|---|---|---|---|", *rows]
    return "\n".join([f"### {head}", "", _markdown(intro), "", *table, ""])


def _cell(default: str) -> str:
    return f"`{default}`" if default else "-"


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.default_factory is not msgspec.NODEFAULT:
        return toml_value(field.default_factory())
    if field.default in (msgspec.NODEFAULT, None):
        return ""
    return toml_value(field.default)


def _plain(meaning: str) -> str:
    return _markdown(" ".join(meaning.split())).replace("|", "\\|")


def _markdown(text: str) -> str:
    return re.sub(r"``([^`]+)``", r"`\1`", text)


def _meanings(struct: type[msgspec.Struct]) -> dict[str, str]:
    """Find the text beneath each field in the source, base classes' first."""
    found: dict[str, str] = {}
    for kind in reversed(struct.__mro__):
        if kind is msgspec.Struct or not issubclass(kind, msgspec.Struct):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        assert isinstance(tree, ast.ClassDef)
        for field, after in zip(tree.body, tree.body[1:], strict=False):
            match field, after:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    found[name] = inspect.cleandoc(text)
                case _:
                    pass
    return found


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(renewed(file.read_text()))
