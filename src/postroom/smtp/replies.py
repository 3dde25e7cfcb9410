"""Replies: the ones a server has ready, their octets, and reading a peer's.

Texts are short and generic; what exactly went wrong is for the log. Reading is
generous: three digits and anything behind them are a reply, and only the first digit
is relied on (RFC 5321 §4.3.2); an enhanced code is taken off the text if it agrees
with the number (RFC 2034 §4).
"""

import re
from base64 import b64encode
from functools import lru_cache

from postroom.mail.reply import Reply

_of = Reply.of

VERDICTS_FOLLOW = _of(353, "", "Content is being judged for each recipient")
RECEIVED = _of(250, "2.1.5", "Message accepted for this recipient")
VERBOSE = _of(250, "2.0.0", "Verbose mode")
START_CONTENT = _of(354, "", "End data with <CR><LF>.<CR><LF>")
SENDER_OK = _of(250, "2.1.0", "Sender ok")
RECIPIENT_OK = _of(250, "2.1.5", "Recipient ok")
RESET_OK = _of(250, "2.0.0", "Reset state")
NOOP_OK = _of(250, "2.0.0", "OK")
# RFC 5321 §3.5.3: 252 tells nobody which users exist
VRFY_UNTOLD = _of(252, "2.5.2", "Cannot VRFY user; try RCPT to attempt delivery")
EXPN_REFUSED = _of(502, "5.7.0", "EXPN is not available here")
HELP = _of(
    214,
    "2.0.0",
    "Commands: EHLO HELO MAIL RCPT DATA RSET NOOP VRFY HELP QUIT",
    "For questions write to postmaster at this host",
)
READY_FOR_TLS = _of(220, "2.0.0", "Ready to start TLS")
LOGGED_IN = _of(235, "2.7.0", "Authentication succeeded")
LOGIN_FAILED = _of(535, "5.7.8", "Authentication credentials invalid")

LINE_TOO_LONG = _of(500, "5.5.2", "Line too long")
RESPONSE_TOO_LONG = _of(500, "5.5.6", "Authentication exchange line is too long")
BAD_OCTETS = _of(500, "5.5.2", "Command has control or 8-bit characters")
UNKNOWN = _of(500, "5.5.1", "Command unrecognized")
NOT_IMPLEMENTED = _of(502, "5.5.1", "Command not implemented")
NO_ARGUMENT = _of(501, "5.5.4", "This command takes no argument")
BDAT_SYNTAX = _of(501, "5.5.4", "Syntax: BDAT octets [LAST]")
BDAT_WITHOUT_SIZE = _of(421, "4.5.4", "BDAT without a size; closing connection")
BDAT_FIRST = _of(503, "5.5.1", "DATA cannot follow BDAT")
BINARY_DATA = _of(503, "5.5.1", "BODY=BINARYMIME needs BDAT")
CHUNK_TOO_LARGE = _of(552, "5.3.4", "Chunk size exceeds the limit")
TOO_MANY_MESSAGES = _of(421, "4.5.3", "Too many messages; closing connection")
TOO_SOON = _of(555, "5.5.4", "BY gives less time than is promised here")
HELD_TOO_LONG = _of(501, "5.5.4", "Messages are not held for so long here")
NOT_BASE64 = _of(501, "5.5.2", "Cannot decode the response")
CANCELLED = _of(501, "5.7.0", "Authentication cancelled")
NO_MECHANISM = _of(504, "5.5.4", "Authentication mechanism not available")
ALREADY_LOGGED_IN = _of(503, "5.5.1", "Already authenticated")
ALREADY_TLS = _of(503, "5.5.1", "TLS is already in use")
# RFC 6531 §3.5
UTF8_SENDER = _of(550, "5.6.7", "Address outside ASCII needs SMTPUTF8")
UTF8_RECIPIENT = _of(553, "5.6.7", "Address outside ASCII needs SMTPUTF8")
TOO_MANY_RECIPIENTS = _of(452, "4.5.3", "Too many recipients")
NO_RECIPIENTS = _of(554, "5.5.1", "No valid recipients")
LMTP_NO_RECIPIENTS = _of(503, "5.5.1", "No valid recipients")
TOO_LARGE = _of(552, "5.3.4", "Message size exceeds the limit")
BARE_LINE_END = _of(550, "5.6.11", "Message has a CR or LF that is not part of CRLF")
CONTENT_LINE_TOO_LONG = _of(554, "5.6.0", "Message has a line that is too long")
TOO_MANY_ERRORS = _of(421, "4.7.0", "Too many errors; closing connection")
NOT_MAIL = _of(421, "4.7.0", "This is a mail server; closing connection")


