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

from postroom.mail.address import (
    ADDRESS_LITERAL,
    DOMAIN,
    DOMAIN_OCTETS_MAX,
    Address,
    AddressError,
)
from postroom.mail.reply import Reply
from postroom.smtp import replies
from postroom.smtp.dialogue import COMMANDS, HELLOS, Verb
from postroom.smtp.grammar import Fault, syntax
from postroom.smtp.parameters import (
    MailParams,
    RcptParams,
    read_mail_params,
    read_rcpt_params,
)
from postroom.smtp.settings import ServerSettings
from postroom.smtp.xclient import Claims, read_claims

_CACHED_LINE_OCTETS_MAX = 512


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
    """RCPT: one recipient. Only ``postmaster`` may come without a domain.

    ``utf8`` tells that it was said in UTF-8, which the transaction must allow.
    """

    verb: ClassVar[Verb] = Verb.RCPT
    address: Address
    params: RcptParams
    utf8: bool = False


class Bdat(msgspec.Struct, frozen=True, gc=False):
    """BDAT: so many octets of content follow at once (RFC 3030 §2).

    Never an event: the core reads the octets first. ``fault`` objects to what stands
    behind the number; the octets are then read and thrown away.
    """

    size_octets: int
    is_last: bool
    fault: Reply | None = None

    @property
    def verb(self) -> Verb:
        """What its reply answers."""
        return Verb.BDAT_LAST if self.is_last else Verb.BDAT


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
    """VRFY: a question about a user; ``utf8`` allows UTF-8 in the reply."""

    verb: ClassVar[Verb] = Verb.VRFY
    argument: str
    utf8: bool = False


class Expn(msgspec.Struct, frozen=True, gc=False):
    """EXPN: a question about a list; ``utf8`` allows UTF-8 in the reply."""

    verb: ClassVar[Verb] = Verb.EXPN
    argument: str
    utf8: bool = False


class Help(msgspec.Struct, frozen=True, gc=False):
    """HELP, perhaps on a topic."""

    verb: ClassVar[Verb] = Verb.HELP
    topic: str


class Etrn(msgspec.Struct, frozen=True, gc=False):
    """ETRN: mail that waits for a node is to be tried now (RFC 1985 §5).

    ``option`` is ``@`` for a domain with all below it, ``#`` for a queue by name, or
    empty; ``node`` is the domain in lower case, or the queue's name.
    """

    verb: ClassVar[Verb] = Verb.ETRN
    option: str
    node: str


class Verbose(msgspec.Struct, frozen=True, gc=False):
    """VERB: what is done with the messages of this session is to be told."""

    verb: ClassVar[Verb] = Verb.VERB


class Xclient(msgspec.Struct, frozen=True, gc=False):
    """XCLIENT: a proxy tells for whom it speaks. Owed is 220 or 421, as a greeting."""

    verb: ClassVar[Verb] = Verb.XCLIENT
    claims: Claims


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


_NO_MAIL_PARAMS = MailParams()
_NO_RCPT_PARAMS = RcptParams()


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
    | Etrn
    | Verbose
    | Xclient
    | Quit
    | StartTls
    | Auth
)

Parse = Callable[[bytes], Command | Bdat | Refused]

_NOT_IMPLEMENTED = (b"TURN", b"SEND", b"SOML", b"SAML")

# RFC 6531 §3.3, §3.7.4.2
_UTF8_VERBS = frozenset({b"MAIL", b"RCPT", b"VRFY", b"EXPN"})
_UTF8_REFUSALS = {b"MAIL": replies.UTF8_SENDER, b"RCPT": replies.UTF8_RECIPIENT}
# chunk-size ::= 1*DIGIT, here as many as fit into 64 bits (RFC 3030 §2)
_BDAT = re.compile(r"([0-9]{1,18})(?: +(.*))?")
# node = domain; what a queue is called is a local matter (RFC 1985 §5.3)
_QUEUE = re.compile(r"[!-~]{1,255}")

# Path = "<" [ A-d-l ":" ] Mailbox ">" ; here: up to the ">" that is not quoted.
_PATH = r'<([^"<>\\ ]*|(?:[^"<>\\ ]|"(?:[^"\\]|\\.)*")*)>(?: +(.*))?'
# Blanks after the colon are wrong (RFC 5321 §3.3) but common and harmless.
_FROM = re.compile(rf"FROM: *{_PATH}", re.IGNORECASE)
_TO = re.compile(rf"TO: *{_PATH}", re.IGNORECASE)
# sasl-mech = 1*20mech-char (RFC 4422 §3.1)
_MECHANISM = re.compile(r"[A-Za-z0-9_\-]{1,20}")
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


