"""Runs unpacked programs as if they were installed.

Each process gets a view of the file system of its own (a mount namespace): the
unpacked packages lie over /usr, files of ours over /etc, and /var is a folder of its
own. Nothing outside the folder is changed, no user is made, and what a program starts
is ended with it.
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_USERS = (
    *("postfix:70001", "Debian-exim:70002", "opensmtpd:70003", "opensmtpq:70004"),
    *("smmta:70005", "smmsp:70006", "dovecot:70007", "dovenull:70008"),
)
_GROUPS = (*_USERS, "postdrop:70011")


def number_of(name: str, kind: str = "passwd") -> int:
    """Return the number that a user, or with "group" a group, has in a view."""
    known = dict(one.split(":") for one in _GROUPS)
    for line in Path("/etc", kind).read_text().splitlines():
        fields = line.split(":")
        known[fields[0]] = fields[2]
    return int(known[name])


class View:
    """A machine as one program sees it.

    Args:
        folder: what is its own; made afresh.
        root: where the packages are unpacked.
        hosts: names and addresses it knows; there is no name server.
        hostname: its own name.
    """

    def __init__(
        self, folder: Path, root: Path, hosts: Mapping[str, str], hostname: str
    ) -> None:
        self.folder = folder
        self.etc = folder / "etc"
        self.var = folder / "var"
        self._root = root
        self._hostname = hostname
        shutil.rmtree(folder, ignore_errors=True)
        self.etc.mkdir(parents=True)
        for name in ("spool", "lib", "log", "mail", "tmp", "cache", "empty"):
            (self.var / name).mkdir(parents=True)
        (self.var / "run").symlink_to("/run")
        (self.var / "tmp").chmod(0o1777)
        (self.var / "log").chmod(0o777)
        self._write_names(hosts)

    def _write_names(self, hosts: Mapping[str, str]) -> None:
        lines = ["127.0.0.1 localhost", *(f"{ip} {name}" for name, ip in hosts.items())]
        self.write("hosts", "\n".join(lines) + "\n")
        self.write("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n")
        self.write(
            "resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"
        )
        self.write("mailname", self._hostname + "\n")
        self.write("hostname", self._hostname + "\n")
        users = Path("/etc/passwd").read_text()
        known = {line.split(":")[0] for line in users.splitlines()}
        for user in _USERS:
            name, number = user.split(":")
            if name not in known:
                users += f"{name}:x:{number}:{number}::/var/empty:/bin/false\n"
        self.write("passwd", users)
        groups = Path("/etc/group").read_text()
        known = {line.split(":")[0] for line in groups.splitlines()}
        for group in _GROUPS:
            name, number = group.split(":")
            if name not in known:
                groups += f"{name}:x:{number}:\n"
        self.write("group", groups)

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        """Write a file of its /etc; returns where it lies for us."""
        path = self.etc / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def command(self, arguments: Sequence[str | Path]) -> list[str]:
        """Return the command that runs another one in the view."""
        usr, etc = self._root / "usr", f"{self.etc}:{self._root}/etc:/etc"
        if not (self._root / "etc").is_dir():
            etc = f"{self.etc}:/etc"
        script = " && ".join(
            (
                f"mount -t overlay overlay -o lowerdir={usr}:/usr /usr",
                f"mount -t overlay overlay -o lowerdir={etc} /etc",
                f"mount --bind {shlex.quote(str(self.var))} /var",
                "mount -t tmpfs tmpfs /run",
                f"hostname {self._hostname}",
                'exec "$@"',
            )
        )
        words = ["unshare", "--mount", "--uts", "sh", "-c", script, "sh"]
        return [*words, *map(str, arguments)]

    def start(
        self, arguments: Sequence[str | Path], environment: Mapping[str, str] = {}
    ) -> subprocess.Popen[bytes]:
        """Start a server in the view; what it prints goes to ``output``."""
        with (self.folder / "output").open("ab") as output:
            return subprocess.Popen(
                self.command(arguments),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    def run(
        self,
        arguments: Sequence[str | Path],
        *,
        stdin: bytes = b"",
        environment: Mapping[str, str] = {},
        s_max: float = 60.0,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program in the view to its end.

        Raises:
            subprocess.TimeoutExpired: it took too long, and was ended.
        """
        return subprocess.run(
            self.command(arguments),
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            timeout=s_max,
            check=False,
        )