def greeting(hostname: str) -> Reply:
    """Return the 220 a session begins with (RFC 5321 §3.1)."""
    return Reply(220, "", (f"{hostname} ESMTP Postroom",))


def goodbye(hostname: str) -> Reply:
    """Return the answer to QUIT (RFC 5321 §4.1.1.10)."""
    return Reply(221, "2.0.0", (f"{hostname} closing connection",))


def closing(hostname: str, why: str = "closing connection") -> Reply:
    """Return a 421 that ends the session at any time (RFC 5321 §3.8)."""
    return Reply(421, "4.3.2", (f"{hostname} {why}",))


def queued(queue_id: str) -> Reply:
    """Return the 250 after which the message is ours (RFC 5321 §4.1.1.4)."""
    return Reply(250, "2.0.0", (f"{queue_id} Message accepted for delivery",))


def chunk_taken(octets: int) -> Reply:
    """Return the 250 for a chunk that is not the last (RFC 3030 §2)."""
    return Reply(250, "2.0.0", (f"{octets} octets received",))


def challenge(octets: bytes) -> Reply:
    """Return the 334 that carries a SASL challenge (RFC 4954 §4)."""
    return Reply(334, "", (b64encode(octets).decode("ascii"),))


@lru_cache(maxsize=512)
def wire(reply: Reply) -> bytes:
    """Return the octets of a reply; frequent ones are made once."""
    return reply.to_wire()


# Reply-line = *( Reply-code "-" [ textstring ] CRLF ) Reply-code [ SP textstring ] CRLF
_LINE = re.compile(rb"([1-9][0-9][0-9])(?:([ \-])(.*))?", re.DOTALL)
# statuscode = class "." subject "." detail (RFC 2034 §4)
_STATUS = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: |$)")


_CACHED_LINE_OCTETS_MAX = 200


class ReplyReader:
    """Puts the lines of a peer's replies together."""

    __slots__ = ("_code", "_lines", "_lines_max")

    def __init__(self, lines_max: int) -> None:
        self._lines_max = lines_max
        self._code = 0
        self._lines: list[str] = []

    def read(self, line: bytes) -> Reply | str | None:
        """Take one line; return the reply it ends, None, or what is wrong with it."""
        if not self._lines and len(line) <= _CACHED_LINE_OCTETS_MAX:
            alone = _single(line)
            if alone is not None:
                return alone
        match = _LINE.fullmatch(line)
        if not match:
            return "no reply code"
        code = int(match[1])
        if self._lines and code // 100 != self._code // 100:
            return "lines of one reply with different codes"
        self._code = code
        self._lines.append(text_of(match[3] or b""))
        if match[2] == b"-":
            full = len(self._lines) >= self._lines_max
            return "reply with too many lines" if full else None
        reply = reply_of(code, self._lines)
        self._lines = []
        return reply


@lru_cache(maxsize=256)
def _single(line: bytes) -> Reply | None:
    """Read a reply of one line; servers say the same few over and over."""
    match = _LINE.fullmatch(line)
    if not match or match[2] == b"-":
        return None
    return reply_of(int(match[1]), [text_of(match[3] or b"")])


def text_of(line: bytes) -> str:
    """Make text of a peer's line; control characters become question marks."""
    text = line.decode("utf-8", "replace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "?" for c in text)


def reply_of(code: int, texts: list[str]) -> Reply:
    """Make a reply of received lines, taking the enhanced code off each of them."""
    found = _STATUS.match(texts[0])
    if not found or found[1][0] != str(code)[0]:
        return Reply(code, "", tuple(texts))
    status = found[1]
    lines = (t[len(status) :].lstrip(" ") if t.startswith(status) else t for t in texts)
    return Reply(code, status, tuple(lines))
