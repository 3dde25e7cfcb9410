"""A notice to the user whose letter from the drop directory could not be sent.

The program that handed it in has long gone and cannot be told by an exit code. The
notice holds what would have been printed, and the letter itself.
"""

from typing import Protocol

from postroom.mail.address import NULL_SENDER
from postroom.mail.envelope import BodyType, Envelope, Origin, Recipient
from postroom.mail.local_text import LocalText
from postroom.mail.trace import date_text
from postroom.services.letter import Desk, own_address
from postroom.services.people import Person
from postroom.services.submitter import Draft, Refused, Submitted


class Unsent(Protocol):
    """A letter that was refused, back at its start."""

    @property
    def lines(self) -> list[str]:
        """Why it was refused."""

    async def arguments(self) -> list[str]:
        """Go to where the input starts."""

    async def read(self) -> bytes:
        """Return the next piece of input, ``b""`` at its end."""


async def send_notice(desk: Desk, person: Person, unsent: Unsent) -> bool:
    """Queue the notice; returns whether it is durable."""
    envelope = Envelope(
        sender=NULL_SENDER,  # RFC 5321 §4.5.5: nobody is told of a lost notice
        origin=Origin(protocol="local", login="MAILER-DAEMON", listener="submit"),
        body=BodyType.EIGHT_BIT,
        arrival_us=desk.clock().utc_us,
    )
    draft = await desk.submitter.begin(envelope)
    if isinstance(draft, Refused):
        return False
    try:
        recipient = Recipient(own_address(desk, person))
        if await draft.add_recipient(recipient) is not None:
            return False
        await _write(desk, recipient, draft, unsent)
        return isinstance(await draft.finish(None), Submitted)
    finally:
        await draft.abandon()


async def _write(desk: Desk, to: Recipient, draft: Draft, unsent: Unsent) -> None:
    queue_id = await draft.open()
    now = desk.clock()
    # Made after the letter was written, so the letter cannot hold it.
    boundary = f"{queue_id}/{desk.domain}"
    reasons = "\r\n".join(f"    {line}" for line in unsent.lines)
    await draft.add(
        f"Date: {date_text(now.utc_us, desk.zone_offset_s(now.utc_us))}\r\n"
        f"From: Mail Delivery Subsystem <MAILER-DAEMON@{desk.domain}>\r\n"
        f"To: {to.address.to_text()}\r\n"
        f"Subject: Returned mail: your letter was not sent to everybody\r\n"
        f"Message-Id: <{queue_id}@{desk.domain}>\r\n"
        f"Auto-Submitted: auto-replied\r\n"
        f"MIME-Version: 1.0\r\n"
        f'Content-Type: multipart/mixed; boundary="{boundary}"\r\n\r\n'
        f"--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Transfer-Encoding: 8bit\r\n\r\n"
        f"A letter you handed in while the mail server was not running could not be\r\n"
        f"sent to all of its recipients. This is what you would have been told:\r\n\r\n"
        f"{reasons}\r\n\r\nThe letter follows.\r\n\r\n"
        f"--{boundary}\r\nContent-Type: message/rfc822\r\n"
        f"Content-Transfer-Encoding: 8bit\r\n\r\n".encode("utf-8", "replace")
    )
    text = LocalText(dot_ends=False)
    await unsent.arguments()
    while piece := await unsent.read():
        await draft.add(text.feed(piece))
    await draft.add(text.finish() + f"\r\n--{boundary}--\r\n".encode())
