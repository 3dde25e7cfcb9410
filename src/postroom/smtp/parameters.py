"""The parameters of MAIL and RCPT, and the values they become.

Each is read only where the settings offer its extension; any other is 555 5.5.4
(RFC 5321 §4.1.1.11), a value that its grammar does not know is 501. Whether one is in
place in this session (REQUIRETLS only under TLS) is the core's business.
"""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from postroom.mail.envelope import BodyType
from postroom.mail.now import SECOND_US
from postroom.mail.reply import Reply
from postroom.smtp.grammar import XTEXT, Fault, syntax
from postroom.smtp.settings import ServerSettings


class MailParams(msgspec.Struct, frozen=True, gc=False):
    """What MAIL declared; empty, false and 0: nothing.

    SIZE (RFC 1870), BODY (RFC 6152, RFC 3030), AUTH in xtext (RFC 4954 §5), RET in
    upper case (RFC 3461 §4.3), ENVID in xtext (RFC 3461 §4.4), SMTPUTF8 (RFC 6531
    §3.4), REQUIRETLS (RFC 8689 §2), BY in upper case (RFC 2852 §4), HOLDFOR in
    seconds, HOLDUNTIL as a moment in UTC (RFC 4865 §3), MT-PRIORITY (RFC 6710 §3),
    PRDR (draft-hall-prdr-00 §4.2). ``given`` is all of them as they were written,
    keywords in upper case; ``has_wishes``: others than SIZE and BODY are among them.
    """

    size: int = 0
    body: BodyType = BodyType.SEVEN_BIT
    auth: str = ""
    ret: str = ""
    envid: str = ""
    smtputf8: bool = False
    requiretls: bool = False
    deliver_by: str = ""
    hold_for_s: int = 0
    hold_until_us: int = 0
    priority: int = 0
    prdr: bool = False
    given: tuple[tuple[str, str], ...] = ()
    has_wishes: bool = False

    @property
    def is_held(self) -> bool:
        """Whether the message is to be kept back for a time (RFC 4865)."""
        return bool(self.hold_for_s or self.hold_until_us)

    def hold_until(self, now_us: int) -> int:
        """Return until when the message is kept back; 0: it goes at once."""
        if self.hold_for_s:
            return now_us + self.hold_for_s * SECOND_US
        return self.hold_until_us


class RcptParams(msgspec.Struct, frozen=True, gc=False):
    """What RCPT declared of DSN, as received (RFC 3461 §4.1, §4.2); empty: nothing.

    An ORCPT in UTF-8 has become the form that passes everywhere (RFC 6533 §3).
    """

    notify: str = ""
    orcpt: str = ""


# esmtp-param = esmtp-keyword ["=" esmtp-value]; RFC 6531 §3.3 adds UTF8-non-ascii
_PARAM = re.compile(r"([A-Za-z0-9][A-Za-z0-9\-]*)(?:=([!-<>-~\u0080-\U0010ffff]+))?")
# size-value ::= 1*20DIGIT (RFC 1870 §3)
_SIZE = re.compile(r"[0-9]{1,20}")
# hexchar, apart from those that stand for graphic and white space characters, the
# only ones that ENVID and ORCPT may hold (RFC 3461 §4.2, §4.4)
_UNPRINTABLE = re.compile(r"\+(?:0[0-8A-F]|1|7F|[89A-F])")
# addr-type ";" xtext, addr-type = atom (RFC 3461 §4.2)
_ORCPT = re.compile(
    r"[^\x00-\x20()<>@,;:\\\".\[\]\x7f]+;(?:[!-*,-<>-~]|\+[0-9A-F]{2})*"
)
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
# UTF-8 in the xtext of a type that knows only ASCII: so Postfix writes it
_UTF8_RUN = re.compile(r"(?:\+[89A-F][0-9A-F])+")
_NOTIFY_WORDS = frozenset({"SUCCESS", "FAILURE", "DELAY", ""})
# by-value = by-time ";" by-mode [by-trace] (RFC 2852 §4)
_BY = re.compile(r"([-+]?[0-9]{1,9});([NR])T?", re.IGNORECASE)
# future-release-interval, 1*9DIGIT (RFC 4865 §3)
_INTERVAL = re.compile(r"[0-9]{1,9}")
# Internet-style-date-time-UTC (RFC 4865 §3, from RFC 3339 §5.6)
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?Z",
    re.IGNORECASE,
)
# priority-value = (["-"] NZDIGIT) / "0" (RFC 6710 §7)
_PRIORITY = re.compile(r"-?[1-9]|0")

