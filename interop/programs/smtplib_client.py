"""Sends a letter by the standard library's smtplib."""

import json
import smtplib
import ssl
import sys
from pathlib import Path

job = json.loads(Path(sys.argv[1]).read_bytes())
content = Path(job["content"]).read_bytes()
context = ssl.create_default_context(cafile=job["ca"])
if job["tls"] == "implicit":
    client = smtplib.SMTP_SSL(job["host"], job["port"], timeout=50, context=context)
else:
    client = smtplib.SMTP(job["host"], job["port"], timeout=50)
with client:
    client.ehlo("client.test")
    if job["tls"] == "starttls":
        client.starttls(context=context)
        client.ehlo("client.test")
    if job["mechanism"]:
        client.user, client.password = job["user"], job["password"]
        method = "auth_" + job["mechanism"].lower().replace("-", "_")
        client.auth(job["mechanism"], getattr(client, method))
    options = []
    if job["eight_bit"]:
        options.append("BODY=8BITMIME")
    if job["utf8"]:
        options.append("SMTPUTF8")
        client.command_encoding = "utf-8"
    client.sendmail(job["sender"], [job["recipient"]], content, options)
