"""Our hosts in the play: one that clients send to, one before and one behind a peer."""

import time
from collections.abc import Callable
from pathlib import Path

from interop.jobs import HOST, PASSWORD, USER
from interop.keys import AUDIENCE, ISSUER
from postroom.testing.host import Host, HostError

ARRIVAL_S_MAX = 30.0
_COMMON = """\
hostname = "{name}"
run_directory = "run"
drop_directory = "drop"
users_file = "users"

[process]
workers = 2
[spool]
directory = "spool"
reserve_octets = "1MiB"
[mailbox]
path = "mail/{{user}}"
[dns]
nameservers = ["127.0.0.1:53"]
timeout = "100ms"
tries = 1
[log]
to = "log"
sessions = true
[tls]
certificate = [{{ cert = "{certificate}", key = "{key}" }}]
{more}"""
_LISTEN = '[[listen]]\naddress = "{ip}:{port}"\nservice = "{service}"\ntls = "{tls}"\n'


class Ours:
    """One of our hosts, with its mailboxes.

    Args:
        folder: where it lies.
        name: its name.
        ip: where it listens, on the ports that such services have.
        pair: its certificate and key.
        sections: more of its configuration.
    """

    def __init__(
        self, folder: Path, name: str, ip: str, pair: tuple[Path, Path], sections: str
    ) -> None:
        self.name, self.ip = name, ip
        listen = "".join(
            _LISTEN.format(ip=ip, port=port, service=service, tls=tls)
            for port, service, tls in (
                (25, "smtp", "starttls"),
                (587, "submission", "starttls"),
                (465, "submission", "implicit"),
                (24, "lmtp", "starttls"),
            )
        )
        text = _COMMON.format(
            name=name, certificate=pair[0], key=pair[1], more=sections + listen
        )
        self.host = Host(folder, text)
        self._mail = folder / "mail"
        self._known: set[Path] = set()

    def add_user(self, name: str, password: str) -> None:
        """Make an account as its configuration says.

        Raises:
            HostError: it cannot be made.
        """
        self.host.prepare()
        command = ("postroom", "user", "add", name, "--password-stdin")
        done = self.host.run(*command, text=f"{password}\n".encode())
        if done.returncode:
            raise HostError(f"no account {name}: {done.stderr.decode()}")

    def start(self) -> None:
        """Start it."""
        self.host.start()

    def stop(self) -> None:
        """End it."""
        self.host.stop()

    def letter_with(self, token: str) -> bytes | None:
        """Return the letter with a token in it once it is in a mailbox.

        Each letter is found once; None if it does not come.
        """
        return _until(lambda: self.look(token))

    def log_with(self, text: str) -> list[str]:
        """Return the lines of the log in which a text stands."""
        return [line for line in self.host.log.splitlines() if text in line]

    def look(self, token: str) -> bytes | None:
        """Return the letter with a token in it if it is in a mailbox by now."""
        for path in sorted(self._mail.glob("*/new/*")):
            if path in self._known:
                continue
            octets = path.read_bytes()
            self._known.add(path)
            if token.encode() in octets[:20_000]:
                path.unlink()
                return octets
        return None


def _until(look: Callable[[], bytes | None]) -> bytes | None:
    end = time.monotonic() + ARRIVAL_S_MAX
    while time.monotonic() < end:
        if (found := look()) is not None:
            return found
        time.sleep(0.05)
    return None


def receiving(folder: Path, ip: str, pair: tuple[Path, Path], keys: Path) -> Ours:
    """Return the host that clients send to; ``keys`` holds ca.pem and jwks.json."""
    sections = f"""\
client_ca = "{keys}/ca.pem"
client_certificates = "ask"
client_certificate_services = ["submission"]
[policy]
sender_domain_real = false
[route]
aliases = "aliases"
[auth]
argon2_memory = "1MiB"
cram_md5 = true
mechanisms = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "EXTERNAL", "OAUTHBEARER",
  "XOAUTH2", "PLAIN", "LOGIN", "CRAM-MD5"]
failure_delay = "100ms"
[auth.tokens]
verifier = "jwt"
issuer = "{ISSUER}"
audience = "{AUDIENCE}"
jwks_file = "{keys}/jwks.json"
"""
    ours = Ours(folder, HOST, ip, pair, sections)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "aliases").write_text("postmaster: joe\njörg: joe\n")
    for user in (USER, "joe"):
        ours.add_user(user, PASSWORD)
    return ours
