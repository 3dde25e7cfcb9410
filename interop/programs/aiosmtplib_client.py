"""Sends a letter by aiosmtplib."""

import asyncio
import json
import ssl
import sys
from pathlib import Path

import aiosmtplib

job = json.loads(Path(sys.argv[1]).read_bytes())
content = Path(job["content"]).read_bytes()


async def main() -> None:
    context = ssl.create_default_context(cafile=job["ca"])
    client = aiosmtplib.SMTP(
        hostname=job["host"],
        port=job["port"],
        use_tls=job["tls"] == "implicit",
        start_tls=False,
        tls_context=context,
        timeout=50,
    )
    await client.connect()
    await client.ehlo("client.test")
    if job["tls"] == "starttls":
        await client.starttls(tls_context=context)
        await client.ehlo("client.test")
    if job["mechanism"]:
        method = "auth_" + job["mechanism"].lower().replace("-", "")
        await getattr(client, method)(job["user"], job["password"])
    options = ["BODY=8BITMIME"] if job["eight_bit"] else []
    if job["utf8"]:
        options.append("SMTPUTF8")
    await client.sendmail(
        job["sender"],
        [job["recipient"]],
        content,
        mail_options=options,
    )
    await client.quit()


asyncio.run(main())
