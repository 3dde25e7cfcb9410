"""Debian's Dovecot with its defaults for POP3, on a port and in folders of our own."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from bench.mailboxes import PASSWORD, Mailboxes, give_away
from bench.packages import BenchError
from bench.servers import Server, wait_for_port
from postroom.testing.host import UNPRIVILEGED

DIFFERENCES = """\
Dovecot runs with the defaults of its packages, apart from
  paths, port, users, mail_location = maildir (ports and paths);
  ssl = no (no certificate; no bench here uses TLS);
  passdb and userdb are a file instead of PAM and the system's users; who logs in for
  the first time has a password under ARGON2ID with the cost ours has, but who logs in
  again and again has one that is not hashed at all: Dovecot hashes at every login,
  whatever auth_cache_size is, while Postroom remembers a password that was right.
Out of the box Dovecot starts two processes for each session. "Tuned" is its
  high-performance mode: processes are kept (pop3-login: service_count = 0,
  process_min_avail = 2; pop3: service_count = 1000, process_min_avail = 8)."""
_TUNED = """
service pop3-login {
  service_count = 0
  process_min_avail = 2
}
service pop3 {
  service_count = 1000
  process_min_avail = 8
}
"""


class Dovecot(Server):
    """One Dovecot instance that serves POP3 from a Maildir."""

    name = "Dovecot"

    def __init__(
        self,
        root: Path,
        folder: Path,
        port: int,
        mailboxes: Mailboxes,
        *,
        tuned: bool,
    ) -> None:
        super().__init__()
        self._root = root
        self._folder = folder
        self.port = port
        self._mailboxes = mailboxes
        self._more = _TUNED if tuned else ""

    def start(self) -> None:
        """Write the configuration afresh and start it in the foreground."""
        if os.geteuid() != 0:
            raise BenchError("Dovecot can only be started by root: run as root")
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        for name in ("dovecot", "dovenull"):
            _ensure_user(name)
        entry = pwd.getpwnam(UNPRIVILEGED)
        account = f"{entry.pw_uid}:{entry.pw_gid}::{self._folder}"
        first = (f"{{ARGON2ID}}{self._mailboxes.secret}", self._mailboxes.newcomers)
        again = (f"{{PLAIN}}{PASSWORD}", self._mailboxes.loopers)
        (self._folder / "passwd").write_text(
            "".join(
                f"{user}:{password}:{account}\n"
                for password, users in (first, again)
                for user in users
            )
        )
        self._write_configuration()
        mail = self._folder / "mail"
        self._mailboxes.make(mail)
        give_away(mail)
        # Dovecot has its paths built in: it gets a view of the file system of its
        # own, in which the unpacked package lies over /usr and its file over /etc.
        view = (
            f"mount -t overlay overlay -o lowerdir={self._root}/usr:/usr /usr && "
            f"mount -t overlay overlay -o lowerdir={self._folder}/etc:/etc /etc && "
            "exec /usr/sbin/dovecot -F"
        )
        self.process = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", view],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_for_port("127.0.0.1", self.port, self)

    def _write_configuration(self) -> None:
        (self._folder / "etc/dovecot").mkdir(parents=True)
        (self._folder / "etc/dovecot/dovecot.conf").write_text(f"""\
protocols = pop3
listen = 127.0.0.1
base_dir = {self._folder}/run
state_dir = {self._folder}/state
log_path = {self._folder}/log
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain
mail_location = maildir:{self._folder}/mail/%u
first_valid_uid = 1
default_internal_user = dovecot
default_login_user = dovenull
service pop3-login {{
  inet_listener pop3 {{
    port = {self.port}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
passdb {{
  driver = passwd-file
  args = {self._folder}/passwd
}}
userdb {{
  driver = passwd-file
  args = {self._folder}/passwd
}}
{self._more}""")


def _ensure_user(name: str) -> None:
    try:
        pwd.getpwnam(name)
    except KeyError:
        subprocess.run(
            ["useradd", "-r", "-M", "-s", "/usr/sbin/nologin", name], check=True
        )