ENVID_CHARS_MAX = 100
"""Longest ENVID; over it 501 5.5.4 (RFC 3461 §5.4)."""
ORCPT_CHARS_MAX = 500
"""Longest ORCPT; over it 501 5.5.4 (RFC 3461 §5.4)."""
NOTIFY_CHARS_MAX = 100
"""Longest NOTIFY; over it 501 5.5.4. All there is to say takes 21 (RFC 3461 §5.4)."""


def read_mail_params(text: str, settings: ServerSettings) -> MailParams:
    """Read what stands behind the path of MAIL.

    Raises:
        Fault: a parameter is malformed, unknown, or against another.
    """
    size, body = 0, BodyType.SEVEN_BIT
    rare: dict[str, Any] = {}
    given = _params(text)
    for keyword, value in given:
        if keyword == "SIZE":
            if not _SIZE.fullmatch(value):
                raise syntax("SIZE needs a number")
            size = int(value)
        elif keyword == "BODY":
            body = _body(value, settings)
        else:
            known = _RARE.get(keyword)
            if known is None or not known.is_offered(settings):
                raise unknown(keyword)
            rare[known.field] = known.read(value)
    if not rare:
        return MailParams(size, body, given=given)
    _agree(rare)
    return MailParams(size, body, given=given, has_wishes=True, **rare)


def read_rcpt_params(text: str, settings: ServerSettings) -> RcptParams:
    """Read what stands behind the path of RCPT.

    Raises:
        Fault: a parameter is malformed or unknown.
    """
    notify = orcpt = ""
    for keyword, value in _params(text):
        if keyword == "NOTIFY" and settings.dsn:
            notify = _notify(value)
        elif keyword == "ORCPT" and settings.dsn:
            orcpt = _orcpt(value)
        else:
            raise unknown(keyword)
    return RcptParams(notify, orcpt)


def unknown(keyword: str) -> Fault:
    """Return the objection to a parameter that is not offered here: 555."""
    # RFC 5321 §4.1.1.11
    return Fault(Reply(555, "5.5.4", (f"{keyword[:32]} parameter unrecognized",)))


def _params(text: str) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for word in text.split(" "):
        if not word:
            continue
        match = _PARAM.fullmatch(word)
        if not match:
            raise syntax("Malformed parameter")
        keyword = match[1].upper()
        if keyword in found:
            raise syntax(f"Parameter {keyword[:32]} is given twice")
        value = match[2] or ""
        if not value.isascii() and keyword != "ORCPT":
            raise syntax("Malformed parameter")
        found[keyword] = value
    return tuple(found.items())


def _body(value: str, settings: ServerSettings) -> BodyType:
    try:
        body = BodyType(value.upper())
    except ValueError:
        raise syntax("Unknown BODY type") from None
    # RFC 3030 §3: only where chunks are taken
    if body is BodyType.BINARY and not (settings.binarymime and settings.chunking):
        raise syntax("Unknown BODY type")
    return body


def _agree(rare: dict[str, Any]) -> None:
    """See whether what was asked for can be had together."""
    if "hold_for_s" in rare and "hold_until_us" in rare:  # RFC 4865 §4.2
        raise syntax("HOLDFOR and HOLDUNTIL exclude each other")
    if "hold_for_s" in rare and "deliver_by" in rare:  # RFC 4865 §5.2.2
        within_s = int(rare["deliver_by"].partition(";")[0])
        if rare["hold_for_s"] >= within_s:
            raise syntax("HOLDFOR is longer than BY allows")


def _auth(value: str) -> str:
    if not XTEXT.fullmatch(value):
        raise syntax("Malformed AUTH parameter")
    return value


def _ret(value: str) -> str:
    ret = value.upper()  # RFC 3461 §4.3: in any case
    if ret not in ("FULL", "HDRS"):
        raise syntax("RET needs FULL or HDRS")
    return ret


def _envid(value: str) -> str:
    if not XTEXT.fullmatch(value) or _UNPRINTABLE.search(value):
        raise syntax("ENVID needs xtext of printable characters")
    if len(value) > ENVID_CHARS_MAX:
        raise syntax(f"ENVID is longer than {ENVID_CHARS_MAX} characters")
    return value


