"""Debian's Postfix with its defaults, on ports and in folders of our own."""

import grp
import os
import pwd
import shutil
import subprocess
from pathlib import Path

from bench.packages import BenchError, environment
from bench.servers import Server, wait_for_port

DIFFERENCES = """\
Postfix runs with Debian's defaults (main.cf.debian, master.cf.dist), apart from
  paths, ports, users, host name and mydestination (ports and paths);
  master.cf: chroot off (the chroot jail has no files here);
  TLS files unset, but for (k) and (l): there the certificate is ours (EC P-256), and
  submission checks a password that is not hashed (Cyrus SASL, sasldb);
  mynetworks = 127.0.0.0/8, inet_interfaces = 127.0.0.1 (loopback only);
  transport: dst.test is discarded, relay.test goes to the sink's port;
  maillog_file set (there is no syslog daemon here);
  message_size_limit as large as ours where large messages are sent."""
_USER, _SECRET = "looper0", "a-password-of-the-bench"
_OWNED = (
    *("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold"),
    *("incoming", "private", "saved", "trace"),
)


class Postfix(Server):
    """One Postfix instance."""

    name = "Postfix"

    def __init__(self, root: Path, folder: Path, port: int, sink_port: int) -> None:
        super().__init__()
        self._root = root
        self._folder = folder
        self._etc = folder / "etc"
        self._environment = environment(root)
        self.port = port
        self._sink_port = sink_port
        self._more = ""
        self._services = ""
        self.submission_port = 0

    def take_messages_of(self, octets_max: int) -> None:
        """Take larger messages than by default, from the next start on."""
        self._more += f"message_size_limit = {octets_max}\n"

    def secure(self, pair: tuple[Path, Path], port: int) -> None:
        """Show a certificate, and take mail from users on a port of its own."""
        self.submission_port = port
        self._more += f"""\
smtpd_tls_cert_file = {pair[0]}
smtpd_tls_key_file = {pair[1]}
smtpd_tls_security_level = may
smtpd_sasl_local_domain = postfix.test
cyrus_sasl_config_path = {self._etc}/sasl
"""
        self._services = f"""\
127.0.0.1:{port} inet n - n - - smtpd
  -o smtpd_tls_security_level=encrypt
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
"""

    @property
    def login(self) -> dict[str, str]:
        """What clients log in with, and whom they may send as."""
        sender = f"{_USER}@postfix.test"
        return {"user": _USER, "password": _SECRET, "sender": sender}

    def start(self) -> None:
        """Write the configuration afresh and start ``master``."""
        if os.geteuid() != 0:
            raise BenchError("Postfix can only be started by root: run as root")
        shutil.rmtree(self._folder, ignore_errors=True)
        self._etc.mkdir(parents=True)
        _ensure_users()
        self._write_configuration()
        self._make_queue()
        if self._services:
            self._make_accounts()
        master = self._root / "usr/lib/postfix/sbin/master"
        self.process = subprocess.Popen(
            [master, "-c", self._etc, "-d"],
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_for_port("127.0.0.1", self.port, self)

    @property
    def log(self) -> Path:
        """Its log."""
        return self._folder / "maillog"

    def sendmail_command(self) -> list[str]:
        """The command under test in the ``sendmail`` bench."""
        return [str(self._root / "usr/sbin/sendmail"), "-C", str(self._etc)]

    @property
    def environment(self) -> dict[str, str]:
        """What its commands need to run."""
        return self._environment

    def _write_configuration(self) -> None:
        main = (self._root / "usr/share/postfix/main.cf.debian").read_text()
        spool, data = self._folder / "spool", self._folder / "data"
        main += f"""
queue_directory = {spool}
data_directory = {data}
command_directory = {self._root}/usr/sbin
daemon_directory = {self._root}/usr/lib/postfix/sbin
shlib_directory = {self._root}/usr/lib/postfix
meta_directory = {self._root}/usr/share/postfix
mail_owner = postfix
setgid_group = postdrop
myhostname = postfix.test
mydestination = postfix.test, localhost
alias_maps =
alias_database =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
transport_maps = inline:{{ dst.test=discard:, postfix.test=discard:,
    relay.test=smtp:[127.0.0.1]:{self._sink_port} }}
import_environment = LD_LIBRARY_PATH SASL_PATH MAIL_CONFIG TZ LANG=C
export_environment = LD_LIBRARY_PATH SASL_PATH MAIL_CONFIG TZ LANG=C
maillog_file = {self.log}
maillog_file_prefixes = {self._folder}
{self._more}"""
        (self._etc / "main.cf").write_text(main)
        lines = []
        for line in (
            (self._root / "usr/share/postfix/master.cf.dist").read_text().splitlines()
        ):
            words = line.split()
            if len(words) >= 8 and not line.startswith(("#", " ")):
                words[4] = "n"
                if words[0] == "smtp" and words[1] == "inet":
                    words[0] = f"127.0.0.1:{self.port}"
                line = "  ".join(words)
            lines.append(line)
        text = "\n".join(lines) + "\n" + self._services
        (self._etc / "master.cf").write_text(text)

    def _make_accounts(self) -> None:
        """Keep a password for Cyrus SASL, not hashed: the best case of any check."""
        database = self._folder / "sasldb2"
        (self._etc / "sasl").mkdir()
        (self._etc / "sasl/smtpd.conf").write_text(
            "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN\n"
            f"sasldb_path: {database}\n"
        )
        command = [self._root / "usr/sbin/saslpasswd2", "-p", "-c", "-f", database]
        subprocess.run(
            [*command, "-u", "postfix.test", _USER],
            input=f"{_SECRET}\n".encode(),
            env=self._environment,
            check=True,
        )
        database.chmod(0o644)

    def _make_queue(self) -> None:
        owner = pwd.getpwnam("postfix").pw_uid
        make_queue(self._folder / "spool", owner, grp.getgrnam("postdrop").gr_gid)
        (self._folder / "data").mkdir()
        os.chown(self._folder / "data", owner, owner)
        self.log.touch()
        os.chown(self.log, owner, owner)


def make_queue(spool: Path, owner: int, drop: int) -> None:
    """Make the directories of a queue, for a user and the group of ``postdrop``."""
    for name in _OWNED:
        (spool / name).mkdir(parents=True, mode=0o700)
        os.chown(spool / name, owner, 0)
    for name, mode in (("maildrop", 0o1730), ("public", 0o710)):
        (spool / name).mkdir()
        os.chown(spool / name, owner, drop)
        (spool / name).chmod(mode)
    (spool / "pid").mkdir()


def _ensure_users() -> None:
    """Postfix insists on a user and a group of its own; make them if they lack."""
    try:
        grp.getgrnam("postdrop")
    except KeyError:
        subprocess.run(["groupadd", "-r", "postdrop"], check=True)
    try:
        pwd.getpwnam("postfix")
    except KeyError:
        command = ["useradd", "-r", "-M", "-s", "/usr/sbin/nologin", "postfix"]
        subprocess.run(command, check=True)
