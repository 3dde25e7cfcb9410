"""The mail store that we deliver to by LMTP: how it is set up.

Its raw logs hold what it was told, so that the way a letter came can be seen.
"""

import os

from interop.peers import Peer, Way
from interop.view import number_of


class Dovecot(Peer):
    """Dovecot's LMTP server, with a Maildir for joe."""

    name, key = "Dovecot", "dovecot"
    packages = ("dovecot-core", "dovecot-lmtpd")
    version = ("/usr/sbin/dovecot", "--version")
    ways = (Way("plain", 24, "tls=off"), Way("tls", 24, "tls=verified"))

    def configure(self) -> None:
        """Write dovecot.conf and the file of users."""
        view, place = self.view, self.place
        self.port = self.ways[0].port
        owner = number_of("dovecot")
        view.write("dovecot/users", f"joe::{owner}:{owner}::/var/mail/joe::\n")
        key = view.write("dovecot/key", place.key.read_text(), 0o600)
        for name in ("mail/joe", "raw"):
            (view.var / name).mkdir()
            os.chown(view.var / name, owner, owner)
        (view.var / "lib/dovecot").mkdir()
        view.write(
            "dovecot/dovecot.conf",
            f"""\
protocols = lmtp
hostname = mx.dovecot.test
base_dir = /run/dovecot
log_path = /var/log/dovecot
first_valid_uid = 1
default_internal_user = dovecot
default_internal_group = dovecot
default_login_user = dovenull
ssl = yes
ssl_cert = <{place.certificate}
ssl_key = </etc/dovecot/{key.name}
auth_username_format = %Ln
recipient_delimiter = +
mail_location = maildir:/var/mail/%u
lmtp_rawlog_dir = /var/raw
service lmtp {{
  inet_listener lmtp {{
    address = {place.ip}
    port = {self.port}
  }}
}}
passdb {{
  driver = passwd-file
  args = /etc/dovecot/users
}}
userdb {{
  driver = passwd-file
  args = /etc/dovecot/users
}}
""",
        )

    @classmethod
    def route(cls, way: Way) -> str:
        """Return the line of our first host's routes for a way."""
        host = f"[mx.{cls.key}.test]:{way.port}"
        return f"{cls.domain(way.name)} lmtp:{host} {way.options}\n"

    def command(self) -> list[str]:
        """Return it in the foreground."""
        return ["/usr/sbin/dovecot", "-F"]

    def heard(self) -> list[str]:
        """Return what it was told in each session so far, TLS taken off."""
        raw = sorted((self.view.var / "raw").glob("*.in"))
        return [path.read_text(errors="replace") for path in raw]


STORES = (Dovecot,)
"""What takes mail by LMTP and keeps it."""
