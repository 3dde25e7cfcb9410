"""The servers that take our mail and send it back to us: how each is set up.

A letter for ``joe+TOKEN@WAY.PEER.test`` goes from our first host to the peer and from
there to our second one. The way's name says how both legs are done: see ``WAYS``.
"""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.postfix import make_queue
from bench.servers import Server, wait_for_port

from interop.view import View, number_of

FRONT, FRONT_IP = "front.test", "127.0.8.2"
BACK, BACK_IP = "back.test", "127.0.8.3"
LOGIN, SECRET = "relay", "a-word-of-the-relay"
_INTERNET = "RFC" + "822"  # the type of addresses, as sendmail.cf has it
SEVEN_PORT = 2526
"""Where a peer does not offer 8BITMIME."""


class Way(NamedTuple):
    """How our first host reaches the peer; the peer reaches our second one likewise."""

    name: str
    port: int
    options: str


WAYS = (
    Way("plain", 25, "tls=off"),
    Way("tls", 25, "tls=verified"),
    Way("auth", 587, "tls=verified login={peer}"),
    Way("smtps", 465, "tls=verified login={peer}"),
    Way("lmtp", 25, "tls=off"),
    Way("seven", SEVEN_PORT, "tls=off"),
)


class Place(NamedTuple):
    """Where a peer lives."""

    ip: str
    view: View
    certificate: Path
    """Its own, as it sees it; the key lies beside it."""
    key: Path
    ca: Path


class Signs(NamedTuple):
    """What a peer's log says where it used an extension: patterns for both legs.

    ``{token}`` is the letter's. Empty: nothing, for it has no such thing.
    """

    to_peer: str
    from_peer: str = ""


class Peer(Server):
    """A server in a view of its own.

    Attributes:
        key: its name in domains.
        packages: where it comes from.
        ways: how it is reached.
        lacks: what it cannot do, by way or case, with the reason.
        lacks_back: the same of its way to us.
        no_tls: why it is spoken to without TLS; its way to us is as the way says.
        refuses: what we must not send it, by case, with the status we have to give.
        signs: how its log shows that an extension was used, by case.
    """

    key = ""
    packages: Sequence[str] = ()
    ways: Sequence[Way] = WAYS
    lacks: dict[str, str] = {}  # noqa: RUF012 - never changed
    lacks_back: dict[str, str] = {}  # noqa: RUF012 - never changed
    refuses: dict[str, str] = {}  # noqa: RUF012 - never changed
    signs: dict[str, Signs] = {}  # noqa: RUF012 - never changed
    no_tls = ""
    version: Sequence[str] = ()

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.view = place.view
        self.port = 25

    def configure(self) -> None:
        """Write its files."""
        raise NotImplementedError(self.name)

    def command(self) -> list[str]:
        """Return what starts it in the foreground."""
        raise NotImplementedError(self.name)

    def start(self) -> None:
        """Configure it, start it, and wait until it takes connections."""
        self.configure()
        self.process = self.view.start(self.command())
        wait_for_port(self.place.ip, self.port, self)

    def log(self) -> str:
        """Return what it said."""
        logs = (self.view.folder / "output", *sorted(self.view.var.glob("log/*")))
        texts = [p.read_text(errors="replace") for p in logs if p.is_file()]
        return "\n".join(texts)

    @classmethod
    def domain(cls, way: str) -> str:
        """Return the domain of a way."""
        return f"{way}.{cls.key}.test"

    @classmethod
    def route(cls, way: Way) -> str:
        """Return the line of our first host's routes for a way."""
        port, options = way.port, way.options.format(peer=cls.key)
        if cls.no_tls:
            port, options = 25, "tls=off"
        return f"{cls.domain(way.name)} smtp:[mx.{cls.key}.test]:{port} {options}\n"

    def prepare(self, script: str) -> None:
        """Run a script in its view that makes files under /var."""
        done = self.view.run(["sh", "-ec", script])
        if done.returncode:
            text = done.stdout.decode(errors="replace")
            raise OSError(f"{self.name} cannot be prepared: {text[-500:]}")


