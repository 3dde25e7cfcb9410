"""Reads delivery reports strictly, as RFC 3464 and RFC 6522 write them.

Made apart from what writes them (``mail.dsn``), from the grammar of the RFCs, for tests
of it and of whole hosts. What is not as it must be is a ``ReportError`` that says what.
"""

import re
from collections.abc import Mapping, Sequence

import msgspec

_FIELD = re.compile(rb"([!-9;-~]+):((?:[^\r\n]|\r\n[ \t])*)\r\n")
_ATOM = r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+"
_TYPED = re.compile(rf"{_ATOM} ?; ?.*", re.ASCII)
_DATE = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d{1,2} "
    r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} "
    r"\d\d:\d\d:\d\d [+\-]\d{4}"
)
_STATUS = re.compile(r"[245]\.(?:0|[1-9]\d{0,2})\.(?:0|[1-9]\d{0,2})")
_BOUNDARY = re.compile(rb'boundary="([^"\r\n]{1,70})"')
_ACTIONS = frozenset({"failed", "delayed", "delivered", "relayed", "expanded"})
_LINE_OCTETS_MAX = 998

_MESSAGE_FIELDS = (
    "Original-Envelope-Id",
    "Reporting-MTA",
    "DSN-Gateway",
    "Received-From-MTA",
    "Arrival-Date",
    "Deliver-By-Date",
)
"""In the order of RFC 3464 §2.2; extension fields follow."""
_RECIPIENT_FIELDS = (
    "Original-Recipient",
    "Final-Recipient",
    "Action",
    "Status",
    "Remote-MTA",
    "Diagnostic-Code",
    "Last-Attempt-Date",
    "Final-Log-ID",
    "Will-Retry-Until",
)
"""In the order of RFC 3464 §2.3; extension fields follow."""
_TYPED_FIELDS = frozenset(
    {
        "Reporting-MTA",
        "DSN-Gateway",
        "Received-From-MTA",
        "Original-Recipient",
        "Final-Recipient",
        "Remote-MTA",
        "Diagnostic-Code",
    }
)
_DATES = frozenset(
    {"Arrival-Date", "Deliver-By-Date", "Last-Attempt-Date", "Will-Retry-Until"}
)


class ReportError(ValueError):
    """It is no report as the RFCs have it; the text says why."""


class ReadReport(msgspec.Struct, frozen=True):
    """A report, read.

    ``header`` are the fields of the letter by lower-case name, ``message`` those for
    the message, ``recipients`` those of each recipient; ``words`` is the text for
    people, ``returned_type`` and ``returned`` are the third part.
    """

    header: Mapping[str, str]
    words: str
    message: Mapping[str, str]
    recipients: Sequence[Mapping[str, str]]
    returned_type: str
    returned: bytes

    @property
    def actions(self) -> dict[str, str]:
        """What became of each recipient, by the address it was accepted as."""
        return {
            one["Final-Recipient"].partition(";")[2].strip(): one["Action"]
            for one in self.recipients
        }


def read_report(octets: bytes) -> ReadReport:
    """Read a report with its header, in CRLF form.

    Raises:
        ReportError: something is not as it must be.
    """
    if re.search(rb"\r(?!\n)|(?<!\r)\n|\0", octets):
        raise ReportError("bare CR or LF, or NUL")
    head, _, body = octets.partition(b"\r\n\r\n")
    header = {n.lower(): v for n, v in _fields(head + b"\r\n")}
    _check_header(header)
    content_type = header["content-type"].encode("latin-1")
    boundary = _BOUNDARY.search(content_type)
    if not boundary:
        raise ReportError("no boundary")
    parts = _parts(body, boundary[1])
    if len(parts) != 3:  # RFC 6522 §3: the third may be missing; we always have it
        raise ReportError(f"{len(parts)} parts")
    (words_type, words), (status_type, status), (returned_type, returned) = parts
    if words_type != "text/plain; charset=utf-8":
        raise ReportError(f"the first part is {words_type}")
    if status_type != "message/delivery-status":
        raise ReportError(f"the second part is {status_type}")
    if returned_type not in ("message/rfc822", "text/rfc822-headers"):
        raise ReportError(f"the third part is {returned_type}")
    if any(len(line) > _LINE_OCTETS_MAX for line in status.split(b"\r\n")):
        raise ReportError("a line of the fields is too long")
    message, recipients = _groups(status)
    return ReadReport(
        header, words.decode("utf-8"), message, recipients, returned_type, returned
    )


