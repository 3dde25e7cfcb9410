"""The clients: what each can do, and how it is told to do it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from interop.jobs import HOST, USER, Call, Job, NotOffered

PROGRAMS = Path(__file__).parent / "programs"
CLASSIC = ("PLAIN", "LOGIN", "CRAM-MD5")
PACKAGES = (
    *(
        "curl",
        "swaks",
        "msmtp",
        "mutt",
        "s-nail",
        "openssl",
        "nodejs",
        "ca-certificates",
    ),
    *("php-cli", "libphp-phpmailer", "php-mbstring"),
    *("python3", "python3-aiosmtplib"),
    *("perl", "libauthen-sasl-perl", "libio-socket-ssl-perl", "libdigest-hmac-perl"),
)


class Client(NamedTuple):
    """A program that sends mail.

    Attributes:
        name: what it is called.
        mechanisms: by which it can log in.
        lacks: what else it cannot do, by the case's title, with the reason.
        sends_octets: whether it sends a letter as it is given; else it composes it.
        call: how it is run.
        version: the command that says which one it is.
    """

    name: str
    mechanisms: tuple[str, ...]
    call: Callable[[Job], Call]
    version: tuple[str, ...]
    sends_octets: bool = True
    lacks: dict[str, str] = {}  # noqa: RUF012 - never changed

    def prepare(self, job: Job) -> Call:
        """Say how it is run for a job.

        Raises:
            NotOffered: it cannot do that.
        """
        case = job.case
        if case.mechanism and case.mechanism not in self.mechanisms:
            raise NotOffered(f"has no {case.mechanism}")
        if case.title in self.lacks:
            raise NotOffered(self.lacks[case.title])
        return self.call(job)


def _curl(job: Job) -> Call:
    case, letter = job.case, job.letter
    scheme = "smtps" if case.tls == "implicit" else "smtp"
    words: list[str | Path] = [
        *("curl", "-v", "-sS", "--url", f"{scheme}://{HOST}:{case.port}"),
        *("--cacert", job.keys.ca, "--mail-from", letter.sender),
        *("--mail-rcpt", letter.recipient, "--upload-file", job.letter_file()),
    ]
    if case.tls != "off":
        words += ["--ssl-reqd"]
    if case.mechanism in ("XOAUTH2", "OAUTHBEARER"):
        words += ["--user", USER, "--oauth2-bearer", job.keys.token]
    elif case.mechanism == "EXTERNAL":
        words += ["--user", f"{USER}:", "--cert", job.keys.client_certificate]
        words += ["--key", job.keys.client_key]
    elif case.mechanism:
        words += ["--user", f"{USER}:{job.password}"]
    if case.mechanism:
        words += ["--login-options", f"AUTH={case.mechanism}"]
    return Call(words, environment={"LC_ALL": "C.UTF-8"})


def _swaks(job: Job) -> Call:
    case, letter = job.case, job.letter
    stuffed = letter.content.replace(b"\r\n.", b"\r\n..") + b".\r\n"
    words: list[str | Path] = [
        *("swaks", "--server", f"{HOST}:{case.port}", "--ehlo", "client.test"),
        *("--from", letter.sender, "--to", letter.recipient),
        *("--no-data-fixup", "--data", f"@{job.file('data', stuffed)}"),
        *("--hide-send", "--timeout", "50"),
    ]
    tls = {"starttls": ["-tls"], "implicit": ["-tlsc"], "off": []}[case.tls]
    words += tls
    if tls:
        words += ["--tls-verify", "--tls-ca-path", job.keys.ca]
    if case.mechanism:
        words += ["--auth", case.mechanism, "--auth-user", USER]
        words += ["--auth-password", job.password]
    return Call(words)


def _msmtp(job: Job) -> Call:
    case, letter = job.case, job.letter
    secret = job.password
    if case.mechanism in ("XOAUTH2", "OAUTHBEARER"):
        secret = job.keys.token
    lines = [
        *("defaults", "account test", f"host {HOST}", f"port {case.port}"),
        *(f"from {letter.sender}", "timeout 50", "set_date_header off"),
        *("set_msgid_header off", "domain client.test"),
    ]
    if case.tls != "off":
        starttls = "on" if case.tls == "starttls" else "off"
        lines += ["tls on", f"tls_starttls {starttls}"]
        lines += [f"tls_trust_file {job.keys.ca}"]
    if case.mechanism:
        lines += [f"auth {case.mechanism.lower()}", f"user {USER}"]
        if case.mechanism != "EXTERNAL":
            file = job.file("secret", secret.encode() + b"\n")
            lines += [f"passwordeval cat {file}"]
        else:
            lines += [f"tls_cert_file {job.keys.client_certificate}"]
            lines += [f"tls_key_file {job.keys.client_key}"]
    lines += ["account default : test", ""]
    file = job.file("msmtprc", "\n".join(lines).encode())
    return Call(
        ["msmtp", "-v", "-C", file, "--", letter.recipient],
        letter.content.replace(b"\r\n", b"\n"),
    )


def _mutt(job: Job) -> Call:
    case, letter = job.case, job.letter
    scheme = "smtps" if case.tls == "implicit" else "smtp"
    user = f"{USER}@" if case.mechanism else ""
    lines = [
        f'set smtp_url="{scheme}://{user}{HOST}:{case.port}/"',
        f'set from="{letter.sender}"',
        "set use_from=yes use_envelope_from=yes copy=no record= mbox= spoolfile=",
        "set use_8bitmime=yes allow_8bit=yes ssl_verify_host=yes hostname=client.test",
        f'set certificate_file="{job.keys.ca}"',
        f'set ssl_ca_certificates_file="{job.keys.ca}"',
        "set ssl_verify_dates=yes text_flowed=no send_charset=us-ascii:utf-8",
        "set connect_timeout=50",
        f"set ssl_force_tls={'yes' if case.tls == 'starttls' else 'no'}",
        f"set ssl_starttls={'yes' if case.tls == 'starttls' else 'no'}",
    ]
    if case.mechanism:
        lines += [f'set smtp_authenticators="{case.mechanism.lower()}"']
        lines += [f'set smtp_pass="{job.password}"']
    if case.mechanism in ("XOAUTH2", "OAUTHBEARER"):
        token = job.file("token", job.keys.token.encode() + b"\n")
        lines += [f'set smtp_oauth_refresh_command="cat {token}"']
    if case.mechanism == "EXTERNAL":
        both = job.keys.client_certificate.read_bytes()
        both += job.keys.client_key.read_bytes()
        lines += [f'set ssl_client_cert="{job.file("both.pem", both)}"']
    file = job.file("muttrc", "\n".join(lines).encode() + b"\n")
    words: list[str | Path] = ["mutt", "-n", "-F", file, "-s", letter.subject]
    return Call(
        [*words, "--", letter.recipient],
        letter.text.replace("\r\n", "\n").encode(),
        {"LC_ALL": "C.UTF-8", "HOME": str(job.folder), "TERM": "dumb"},
    )


def _snail(job: Job) -> Call:
    case, letter = job.case, job.letter
    scheme = "smtps" if case.tls == "implicit" else "smtp"
    login = ""
    if case.mechanism:
        secret = job.password
        if case.mechanism in ("XOAUTH2", "OAUTHBEARER"):
            secret = job.keys.token
        login = f"{USER}:{quote(secret, safe='')}@"
    if case.mechanism == "EXTERNAL":
        login = f"{USER}@"
    settings = [
        *("v15-compat", f"mta={scheme}://{login}{HOST}:{case.port}"),
        *(f"from={letter.sender}", "sendcharsets=us-ascii,utf-8", "ttycharset=utf-8"),
        *(f"tls-ca-file={job.keys.ca}", "tls-ca-no-defaults", "tls-verify=strict"),
        *(
            "hostname=client.test",
            "mime-encoding=8bit",
            "sendwait",
            "norecord",
            "nosave",
        ),
        f"smtp-auth={case.mechanism.lower() or 'none'}",
    ]
    if case.tls == "starttls":
        settings += ["smtp-use-starttls"]
    if case.mechanism == "EXTERNAL":
        pairs = f"Certificate={job.keys.client_certificate}"
        pairs += f",PrivateKey={job.keys.client_key}"
        settings += [f"tls-config-pairs={pairs}"]
    words: list[str | Path] = ["s-nail", "-:/"]
    for setting in settings:
        words += ["-S", setting]
    return Call(
        [*words, "-s", letter.subject, letter.recipient],
        letter.text.replace("\r\n", "\n").encode(),
        {"LC_ALL": "C.UTF-8", "HOME": str(job.folder)},
    )


def _script(interpreter: str, name: str) -> Callable[[Job], Call]:
    def call(job: Job) -> Call:
        given = job.file("job.json", json.dumps(job.plain()).encode())
        words: list[str | Path] = [interpreter, PROGRAMS / name, given]
        return Call(words, environment={"LC_ALL": "C.UTF-8", **_NODE})

    return call


_NODE: dict[str, str] = {}


def set_node_path(folder: Path) -> None:
    """Say where the modules of Node.js lie."""
    _NODE["NODE_PATH"] = str(folder)


_NO_UTF8 = "never says SMTPUTF8"

CLIENTS = (
    Client(
        "curl",
        (*CLASSIC, "XOAUTH2", "OAUTHBEARER", "EXTERNAL"),
        _curl,
        ("curl", "--version"),
    ),
    Client(
        "swaks",
        CLASSIC,
        _swaks,
        ("swaks", "--version"),
        lacks={"SMTPUTF8": _NO_UTF8},
    ),
    Client(
        "msmtp",
        (
            *CLASSIC,
            *("SCRAM-SHA-256", "XOAUTH2", "OAUTHBEARER", "EXTERNAL"),
        ),
        _msmtp,
        ("msmtp", "--version"),
        lacks={"SMTPUTF8": _NO_UTF8},
    ),
    Client(
        "mutt",
        (*CLASSIC, "SCRAM-SHA-256", "XOAUTH2", "OAUTHBEARER", "EXTERNAL"),
        _mutt,
        ("mutt", "-v"),
        sends_octets=False,
    ),
    Client(
        "s-nail",
        (*CLASSIC, "OAUTHBEARER", "EXTERNAL"),
        _snail,
        ("s-nail", "--version"),
        sends_octets=False,
        lacks={"SMTPUTF8": _NO_UTF8},
    ),
    Client(
        "PHPMailer",
        (*CLASSIC, "XOAUTH2"),
        _script("php8.2", "phpmailer.php"),
        ("php8.2", "--version"),
        sends_octets=False,
        lacks={"SMTPUTF8": f"6.6 {_NO_UTF8}"},
    ),
    Client(
        "nodemailer",
        (*CLASSIC, "XOAUTH2"),
        _script("node", "nodemailer.js"),
        ("node", "--version"),
    ),
    Client(
        "smtplib",
        CLASSIC,
        _script("/usr/bin/python3", "smtplib_client.py"),
        ("/usr/bin/python3", "--version"),
    ),
    Client(
        "aiosmtplib",
        CLASSIC,
        _script("/usr/bin/python3", "aiosmtplib_client.py"),
        ("/usr/bin/python3", "-c", "import aiosmtplib; print(aiosmtplib.__version__)"),
    ),
    Client(
        "Net::SMTP",
        (*CLASSIC, "EXTERNAL"),
        _script("perl", "net_smtp.pl"),
        ("perl", "-MNet::SMTP", "-e", "print $Net::SMTP::VERSION"),
        lacks={"SMTPUTF8": _NO_UTF8},
    ),
    Client(
        "s_client",
        ("PLAIN", "EXTERNAL"),
        _script("/usr/bin/python3", "s_client.py"),
        ("openssl", "version"),
        lacks={
            "plain": "is for TLS only",
            "8-bit": "is for TLS only",
            "SMTPUTF8": "is for TLS only",
        },
    ),
)