class Postfix(Peer):
    """Postfix, with Cyrus SASL."""

    name, key = "Postfix", "postfix"
    packages = ("postfix", "sasl2-bin", "libsasl2-modules")
    version = ("/usr/sbin/postconf", "-d", "mail_version")
    lacks = {"PRDR": "does not know it"}  # noqa: RUF012
    lacks_back = {"CHUNKING": "its client sends by DATA only"}  # noqa: RUF012
    signs = {  # noqa: RUF012 - it counts the commands of a session at its end
        "CHUNKING": Signs(r"disconnect from \S+\[127\.0\.8\.2\].* bdat=[1-9]")
    }

    def configure(self) -> None:
        """Write main.cf, master.cf, the tables and the queue's directories."""
        view, place = self.view, self.place
        view.write("postfix/main.cf", self._main())
        view.write("postfix/master.cf", self._master())
        view.write(
            "postfix/sasl/smtpd.conf",
            "pwcheck_method: auxprop\nauxprop_plugin: sasldb\n"
            "mech_list: PLAIN LOGIN CRAM-MD5 SCRAM-SHA-256\n"
            "sasldb_path: /var/lib/sasldb2\n",
        )
        owner = number_of("postfix")
        make_queue(view.var / "spool/postfix", owner, number_of("postdrop", "group"))
        data = view.var / "lib/postfix"
        data.mkdir()
        os.chown(data, owner, owner)
        self.prepare(
            f"echo {SECRET} | saslpasswd2 -p -c -f /var/lib/sasldb2 -u {place.ip}"
            f" {LOGIN}"
            " && chmod 644 /var/lib/sasldb2"
        )

    def command(self) -> list[str]:
        """Return its master in the foreground."""
        return ["/usr/lib/postfix/sbin/master", "-c", "/etc/postfix", "-d"]

    def _main(self) -> str:
        place = self.place
        relayed = " ".join(self.domain(way.name) for way in WAYS)
        transports = ", ".join(
            f"{self.domain(way)}={transport}"
            for way, transport in (
                ("plain", f"plain:[{BACK}]:25"),
                ("seven", f"plain:[{BACK}]:25"),
                ("tls", f"smtp:[{BACK}]:25"),
                ("auth", f"smtp:[{BACK}]:587"),
                ("smtps", f"smtps-out:[{BACK}]:465"),
                ("lmtp", f"lmtp:inet:{BACK}:24"),
            )
        )
        login = f"{LOGIN}:{SECRET}"
        return f"""\
compatibility_level = 3.6
queue_directory = /var/spool/postfix
data_directory = /var/lib/postfix
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
shlib_directory = /usr/lib/postfix
mail_owner = postfix
setgid_group = postdrop
myhostname = mx.postfix.test
mydestination =
alias_maps =
alias_database =
relay_domains = {relayed}
relay_recipient_maps =
transport_maps = inline:{{ {transports} }}
mynetworks = 127.0.0.0/8
inet_interfaces = loopback-only
inet_protocols = ipv4
smtp_bind_address = {place.ip}
smtp_host_lookup = native
lmtp_host_lookup = native
message_size_limit = 60000000
smtputf8_enable = yes
maillog_file = /var/log/maillog
maillog_file_prefixes = /var
smtpd_tls_cert_file = {place.certificate}
smtpd_tls_key_file = {place.key}
smtpd_tls_security_level = may
smtpd_tls_received_header = yes
smtpd_sasl_local_domain = {place.ip}
smtpd_tls_auth_only = yes
cyrus_sasl_config_path = /etc/postfix/sasl
smtp_tls_CAfile = {place.ca}
smtp_tls_security_level = verify
smtp_tls_verify_cert_match = hostname, nexthop
smtp_sasl_auth_enable = yes
smtp_sasl_security_options = noanonymous
smtp_sasl_tls_security_options = noanonymous
smtp_sasl_password_maps = inline:{{ [{BACK}]:587={login}, [{BACK}]:465={login} }}
"""

    def _master(self) -> str:
        ip = self.place.ip
        submission = (
            "  -o smtpd_sasl_auth_enable=yes -o smtpd_tls_security_level=encrypt\n"
            "  -o mynetworks=192.0.2.1/32\n"
            "  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject\n"
        )
        return f"""\
{ip}:25 inet n - n - - smtpd
{ip}:{SEVEN_PORT} inet n - n - - smtpd
  -o smtpd_discard_ehlo_keywords=8bitmime,smtputf8,chunking
{ip}:587 inet n - n - - smtpd
{submission}{ip}:465 inet n - n - - smtpd
  -o smtpd_tls_wrappermode=yes
{submission}pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
plain unix - - n - - smtp
  -o smtp_tls_security_level=none
smtps-out unix - - n - - smtp
  -o smtp_tls_wrappermode=yes
lmtp unix - - n - - lmtp
  -o lmtp_tls_security_level=none
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class Exim(Peer):
    """Exim, Debian's heavy one, with GnuTLS."""

    name, key = "Exim", "exim"
    packages = ("exim4-daemon-heavy",)
    version = ("/usr/sbin/exim4", "-bV")
    lacks = {"seven": "8BITMIME is on or off for the whole server"}  # noqa: RUF012
    signs = {  # noqa: RUF012 - K is for chunks
        "CHUNKING": Signs(r" K S=\d+ id={token}@", r"=> joe\+{token}@.* K C="),
        "PRDR": Signs(r" PRDR .*id={token}@", r"\*\* joe\+unwanted\.{token}@.* PRDR"),
    }

    def configure(self) -> None:
        """Write its one file."""
        view = self.view
        view.write("exim4/exim4.conf", self._text())
        owner = number_of("Debian-exim")
        key = view.write("exim4/exim.key", self.place.key.read_text(), 0o600)
        os.chown(key, owner, owner)
        for name in ("spool/exim4", "log/exim4"):
            (view.var / name).mkdir(parents=True)
            os.chown(view.var / name, owner, owner)

    def command(self) -> list[str]:
        """Return the daemon in the foreground."""
        return ["/usr/sbin/exim4", "-bdf", "-q1m"]

    def log(self) -> str:
        """Return its logs."""
        logs = sorted((self.view.var / "log/exim4").glob("*"))
        return super().log() + "\n".join(p.read_text(errors="replace") for p in logs)

    def _routes(self) -> tuple[list[str], list[str]]:
        place = self.place
        routers: list[str] = []
        transports: list[str] = []
        for way, port, more in (
            ("plain", 25, "hosts_avoid_tls = *"),
            ("tls", 25, "hosts_require_tls = *"),
            ("auth", 587, "hosts_require_tls = *\n  hosts_require_auth = *"),
            ("smtps", 465, "protocol = smtps\n  hosts_require_auth = *"),
            ("lmtp", 24, "protocol = lmtp\n  hosts_avoid_tls = *"),
        ):
            routers.append(f"""\
{way}:
  driver = manualroute
  domains = {self.domain(way)}
  route_list = * {BACK}::{port} byname
  transport = {way}
""")
            transports.append(f"""\
{way}:
  driver = smtp
  interface = {place.ip}
  tls_verify_certificates = {place.ca}
  tls_verify_hosts = *
  hosts_try_dane =
  hosts_try_chunking = *
  port = {port}
  {more}
""")
        return routers, transports

    def _text(self) -> str:
        place = self.place
        domains = " : ".join(self.domain(way.name) for way in WAYS)
        routers, transports = self._routes()
        return f"""\
primary_hostname = mx.exim.test
domainlist relay_to_domains = {domains}
hostlist relay_from_hosts = 127.0.0.0/8
local_interfaces = {place.ip}
daemon_smtp_ports = 25 : 587 : 465
tls_on_connect_ports = 465
tls_advertise_hosts = *
tls_certificate = {place.certificate}
tls_privatekey = /etc/exim4/exim.key
auth_advertise_hosts = ${{if eq{{$tls_in_cipher}}{{}}{{}}{{*}}}}
chunking_advertise_hosts = *
prdr_enable = true
dsn_advertise_hosts = *
smtputf8_advertise_hosts = *
pipelining_connect_advertise_hosts =
spool_directory = /var/spool/exim4
log_file_path = /var/log/exim4/%slog
host_lookup =
rfc1413_query_timeout = 0s
message_size_limit = 60M
never_users = root
keep_environment =
acl_smtp_rcpt = rcpt
acl_smtp_data = accept
acl_smtp_data_prdr = prdr

begin acl
rcpt:
  deny condition = ${{if !eq{{$received_port}}{{25}}}}
    !authenticated = *
  accept hosts = +relay_from_hosts
    control = dkim_disable_verify
  accept domains = +relay_to_domains
prdr:
  deny condition = ${{if match{{$local_part}}{{^refused}}}}
    message = not for this one
  accept

begin routers
{"".join(routers)}
begin transports
{"".join(transports)}
begin retry
* * F,2h,1m

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if eq{{$auth2:$auth3}}{{{LOGIN}:{SECRET}}}}}
  server_set_id = $auth2
  client_send = ^{LOGIN}^{SECRET}
cram:
  driver = cram_md5
  public_name = CRAM-MD5
  server_secret = ${{if eq{{$auth1}}{{{LOGIN}}}{{{SECRET}}}fail}}
  server_set_id = $auth1
"""