def _check_header(header: Mapping[str, str]) -> None:
    needed = ("date", "from", "to", "subject", "message-id", "content-type")
    if missing := [name for name in needed if name not in header]:
        raise ReportError(f"without {', '.join(missing)}")
    if header.get("mime-version") != "1.0":
        raise ReportError("no MIME-Version")
    if header.get("auto-submitted", "no") == "no":  # RFC 3834 §5
        raise ReportError("not Auto-Submitted")
    if not re.match(
        r"multipart/report;\s+report-type=delivery-status;", header["content-type"]
    ):  # RFC 6522 §3
        raise ReportError(f"Content-Type is {header['content-type']}")
    if not _DATE.fullmatch(header["date"]):
        raise ReportError(f"Date is {header['date']}")


def _parts(body: bytes, boundary: bytes) -> list[tuple[str, bytes]]:
    """Part a multipart as RFC 2046 §5.1.1 says; returns types and contents."""
    mark = b"\r\n--" + boundary
    pieces = (b"\r\n" + body).split(mark)
    if not pieces[-1].startswith(b"--"):
        raise ReportError("the last boundary is missing")
    found = []
    for piece in pieces[1:-1]:
        if not piece.startswith(b"\r\n"):
            raise ReportError("a boundary goes on")
        head, _, content = piece[2:].partition(b"\r\n\r\n")
        fields = {name.lower(): value for name, value in _fields(head + b"\r\n")}
        encoding = fields["content-transfer-encoding"]
        if encoding != ("7bit" if content.isascii() else "8bit"):
            raise ReportError(f"a part is said to be {encoding}")
        found.append((fields["content-type"], content))
    return found


def _groups(status: bytes) -> tuple[dict[str, str], list[dict[str, str]]]:
    if not status.isascii():
        raise ReportError("the fields are not ASCII")
    # RFC 3464 §2.1: groups are parted by empty lines
    blocks = status.removesuffix(b"\r\n").split(b"\r\n\r\n")
    if len(blocks) < 2:
        raise ReportError("no recipient")
    message = _group(blocks[0] + b"\r\n", _MESSAGE_FIELDS, ("Reporting-MTA",))
    needed = ("Final-Recipient", "Action", "Status")
    recipients = [
        _group(block + b"\r\n", _RECIPIENT_FIELDS, needed) for block in blocks[1:]
    ]
    for one in recipients:
        _check_recipient(one)
    return message, recipients


def _group(block: bytes, order: Sequence[str], needed: Sequence[str]) -> dict[str, str]:
    fields = _fields(block)
    names = [name for name, _ in fields]
    if len(set(names)) != len(names):
        raise ReportError(f"a field comes twice: {names}")
    if missing := [name for name in needed if name not in names]:
        raise ReportError(f"without {', '.join(missing)}")
    known = [name for name in names if name in order]
    if known != [name for name in order if name in known]:
        raise ReportError(f"fields out of order: {names}")
    extensions = names[len(known) :]
    if set(extensions) & set(order) or any(n[:2] != "X-" for n in extensions):
        raise ReportError(f"fields that nobody knows: {names}")
    for name, value in fields:
        if name in _TYPED_FIELDS and not _TYPED.fullmatch(value):
            raise ReportError(f"{name} has no type: {value!r}")
        if name in _DATES and not _DATE.fullmatch(value):
            raise ReportError(f"{name} is no date: {value!r}")
    return dict(fields)


def _check_recipient(one: Mapping[str, str]) -> None:
    action, status = one["Action"], one["Status"]
    if action not in _ACTIONS:
        raise ReportError(f"Action is {action}")
    if not _STATUS.fullmatch(status):
        raise ReportError(f"Status is {status}")
    # RFC 3464 §2.3.3: a failure may come of a temporary fault, never of a success
    allowed = {"failed": "45", "delayed": "4"}.get(action, "2")
    if status[0] not in allowed:
        raise ReportError(f"{action} with Status {status}")
    if "Will-Retry-Until" in one and action != "delayed":  # RFC 3464 §2.3.9
        raise ReportError(f"Will-Retry-Until with {action}")


def _fields(block: bytes) -> list[tuple[str, str]]:
    """Read a block of nothing but fields; values are unfolded and without blanks."""
    found, at = [], 0
    while at < len(block):
        match = _FIELD.match(block, at)
        if not match:
            raise ReportError(f"no field: {block[at : at + 80]!r}")
        text = match[2].decode("utf-8", "replace")
        if re.search(r"\r\n[ \t]*(?:\r\n|$)", text):
            raise ReportError(f"an empty line within {match[1]!r}")
        value = re.sub(r"\r\n(?=[ \t])", "", text).strip(" \t")
        found.append((match[1].decode("ascii"), value))
        at = match.end()
    return found
