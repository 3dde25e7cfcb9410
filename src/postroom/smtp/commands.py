"""Command lines: their grammar, and the values they become.

A line becomes a command, or a ``Refused`` with the reply that tells why. Nothing here
knows the state of the session; whether a command is in place is the table's business.
Lines are judged octet by octet only by compiled expressions. Lines that come often
(EHLO, DATA, the same recipient) are read once, through a bounded cache; AUTH, which
carries secrets, never enters it.
"""

import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import ClassVar

import msgspec

from postroom.mail.address import ADDRESS_LITERAL, DOMAIN, Address, AddressError
from postroom.mail.envelope import BodyType
from postroom.mail.reply import Reply
from postroom.smtp import replies
from postroom.smtp.dialogue import COMMANDS, HELLOS, Verb
from postroom.smtp.settings import ServerSettings

_CACHED_LINE_OCTETS_MAX = 512


class MailParams(msgspec.Struct, frozen=True, gc=False):
    """What MAIL declared.

    SIZE (RFC 1870; 0: nothing), BODY (RFC 6152), AUTH in xtext (RFC 4954 §5), RET in
    upper case (RFC 3461 §4.3) and ENVID in xtext (RFC 3461 §4.4); empty: nothing.
    """

    size: int = 0
    body: BodyType = BodyType.SEVEN_BIT
    auth: str = ""
    ret: str = ""
    envid: str = ""


class RcptParams(msgspec.Struct, frozen=True, gc=False):
    """What RCPT declared of DSN, as received (RFC 3461 §4.1, §4.2); empty: nothing."""

    notify: str = ""
    orcpt: str = ""


class Hello(msgspec.Struct, frozen=True, gc=False):
    """EHLO, HELO or LHLO with the name the client gives itself. A reset as well."""

    verb: Verb
    domain: str


class Mail(msgspec.Struct, frozen=True, gc=False):
    """MAIL: a transaction begins; the address may be the null sender."""

    verb: ClassVar[Verb] = Verb.MAIL
    address: Address
    params: MailParams


class Rcpt(msgspec.Struct, frozen=True, gc=False):
    """RCPT: one recipient. Only ``postmaster`` may come without a domain."""

    verb: ClassVar[Verb] = Verb.RCPT
    address: Address
    params: RcptParams


class DataStart(msgspec.Struct, frozen=True, gc=False):
    """DATA: owed is 354, after which the content follows, or a refusal."""

    verb: ClassVar[Verb] = Verb.DATA


class Reset(msgspec.Struct, frozen=True, gc=False):
    """RSET: the transaction, if there is one, is forgotten."""

    verb: ClassVar[Verb] = Verb.RSET


class Noop(msgspec.Struct, frozen=True, gc=False):
    """NOOP, its argument ignored (RFC 5321 §4.1.1.9)."""

    verb: ClassVar[Verb] = Verb.NOOP


class Vrfy(msgspec.Struct, frozen=True, gc=False):
    """VRFY: a question about a user."""

    verb: ClassVar[Verb] = Verb.VRFY
    argument: str


class Expn(msgspec.Struct, frozen=True, gc=False):
    """EXPN: a question about a list."""

    verb: ClassVar[Verb] = Verb.EXPN
    argument: str


class Help(msgspec.Struct, frozen=True, gc=False):
    """HELP, perhaps on a topic."""

    verb: ClassVar[Verb] = Verb.HELP
    topic: str


class Quit(msgspec.Struct, frozen=True, gc=False):
    """QUIT: owed is 221, then the session is closed."""

    verb: ClassVar[Verb] = Verb.QUIT


class StartTls(msgspec.Struct, frozen=True, gc=False):
    """STARTTLS: owed is 220, then the handshake, then ``tls_started``."""

    verb: ClassVar[Verb] = Verb.STARTTLS


class Auth(msgspec.Struct, frozen=True, gc=False):
    """AUTH: an exchange begins; ``initial`` is decoded, None if there is none."""

    verb: ClassVar[Verb] = Verb.AUTH
    mechanism: str
    initial: bytes | None


class AuthResponse(msgspec.Struct, frozen=True, gc=False):
    """The answer to a 334 challenge, decoded."""

    verb: ClassVar[Verb] = Verb.RESPONSE
    octets: bytes


class Refused(msgspec.Struct, frozen=True, gc=False):
    """A line that the core answered itself, told for the log.

    ``verb`` and ``argument`` are as received, shortened, with octets outside ASCII
    escaped; ``rule`` names what was broken.
    """

    verb: str
    argument: str
    reply: Reply
    rule: str