class OpenSmtpd(Peer):
    """OpenSMTPD as Debian has it."""

    name, key = "OpenSMTPD", "opensmtpd"
    packages = ("opensmtpd",)
    version = ("/usr/sbin/smtpd", "-h")
    lacks = {  # noqa: RUF012
        "seven": "always offers 8BITMIME",
        "lmtp": "speaks LMTP for local users only",
        "CHUNKING": "does not offer it",
        "PRDR": "does not know it",
    }

    refuses = {"SMTPUTF8": "5.6.7"}  # noqa: RUF012
    no_tls = "its TLS fails with every client (s_client, too): SSL internal error"

    def configure(self) -> None:
        """Write smtpd.conf."""
        place, view = self.place, self.view
        (view.var / "lib/opensmtpd/empty").mkdir(parents=True)
        done = subprocess.run(
            ["openssl", "passwd", "-6", SECRET],
            capture_output=True,
            text=True,
            check=True,
        )
        actions = {
            "plain": f'relay host "smtp+notls://{BACK}"',
            "tls": f'relay host "smtp+tls://{BACK}"',
            "auth": f'relay host "smtp+tls://home@{BACK}:587" auth <secrets>',
            "smtps": f'relay host "smtps://home@{BACK}:465" auth <secrets>',
        }
        lines = [
            f'pki own cert "{place.certificate}"',
            f'pki own key "{place.key}"',
            f'table users {{ "{LOGIN}" = "{done.stdout.strip()}" }}',
            f'table secrets {{ "home" = "{LOGIN}:{SECRET}" }}',
            'smtp max-message-size "60M"',
            f"listen on {place.ip} port 25 tls pki own hostname mx.opensmtpd.test",
            f"listen on {place.ip} port 587 tls-require pki own auth <users>",
            f"listen on {place.ip} port 465 smtps pki own auth <users>",
        ]
        for way, action in actions.items():
            lines.append(f'action "{way}" {action} src {place.ip}')
        for way in actions:
            domain = self.domain(way)
            lines.append(f'match from any for domain "{domain}" action "{way}"')
        view.write("smtpd.conf", "\n".join(lines) + "\n", 0o600)
        authorities = Path("/etc/ssl/certs/ca-certificates.crt")
        old = authorities.read_text() if authorities.exists() else ""
        view.write("ssl/certs/ca-certificates.crt", place.ca.read_text() + old)
        view.write("ssl/cert.pem", place.ca.read_text())

    def command(self) -> list[str]:
        """Return it in the foreground."""
        return ["/usr/sbin/smtpd", "-d", "-f", "/etc/smtpd.conf"]


