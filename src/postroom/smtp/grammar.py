"""What the readers of command lines share: how they object, and xtext."""

import re

from postroom.mail.reply import Reply

# xtext = *( xchar / hexchar ) (RFC 3461 §4)
XTEXT = re.compile(r"<>|(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")


class Fault(Exception):
    """Leaves the grammar with the reply that tells why; ends where a line is read."""

    def __init__(self, reply: Reply, rule: str = "syntax") -> None:
        super().__init__(rule)
        self.reply = reply
        self.rule = rule


def syntax(text: str, status: str = "5.5.4") -> Fault:
    """Return the objection to a line that is malformed: 501."""
    return Fault(Reply(501, status, (text,)))