Command = (
    Hello
    | Mail
    | Rcpt
    | DataStart
    | Reset
    | Noop
    | Vrfy
    | Expn
    | Help
    | Quit
    | StartTls
    | Auth
)

Parse = Callable[[bytes], Command | Refused]

HTTP_METHODS = frozenset(
    {"GET", "POST", "HEAD", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}
)
"""First words of a browser or proxy that was led here to speak for someone else."""

_NOT_IMPLEMENTED = (b"TURN", b"SEND", b"SOML", b"SAML")

# Path = "<" [ A-d-l ":" ] Mailbox ">" ; here: up to the ">" that is not quoted.
_PATH = r'<([^"<>\\ ]*|(?:[^"<>\\ ]|"(?:[^"\\]|\\.)*")*)>(?: +(.*))?'
# Blanks after the colon are wrong (RFC 5321 §3.3) but common and harmless.
_FROM = re.compile(rf"FROM: *{_PATH}", re.IGNORECASE)
_TO = re.compile(rf"TO: *{_PATH}", re.IGNORECASE)
# esmtp-param = esmtp-keyword ["=" esmtp-value]
_PARAM = re.compile(r"([A-Za-z0-9][A-Za-z0-9\-]*)(?:=([!-<>-~]+))?")
# size-value ::= 1*20DIGIT (RFC 1870 §3)
_SIZE = re.compile(r"[0-9]{1,20}")
# xtext = *( xchar / hexchar ) (RFC 3461 §4)
_XTEXT = re.compile(r"<>|(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")
# hexchar, apart from those that stand for graphic and white space characters, the
# only ones that ENVID and ORCPT may hold (RFC 3461 §4.2, §4.4)
_UNPRINTABLE = re.compile(r"\+(?:0[0-8A-F]|1|7F|[89A-F])")
# addr-type ";" xtext, addr-type = atom (RFC 3461 §4.2)
_ORCPT = re.compile(
    r"[^\x00-\x20()<>@,;:\\\".\[\]\x7f]+;(?:[!-*,-<>-~]|\+[0-9A-F]{2})*"
)
_NOTIFY_WORDS = frozenset({"SUCCESS", "FAILURE", "DELAY", ""})
ENVID_CHARS_MAX = 100
"""Longest ENVID; over it 501 5.5.4 (RFC 3461 §5.4)."""
ORCPT_CHARS_MAX = 500
"""Longest ORCPT; over it 501 5.5.4 (RFC 3461 §5.4)."""
NOTIFY_CHARS_MAX = 100
"""Longest NOTIFY; over it 501 5.5.4. All there is to say takes 21 (RFC 3461 §5.4)."""
# sasl-mech = 1*20mech-char (RFC 4422 §3.1)
_MECHANISM = re.compile(r"[A-Za-z0-9_\-]{1,20}")
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


class _Fault(Exception):
    """Leaves the grammar with the reply that tells why; never leaves this module."""

    def __init__(self, reply: Reply, rule: str = "syntax") -> None:
        super().__init__(rule)
        self.reply = reply
        self.rule = rule


def _syntax(text: str, status: str = "5.5.4") -> _Fault:
    return _Fault(Reply(501, status, (text,)))


@lru_cache(maxsize=32)
def parser(settings: ServerSettings, *, lmtp: bool) -> Parse:
    """Return what reads command lines under these settings."""
    readers = _readers(settings, lmtp)

    def read(line: bytes) -> Command | Refused:
        stripped = line.rstrip(b" \t")  # RFC 5321 §4.1.1: trailing blanks are borne
        word, _, rest = stripped.partition(b" ")
        verb = word.upper()
        try:
            text = _text(verb, stripped, rest)
            reader = readers.get(verb)
            if reader is None:
                raise _Fault(replies.UNKNOWN, "unknown-command")
            return reader(text)
        except _Fault as fault:
            return refused(line, fault.reply, fault.rule)

    often = lru_cache(maxsize=1024)(read)

    def parse(line: bytes) -> Command | Refused:
        if line[:1] in b"aA" or len(line) > _CACHED_LINE_OCTETS_MAX:
            return read(line)
        return often(line)

    return parse


def refused(line: bytes, reply: Reply, rule: str) -> Refused:
    """Tell of a line that was not accepted; what AUTH said is left out."""
    text = line[:256].decode("ascii", "backslashreplace")
    verb, _, argument = text.partition(" ")
    if verb.upper() == "AUTH":
        argument = argument.partition(" ")[0]
    return Refused(verb, argument, reply, rule)


