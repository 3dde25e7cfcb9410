"""Commands that are imported when they are called.

Importing takes most of the time of a short command. So a group knows each of its
commands by name, by one line of help, and by the place where it is defined, as an entry
point names it (``postroom.cli.show:show``); nothing else is loaded for the help of a
group, and of all commands only the one that is called.
"""

import atexit
import gc
import sys
from importlib import import_module
from typing import Any

import click


class LazyCommand(click.Command):
    """Stands in a group for a command that is defined elsewhere.

    Args:
        name: what it is called by.
        place: ``module:attribute`` of the command itself.
        summary: the first sentence of its help.
    """

    def __init__(self, name: str, place: str, summary: str) -> None:
        super().__init__(name, short_help=summary)
        self.place = place

    def load(self) -> click.Command:
        """Return the command itself."""
        module, _, attribute = self.place.partition(":")
        if module not in sys.modules:
            _import(module)
        command = getattr(sys.modules[module], attribute)
        assert isinstance(command, click.Command), self.place
        return command

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Begin a call: from here on it is the command itself that is called."""
        return self.load().make_context(info_name, args, parent, **extra)


def _import(module: str) -> None:
    """Import what stays to the end: the collector has nothing to find, now or then."""
    atexit.register(gc.freeze)
    gc.disable()
    try:
        import_module(module)
    finally:
        gc.enable()


def lazily(**commands: tuple[str, str]) -> dict[str, click.Command]:
    """Return the commands of a group: by name the place of each and its summary."""
    return {name: LazyCommand(name, *told) for name, told in commands.items()}
