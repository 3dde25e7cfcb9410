"""Hidden envelopes before a whole session: core, policy, content and queue together.

What ``test_smtp_smuggled_envelopes`` says of the core is said here of what is queued:
one client says 5,461 messages in one session, each with an envelope in its text.
"""

import re
from itertools import product

from postroom.mail.envelope import Origin
from postroom.observe.events import MessageQueued
from postroom.services.receive import ReceiveService
from postroom.smtp.settings import ServerSettings
from postroom.testing.conversation import ListConversation
from postroom.testing.workbench import Plan, bench

CLIENT = Origin(protocol="SMTP", client_ip="203.0.113.9", listener="in")
ENVELOPE = b"MAIL FROM:<a@c.test>\r\nRCPT TO:<joe@gonzo.test>\r\nDATA\r\n"
SMUGGLED = b"MAIL FROM:<evil@c.test>\r\nRCPT TO:<joe@gonzo.test>\r\nDATA\r\nevil\r\n"
BARE = re.compile(rb"(?<!\r)\n|\r(?!\n)")
STRINGS = [
    bytes(octets)
    for length in range(7)
    for octets in product(b"\r\n\0.", repeat=length)
    if b"\r\n.\r\n" not in bytes(octets)
]


async def test_each_is_queued_once_or_refused() -> None:
    contents = [b"one" + string + SMUGGLED for string in STRINGS]
    said = ListConversation(
        "EHLO c.test\n",
        *(piece for content in contents for piece in (ENVELOPE + content, b".\r\n")),
        "QUIT\n",
    )
    async with bench(Plan(server=ServerSettings(errors_max=1 << 30))) as b:
        b.agents["mailbox"].gate.clear()
        await ReceiveService(b.tools).converse(said, CLIENT)
        codes = [line[:3] for line in said.replies if line[3:4] == " "]
        assert codes[:2] == ["220", "250"]
        assert codes[-1] == "221"
        ends = codes[5:-1:4]
        assert ends == ["550" if BARE.search(one) else "250" for one in contents]
        queued = b.told(MessageQueued)
        assert len(queued) == ends.count("250") > 100
        assert {str(event.sender) for event in queued} == {"a@c.test"}