def response(line: bytes) -> AuthResponse | Refused:
    """Read a line within an AUTH exchange (RFC 4954 §4)."""
    if line == b"*":
        return Refused("AUTH", "*", replies.CANCELLED, "auth-cancelled")
    try:
        return AuthResponse(_decoded(line.decode("ascii", "replace")))
    except _Fault as fault:
        return Refused("AUTH", "", fault.reply, fault.rule)


def _text(verb: bytes, line: bytes, rest: bytes) -> str:
    if not line.isascii():
        if verb in (b"MAIL", b"RCPT") and _is_utf8(line):
            raise _Fault(replies.UTF8_ADDRESS)  # RFC 6531 §3.5
        raise _Fault(replies.BAD_OCTETS)
    if not line.decode("ascii").isprintable():
        raise _Fault(replies.BAD_OCTETS)
    return rest.decode("ascii").strip(" ")


def _is_utf8(line: bytes) -> bool:
    try:
        return line.decode("utf-8").isprintable()
    except UnicodeDecodeError:
        return False


Reader = Callable[[str], Command]


def _readers(settings: ServerSettings, lmtp: bool) -> Mapping[bytes, Reader]:
    known: dict[Verb, Reader] = {
        Verb.MAIL: lambda text: _mail(text, settings),
        Verb.RCPT: lambda text: _rcpt(text, settings),
        Verb.DATA: _bare(Verb.DATA, DataStart()),
        Verb.RSET: _bare(Verb.RSET, Reset()),
        Verb.QUIT: _bare(Verb.QUIT, Quit()),
        Verb.NOOP: lambda _: Noop(),
        Verb.VRFY: lambda text: Vrfy(_given(text, Verb.VRFY)),
        Verb.EXPN: lambda text: Expn(_given(text, Verb.EXPN)),
        Verb.HELP: Help,
        Verb.STARTTLS: _not_implemented,
        Verb.AUTH: _not_implemented,
        Verb.BDAT: _not_implemented,
        Verb.ETRN: _not_implemented,
        Verb.VERB: _not_implemented,
        Verb.XCLIENT: _not_implemented,
    }
    if settings.starttls:  # RFC 3207 §4: it takes no parameter
        known[Verb.STARTTLS] = _bare(Verb.STARTTLS, StartTls())
    if settings.auth_mechanisms:
        known[Verb.AUTH] = lambda text: _auth(text, settings.auth_mechanisms)
    # RFC 2033 §4.1: LHLO takes the place of EHLO and HELO, which get 500
    for verb in (Verb.LHLO,) if lmtp else (Verb.EHLO, Verb.HELO):
        known[verb] = _hello_reader(verb)
    assert set(known) >= set(COMMANDS) - HELLOS
    words = {verb.value.encode("ascii"): reader for verb, reader in known.items()}
    return words | dict.fromkeys(_NOT_IMPLEMENTED, _not_implemented)


def _not_implemented(_: str) -> Command:
    raise _Fault(replies.NOT_IMPLEMENTED, "not-implemented")


def _bare(verb: Verb, command: Command) -> Reader:
    def read(text: str) -> Command:
        if text:
            raise _Fault(replies.NO_ARGUMENT)
        return command

    return read


def _given(text: str, verb: Verb) -> str:
    if not text:
        raise _syntax(f"{verb} needs an argument")
    return text


def _hello_reader(verb: Verb) -> Reader:
    def read(text: str) -> Command:
        name = text[:-1] if text.endswith(".") else text
        if name.startswith("["):
            if not ADDRESS_LITERAL.fullmatch(name):
                raise _syntax(f"{verb} needs a domain or address literal")
        elif len(name) > 255 or not DOMAIN.fullmatch(name):
            raise _syntax(f"{verb} needs a domain or address literal")
        return Hello(verb, name)

    return read


def _mail(text: str, settings: ServerSettings) -> Command:
    match = _FROM.fullmatch(text)
    if not match:
        raise _syntax("Syntax: MAIL FROM:<address>", "5.5.2")
    address = _address(match[1], "5.1.7")
    if not (address.domain or address.is_null or settings.bare_names):
        raise _syntax("Sender address needs a domain", "5.1.7")
    return Mail(address, _mail_params(match[2], settings) if match[2] else MailParams())


def _rcpt(text: str, settings: ServerSettings) -> Command:
    match = _TO.fullmatch(text)
    if not match:
        raise _syntax("Syntax: RCPT TO:<address>", "5.5.2")
    address = _address(match[1], "5.1.3")
    if address.is_null:
        raise _syntax("Recipient address is missing", "5.1.3")
    # RFC 5321 §4.5.1: postmaster is taken without a domain, in any case
    bare = settings.bare_names or address.local.lower() == "postmaster"
    if not (address.domain or bare):
        raise _syntax("Recipient address needs a domain", "5.1.3")
    return Rcpt(address, _rcpt_params(match[2], settings) if match[2] else RcptParams())


