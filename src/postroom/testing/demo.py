"""The demo: one letter from ``gonzo.test`` to ``whizzer.test``, before your eyes.

``make run`` starts a name server and two mail hosts on loopback, without root and
without touching the system's mail. Betty at gonzo writes to joe at whizzer with the
``sendmail`` command; the dialogue is shown as it happens; joe fetches the letter by
POP3. Everything lies in ``.demo`` (root's in ``.demo-root``). The commands are the
real ones, run as processes.
"""

import argparse
import os
import poplib
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from postroom.testing.host import (
    UNPRIVILEGED,
    Host,
    HostError,
    check_free,
    command,
    login_of,
)

LETTER = """\
Subject: The first letter
To: joe@whizzer.test

Hello Joe,

this letter crossed two hosts to reach you.

Betty
"""
ARRIVAL_S_MAX = 30.0
EX_UNAVAILABLE = 69


class Places(NamedTuple):
    """Addresses and ports of the demo."""

    gonzo_ip: str = "127.0.1.1"
    whizzer_ip: str = "127.0.1.2"
    smtp: int = 2525
    pop3: int = 2110
    dns: int = 5300


def main() -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(prog="make run", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the letter")
    own = Path(".demo" if os.geteuid() else ".demo-root")  # others' files are theirs
    parser.add_argument("--directory", type=Path, default=own)
    for name, what in (("smtp", "SMTP"), ("pop3", "POP3"), ("dns", "the name server")):
        default = int(os.environ.get(f"{name.upper()}_PORT") or getattr(Places(), name))
        parser.add_argument(
            f"--{name}-port", type=int, default=default, help=f"port of {what}"
        )
    given = parser.parse_args()
    places = Places(smtp=given.smtp_port, pop3=given.pop3_port, dns=given.dns_port)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        run(given.directory.resolve(), places, once=given.once)
    except HostError as error:
        print(f"\nThe demo cannot go on: {error}", file=sys.stderr)
        return EX_UNAVAILABLE
    except OSError as error:
        path = given.directory.resolve()
        print(
            f"\nThe demo cannot go on: {error}. If {path} is another user's, "
            "remove it, or work in a checkout of your own",
            file=sys.stderr,
        )
        return EX_UNAVAILABLE
    except KeyboardInterrupt:
        print("\nStopped.")
    return 0


def run(directory: Path, places: Places, *, once: bool) -> None:
    """Start everything, send the letter, fetch it, and stay up unless ``once``.

    Raises:
        HostError: a step failed; the message says which and why.
    """
    _check_ports(places)
    gonzo, whizzer = make_hosts(directory, places)
    passwords = {name: secrets.token_urlsafe(9) for name in ("betty", "joe")}
    with ExitStack() as stack:
        _title("Two hosts and a name server, all on this machine")
        _add_users(gonzo, whizzer, passwords)
        stack.enter_context(name_server(directory, places))
        print(f"  DNS      127.0.0.1:{places.dns}   gonzo.test, whizzer.test")
        for host, ip in ((gonzo, places.gonzo_ip), (whizzer, places.whizzer_ip)):
            stack.enter_context(host)
            name = f"{host.directory.name}.test"
            print(f"  {name:13} SMTP {ip}:{places.smtp}   POP3 {ip}:{places.pop3}")
        for user, home in (("betty", "gonzo"), ("joe", "whizzer")):
            print(f"  account {user}@{home}.test, password {passwords[user]}")
        _send(gonzo)
        _title("joe fetches his mail by POP3 from whizzer.test")
        letter = fetch(places.whizzer_ip, places.pop3, "joe", passwords["joe"])
        text = letter.decode("utf-8", "replace")
        print("\n".join(f"  {line}".rstrip() for line in text.splitlines()))
        if LETTER.rpartition("\n\n")[2].strip() not in text:
            raise HostError("the letter that came is not the one that was sent")
        _title("The letter arrived.")
        if not once:
            _explain(directory, places, passwords)
            _wait()


def make_hosts(directory: Path, places: Places) -> tuple[Host, Host]:
    """Return the two hosts, not yet started."""
    hosts = []
    for name, ip in (("gonzo", places.gonzo_ip), ("whizzer", places.whizzer_ip)):
        ports = [(ip, places.smtp), (ip, places.pop3)]
        config = configuration(name, ip, places)
        hosts.append(Host(directory / name, config, ports))
    return hosts[0], hosts[1]


def configuration(name: str, ip: str, places: Places) -> str:
    """Return the configuration of one of the hosts."""
    logins = sorted({login_of(os.geteuid()), UNPRIVILEGED})
    senders = "\n".join(f'"{login}" = "betty"' for login in logins)
    accounts = senders if name == "gonzo" else ""
    return f"""\
# A host of the demo. Sizes, times, limits: all as they are by default.
hostname = "{name}.test"
run_directory = "run"
drop_directory = "drop"
users_file = "users"

[[listen]]
address = "{ip}:{places.smtp}"
[[listen]]
address = "{ip}:{places.pop3}"
service = "pop3"

[outbound]
port = {places.smtp}            # in earnest: 25, the default
source_ipv4 = "{ip}"
[dns]
nameservers = ["127.0.0.1:{places.dns}"]
[route]
postmaster = "{"betty" if name == "gonzo" else "joe"}"
[spool]
directory = "spool"
[mailbox]
path = "mail/{{user}}"
[log]
to = "log"
[submission.users]               # in whose name users of this machine send
{accounts}
"""


@contextmanager
def name_server(directory: Path, places: Places) -> Iterator[None]:
    """Run the test kit's name server with the records of both hosts."""
    zone = directory / "zone"
    zone.write_text(f"""\
gonzo.test         MX 10 mx.gonzo.test
mx.gonzo.test      A  {places.gonzo_ip}
gonzo.test         A  {places.gonzo_ip}
whizzer.test       MX 10 mx.whizzer.test
mx.whizzer.test    A  {places.whizzer_ip}
whizzer.test       A  {places.whizzer_ip}
""")
    server = (sys.executable, "-m", "postroom.testing.nameserver")
    process = subprocess.Popen(
        [*server, "--listen", f"127.0.0.1:{places.dns}", "--zone", zone],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        if not process.stdout.readline():
            raise HostError(f"the name server did not start: {process.stderr.read()}")
        yield
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def fetch(ip: str, port: int, user: str, password: str) -> bytes:
    """Wait for a letter and fetch the newest by POP3, line ends as LF.

    Raises:
        HostError: none came in time, or it could not be fetched.
    """
    end = time.monotonic() + ARRIVAL_S_MAX
    while time.monotonic() < end:
        try:
            client = poplib.POP3(ip, port, timeout=ARRIVAL_S_MAX)
            try:
                client.user(user)
                client.pass_(password)
                count, _ = client.stat()
                if count:
                    return b"\n".join(client.retr(count)[1])
            finally:
                client.quit()
        except (OSError, poplib.error_proto) as error:
            raise HostError(f"cannot fetch the mail of {user}: {error}") from error
        time.sleep(0.1)
    raise HostError(f"no letter for {user} arrived within {ARRIVAL_S_MAX:.0f} s")


def _send(gonzo: Host) -> None:
    _title("betty@gonzo.test:  sendmail -v joe@whizzer.test < letter")
    process = subprocess.Popen(
        [command("sendmail"), "-v", "joe@whizzer.test"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=gonzo.environment,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(LETTER)
    process.stdin.close()
    lines = []
    for line in process.stdout:
        lines.append(line)
        print("  " + line, end="", flush=True)
    process.stdout.close()
    if process.wait() != 0 or not any("... Sent" in line for line in lines):
        raise HostError(
            f"sendmail ended with {process.returncode} and did not say Sent; "
            f"the log of gonzo:\n{gonzo.log[-2000:]}"
        )


def _add_users(gonzo: Host, whizzer: Host, passwords: dict[str, str]) -> None:
    gonzo.add_user("betty", passwords["betty"])
    whizzer.add_user("joe", passwords["joe"])


def _check_ports(places: Places) -> None:
    wanted = [("127.0.0.1", places.dns, "DNS")]
    for ip in (places.gonzo_ip, places.whizzer_ip):
        wanted += [(ip, places.smtp, "SMTP"), (ip, places.pop3, "POP3")]
    for ip, port, what in wanted:
        try:
            check_free(ip, port)
        except HostError as error:
            raise HostError(
                f"{error}. Choose another port: make run {what}_PORT={port + 1000}"
            ) from None


def _explain(directory: Path, places: Places, passwords: dict[str, str]) -> None:
    run, bin_ = directory / "gonzo/run/submit.sock", command("sendmail").parent
    joe = passwords["joe"]
    print(f"""\
Both hosts stay up until you press Ctrl-C. Try:

  # a letter by the sendmail command, dialogue shown
  export POSTROOM_SUBMIT={run}
  echo hello | {bin_}/sendmail -v joe@whizzer.test

  # a letter by SMTP, with curl or swaks
  printf 'Subject: hi\\n\\nhello\\n' | curl --crlf -T - smtp://{places.whizzer_ip}:\
{places.smtp}/me.test --mail-from me@example.org --mail-rcpt joe@whizzer.test
  swaks --server {places.whizzer_ip}:{places.smtp} --from me@example.org \
--to joe@whizzer.test

  # joe's mail by POP3
  curl pop3://joe:{joe}@{places.whizzer_ip}:{places.pop3}/
  curl pop3://joe:{joe}@{places.whizzer_ip}:{places.pop3}/1

  # any mail program: SMTP {places.whizzer_ip} port {places.smtp}, \
POP3 {places.whizzer_ip} port {places.pop3}, user joe, password {joe}, no encryption

  # where would mail go, and by which rule?
  {bin_}/postroom explain --config {directory}/gonzo/postroom.toml joe@whizzer.test

  # the log
  tail -f {directory}/gonzo/log {directory}/whizzer/log
""")


def _wait() -> None:
    while True:
        signal.pause()


def _title(text: str) -> None:
    print(f"\n== {text}\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
