"""A whole mail host in a directory: the real server, its commands, its log.

For tests of the whole system and for the demo. The server runs as a process of its
own, as the real command would start it, and is ended by its own id. Workers never run
as root: started by root they run as ``nobody``, who then owns the directory. Where
``nobody`` cannot reach this Python (a checkout in a private directory), the server
runs in a user namespace of its own, in which there is no root.
"""

import os
import pwd
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

START_S_MAX = 30.0
STOP_S_MAX = 40.0
_POLL_S = 0.02
UNPRIVILEGED = "nobody"
_NAMESPACE = ("unshare", "--user")


class HostError(Exception):
    """The host cannot be run; the message says why and what to do."""


class Host:
    """One host. Use it as a context manager, or call ``start`` and ``stop``.

    Args:
        directory: where all its files are; made if it does not exist.
        config: the configuration's text; relative paths in it are taken from
            ``directory``. ``process.user`` is added when root starts it.
        ports: addresses it is going to listen on, to be sure that they are free.
    """

    def __init__(
        self, directory: Path, config: str, ports: Sequence[tuple[str, int]] = ()
    ) -> None:
        self.directory = directory
        self.config_path = directory / "postroom.toml"
        self._config = config
        self._ports = tuple(ports)
        self._prefix: tuple[str, ...] = ()
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Host":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def log(self) -> str:
        """Everything in the log so far."""
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which its ``sendmail`` and ``postroom`` find it."""
        return {
            **os.environ,
            "POSTROOM_CONFIG": str(self.config_path),
            "POSTROOM_SUBMIT": str(self.directory / "run" / "submit.sock"),
            "POSTROOM_DROP": str(self.directory / "drop"),
            "PATH": f"{command('postroom').parent}:{os.environ.get('PATH', '')}",
        }

    def configure(self, config: str) -> None:
        """Take another configuration into use, from the next start on."""
        self._config = config

    def prepare(self) -> None:
        """Make the directory and write the configuration.

        Raises:
            HostError: root started it, and nobody else may run this Python.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        text = self._config
        if os.geteuid() == 0:
            why = _out_of_reach(self.directory)
            if not why:
                text = _with_user(text)
            elif _may_unshare():
                self._prefix = _NAMESPACE
            else:
                raise HostError(
                    f"root starts the servers as the user {UNPRIVILEGED}, who cannot "
                    f"run {sys.executable} or reach {self.directory} ({why}): work in "
                    "a directory that others can read, or run this as another user"
                )
        self.config_path.write_text(text)
        self.give_away()

    def give_away(self) -> None:
        """Let the workers own what root has made in the directory."""
        if os.geteuid() != 0 or self._prefix:
            return
        entry = pwd.getpwnam(UNPRIVILEGED)
        for path in [self.directory, *self.directory.rglob("*")]:
            if path.stat(follow_symlinks=False).st_uid == 0:
                os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)

    def start(self, *, takes_over: bool = False) -> None:
        """Start the server and wait until its workers are ready.

        With ``takes_over`` the addresses may be held by workers of a killed server.

        Raises:
            HostError: a port is taken, or it does not come up; the message says why.
        """
        self.prepare()
        for ip, port in () if takes_over else self._ports:
            check_free(ip, port)
        (self.directory / "errors").unlink(missing_ok=True)
        log_before = len(self.log)
        self.launch()
        self._wait_until_ready(log_before)

    def launch(
        self,
        environment: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        wrapper: Sequence[str | Path] = (),
    ) -> None:
        """Start the server of a host that is prepared, and wait for nothing.

        Args:
            environment: more of it.
            pass_fds: open files it gets.
            wrapper: a program with arguments that executes it.
        """
        with (self.directory / "errors").open("ab") as errors:
            self.process = subprocess.Popen(
                [*self._prefix, *wrapper, command("postroom"), "serve"],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                env={**self.environment, **(environment or {})},
                pass_fds=pass_fds,
            )

    def stop(self) -> int:
        """End the server as an administrator would; returns its exit status."""
        process, self.process = self.process, None
        if process is None:
            return 0
        process.terminate()
        try:
            return process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def run(
        self,
        *arguments: str | Path,
        text: bytes = b"",
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run one of our commands (``postroom``, ``sendmail``, ...) on this host."""
        name, *rest = arguments
        return subprocess.run(
            [*self._prefix, command(str(name)), *rest],
            input=text,
            capture_output=True,
            env={**self.environment, **(environment or {})},
            timeout=60,
            check=False,
        )

    def add_user(self, name: str, password: str) -> None:
        """Make an account, or set its password.

        Raises:
            HostError: it cannot be made.
        """
        self.prepare()
        users = self.directory / "users"
        verb = "password" if _has_user(users, name) else "add"
        done = self.run(
            *("postroom", "user", verb, name, "--users-file", users),
            "--password-stdin",
            text=password.encode() + b"\n",
        )
        if done.returncode:
            raise HostError(f"cannot make the account {name}: {done.stderr.decode()}")
        self.give_away()

    def _wait_until_ready(self, log_before: int) -> None:
        assert self.process is not None
        end = time.monotonic() + START_S_MAX
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise HostError(self._why(f"ended with {self.process.returncode}"))
            if self.log[log_before:].rstrip().endswith(": ready"):
                return
            if "]: ready\n" in self.log[log_before:]:
                return
            time.sleep(_POLL_S)
        self.stop()
        raise HostError(self._why(f"was not ready within {START_S_MAX:.0f} s"))

    def _why(self, what: str) -> str:
        errors = (self.directory / "errors").read_text(errors="replace")[-2000:]
        return f"the server in {self.directory} {what}:\n{errors}{self.log[-2000:]}"


def command(name: str) -> Path:
    """Return the path of one of our commands, as installed beside this Python."""
    return Path(sys.executable).parent / name


def login_of(uid: int) -> str:
    """Return the login name of a user, as the server sees it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid{uid}"


def check_free(ip: str, port: int) -> None:
    """Make sure that nobody listens on an address.

    Raises:
        HostError: somebody does, or it is not ours to use.
    """
    with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ip, port))
        except OSError as error:
            raise HostError(f"cannot listen on {ip}:{port}: {error.strerror}") from None


def _has_user(users: Path, name: str) -> bool:
    if not users.exists():
        return False
    return any(line.split()[:1] == [name] for line in users.read_text().splitlines())


def _with_user(config: str) -> str:
    line = f'user = "{UNPRIVILEGED}"'
    if "[process]" in config:
        return config.replace("[process]", f"[process]\n{line}")
    return f"{config}\n[process]\n{line}\n"


def _out_of_reach(directory: Path) -> str:
    """Say why ``nobody`` cannot run this Python in there; empty if it can."""
    entry = pwd.getpwnam(UNPRIVILEGED)
    trial = "import os, sys, postroom.app; os.stat(sys.argv[1])"
    try:
        done = subprocess.run(
            [sys.executable, "-c", trial, directory],
            user=entry.pw_uid,
            group=entry.pw_gid,
            extra_groups=(),
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        return str(error)
    return done.stderr.strip().rpartition("\n")[2] if done.returncode else ""


def _may_unshare() -> bool:
    try:
        done = subprocess.run([*_NAMESPACE, "true"], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0