def _address(text: str, status: str) -> Address:
    try:
        return Address.from_text(text)
    except AddressError as error:
        raise _syntax(f"Bad address: {error}", status) from None


def _params(text: str) -> list[tuple[str, str]]:
    found: dict[str, str] = {}
    for word in text.split():
        match = _PARAM.fullmatch(word)
        if not match:
            raise _syntax("Malformed parameter")
        keyword = match[1].upper()
        if keyword in found:
            raise _syntax(f"Parameter {keyword} is given twice")
        found[keyword] = match[2] or ""
    return list(found.items())


def _unknown_param(keyword: str) -> _Fault:
    # RFC 5321 §4.1.1.11
    return _Fault(Reply(555, "5.5.4", (f"{keyword[:32]} parameter unrecognized",)))


def _mail_params(text: str, settings: ServerSettings) -> MailParams:
    size, body, auth, ret, envid = 0, BodyType.SEVEN_BIT, "", "", ""
    for keyword, value in _params(text):
        if keyword == "SIZE":
            if not _SIZE.fullmatch(value):
                raise _syntax("SIZE needs a number")
            size = int(value)
        elif keyword == "BODY":
            if value.upper() not in (BodyType.SEVEN_BIT, BodyType.EIGHT_BIT):
                raise _syntax("Unknown BODY type")
            body = BodyType(value.upper())
        elif keyword == "AUTH" and settings.auth_mechanisms:
            if not _XTEXT.fullmatch(value):
                raise _syntax("Malformed AUTH parameter")
            auth = value
        elif keyword == "RET" and settings.dsn:
            ret = value.upper()  # RFC 3461 §4.3: in any case
            if ret not in ("FULL", "HDRS"):
                raise _syntax("RET needs FULL or HDRS")
        elif keyword == "ENVID" and settings.dsn:
            envid = _envid(value)
        else:
            raise _unknown_param(keyword)
    return MailParams(size, body, auth, ret, envid)


def _rcpt_params(text: str, settings: ServerSettings) -> RcptParams:
    notify = orcpt = ""
    for keyword, value in _params(text):
        if keyword == "NOTIFY" and settings.dsn:
            notify = _notify(value)
        elif keyword == "ORCPT" and settings.dsn:
            orcpt = _orcpt(value)
        else:
            raise _unknown_param(keyword)
    return RcptParams(notify, orcpt)


def _envid(value: str) -> str:
    if not _XTEXT.fullmatch(value) or _UNPRINTABLE.search(value):
        raise _syntax("ENVID needs xtext of printable characters")
    if len(value) > ENVID_CHARS_MAX:
        raise _syntax(f"ENVID is longer than {ENVID_CHARS_MAX} characters")
    return value


def _notify(value: str) -> str:
    words = value.upper().split(",")  # RFC 3461 §4.1: in any case
    # The list of its grammar (1#) may have empty elements, but not only such.
    if words != ["NEVER"] and not (_NOTIFY_WORDS.issuperset(words) and any(words)):
        raise _syntax("NOTIFY needs NEVER alone, or some of SUCCESS, FAILURE, DELAY")
    if len(value) > NOTIFY_CHARS_MAX:
        raise _syntax(f"NOTIFY is longer than {NOTIFY_CHARS_MAX} characters")
    return value


def _orcpt(value: str) -> str:
    if not _ORCPT.fullmatch(value) or _UNPRINTABLE.search(value):
        raise _syntax("ORCPT needs a type, a semicolon, and xtext")
    if len(value) > ORCPT_CHARS_MAX:
        raise _syntax(f"ORCPT is longer than {ORCPT_CHARS_MAX} characters")
    return value  # RFC 3461 §5.2.1: passed on as it is, with its case


def _auth(text: str, mechanisms: tuple[str, ...]) -> Command:
    name, _, initial = text.partition(" ")
    if not _MECHANISM.fullmatch(name):
        raise _syntax("AUTH needs a mechanism")
    if name.upper() not in mechanisms:
        raise _Fault(replies.NO_MECHANISM, "auth-mechanism")
    if not initial:
        return Auth(name.upper(), None)
    # RFC 4954 §4: "=" is an empty initial response
    return Auth(name.upper(), b"" if initial == "=" else _decoded(initial))


def _decoded(text: str) -> bytes:
    if not _BASE64.fullmatch(text):
        raise _Fault(replies.NOT_BASE64)
    return b64decode(text)