@lru_cache(maxsize=32)
def parser(settings: ServerSettings, *, lmtp: bool) -> Parse:
    """Return what reads command lines under these settings."""
    readers = _readers(settings, lmtp)
    utf8 = settings.smtputf8

    def read(line: bytes) -> Command | Bdat | Refused:
        stripped = line.rstrip(b" \t")  # RFC 5321 §4.1.1: trailing blanks are borne
        word, _, rest = stripped.partition(b" ")
        verb = word.upper()
        try:
            text = _text(verb, stripped, rest, utf8=utf8)
            reader = readers.get(verb)
            if reader is None:
                raise Fault(replies.UNKNOWN, "unknown-command")
            return reader(text)
        except Fault as fault:
            if is_chunk(line) and fault.reply.code != 421:
                # nobody can tell now where the content ends
                return refused(line, replies.BDAT_WITHOUT_SIZE, "bdat-without-size")
            return refused(line, fault.reply, fault.rule)

    often = lru_cache(maxsize=1024)(read)

    def parse(line: bytes) -> Command | Bdat | Refused:
        if line[:1] in b"aA" or len(line) > _CACHED_LINE_OCTETS_MAX:
            return read(line)
        return often(line)

    return parse


def is_chunk(line: bytes) -> bool:
    """Whether content may follow a line, though it is malformed: it looks like BDAT."""
    return line[:16].lstrip()[:4].upper() == b"BDAT"


def refused(line: bytes, reply: Reply, rule: str) -> Refused:
    """Tell of a line that was not accepted; what AUTH said is left out."""
    text = line[:256].decode("ascii", "backslashreplace")
    verb, _, argument = text.partition(" ")
    words = text[:64].split(maxsplit=2)
    if words and words[0].upper() == "AUTH":  # also with other blanks than there may be
        verb, argument = words[0], words[1] if len(words) > 1 else ""
    return Refused(verb, argument, reply, rule)


def response(line: bytes) -> AuthResponse | Refused:
    """Read a line within an AUTH exchange (RFC 4954 §4)."""
    if line == b"*":
        return Refused("AUTH", "*", replies.CANCELLED, "auth-cancelled")
    try:
        return AuthResponse(_decoded(line.decode("ascii", "replace")))
    except Fault as fault:
        return Refused("AUTH", "", fault.reply, fault.rule)


def _text(verb: bytes, line: bytes, rest: bytes, *, utf8: bool) -> str:
    if not line.isascii():
        return _utf8_text(verb, line, rest, utf8=utf8)
    if not line.decode("ascii").isprintable():
        raise Fault(replies.BAD_OCTETS)
    return rest.decode("ascii").strip(" ")


def _utf8_text(verb: bytes, line: bytes, rest: bytes, *, utf8: bool) -> str:
    """Read a line with octets outside ASCII: only these commands may have them."""
    if verb not in _UTF8_VERBS or not _is_utf8(line):
        raise Fault(replies.BAD_OCTETS)
    if not utf8:  # RFC 6531 §3.5
        raise Fault(_UTF8_REFUSALS.get(verb, replies.BAD_OCTETS))
    return rest.decode("utf-8").strip(" ")


def _is_utf8(line: bytes) -> bool:
    try:
        return line.decode("utf-8").isprintable()
    except UnicodeDecodeError:
        return False


Reader = Callable[[str], Command | Bdat]