class Sendmail(Peer):
    """sendmail as Debian has it."""

    name, key = "sendmail", "sendmail"
    packages = (
        "sendmail-bin",
        "sendmail-base",
        "sendmail-cf",
        "m4",
        "sasl2-bin",
        "libsasl2-modules",
    )
    version = ("/usr/libexec/sendmail/sendmail", "-bt", "-d0.4")
    lacks = {  # noqa: RUF012
        "lmtp": "speaks LMTP to local mailers only",
        "CHUNKING": "does not offer it",
        "PRDR": "does not know it",
        "seven": "8BITMIME is on or off for the whole server",
    }
    lacks_back = {"smtps": "cannot begin with TLS as a client"}  # noqa: RUF012
    refuses = {"SMTPUTF8": "5.6.7"}  # noqa: RUF012

    def configure(self) -> None:
        """Write the macro file, and make sendmail.cf and the tables of it."""
        view, place = self.view, self.place
        view.write("mail/test.mc", self._macros())
        tables = {
            "plain": f"esmtp:[{BACK_IP}]",
            "smtps": f"esmtp:[{BACK}]",
            "tls": f"esmtp:[{BACK}]",
            "auth": f"submit:[{BACK}]",
        }
        lines = [f"{self.domain(way)}\t{to}" for way, to in tables.items()]
        view.write("mail/mailertable", "\n".join(lines) + "\n")
        relayed = "\n".join(self.domain(way.name) for way in WAYS)
        view.write("mail/relay-domains", relayed + "\n")
        view.write(
            "mail/access",
            f"Connect:127\tRELAY\n"
            f'AuthInfo:{BACK}\t"U:{LOGIN}" "P:{SECRET}" "M:PLAIN"\n',
        )
        view.write("mail/service.switch", "hosts files\naliases files\n")
        view.write("mail/aliases", "postmaster: root\n")
        view.write("mail/local-host-names", "")
        for name in ("sasl2/Sendmail.conf", "mail/sasl/Sendmail.conf.2"):
            view.write(
                name,
                "pwcheck_method: auxprop\nauxprop_plugin: sasldb\n"
                "mech_list: PLAIN LOGIN\nsasldb_path: /var/lib/sasldb2\n",
            )
        (view.var / "spool/mqueue").mkdir(mode=0o700)
        copy = view.var / "lib/sendmail.key"
        copy.write_bytes(place.key.read_bytes())
        copy.chmod(0o600)
        self.prepare(
            "mkdir -p /var/lib/mail; cd /usr/share/sendmail/cf/cf\n"
            "m4 -D_CF_DIR_=/usr/share/sendmail/cf/ /etc/mail/test.mc"
            " >/var/lib/mail/sendmail.cf\n"
            "for table in mailertable access; do /usr/libexec/sendmail/makemap -C"
            " /var/lib/mail/sendmail.cf hash /var/lib/mail/$table"
            " </etc/mail/$table; done\n"
            "cp /etc/mail/aliases /var/lib/mail/aliases\n"
            f"echo {SECRET} | saslpasswd2 -p -c -f /var/lib/sasldb2 -u mx.sendmail.test"
            f" {LOGIN}\n"
            "/usr/libexec/sendmail/sendmail -C /var/lib/mail/sendmail.cf -bi\n"
        )

    def command(self) -> list[str]:
        """Return the daemon in the foreground."""
        cf = "/var/lib/mail/sendmail.cf"
        return ["/usr/libexec/sendmail/sendmail", "-C", cf, "-bD", "-q1m"]

    def _macros(self) -> str:
        place = self.place
        ports = "".join(
            f"DAEMON_OPTIONS(`Addr={place.ip}, Port={port}, Name={name}{more}')dnl\n"
            for port, name, more in (
                (25, "MTA", ""),
                (587, "MSA", ", M=Ea"),
                (465, "TLSMSA", ", M=sa"),
            )
        )
        return f"""\
divert(0)dnl
include(`/usr/share/sendmail/cf/m4/cf.m4')dnl
OSTYPE(`linux')dnl
define(`confDOMAIN_NAME', `mx.sendmail.test')dnl
define(`confSERVICE_SWITCH_FILE', `/etc/mail/service.switch')dnl
define(`ALIAS_FILE', `/var/lib/mail/aliases')dnl
define(`QUEUE_DIR', `/var/spool/mqueue')dnl
define(`STATUS_FILE', `/var/lib/mail/statistics')dnl
define(`confPID_FILE', `/run/sendmail.pid')dnl
define(`confCW_FILE', `/etc/mail/local-host-names')dnl
define(`confDONT_BLAME_SENDMAIL', `GroupReadableKeyFile')dnl
define(`confDONT_PROBE_INTERFACES', `True')dnl
define(`confCACERT', `{place.ca}')dnl
define(`confCACERT_PATH', `{place.ca.parent}')dnl
define(`confSERVER_CERT', `{place.certificate}')dnl
define(`confSERVER_KEY', `/var/lib/sendmail.key')dnl
define(`confAUTH_MECHANISMS', `PLAIN LOGIN')dnl
TRUST_AUTH_MECH(`PLAIN LOGIN')dnl
define(`confMAX_MESSAGE_SIZE', `60000000')dnl
define(`confTO_IDENT', `0')dnl
define(`confLOG_LEVEL', `14')dnl
FEATURE(`no_default_msa')dnl
FEATURE(`nocanonify')dnl
FEATURE(`mailertable', `hash /var/lib/mail/mailertable')dnl
FEATURE(`access_db', `hash -T<TMPF> /var/lib/mail/access')dnl
FEATURE(`authinfo', `hash /var/lib/mail/access')dnl
FEATURE(`accept_unresolvable_domains')dnl
{ports}CLIENT_OPTIONS(`Family=inet, Address={place.ip}')dnl
MAILER(`local')dnl
MAILER(`smtp')dnl
MAILER_DEFINITIONS
Msubmit, P=[IPC], F=mDFMuXa, S=EnvFromSMTP/HdrFromSMTP, R=EnvToSMTP, E=\\r\\n, L=990,
\tT=DNS/{_INTERNET}/SMTP, A=TCP $h 587
"""


PEERS: tuple[type[Peer], ...] = (Postfix, Exim, OpenSmtpd, Sendmail)
