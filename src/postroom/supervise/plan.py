"""What the supervisor needs of a configuration, and what of it can never change."""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from postroom.admin.settings import ProcessSettings
from postroom.config.load import load, parse
from postroom.config.problems import ConfigError
from postroom.config.settings import Config
from postroom.limits.shared import SLOTS, slots_for
from postroom.mail.units import Duration
from postroom.net.settings import TlsSettings
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
        if not self.port:  # a Unix socket's path
            return self.ip
        ip = f"[{self.ip}]" if ":" in self.ip else self.ip
        return f"{ip}:{self.port}"


class Plan(msgspec.Struct, frozen=True):
    """One configuration as the supervisor sees it.

    ``config_text`` is the file's text as it was read; ``workers`` how many to start;
    ``history_directory`` is empty where the history is within the spool;
    ``pam_service`` is what the root helper asks, empty for no helper; ``files_max``
    how many files one worker may come to have open; ``counter_slots`` for how many
    keys the shared counters have room.
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
    drop_directory: str = ""
    mailbox_directory: str = ""
    history_directory: str = ""
    pam_service: str = ""
    pam_timeout: Duration = Duration(0)
    tls: TlsSettings = TlsSettings()
    files_max: int = 0
    counter_slots: int = SLOTS


LoadPlan = Callable[[], Plan]
"""Reads the configuration anew; raises one of ``PLAN_ERRORS`` if it is wrong."""

FILES_BESIDE = 200
"""Shards, bodies, mailboxes, name servers, tables, sockets to listen on."""

_KEYS_PER_SESSION = 3
"""A session of SMTP is counted for its address, its /64 and its /48."""
_COUNTED_BESIDE = 1000
"""Destinations and their like."""

_FILES_PER_READER = 5

PLAN_ERRORS = (ConfigError, ValueError, OSError)


def changed_in_place(old: Plan, new: Plan) -> list[str]:
    """Name, for people, what differs and needs a restart."""
    parts = {
        "the host name": (old.hostname, new.hostname),
        "the spool directory": (old.spool_directory, new.spool_directory),
        "the run directory": (old.run_directory, new.run_directory),
        "the drop directory": (old.drop_directory, new.drop_directory),
        "the number of workers": (old.workers, new.workers),
        "the users and groups": (_identity(old), _identity(new)),
        "the log": (old.log, new.log),
        "the PAM service": (old.pam_service, new.pam_service),
        "the listening addresses": (_addresses(old), _addresses(new)),
    }
    return [name for name, (before, after) in parts.items() if before != after]


def _identity(plan: Plan) -> tuple[str, str, str]:
    process = plan.process
    return process.user, process.group, process.operator_group


def _addresses(plan: Plan) -> set[tuple[str, str, str]]:
    return {(one.service, one.name, one.address) for one in plan.listens}


def load_plan(path: str) -> Plan:
    """Read a configuration file as the supervisor sees it.

    Raises:
        ConfigError: the file cannot be read or is wrong; the text says where.
    """
    load(path)  # its errors are the best; then the very text that is handed on
    text = Path(path).read_text(encoding="utf-8")
    config = parse(text, path)
    process = config.process
    cores = len(os.sched_getaffinity(0))
    return Plan(
        config_path=str(Path(path).absolute()),
        config_text=text,
        hostname=config.hostname,
        spool_directory=config.spool.directory,
        run_directory=config.run_directory,
        workers=cores if process.workers is None else process.workers,
        listens=tuple(
            Listen(one.service, one.label, one.ip, one.port) for one in config.listen
        ),
        process=process,
        log=config.log,
        drop_directory=config.drop_directory,
        mailbox_directory=config.mailbox.directory,
        history_directory=config.history.enabled * config.history.directory,
        pam_service=config.auth.pam_service if config.auth.backend == "pam" else "",
        pam_timeout=config.auth.pam_timeout,
        tls=config.tls,
        files_max=_files_max(config),
        counter_slots=slots_for(_counted_max(config)),
    )


def _counted_max(config: Config) -> int:
    """Say how many counts there are when all sessions are of different networks.

    All of them may be one worker's.
    """
    return (
        _KEYS_PER_SESSION * config.receive.sessions_max
        + config.pop3.sessions_max
        + _COUNTED_BESIDE
    )


def _files_max(config: Config) -> int:
    """Say how many files are open when one worker has all sessions.

    Beside its connection each can have a large body open, as an attempt can; one of
    POP3 its folder, its lock and the message that is read.
    """
    talking = config.receive.sessions_max + config.submission.sessions_max
    files = 2 * (talking + config.deliver.attempts_max) + FILES_BESIDE
    if any(one.service == "pop3" for one in config.listen):
        files += _FILES_PER_READER * config.pop3.sessions_max
    return files
