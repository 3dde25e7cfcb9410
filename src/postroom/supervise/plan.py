"""What the supervisor needs of a configuration, and what of it can never change."""

from collections.abc import Callable

import msgspec

from postroom.admin.settings import ProcessSettings
from postroom.observe.settings import LogSettings


class Listen(msgspec.Struct, frozen=True):
    """An address to listen on. ``name`` is the listener's in the configuration."""

    service: str
    name: str
    ip: str
    port: int

    @property
    def address(self) -> str:
        """The address as people write it: ``127.0.0.1:25``, ``[::1]:25``."""
        ip = f"[{self.ip}]" if ":" in self.ip else self.ip
        return f"{ip}:{self.port}"


class Plan(msgspec.Struct, frozen=True):
    """One configuration as the supervisor sees it.

    ``config_text`` is the file's text as it was read; ``workers`` how many to start.
    """

    config_path: str
    config_text: str
    hostname: str
    spool_directory: str
    run_directory: str
    workers: int
    listens: tuple[Listen, ...]
    process: ProcessSettings = ProcessSettings()
    log: LogSettings = LogSettings()


LoadPlan = Callable[[], Plan]
"""Reads the configuration anew; raises ``ValueError`` or ``OSError`` if it is wrong."""


def changed_in_place(old: Plan, new: Plan) -> list[str]:
    """Name, for people, what differs and needs a restart."""
    parts = {
        "the host name": (old.hostname, new.hostname),
        "the spool directory": (old.spool_directory, new.spool_directory),
        "the run directory": (old.run_directory, new.run_directory),
        "the number of workers": (old.workers, new.workers),
        "the users and groups": (_identity(old), _identity(new)),
        "the log": (old.log, new.log),
        "the listening addresses": (_addresses(old), _addresses(new)),
    }
    return [name for name, (before, after) in parts.items() if before != after]


def _identity(plan: Plan) -> tuple[str, str, str]:
    process = plan.process
    return process.user, process.group, process.operator_group


def _addresses(plan: Plan) -> set[tuple[str, str, str]]:
    return {(one.service, one.name, one.address) for one in plan.listens}