def _readers(settings: ServerSettings, lmtp: bool) -> Mapping[bytes, Reader]:
    known: dict[Verb, Reader] = {
        Verb.MAIL: lambda text: _mail(text, settings),
        Verb.RCPT: lambda text: _rcpt(text, settings),
        Verb.DATA: _bare(Verb.DATA, DataStart()),
        Verb.RSET: _bare(Verb.RSET, Reset()),
        Verb.QUIT: _bare(Verb.QUIT, Quit()),
        Verb.NOOP: lambda _: Noop(),
        Verb.VRFY: lambda text: Vrfy(*_asked(text, Verb.VRFY)),
        Verb.EXPN: lambda text: Expn(*_asked(text, Verb.EXPN)),
        Verb.HELP: Help,
        Verb.STARTTLS: _not_implemented,
        Verb.AUTH: _not_implemented,
        Verb.BDAT: _bdat,
        Verb.ETRN: _etrn if settings.etrn else _not_implemented,
        Verb.VERB: _verb if settings.verb else _not_implemented,
        Verb.XCLIENT: _xclient if settings.xclient_networks else _not_implemented,
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
    raise Fault(replies.NOT_IMPLEMENTED, "not-implemented")


def _bare(verb: Verb, command: Command) -> Reader:
    def read(text: str) -> Command:
        if text:
            raise Fault(replies.NO_ARGUMENT)
        return command

    return read


def _asked(text: str, verb: Verb) -> tuple[str, bool]:
    """Part the argument of VRFY or EXPN from SMTPUTF8 (RFC 6531 §3.7.4.2)."""
    asked, blank, last = text.rpartition(" ")
    utf8 = bool(blank) and last.upper() == "SMTPUTF8"
    if not text:
        raise syntax(f"{verb} needs an argument")
    return (asked.rstrip(" ") if utf8 else text), utf8


def _bdat(text: str) -> Bdat:
    match = _BDAT.fullmatch(text)
    if not match:  # nobody can tell now where the content ends
        raise Fault(replies.BDAT_WITHOUT_SIZE, "bdat-without-size")
    marker = (match[2] or "").upper()
    fault = None if marker in ("", "LAST") else replies.BDAT_SYNTAX
    return Bdat(int(match[1]), marker.startswith("LAST"), fault)


def _etrn(text: str) -> Etrn:
    if not text:  # RFC 1985 §7
        raise Fault(Reply(500, "5.5.2", ("ETRN needs a domain",)))
    option = text[0] if text[0] in "@#" else ""
    node = text[1:] if option else text
    if option == "#":
        if not _QUEUE.fullmatch(node):
            raise syntax("ETRN needs the name of a queue behind #")
        return Etrn(option, node)
    node = node.rstrip(".").lower()
    if len(node) > DOMAIN_OCTETS_MAX or not DOMAIN.fullmatch(node):
        raise syntax("ETRN needs a domain")
    return Etrn(option, node)


def _verb(text: str) -> Verbose:
    if text.upper() not in ("", "ON"):  # some clients say VERB ON
        raise syntax("VERB takes no argument")
    return Verbose()


def _xclient(text: str) -> Xclient:
    return Xclient(read_claims(text))


def _hello_reader(verb: Verb) -> Reader:
    def read(text: str) -> Command:
        name = text[:-1] if text.endswith(".") else text
        if name.startswith("["):
            if not ADDRESS_LITERAL.fullmatch(name):
                raise syntax(f"{verb} needs a domain or address literal")
        elif len(name) > 255 or not DOMAIN.fullmatch(name):
            raise syntax(f"{verb} needs a domain or address literal")
        return Hello(verb, name)

    return read


def _mail(text: str, settings: ServerSettings) -> Command:
    match = _FROM.fullmatch(text)
    if not match:
        raise syntax("Syntax: MAIL FROM:<address>", "5.5.2")
    address = _address(match[1], "5.1.7")
    if not (address.domain or address.is_null or settings.bare_names):
        raise syntax("Sender address needs a domain", "5.1.7")
    params = read_mail_params(match[2], settings) if match[2] else _NO_MAIL_PARAMS
    if not (params.smtputf8 or address.is_ascii):  # RFC 6531 §3.5
        raise Fault(replies.UTF8_SENDER)
    return Mail(address, params)


def _rcpt(text: str, settings: ServerSettings) -> Command:
    match = _TO.fullmatch(text)
    if not match:
        raise syntax("Syntax: RCPT TO:<address>", "5.5.2")
    address = _address(match[1], "5.1.3")
    if address.is_null:
        raise syntax("Recipient address is missing", "5.1.3")
    # RFC 5321 §4.5.1: postmaster is taken without a domain, in any case
    bare = settings.bare_names or address.local.lower() == "postmaster"
    if not (address.domain or bare):
        raise syntax("Recipient address needs a domain", "5.1.3")
    if not match[2]:
        return Rcpt(address, _NO_RCPT_PARAMS, not text.isascii())
    params = read_rcpt_params(match[2], settings)
    return Rcpt(address, params, not text.isascii())


def _address(text: str, status: str) -> Address:
    try:
        return Address.from_text(text)
    except AddressError as error:
        raise syntax(f"Bad address: {error}", status) from None


def _auth(text: str, mechanisms: tuple[str, ...]) -> Command:
    name, _, initial = text.partition(" ")
    if not _MECHANISM.fullmatch(name):
        raise syntax("AUTH needs a mechanism")
    if name.upper() not in mechanisms:
        raise Fault(replies.NO_MECHANISM, "auth-mechanism")
    if not initial:
        return Auth(name.upper(), None)
    # RFC 4954 §4: "=" is an empty initial response
    return Auth(name.upper(), b"" if initial == "=" else _decoded(initial))


def _decoded(text: str) -> bytes:
    if not _BASE64.fullmatch(text):
        raise Fault(replies.NOT_BASE64)
    return b64decode(text)