def _bare(keyword: str) -> Callable[[str], bool]:
    def read(value: str) -> bool:
        if value:
            raise syntax(f"{keyword} takes no value")
        return True

    return read


def _deliver_by(value: str) -> str:
    match = _BY.fullmatch(value)
    if not match:
        raise syntax("BY needs seconds, a semicolon, and N or R")
    if match[2] in "rR" and int(match[1]) <= 0:  # RFC 2852 §4
        raise syntax("BY with R needs a time to come")
    return value.upper()


def _hold_for(value: str) -> int:
    if not _INTERVAL.fullmatch(value) or not int(value):
        raise syntax("HOLDFOR needs a number of seconds")
    return int(value)


def _hold_until(value: str) -> int:
    if not _MOMENT.fullmatch(value):
        raise syntax("HOLDUNTIL needs a moment such as 2027-01-31T08:00:00Z")
    try:
        at = datetime.fromisoformat(value.upper())
    except ValueError:
        raise syntax("HOLDUNTIL names no moment") from None
    return int(at.timestamp()) * SECOND_US + at.microsecond


def _priority(value: str) -> int:
    if not _PRIORITY.fullmatch(value):  # RFC 6710 §4.1
        raise syntax("MT-PRIORITY needs a number from -9 to 9", "5.5.2")
    return int(value)


class _Rare(NamedTuple):
    field: str
    read: Callable[[str], object]
    is_offered: Callable[[ServerSettings], object]


_RARE = {
    "AUTH": _Rare("auth", _auth, lambda s: s.auth_mechanisms),
    "RET": _Rare("ret", _ret, lambda s: s.dsn),
    "ENVID": _Rare("envid", _envid, lambda s: s.dsn),
    "SMTPUTF8": _Rare("smtputf8", _bare("SMTPUTF8"), lambda s: s.smtputf8),
    "REQUIRETLS": _Rare("requiretls", _bare("REQUIRETLS"), lambda s: s.requiretls),
    "BY": _Rare("deliver_by", _deliver_by, lambda s: s.deliverby),
    "HOLDFOR": _Rare("hold_for_s", _hold_for, lambda s: s.future_release != "off"),
    "HOLDUNTIL": _Rare(
        "hold_until_us", _hold_until, lambda s: s.future_release != "off"
    ),
    "MT-PRIORITY": _Rare("priority", _priority, lambda s: s.mt_priority),
    "PRDR": _Rare("prdr", _bare("PRDR"), lambda s: s.prdr),
}


def _notify(value: str) -> str:
    words = value.upper().split(",")  # RFC 3461 §4.1: in any case
    # The list of its grammar (1#) may have empty elements, but not only such.
    if words != ["NEVER"] and not (_NOTIFY_WORDS.issuperset(words) and any(words)):
        raise syntax("NOTIFY needs NEVER alone, or some of SUCCESS, FAILURE, DELAY")
    if len(value) > NOTIFY_CHARS_MAX:
        raise syntax(f"NOTIFY is longer than {NOTIFY_CHARS_MAX} characters")
    return value


def _escaped(text: str) -> str:
    """Write what is outside ASCII as EmbeddedUnicodeChar (RFC 6533 §3)."""
    return _NOT_ASCII.sub(lambda match: f"\\x{{{ord(match[0]):02X}}}", text)


def _from_run(run: re.Match[str]) -> str:
    return _escaped(bytes.fromhex(run[0].replace("+", "")).decode())


def _orcpt(value: str) -> str:
    if not value.isascii():
        if value[:6].lower() != "utf-8;":
            raise syntax("ORCPT outside ASCII needs the type utf-8")
        # RFC 6533 §3: this form is safe also where SMTPUTF8 is not offered
        value = _escaped(value)
    elif value[:7].lower() == "rfc822;" and _UTF8_RUN.search(value):
        try:
            value = f"utf-8;{_UTF8_RUN.sub(_from_run, value[7:])}"
        except UnicodeDecodeError:
            raise syntax("ORCPT needs UTF-8 outside ASCII") from None
    if not _ORCPT.fullmatch(value) or _UNPRINTABLE.search(value):
        raise syntax("ORCPT needs a type, a semicolon, and xtext")
    if len(value) > ORCPT_CHARS_MAX:
        raise syntax(f"ORCPT is longer than {ORCPT_CHARS_MAX} characters")
    return value  # RFC 3461 §5.2.1: passed on as it is, with its case
