"""Postroom with its defaults, on ports and in folders of the bench."""

import shutil
from pathlib import Path

from bench.mailboxes import PASSWORD, Mailboxes
from bench.packages import BenchError
from bench.servers import Server
from postroom.testing.host import Host, HostError, check_free, command

DIFFERENCES = """\
Postroom runs with its defaults, apart from
  paths, ports, host name, and the user nobody when root starts it;
  relay_networks = 127.0.0.0/8 (as Postfix' mynetworks);
  a certificate (EC P-256) and a port for submission where TLS is measured, and there
  no rates per user (submission.message_rate, recipient_rate);
  routes: dst.test is discarded, relay.test goes to the sink's port."""


class Postroom(Server):
    """One Postroom instance."""

    name = "Postroom"

    def __init__(
        self,
        folder: Path,
        ports: tuple[int, int],
        sink_port: int,
        mailboxes: Mailboxes | None = None,
    ) -> None:
        super().__init__()
        self._folder = folder
        self.port, self.pop3_port = ports
        self._sink_port = sink_port
        self._mailboxes = mailboxes
        self._listened = [("127.0.0.1", port) for port in ports]
        self._smtp = ""
        self.submission_port = 0
        self._host = Host(folder, self._configuration())

    def take_messages_of(self, octets_max: int) -> None:
        """Take larger messages than by default, from the next start on."""
        self._smtp = f'[smtp]\nmessage_octets_max = "{octets_max}B"\n'
        self._host.configure(self._configuration())

    def secure(self, pair: tuple[Path, Path], port: int) -> None:
        """Show a certificate, and take mail from users on a port of its own."""
        self.submission_port = port
        self._listened.append(("127.0.0.1", port))
        self._smtp += (
            f'[[listen]]\naddress = "127.0.0.1:{port}"\nservice = "submission"\n'
            f'[[tls.certificate]]\ncert = "{pair[0]}"\nkey = "{pair[1]}"\n'
            '[submission]\nmessage_rate = ""\nrecipient_rate = ""\n'
        )
        self._mailboxes = Mailboxes(0)
        self._host.configure(self._configuration())

    @property
    def login(self) -> dict[str, str]:
        """What clients log in with, and whom they may send as."""
        user = self._mailboxes.users[0] if self._mailboxes else ""
        sender = f"{user}@postroom.test"
        return {"user": user, "password": PASSWORD, "sender": sender}

    def start(self) -> None:
        """Write everything afresh and start it."""
        for ip, port in self._listened:
            check_free(ip, port)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        (self._folder / "route.routes").write_text(
            f"dst.test discard:\nrelay.test smtp:[127.0.0.1]:{self._sink_port}\n"
        )
        if self._mailboxes:
            secret = self._mailboxes.secret.removeprefix("$")
            lines = [f"{user} {secret}\n" for user in self._mailboxes.users]
            (self._folder / "users").write_text("".join(lines))
            self._mailboxes.make(self._folder / "mail")
        else:
            (self._folder / "users").write_text("joe\n")
        (self._folder / "users").chmod(0o600)
        try:
            self._host.start()
        except HostError as error:
            raise BenchError(str(error)) from error
        self.process = self._host.process

    def stop(self) -> None:
        """End it as an administrator would."""
        self.process = None
        self._host.stop()

    @property
    def log(self) -> Path:
        """Its log."""
        return self._folder / "log"

    def sendmail_command(self) -> list[str]:
        """The command under test in the ``sendmail`` bench."""
        return [str(command("sendmail"))]

    @property
    def environment(self) -> dict[str, str]:
        """What its commands need to run."""
        return self._host.environment

    def _configuration(self) -> str:
        return f"""\
hostname = "postroom.test"
run_directory = "run"
drop_directory = "drop"
users_file = "users"

[[listen]]
address = "127.0.0.1:{self.port}"
[[listen]]
address = "127.0.0.1:{self.pop3_port}"
service = "pop3"

[policy]
relay_networks = ["127.0.0.0/8"]
[route]
routes = "route.routes"
[spool]
directory = "spool"
[mailbox]
path = "mail/{{user}}"
[log]
to = "log"
{self._smtp}"""
