"""Loads the site's policy module afresh for each generation of the configuration.

Every load makes a module of a new name (``postroom_site_3``), straight from the source:
sessions of the old generation keep the old one, and no stale byte code is ever used.
A site whose policy has several files makes it a directory with ``__init__.py`` and
imports relatively (``from .traps import TRAPS``); those files are fresh as well.

A module that cannot be loaded raises ``SiteError`` with file and line; nothing of it
stays behind, and what was in force before stays in force.
"""

import sys
import traceback
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import FileFinder, ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import msgspec

from postroom.policy.hooks import MARK, Hook, declarations

_PREFIX = "postroom_site_"


class SiteError(Exception):
    """The policy module cannot be used.

    ``line`` is 0 where no line can be named; the text of the error is whole:
    ``"/etc/postroom/policy.py:12: NameError: ..."``.
    """

    def __init__(self, path: str, line: int, reason: str) -> None:
        place = f"{path}:{line}" if line else path
        super().__init__(f"{place}: {reason}")
        self.path = path
        self.line = line
        self.reason = reason


class Site(msgspec.Struct, frozen=True):
    """One loaded policy module: its hooks in the order they are written."""

    hooks: tuple[Hook, ...]
    module: str

    def forget(self) -> None:
        """Drop the module's name once no session of its generation is left."""
        for name in list(sys.modules):
            if name == self.module or name.startswith(f"{self.module}."):
                del sys.modules[name]


def load_site(path: str, generation: int) -> Site:
    """Run the module at ``path`` and gather its hooks.

    Args:
        path: a ``.py`` file, or a directory with an ``__init__.py``.
        generation: a number that was not used before in this process.

    Raises:
        SiteError: it cannot be read or run, or declares a hook that cannot work.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "__init__.py"
    _install_finder()
    name = f"{_PREFIX}{generation}"
    try:
        with declarations() as declared:
            module = _run(name, file)
        return Site(_hooks_of(module, declared, str(file)), name)
    except SiteError:
        Site((), name).forget()
        raise


def _run(name: str, file: Path) -> ModuleType:
    places = [str(file.parent)] if file.name == "__init__.py" else None
    spec = spec_from_file_location(
        name,
        file,
        loader=_FreshLoader(name, str(file)),
        submodule_search_locations=places,
    )
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except OSError as error:
        if error.filename and Path(str(error.filename)) == file:
            reason = f"cannot be read: {error.strerror}"
            raise SiteError(str(file), 0, reason) from error
        raise _site_error(file, error) from error
    except (Exception, SystemExit) as error:
        raise _site_error(file, error) from error
    return module


def _site_error(file: Path, error: BaseException) -> SiteError:
    """Find the line of the site's own files that is to blame."""
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):
        reason = f"{type(error).__name__}: {error.msg}"
        return SiteError(error.filename or str(file), error.lineno or 0, reason)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if Path(frame.filename).parent.is_relative_to(file.parent):
            return SiteError(frame.filename, frame.lineno or 0, reason)
    return SiteError(str(file), 0, reason)


def _hooks_of(
    module: ModuleType, declared: Sequence[Hook], file: str
) -> tuple[Hook, ...]:
    """Gather the hooks the site wrote, and those it imported from other packages."""
    own = module.__name__
    hooks = [one for one in declared if one.function.__module__.startswith(own)]
    for value in list(vars(module).values()):
        # Not getattr: a module may hold objects that answer to any name.
        marked = getattr(value, "__dict__", {}).get(MARK, ())
        hooks += (one for one in marked if one not in hooks)
    by_name: dict[str, Hook] = {}
    for one in hooks:
        if by_name.setdefault(one.name, one).function is not one.function:
            # The later of two definitions would hide the earlier one in silence.
            code = getattr(one.function, "__code__", None)  # an object has none
            line = code.co_firstlineno if code else 0
            raise SiteError(
                file, line, f'two hooks are called "{one.name}": rename one'
            )
    return tuple(hooks)


class _FreshLoader(SourceFileLoader):
    """Reads the source each time: byte code caches notice a change only by seconds."""

    def path_stats(self, path: str) -> dict[str, int]:
        raise OSError("no byte code is kept")


class _SiteFinder(MetaPathFinder):
    """Finds the files of a policy directory and loads them fresh."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        if not fullname.startswith(_PREFIX) or not path:
            return None
        return FileFinder(path[0], (_FreshLoader, [".py"])).find_spec(fullname)


def _install_finder() -> None:
    if not any(isinstance(finder, _SiteFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _SiteFinder())
