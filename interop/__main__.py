"""Runs the trials: ``make interop``, or ``python -m interop --only curl,Postfix``.

Programs come from Debian's packages, unpacked, and one from npm. All of them and our
servers run in a network of their own (a namespace that has nothing but loopback), so
they have the ports that such programs expect, and nothing leaves the machine. Ends with
1 if a case failed, with 69 if nothing could be tried.
"""

import argparse
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.packages import BenchError, unpack
from rich.console import Console

from interop.clients import CLIENTS, PACKAGES, set_node_path
from interop.dovecot import STORES
from interop.inbound import run_clients
from interop.jobs import HOST, Keys
from interop.keys import Authority, make_token
from interop.ours import Ours, receiving
from interop.outbound import FROM_PEER, TO_PEER, back, front, run_peer
from interop.peers import BACK, BACK_IP, FRONT, FRONT_IP, PEERS, Peer, Place
from interop.rows import Mark, Row, counts, matrix, tell, write_report
from interop.stores import TO_STORE, run_store
from interop.view import View
from postroom.testing.background import Background
from postroom.testing.host import HostError
from postroom.testing.nameserver import NameServer
from postroom.testing.zone import Zone

EX_UNAVAILABLE = 69
NODEMAILER = "nodemailer@7.0.10"
INSIDE = "POSTROOM_INTEROP_INSIDE"
HOME_IP = "127.0.8.1"
_IFF_UP, _SIOCGIFFLAGS, _SIOCSIFFLAGS = 1, 0x8913, 0x8914


def main() -> int:
    """Run what was asked for; returns the exit status."""
    given = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(width=None if sys.stdout.isatty() else 160)
    folder: Path = given.directory.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    if os.geteuid() != 0:
        console.print("interop: only root can try these programs unpacked: run as root")
        return EX_UNAVAILABLE
    try:
        if INSIDE not in os.environ:
            return _outside(console, folder)
        with _alone_in(folder):
            return _Run(console, folder, given).all()
    except (BenchError, HostError) as error:
        console.print(f"interop cannot go on: {error}", style="red", markup=False)
        return EX_UNAVAILABLE
    except KeyboardInterrupt:
        console.print("Stopped.")
        return 130


def _outside(console: Console, folder: Path) -> int:
    """Fetch what is needed, then go on in a network of our own."""
    unpack(folder / "clients", PACKAGES, lacking_only=True)
    for peer in (*PEERS, *STORES):
        unpack(folder / "peers" / peer.key, peer.packages)
    _fetch_nodemailer(console, folder / "npm")
    os.environ[INSIDE] = "1"
    words = ["unshare", "--net", sys.executable, "-m", "interop", *sys.argv[1:]]
    os.execvp(words[0], words)


def _fetch_nodemailer(console: Console, folder: Path) -> None:
    package = folder / "node_modules" / "nodemailer"
    if package.exists():
        return
    npm = shutil.which("npm")
    if npm is None:
        console.print("no npm, which fetches nodemailer: its cases are skipped")
        return
    folder.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--silent", "--prefix", folder, NODEMAILER]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        why = (done.stderr or done.stdout).strip()[-300:]
        console.print(f"npm cannot fetch {NODEMAILER}: {why}", markup=False)


