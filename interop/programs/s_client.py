"""Sends a letter through ``openssl s_client``, line by line."""

import atexit
import base64
import json
import subprocess
import sys
from pathlib import Path

job = json.loads(Path(sys.argv[1]).read_bytes())
words = ["openssl", "s_client", "-quiet", "-verify_return_error"]
words += ["-CAfile", job["ca"], "-verify_hostname", job["host"]]
words += ["-connect", f"{job['host']}:{job['port']}", "-servername", job["host"]]
if job["tls"] == "starttls":
    words += ["-starttls", "smtp"]
if job["mechanism"] == "EXTERNAL":
    words += ["-cert", job["certificate"], "-key", job["key"]]
openssl = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
atexit.register(openssl.kill)


def reply(wanted: str) -> None:
    while True:
        line = openssl.stdout.readline().decode()
        print(line, end="", flush=True)
        if not line:
            sys.exit("hung up")
        if line[3:4] != "-":
            break
    if not line.startswith(wanted):
        sys.exit(f"wanted {wanted}")


def ask(command: str, wanted: str) -> None:
    openssl.stdin.write(command.encode() + b"\r\n")
    openssl.stdin.flush()
    reply(wanted)


if job["tls"] == "implicit":
    reply("220")
ask("EHLO client.test", "250")
if job["mechanism"] == "PLAIN":
    secret = f"\0{job['user']}\0{job['password']}".encode()
    ask("AUTH PLAIN " + base64.b64encode(secret).decode(), "235")
if job["mechanism"] == "EXTERNAL":
    ask("AUTH EXTERNAL =", "235")
ask(f"MAIL FROM:<{job['sender']}>", "250")
ask(f"RCPT TO:<{job['recipient']}>", "250")
ask("DATA", "354")
content = Path(job["content"]).read_bytes()
openssl.stdin.write(content.replace(b"\r\n.", b"\r\n.."))
ask(".", "250")
ask("QUIT", "221")
openssl.stdin.close()
openssl.terminate()