class _Run:
    """One run."""

    def __init__(
        self, console: Console, folder: Path, given: argparse.Namespace
    ) -> None:
        self._console = console
        self._folder = folder
        self._only: list[str] = given.only
        self._rows: list[Row] = []
        self._versions: list[str] = []
        self._begin = time.monotonic()

    def all(self) -> int:
        """Try everything, print the tables, write the report."""
        _raise_loopback()
        authority = Authority(self._folder / "keys")
        with Background() as background:
            zone = Zone()
            server = NameServer(zone, "127.0.0.1:53")
            background.run(server.start())
            try:
                self._clients(authority)
                self._peers(authority, zone)
            finally:
                background.run(server.aclose())
        return self._conclude()

    def _clients(self, authority: Authority) -> None:
        root = self._folder / "clients" / "root"
        view = View(self._folder / "view", root, {HOST: HOME_IP}, "client.test")
        names = [client.name for client in CLIENTS]
        if self._only and not set(names) & set(self._only):
            return
        set_node_path(self._folder / "npm" / "node_modules")
        keys = authority.folder
        token = make_token(keys, f"betty@{HOST}", int(time.clock_gettime(0)))
        pair = authority.certify(HOST)
        own = authority.certify(f"betty@{HOST}")
        shutil.rmtree(self._folder / "home", ignore_errors=True)
        ours = receiving(self._folder / "home", HOME_IP, pair, keys)
        try:
            ours.start()
            self._note_versions(view)
            given = Keys(authority.ca, own[0], own[1], token)
            for row in run_clients(
                ours, view, given, self._folder / "jobs", self._only
            ):
                self._add(row)
        finally:
            ours.stop()

    def _peers(self, authority: Authority, zone: Zone) -> None:
        servers = (*PEERS, *STORES)
        chosen = [one for one in servers if not self._only or one.name in self._only]
        if not chosen:
            return
        names = {FRONT: FRONT_IP, BACK: BACK_IP}
        for number, one in enumerate(servers):
            names[f"mx.{one.key}.test"] = f"127.0.9.{number + 1}"
        for name, ip in names.items():
            zone.add(f"{name} A {ip}")
        keys = [one.key for one in PEERS]
        for name in ("front", "back"):
            shutil.rmtree(self._folder / name, ignore_errors=True)
        first = front(self._folder / "front", authority)
        second = back(self._folder / "back", authority, keys)
        try:
            first.start()
            second.start()
            for one in chosen:
                self._peer(one, authority, names, first, second)
        finally:
            first.stop()
            second.stop()

    def _peer(
        self,
        kind: type[Peer],
        authority: Authority,
        names: dict[str, str],
        first: Ours,
        second: Ours,
    ) -> None:
        name = f"mx.{kind.key}.test"
        folder = self._folder / "peers" / kind.key
        view = View(folder / "view", folder / "root", names, name)
        certificate, key = authority.certify(name)
        peer = kind(Place(names[name], view, certificate, key, authority.ca))
        try:
            peer.start()
            self._note_version(peer.name, view, peer.version)
            letters = self._folder / "letters"
            if isinstance(peer, STORES):
                rows = run_store(peer, first, letters)
            else:
                rows = run_peer(peer, first, second, letters)
            for row in rows:
                self._add(row)
        except (BenchError, OSError) as error:
            why = f"it does not start: {error}; {peer.log()[-500:]}"
            groups = [TO_STORE] if isinstance(peer, STORES) else [TO_PEER, FROM_PEER]
            for group in groups:
                self._add(Row(group, peer.name, "start", Mark.FAILED, why))
        finally:
            peer.stop()

    def _note_versions(self, view: View) -> None:
        for client in CLIENTS:
            self._note_version(client.name, view, client.version)

    def _note_version(self, name: str, view: View, command: Sequence[str]) -> None:
        done = view.run(command)
        lines = done.stdout.decode(errors="replace").splitlines() or [""]
        self._versions.append(f"{name}: {lines[0]}")

    def _add(self, row: Row) -> None:
        self._rows.append(row)
        tell(self._console, row)

    def _conclude(self) -> int:
        say, took_s = self._console.print, time.monotonic() - self._begin
        for group in dict.fromkeys(row.group for row in self._rows):
            say(matrix(self._rows, group))
        failed = [row for row in self._rows if row.mark is Mark.FAILED]
        for row in failed:
            say(f"{row.peer}, {row.case}: {row.why}", style="red", markup=False)
        report = self._folder / "report.md"
        write_report(self._rows, self._versions, report)
        style = "red" if failed else "green"
        say(f"{counts(self._rows)}; {took_s:.0f} s. {report}", style=style)
        if not self._rows:
            say(f"Nothing was tried: there is no {', '.join(self._only)}.")
            return EX_UNAVAILABLE
        return 1 if failed else 0


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        asked = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, _SIOCGIFFLAGS, asked))[1]
        fcntl.ioctl(
            control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP)
        )


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BenchError(f"another run is at work in {folder}") from None
        yield


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m interop", description=__doc__)
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=[],
        help="some of: " + ", ".join(one.name for one in (*CLIENTS, *PEERS, *STORES)),
    )
    parser.add_argument("--directory", type=Path, default=Path(".interop"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
